"""Judges whether anything was lost or doubled, a caller waited too long, or /ready lied."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from tests.faults.scene import Fault
from tests.faults.traffic import Traffic
from tests.proof.linearizability import Call, Key, NotLinearizable, Row, check, history

# Seconds by which a request may end later than its deadline.
LATE = 1.0

# Seconds within which /ready tells the truth.
READY = 2.0


class Strike(NamedTuple):
    """When a fault began, was there, began to end and was over, and when all was as before."""

    hits: int  # how often it struck, in the fault's own measure
    began: float
    struck: float
    lifting: float
    lifted: float
    recovered: float


class Verdict(NamedTuple):
    """A row of the table; times in seconds."""

    name: str
    requests: int
    lost: int
    doubled: int
    longest_wait: float
    recovery: float


def markdown(table: list[Verdict], what: str, recovery: str) -> str:
    """Return the table for a README, with these headings over the first column and the last."""
    lines = [
        f"| {what} | requests | lost | doubled | longest wait | {recovery} |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.name} | {each.requests:,} | {each.lost} | {each.doubled}"
        f" | {each.longest_wait:.2f} s | {each.recovery:.2f} s |"
        for each in table
    ]
    return "\n".join(lines)


@dataclass
class Result:
    """The requests under a fault, and the promises that were broken."""

    fault: str
    struck: int  # how often the fault struck, in its own measure
    calls: list[Call]
    lost: list[str]
    doubled: list[str]
    longest: float  # seconds that a caller waited
    recovery: float  # seconds until all was as before, after the strike that took longest
    broken: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The row of the table."""
        return Verdict(
            self.fault,
            len(self.calls),
            len(self.lost),
            len(self.doubled),
            self.longest,
            self.recovery,
        )

    def __str__(self) -> str:
        statuses = Counter(call.status for call in self.calls)
        retried = sum(call.attempts > 1 for call in self.calls)
        return (
            f"struck {self.struck:,} times; of {len(self.calls):,} requests {retried:,} were"
            f" retried, {statuses[503]:,} answered with 503, {statuses[None]:,} not answered"
        )


def judge(
    fault: Fault, strikes: list[Strike], traffic: Traffic, after: list[Row], *, bounds: bool
) -> Result:
    """Judge the traffic, by the rows that are there when it is over.

    A busy machine makes a service refuse what it cannot serve by its deadline, and be late to say
    that it is ready. Without `bounds` the verdict has none of that: of the refusals it judges those
    that came sooner than half the deadline, which no machine is too busy for.
    """
    result = Result(
        fault.name,
        sum(strike.hits for strike in strikes),
        traffic.calls,
        lost(traffic.calls, set(after)),
        doubled(after),
        traffic.longest,
        max(strike.recovered - strike.lifted for strike in strikes),
    )
    look = Call(-1, "TABLE", None, inf, inf, 200, tuple(after))
    broken = [(strike.began, strike.lifted + READY) for strike in strikes if fault.breaks_commits]
    try:
        check([*traffic.calls, look], [], broken_commits=broken)
    except NotLinearizable as error:
        result.broken.append(str(error))
    result.broken += [*result.lost, *result.doubled]
    if not all(strike.hits for strike in strikes):
        result.broken.append("the fault did not strike")
    result.broken += in_vain(fault, strikes, traffic, bounds=bounds)
    if bounds:
        result.broken += too_late(fault, strikes, traffic)
    return result


def in_vain(
    fault: Fault, strikes: list[Strike], traffic: Traffic, *, bounds: bool
) -> Iterator[str]:
    """Yield the requests that were refused, or not answered, and need not have been."""
    left = {id(call) for call in traffic.left}
    refused = [
        call
        for call in traffic.calls
        if not call.answered
        and id(call) not in left
        and (bounds or call.status != 503 or call.end - call.start < fault.deadline / 2)
    ]
    if needless := [call for call in refused if call.status not in fault.costs]:
        yield f"in vain, and needlessly:\n{history(needless)}"
    if early := [call for call in refused if call.end < strikes[0].began]:
        yield f"in vain, before the fault:\n{history(early)}"
    for strike, end in spans(strikes):
        calm = strike.lifted + READY if bounds else strike.recovered
        if late := [call for call in refused if calm < call.start and call.end < end]:
            yield f"in vain, after the fault:\n{history(late)}"


def too_late(fault: Fault, strikes: list[Strike], traffic: Traffic) -> Iterator[str]:
    """Yield the bounds in seconds that were broken."""
    if traffic.slowest and traffic.longest > fault.deadline + LATE:
        yield f"a caller waited for {traffic.longest:.2f} s:\n{history([traffic.slowest])}"
    for strike, end in spans(strikes):
        if fault.down:
            yield from lies(traffic, strike.struck + READY, strike.lifting, 503)
        elif not fault.kills_workers:  # a prober whose worker is killed has no answer
            yield from lies(traffic, strike.began, strike.lifting, 200)
        yield from lies(traffic, strike.lifted + READY, end, 200)
    yield from lies(traffic, traffic.first_ready, strikes[0].began, 200)


def spans(strikes: list[Strike]) -> Iterator[tuple[Strike, float]]:
    """Yield each strike, and when the next one began."""
    return zip(strikes, [*(strike.began for strike in strikes[1:]), inf], strict=True)


def lost(calls: list[Call], after: set[Row]) -> list[str]:
    """Return what was acknowledged and is not so in the tables, though no request undid it."""
    deletes = [call for call in calls if call.method == "DELETE"]
    # A deletion with 404 and a single attempt has found nothing, and so undone nothing.
    asked = {call.target for call in deletes if call.status != 404 or call.attempts > 1}
    kept = {
        row
        for call in calls
        if call.method == "POST"
        for row in call.rows
        if not {(row.table, row.id), ("departments", row.department_id)} & asked
    }
    gone = {call.target for call in deletes if call.status == 204}
    return [f"lost: {row}" for row in sorted(kept - after)] + [
        f"deleted, but there: {row}" for row in sorted(after) if (row.table, row.id) in gone
    ]


def doubled(after: list[Row]) -> list[str]:
    """Return the keys that have more than one row."""
    copies = Counter(Key(row.table, row.name, row.department_id) for row in after)
    return [f"{number} rows: {key}" for key, number in copies.items() if number > 1]


def lies(traffic: Traffic, start: float, end: float, truth: int) -> Iterator[str]:
    """Yield the answers of /ready that came in this time and were not the truth."""
    told = [probe for probe in traffic.probes if start < probe.time < end]
    if not told:
        yield "/ready said nothing"
    for probe in told:
        if probe.status != truth:
            yield f"/ready said {probe.status}, {probe.time - start:.2f} s after it was due"
