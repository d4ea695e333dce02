"""`make faults` tries each fault under 10,000 requests, and prints the table of the verdicts."""

import argparse
import random
import sys
from collections.abc import Iterator

from db.settings import Settings
from db.signals import unwind_on_signals
from tests.faults.deploys import OVERLOAD, ROLLING_RESTART, overload, rolling_restarts
from tests.faults.faults import FAULTS
from tests.faults.server import Server, Skipped, running
from tests.faults.trial import FULL, SHORT, trial
from tests.faults.verdict import LATE, Verdict, markdown
from tests.support.haproxy import HAPROXY
from tests.support.service import temporary_data_dir

# The least share of a spared service's throughput. Medians of one service differ by up to a fifth.
AS_BEFORE = 0.7


def main() -> None:
    """Run what there is and print the table; exit 1 if a promise was broken."""
    options = arguments()
    unwind_on_signals(SystemExit(1))
    print(f"To draw the same requests again: python -m tests.faults --seed {options.seed}")
    table: list[Verdict] = []
    kept = True
    with temporary_data_dir() as data_dir, running(data_dir) as server:
        for row, broken in rows(server, options):
            print(*broken, sep="\n", end="\n" * bool(broken), flush=True)
            table.append(row)
            kept = kept and not (broken or row.lost or row.doubled)
    print("\n" + markdown(table, "fault", "time to recover"))
    if not table:
        sys.exit("There is no such row.")
    if not kept:
        sys.exit("A promise was broken.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("part", nargs="?", default="", help="only rows with this in their name")
    parser.add_argument("--short", action="store_true", help="each fault once, for a moment")
    parser.add_argument("--seed", default=str(random.getrandbits(32)))
    return parser.parse_args()


def rows(server: Server, options: argparse.Namespace) -> Iterator[tuple[Verdict, list[str]]]:
    """Yield each row when it is there, with the promises that were broken besides."""
    extent = SHORT._replace(bounds=True) if options.short else FULL
    for fault in FAULTS:
        if options.part not in fault.name:
            continue
        try:
            result = trial(fault, server, extent, options.seed)
        except Skipped as reason:
            print(f"{fault.name}: skipped, {reason}; the table is not whole")
            continue
        print(f"{fault.name}: {result}")
        yield result.verdict, result.broken
    if options.part in OVERLOAD:
        traffic, verdict, ratio = overload(server.new_database(), server.new_database())
        print(f"{verdict.name}: {traffic}; throughput afterwards {ratio:.2f} of a spared one's")
        broken = []
        if set(traffic.statuses) != {200, 201, 503}:
            broken.append("other answers than created, existing and refused")
        if ratio < AS_BEFORE:
            broken.append("it did not recover")
        if verdict.longest_wait > Settings().retry_deadline + LATE:
            broken.append(f"a caller waited for {verdict.longest_wait:.2f} s")
        yield verdict, broken
    if options.part in ROLLING_RESTART:
        if HAPROXY is None:
            print(f"{ROLLING_RESTART}: skipped, no HAProxy; the table is not whole")
            return
        traffic, verdict = rolling_restarts(server.new_database(), requests=extent.requests)
        print(f"{verdict.name}: {traffic}")
        yield verdict, []


if __name__ == "__main__":
    main()
