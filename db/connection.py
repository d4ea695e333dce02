"""The service's connection: transactions of one message, and what a new session is told."""

from collections.abc import Sequence
from time import monotonic
from typing import Any, ClassVar

import psycopg
from psycopg import AsyncRawCursor
from psycopg.rows import dict_row, tuple_row

from db.engine import POSTGRESQL
from db.pipeline import PipelineConnection, Row, Statement
from db.resources import ROOT
from db.session import SEARCH_PATH, SET_CONFIG, TABLES, parameters, service_settings
from db.settings import Settings

SESSION = (ROOT / "sql" / "session.sql").read_bytes()

BEGIN = Statement(b"BEGIN ISOLATION LEVEL SERIALIZABLE", name=b"begin")
COMMIT = Statement(b"COMMIT", name=b"commit")


class Connection(PipelineConnection):
    """A connection to the database. serializable() runs what writes, and run() what reads."""

    # The search_path that was found with these settings. It is kept because finding it takes longer
    # than all else of a new session. When a table is missing, transact() forgets all of them.
    search_paths: ClassVar[dict[Settings, str | None]] = {}

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = AsyncRawCursor  # $1, as in the files
        self.row_factory = dict_row
        self.made = self.taken = monotonic()  # `taken` is when it last came from psycopg's pool
        self.engine = POSTGRESQL
        self.replicated = True  # False if a COMMIT did not wait for its synchronous standby
        self.unpinned: Settings | None = None  # what set_up() has still to tell the session
        self.add_notice_handler(self._notice)

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # The function tells which warning it is. The text is in the server's language, and all
        # warnings have the same SQLSTATE.
        if notice.source_function == "SyncRepWaitForLSN":
            self.replicated = False

    async def serializable(
        self, *statements: Statement, stop_at_first_row: bool = False
    ) -> list[list[Row]]:
        """Run statements in a SERIALIZABLE transaction of their own, and return the rows of each.

        The rows are committed. Where statements are sent one by one, `stop_at_first_row` leaves out
        those behind the first that returns a row. Raises the error of the step that failed; the
        transaction has ended by then, or the connection.
        """
        begin = [BEGIN, *self.set_config]
        if self.pipeline_mode:
            results = (await self._exchange(*begin, *statements, COMMIT))[len(begin) :]
        else:
            for step in begin:
                await self._exchange(step)
            results = []
            for statement in statements:
                results += await self._exchange(statement)
                if stop_at_first_row and results[-1].ntuples:
                    break
            results += await self._exchange(COMMIT)
        if results.pop().command_status != b"COMMIT":
            raise psycopg.OperationalError("the transaction was rolled back")
        rows = [self._rows(*each) for each in zip(statements, results, strict=False)]
        return rows + [[] for _ in statements[len(rows) :]]

    async def run(self, *statements: Statement) -> list[list[Row]]:
        """Run statements that read, at READ COMMITTED, and return the rows of each.

        In one message they are one transaction. Behind a pooler they are that even with
        PIPELINE=0, because the first statement sets for its transaction what the others need.
        Raises the error of the first that failed.
        """
        first = self.set_config
        if self.pipeline_mode or first:
            results = await self._exchange(*first, *statements)
        else:
            results = [(await self._exchange(each))[0] for each in statements]
        return [self._rows(*each) for each in zip(statements, results[len(first) :], strict=True)]

    def begin_with(self, settings: dict[str, str], path: str | None) -> None:
        """Let each transaction begin with these settings, which its session may lack."""
        self.set_config = [Statement(SET_CONFIG, parameters(settings, path, transaction=True))]

    async def apply_settings(self) -> None:
        """Set for this transaction what was not set for the session."""
        for each in self.set_config:
            await self.execute(each.sql, each.parameters)

    async def search_path(self, *extensions: str) -> str | None:
        """Return the schemas of the tables and of these extensions, as a search_path."""
        cursor = self.cursor(row_factory=tuple_row)
        await cursor.execute(SEARCH_PATH, [TABLES, list(extensions)], prepare=False)
        found = await cursor.fetchone()
        return found[0] if found else None

    async def pin(self, settings: dict[str, str], path: str | None) -> None:
        """Tell the session these settings, and the search_path that was found."""
        await self.execute(SET_CONFIG, parameters(settings, path, transaction=False), prepare=False)

    async def set_up(self) -> None:
        """Tell a new session what start-up options could not. Raises psycopg.Error.

        The first user does this, and not the pool. Where connections break as fast as they are
        made, the pool would pause longer and longer, while a user just takes the next one.
        """
        settings = self.unpinned
        if settings is None:
            return
        if settings.pooler:
            self.begin_with(service_settings(settings), await self.search_path())
        else:
            if settings not in self.search_paths:
                ((session,),) = await self.run(Statement(SESSION))
                # If the options are unset, a pooler has dropped them. Set nothing, because another
                # client may have this session next; /ready says that the settings are lost.
                if not session["unset"]:
                    self.search_paths[settings] = await self.search_path()
            if settings in self.search_paths:
                await self.pin(service_settings(settings), self.search_paths[settings])
        self.unpinned = None


def array_of(values: Sequence[str | None]) -> str:
    """Return an array of texts as PostgreSQL reads it."""
    quoted = ("NULL" if each is None else _quoted(each) for each in values)
    return f"{{{','.join(quoted)}}}"


def _quoted(text: str) -> str:
    return '"{}"'.format(text.replace("\\", r"\\").replace('"', r"\""))
