"""The promise, and the search for a workload that breaks it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis.errors import FlakyFailure

from tests.linearizability import check, history
from tests.service import serving
from tests.workloads import KINDS, Runner, Workload, workloads

# Interleavings do not replay: a workload that failed once is run this many times before it counts
# as one that does not fail.
TIMES = 8

# A variant must be caught within so many workloads. Most take two; "isolation set once" took from
# 43 to 670 in thirty searches, because it needs a first attempt that fails beside a second one.
EXAMPLES = 3000

# After the catch, how many workloads may be tried for a smaller one.
SHRINKS = 60


class Broken(AssertionError):
    """The service broke its promise."""


def verify(runner: Runner, workload: Workload) -> None:
    """Run the workload once and raise Broken, with the history, unless all promises held."""
    happened = runner.run(workload)
    if happened.gained:
        raise Broken(
            f"{happened.gained} gained a second row\n{workload}\n"
            + history(happened.calls, happened.before)
        )
    try:
        check(happened.calls, happened.before)
    except AssertionError as error:
        raise Broken(f"{error}\nin\n{workload}") from error


@contextmanager
def running(variant: str, database: str) -> Iterator[Runner]:
    """A runner against the real service ("") or a variant of it, with two workers."""
    command = [sys.executable, "-m", "tests.variants", variant] if variant else []
    with serving(*command, DATABASE_URL=database, WORKERS="2", VARIANT=variant) as service:
        runner = Runner(service.url, database)
        yield runner
        runner.close()


@dataclass
class Catch:
    """The smallest workload that was seen to fail, and after how many the first one was found."""

    examples: int = 0
    found_after: int = 0
    workload: Workload | None = None
    report: str = ""


def catch(runner: Runner, kinds: tuple[str, ...] = KINDS) -> Catch:
    """Look for a workload that breaks the promise, and shrink it."""
    caught = Catch()

    @settings(max_examples=EXAMPLES, database=None, report_multiple_bugs=False)
    @given(workload=workloads(kinds))
    def search(workload: Workload) -> None:
        caught.examples += 1
        if caught.found_after and caught.examples > caught.found_after + SHRINKS:
            return
        for _ in range(TIMES if caught.found_after else 1):
            try:
                verify(runner, workload)
            except Broken as error:
                if caught.workload is None or workload.size <= caught.workload.size:
                    caught.workload, caught.report = workload, str(error)
                caught.found_after = caught.found_after or caught.examples
                raise

    with suppress(Broken, FlakyFailure):  # flaky by its nature: what counts is that it was seen
        search()
    return caught
