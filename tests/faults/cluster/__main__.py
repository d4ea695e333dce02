"""`make cluster` tries several hosts, a primary and its standby, and measures them."""

import argparse
import random
import sys
from contextlib import closing
from typing import NamedTuple

from db.signals import unwind_on_signals
from tests.bench.load import CLIENT
from tests.faults.cluster.cluster import HOSTS, Cluster, balanced, cluster
from tests.faults.cluster.figures import fill, measure, model, report, standby_cost, ways
from tests.faults.cluster.network import alone_in_namespaces, network
from tests.faults.cluster.trials import CONTROL, TRIALS, judged
from tests.faults.verdict import Verdict, markdown
from tests.proof.stress import stress
from tests.proof.workloads import Runner
from tests.support.haproxy import HAPROXY
from tests.support.service import sql


class Extent(NamedTuple):
    """The length of a run."""

    requests: int  # of each trial
    proof: float  # seconds of the proof's workloads


FULL = Extent(10_000, 20)
SHORT = Extent(900, 2)


def main() -> None:
    """Print the verdict and the figures; exit 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.cluster", description=__doc__)
    parser.add_argument("--short", action="store_true", help="as the tests run it")
    parser.add_argument("--seed", default=str(random.getrandbits(32)))
    options = parser.parse_args()
    if HAPROXY is None:
        sys.exit("Skipped: HAProxy is not installed.")
    alone_in_namespaces()
    unwind_on_signals(KeyboardInterrupt())  # Hypothesis takes SystemExit for a failing example
    print(f"To draw the same requests again: python -m tests.faults.cluster --seed {options.seed}")
    kept = True
    table: list[Verdict] = []
    extent = SHORT if options.short else FULL
    with cluster(network()) as made:
        for _ in range(HOSTS):
            made.serve()
        if options.short:
            made.other.copy(made.primary)
        else:
            print_figures(made)
        prove(made, extent.proof)
        for trial in TRIALS:
            row, broken = judged(trial, made, extent.requests, options.seed)
            print(f"{row.name}: {row.requests:,} requests", *broken, sep="\n", flush=True)
            table.append(row)
            kept = kept and not broken
        control, _ = judged(CONTROL, made, extent.requests, options.seed)
    print("\n" + markdown(table, "", "without an answer"))
    print(f"\n{control.name}: {control.lost} lost")
    if not kept:
        sys.exit("A promise was broken.")
    if control.lost == 0:
        sys.exit("The verdict does not see what is lost.")


def prove(made: Cluster, seconds: float) -> None:
    """Run the proof's workloads over all hosts. Raises Broken."""
    with balanced(made.services) as haproxy:
        url = f"http://127.0.0.1:{haproxy.port}"
        with closing(Runner(url, made.primary.url)) as runner:
            stress(f"{HOSTS} hosts", runner, seconds)
    sql(made.primary.url, "TRUNCATE departments, employees")


def print_figures(made: Cluster) -> None:
    """Measure; leave empty tables and a standby behind."""
    fill(made.primary)
    with ways(made) as (each, latencies):
        found = measure(each, made.primary)
    print(f"Load by {CLIENT}.\n\n{report(found)}\n\n{model(found, latencies)}\n", flush=True)
    made.other.copy(made.primary)
    print(report(standby_cost(made)) + "\n", flush=True)
    sql(made.primary.url, "TRUNCATE departments, employees")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # a shell's status for what Ctrl-C has ended
