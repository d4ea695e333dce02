"""How values come out of PostgreSQL's text: as JSON can have them, whatever a server's style is."""

from datetime import UTC, date, datetime

from psycopg.adapt import Buffer, Loader
from psycopg.types.string import TextLoader


class FiniteTimestamp(Loader):
    """Loads a timestamp in UTC; what datetime cannot hold, as 'infinity', as None.

    psycopg's own goes by the DateStyle that the server has reported. Behind a pooler it is not told
    of the one that a transaction has set.
    """

    def load(self, data: Buffer) -> datetime | None:
        """Return the moment."""
        try:
            value = datetime.fromisoformat(bytes(data).decode())
            return value.astimezone(UTC)  # the session of someone's psql may have another zone
        except (ValueError, OverflowError):
            return None


class FiniteDate(Loader):
    """Loads a date; what Python's date cannot hold, as 'infinity', as None."""

    def load(self, data: Buffer) -> date | None:
        """Return the day."""
        try:
            return date.fromisoformat(bytes(data).decode())
        except ValueError:
            return None


class FiniteLocalTimestamp(Loader):
    """Loads a timestamp without a zone; what datetime cannot hold, as 'infinity', as None."""

    def load(self, data: Buffer) -> datetime | None:
        """Return the moment."""
        try:
            return datetime.fromisoformat(bytes(data).decode())
        except ValueError:
            return None


LOADERS: dict[str, type[Loader]] = {
    "date": FiniteDate,
    "time": TextLoader,  # there is a 24:00:00, which Python's time cannot hold
    "timestamp": FiniteLocalTimestamp,
    "timestamptz": FiniteTimestamp,
}
