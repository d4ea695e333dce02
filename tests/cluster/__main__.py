"""`make cluster`: several hosts, a primary and its standby, under traffic; and what each costs."""

import argparse
import random
import sys

from db.embedded import unwind_on_signals
from tests.cluster.cluster import HOSTS, cluster
from tests.cluster.network import network
from tests.cluster.trials import TRIALS, trial
from tests.faults.server import Skipped
from tests.faults.verdict import Verdict
from tests.haproxy import HAPROXY

REQUESTS = 10_000
SHORT = 900


def main() -> None:
    """Print the verdict and the figures; exit 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--short", action="store_true", help="as the tests run it")
    parser.add_argument("--seed", default=str(random.getrandbits(32)))
    options = parser.parse_args()
    unwind_on_signals(1)
    if HAPROXY is None:
        sys.exit("Skipped: HAProxy is not installed.")
    kept = True
    table: list[Verdict] = []
    try:
        with network() as machines, cluster(machines) as made:
            made.standby.copy(made.primary)
            for _ in range(HOSTS):
                made.serve(made.database)
            for name in TRIALS:
                row, broken = trial(name, made, SHORT if options.short else REQUESTS, options.seed)
                print(row, *broken, sep="\n", flush=True)
                table.append(row)
                kept = kept and not (broken or row.lost or row.doubled)
    except Skipped as reason:
        sys.exit(f"Skipped: {reason}.")
    if not kept:
        sys.exit("A promise was broken.")


if __name__ == "__main__":
    main()
