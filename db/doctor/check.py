"""A line of doctor's, and its levels."""

from typing import NamedTuple

OK = "ok"
ADVICE = "advice"  # the guarantees hold, but something should be done, or known
FAIL = "FAIL"  # a guarantee does not hold, or only at a crawl


class Check(NamedTuple):
    """One line."""

    level: str
    subject: str
    detail: str
