"""`make stress` runs the proof with a large budget, a progress line and a table at the end.

STRESS_SECONDS (default 120) is the time for the service itself; the broken variants take as long as
they take to catch. With DATABASE_URL everything happens in a schema of its own, dropped at the end.
"""

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from hypothesis import given, seed, settings

from db.embedded import embedded_server
from db.engine import ENGINES, discover
from db.prove.own_tables import own_schema
from db.signals import unwind_on_signals
from tests.proof import profiles as profiles  # registers "stress"
from tests.proof.search import CONTROLS, Catch, catch, running, verify
from tests.proof.workloads import Runner, Workload, workloads
from tests.support.service import sql, temporary_data_dir

SECONDS = float(os.environ.get("STRESS_SECONDS", "120"))

# A rare failure is worth more runs here than in the tests: see tests/proof/search.py.
TIMES = 100
SHRINKING = 3000

settings.load_profile("stress")


@contextmanager
def server() -> Iterator[str]:
    """Yield DATABASE_URL, or the URL of an embedded server of the run's own."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
    else:
        with temporary_data_dir() as data_dir, embedded_server(data_dir) as url:
            yield url


@contextmanager
def own_tables(url: str) -> Iterator[str]:
    """Make a schema with the tables; yield a URL whose search path it is; drop it at the end."""
    there = sql(
        url,
        "SELECT name FROM unnest(ARRAY['departments', 'employees']) AS name"
        " WHERE to_regclass(name) IS NOT NULL",
    )
    if there and "STRESS_ANYWAY" not in os.environ:
        names = " and ".join(name for (name,) in there)
        sys.exit(
            f"This database has tables {names} in its search path. They would not be touched: the"
            " run keeps to a schema of its own. Set STRESS_ANYWAY=1 if it may load this server."
        )
    with own_schema(url, ENGINES[discover(url)], "stress") as own:
        yield own


class Progress:
    """The counts so far, on one line of the terminal."""

    def __init__(self, title: str, runner: Runner, seconds: float) -> None:
        self.title, self.runner, self.seconds = title, runner, seconds
        self.began = self.shown = monotonic()
        self.examples = 0

    @property
    def elapsed(self) -> float:
        return monotonic() - self.began

    @property
    def over(self) -> bool:
        return self.elapsed >= self.seconds

    def step(self) -> None:
        self.examples += 1
        if monotonic() - self.shown > 0.5 and sys.stdout.isatty():
            self.shown = monotonic()
            print(f"\r{self.line()}", end="", flush=True)

    def line(self) -> str:
        requests = self.runner.requests
        return (
            f"{self.title}: {self.examples:,} workloads, {requests:,} requests,"
            f" {requests / self.elapsed:,.0f}/s, {self.runner.retries:,} retries, 0 duplicates"
        )


def stress(title: str, runner: Runner, seconds: float) -> Progress:
    """Run workloads until the time is over, or until one breaks the promise."""
    progress = Progress(title, runner, seconds)
    while not progress.over:
        number = random.getrandbits(64)

        @seed(number)
        @settings(database=None)
        @given(workload=workloads())
        def search(workload: Workload) -> None:
            if not progress.over:
                verify(runner, workload)
                progress.step()

        try:
            search()
        except Exception:
            print(f"\n{title}: broken, with seed {number}", file=sys.stderr)
            raise
    print(f"\r{progress.line()}")
    return progress


def main() -> None:
    """Stress the service, catch the variants, print the table; exit 1 if a variant got away."""
    unwind_on_signals(KeyboardInterrupt())  # Hypothesis takes SystemExit for a failing example
    rows: list[Progress] = []
    caught: dict[str, Catch] = {}
    with server() as url, own_tables(url) as database:
        for title, variant in {"as it is": "", "with pauses": "pipeline", "plain": "none"}.items():
            with running(variant, database) as runner:
                rows.append(stress(title, runner, SECONDS / 3))
        for variant in CONTROLS:
            caught[variant] = catch(variant, database, times=TIMES, shrinking=SHRINKING)
            print(f"{variant}: {_after(caught[variant])}")
    print("\n| the service | workloads | requests | retries | second rows |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.title} | {row.examples:,} | {row.runner.requests:,}"
              f" | {row.runner.retries:,} | 0 |")  # fmt: skip
    print("\n| broken variant | caught after | smallest workload seen |\n|---|---|---|")
    for variant, found in caught.items():
        size = found.workload.size if found.workload else 0
        print(f"| {variant} | {_after(found)} | {size} calls |")
    recipe = caught["isolation set once"]
    print(f"\nThe smallest for the isolation set once, before the loop:\n\n{recipe.report}")
    if any(found.workload is None for found in caught.values()):
        sys.exit("A broken variant was not caught.")


def _after(found: Catch) -> str:
    return f"{found.found_after} workloads" if found.workload else "never"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # a shell's status for what Ctrl-C has ended
