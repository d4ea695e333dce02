"""Loads what PostgreSQL writes as JSON can have it, whatever the server's DateStyle is.

The commands load it as text.
"""

from datetime import UTC, date, datetime

from psycopg.adapt import AdaptersMap, Buffer, Loader
from psycopg.types.string import TextLoader


class FiniteTimestamp(Loader):
    """Loads a timestamp in UTC, or None for what datetime cannot hold, such as 'infinity'.

    psycopg's own loader goes by the DateStyle that the server has reported. Behind a pooler nobody
    reports the one that a transaction has set.
    """

    def load(self, data: Buffer) -> datetime | None:
        try:
            value = datetime.fromisoformat(bytes(data).decode())
            return value.astimezone(UTC)  # the session of someone's psql may have another zone
        except (ValueError, OverflowError):
            return None


class FiniteDate(Loader):
    """Loads a date, or None for what Python's date cannot hold, such as 'infinity'."""

    def load(self, data: Buffer) -> date | None:
        try:
            return date.fromisoformat(bytes(data).decode())
        except ValueError:
            return None


class FiniteLocalTimestamp(Loader):
    """Loads a timestamp without a zone, or None for what datetime cannot hold."""

    def load(self, data: Buffer) -> datetime | None:
        try:
            return datetime.fromisoformat(bytes(data).decode())
        except ValueError:
            return None


LOADERS: dict[str, type[Loader]] = {
    "date": FiniteDate,
    "numeric": TextLoader,  # Decimal would write 0.00000000 as 0E-8, which no request takes
    "time": TextLoader,  # Python's time cannot hold 24:00:00
    "timestamp": FiniteLocalTimestamp,
    "timestamptz": FiniteTimestamp,
}

# The types of ids that a command loads as text. str() of psycopg's values is not what PostgreSQL
# writes, as Decimal's 1.2E-7, and Python cannot hold all of them, such as 'infinity'.
AS_TEXT = ("date", "time", "timestamp", "timestamptz", "numeric")


def load_as_text(adapters: AdaptersMap, *more: str) -> None:
    """Let a connection's adapters load the types of AS_TEXT, and more, as PostgreSQL has them."""
    for type_ in (*AS_TEXT, *more):
        adapters.register_loader(type_, TextLoader)
