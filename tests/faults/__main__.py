"""`make faults`: each fault under 10,000 requests, and a table of what came of it."""

import argparse
import random
import sys

from db.embedded import unwind_on_signals
from tests.faults.faults import FAULTS
from tests.faults.server import Skipped, running
from tests.faults.trial import FULL, SHORT, trial
from tests.faults.verdict import Result
from tests.service import temporary_data_dir


def main() -> None:
    """Run the faults and print the table; exit 1 if a promise was broken."""
    options = arguments()
    unwind_on_signals(1)
    print(f"To draw the same requests again: python -m tests.faults --seed {options.seed}")
    results: list[Result] = []
    with temporary_data_dir() as data_dir, running(data_dir) as server:
        for fault in FAULTS:
            if options.part not in fault.name:
                continue
            try:
                result = trial(fault, server, SHORT if options.short else FULL, options.seed)
            except Skipped as reason:
                print(f"{fault.name}: skipped, {reason}")
                continue
            print(f"{fault.name}: {result}", *result.broken, sep="\n", flush=True)
            results.append(result)
    print("\n" + table(results))
    if any(result.broken for result in results):
        sys.exit("A promise was broken.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("part", nargs="?", default="", help="only faults with this in their name")
    parser.add_argument("--short", action="store_true", help="as the tests run them")
    parser.add_argument("--seed", default=str(random.getrandbits(32)))
    return parser.parse_args()


def table(results: list[Result]) -> str:
    """Return the README's table."""
    lines = [
        "| fault | requests | lost | doubled | longest wait | time to recover |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.fault} | {len(each.calls):,} | {len(each.lost)} | {len(each.doubled)}"
        f" | {each.longest:.2f} s | {each.recovery:.2f} s |"
        for each in results
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
