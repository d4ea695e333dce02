"""The benchmark: `make bench`, or `python -m tests.bench`; see README.md beside this file."""

import argparse
import os
import platform
from contextlib import closing
from pathlib import Path
from time import time

from tqdm import tqdm

from db.signals import unwind_on_signals
from tests.bench import plan
from tests.bench.databases import server
from tests.bench.load import CLIENT
from tests.bench.picture import picture
from tests.bench.plan import Cell
from tests.bench.report import ratios, summaries, table
from tests.bench.rounds import Figures, memory_over_requests, run, turns

FOLDER = Path(__file__).parent


def main() -> None:
    """Measure, and print the table and the ratios."""
    options = arguments()
    unwind_on_signals(SystemExit(1))
    stages = chosen(plan.QUICK_STAGES if options.quick else plan.STAGES, options)
    print(f"{os.cpu_count()} cores, {platform.platform()}; the load is made by {CLIENT}.")
    started = time()
    figures: list[Figures] = []
    memory: list[float] = []
    with (
        server() as started_server,
        closing(tqdm(total=turns(stages, options.rounds), leave=False)) as bar,
    ):
        for stage in stages:
            figures += run(started_server, stage, options.rounds, options.seconds, bar)
        if not (options.quick or options.cells or options.sides):
            memory = memory_over_requests(started_server, 2 * options.seconds, bar)
    results = summaries(figures)
    print(*table(results), sep="\n")
    reached = list(ratios(results, memory))
    print("\nTo reach:")
    for each in reached:
        print(f"  {each.text} {each.target:g}: {each.value:.4g}, {'met' if each.met else 'short'}")
        if each.why:
            print(f"      {each.why}")
    if memory:
        print(f"  memory, MB: {', '.join(f'{megabytes:.0f}' for megabytes in memory)}")
    rounds = f"{options.rounds} rounds of {options.seconds} s"
    print(f"\n{rounds}, medians; {time() - started:.0f} s in all.")
    if options.svg:
        (FOLDER / "results.svg").write_text(picture(results))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the main cells, in short rounds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int, help="of a round")
    parser.add_argument(
        "--cells", default="", metavar="PART", help="only those with this in their name"
    )
    parser.add_argument(
        "--sides", default="", metavar="PARTS", help="likewise; several with commas between"
    )
    parser.add_argument("--svg", action="store_true", help="write results.svg")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 2)
    return options


def chosen(stages: list[list[Cell]], options: argparse.Namespace) -> list[list[Cell]]:
    """Leave what the options ask for."""
    parts = options.sides.split(",")
    kept = [
        [
            cell._replace(sides=tuple(s for s in cell.sides if any(part in s for part in parts)))
            for cell in stage
            if options.cells in cell.name
        ]
        for stage in stages
    ]
    return [[cell for cell in stage if cell.sides] for stage in kept]


if __name__ == "__main__":
    main()
