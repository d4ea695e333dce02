"""A line of the reports of doctor and of `python app.py --check`, and its levels."""

from collections.abc import Iterable
from typing import NamedTuple

from db.texts import say

OK = "ok"
ADVICE = "advice"  # the guarantees hold, but the reader should know or do something
FAIL = "FAIL"  # a guarantee does not hold, or holds only because all creators conflict


class Check(NamedTuple):
    """One line of the report."""

    level: str
    subject: str
    detail: str


def print_all(checks: Iterable[Check]) -> bool:
    """Print a line for each check, and return whether none is FAIL."""
    healthy = True
    for check in checks:
        say(f"{check.level:7}{check.subject}: {check.detail}")
        healthy &= check.level != FAIL
    return healthy
