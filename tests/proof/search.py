"""The promise, and the search for a workload that breaks it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from hypothesis import Phase, given, settings
from hypothesis.errors import FlakyFailure

from tests.proof.linearizability import NotLinearizable, check, history
from tests.proof.subtle import SUBTLE
from tests.proof.variants import SOUND, STALLING, VARIANTS
from tests.proof.workloads import BLIND, KINDS, History, Runner, Workload, workloads
from tests.support.service import serving

# A variant must be caught within so many workloads. Most are within fifty. "isolation set once"
# needs a first attempt that fails beside a second one: it took 43 to 1,390 workloads in forty
# searches, 400 in the mean. At that rate 6,000 miss it once in a million searches.
EXAMPLES = 6000

# Hypothesis can shrink only what fails every time, and interleavings do not come again. So a
# smaller workload is run this many times before it counts as one that does not fail.
TIMES = 8

# How many runs the shrinking may take in all.
SHRINKING = 40


# The negative controls are every variant that a workload can catch, and the service itself beside
# a writer that does not look first.
NOT_BY_WORKLOADS = (*SOUND, *STALLING, *SUBTLE)
CONTROLS = [*(name for name in VARIANTS if name not in NOT_BY_WORKLOADS), "blind insert"]


class Broken(AssertionError):
    """The service broke its promise."""


def verify(runner: Runner, workload: Workload) -> None:
    """Run the workload once; raise Broken, with the history, unless all promises held."""
    if report := broken(runner, workload):
        raise Broken(report)


def broken(runner: Runner, workload: Workload) -> str:
    """Run the workload once; return what was wrong, with the history, or "" if nothing was."""
    what = wrong(runner.run(workload))
    return what and f"{what}\nin\n{workload}"


def wrong(happened: History) -> str:
    """Return what was wrong, with the history, or "" if nothing was."""
    if happened.gained:
        what = f"{', '.join(map(str, happened.gained))} gained a second row:"
    elif not all(call.answered for call in happened.calls):
        # The checker allows this, for else a service would have to answer during an outage.
        what = "not every call was answered:"
    else:
        try:
            check(happened.calls, happened.before)
        except NotLinearizable as error:
            return str(error)
        return ""
    return f"{what}\n{history(happened.calls, happened.before)}"


@contextmanager
def running(variant: str, database: str, kind: type[Runner] = Runner) -> Iterator[Runner]:
    """A runner against the real service ("") or a variant of it, with two workers."""
    command = [sys.executable, "-m", "tests.proof.variants", variant] if variant else []
    with serving(*command, DATABASE_URL=database, WORKERS="2", VARIANT=variant) as service:
        runner = kind(service.url, database)
        try:
            yield runner
        finally:
            runner.close()


@dataclass
class Catch:
    """A workload that was seen to fail, and after how many it was found, which is 0 if none was."""

    found_after: int = 0
    workload: Workload | None = None
    report: str = ""


def catch(control: str, database: str, *, times: int = TIMES, shrinking: int = SHRINKING) -> Catch:
    """Return a workload that breaks this one of CONTROLS, made as small as it can be."""
    blind = control == "blind insert"
    with running("none" if blind else control, database) as runner:
        caught = _search(runner, BLIND if blind else KINDS)
        if caught.workload:
            _shrink(runner, caught, times, shrinking)
    return caught


def _search(runner: Runner, kinds: tuple[str, ...]) -> Catch:
    caught, tried = Catch(), 0

    @settings(max_examples=EXAMPLES, database=None, phases=[Phase.generate])
    @given(workload=workloads(kinds))
    def search(workload: Workload) -> None:
        nonlocal tried
        tried += 1
        report = broken(runner, workload)
        if report and not caught.workload:
            caught.found_after, caught.workload, caught.report = tried, workload, report
        assert not report

    with suppress(AssertionError, FlakyFailure):
        search()
    return caught


def _shrink(runner: Runner, caught: Catch, times: int, runs: int) -> None:
    """Leave out clients, then calls, then legacy rows, as long as the workload still fails."""
    assert caught.workload is not None
    untried = caught.workload.smaller()
    while runs > 0 and (smaller := next(untried, None)) is not None:
        for _ in range(times):
            runs -= 1
            if report := broken(runner, smaller):
                caught.workload, caught.report = smaller, report
                untried = smaller.smaller()
                break
