"""A connection that sends statements together, in one message, and waits once for their results.

psycopg makes the connection, and runs what is rare on it. A request's statements go to libpq
directly, in its pipeline mode: the socket is watched once for good, and what arrives settles one
future. To run them by psycopg's cursors takes three times the processor time.
"""

import asyncio
from asyncio import Future
from collections.abc import Sequence
from contextlib import suppress
from itertools import zip_longest
from math import inf
from time import monotonic
from typing import Any, ClassVar, NamedTuple, TypeVar

import psycopg
from psycopg import AsyncConnection, abc, errors, generators, waiting
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import tuple_row

from db.engine import POSTGRESQL
from db.resources import ROOT
from db.session import SEARCH_PATH, SETTINGS, TABLES, parameters, service_settings
from db.settings import Settings

SESSION = (ROOT / "sql" / "session.sql").read_bytes()

T = TypeVar("T")
Row = dict[str, Any]

# Seconds in which the server can be told that nobody waits for its statement any more. One that
# answers takes milliseconds; the caller waits for no longer than that behind its deadline.
CANCEL_TIMEOUT = 0.5

# Seconds for the statement to end by that. Longer, and the network is not there, or the server.
ANSWER_TIMEOUT = 0.2


class Statement(NamedTuple):
    """A file's SQL, with its parameters as text."""

    sql: bytes
    parameters: Sequence[str | None] = ()
    name: bytes = b""  # each connection prepares it once under this name, and never without one


BEGIN = Statement(b"BEGIN ISOLATION LEVEL SERIALIZABLE", name=b"begin")
COMMIT = Statement(b"COMMIT", name=b"commit")
ROLLBACK = Statement(b"ROLLBACK")


class Connection(AsyncConnection[Row]):
    """A connection that closes where its user stops waiting: at the deadline, or cancelled.

    psycopg's own keeps the user for up to ten seconds then, until the server has cancelled.
    """

    # The search_path that a session of these settings has found. To look for it anew takes longer
    # than all else of a new session. Forgotten where a table is missing, for it may have moved.
    paths: ClassVar[dict[Settings, str | None]] = {}

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.engine = POSTGRESQL
        self.deadline = inf  # of monotonic(): when the request that has it is given up
        self.at_once = True  # whether a transaction's statements travel together, as PIPELINE says
        self.silent = False  # nothing was heard of the server when the user stopped waiting
        self.replicated = True  # what was committed is on a standby, where COMMIT waits for one
        # The parameters of sql/settings.sql for each transaction. A pooler may give each another
        # session, so that what was set before is gone, and so is what was prepared.
        self.settings: list[str] = []
        self.unpinned: Settings | None = None  # what set_up() has still to tell the session
        self.taken = 0.0  # of monotonic(): when it came from psycopg's pool
        self._known: set[bytes] = set()  # the names under which something is prepared
        self._columns: dict[bytes, tuple[abc.Transformer, list[str]]] = {}
        self._watched = -1  # the socket, once it is watched
        self._answer: Future[None] | None = None  # is settled when all results are there
        self._results: list[PGresult] = []
        self._syncs = 0  # how many ends of messages are still to come
        self.add_notice_handler(self._notice)

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # By its source, for its text is in the server's language, and its SQLSTATE any warning's.
        if notice.source_function == "SyncRepWaitForLSN":
            self.replicated = False

    async def serializable(self, *statements: Statement) -> list[list[Row]]:
        """Run statements in a SERIALIZABLE transaction of their own, and return the rows of each.

        They are valid, for the transaction has committed. Of statements that travel one by one,
        none is sent after one that has returned a row. Raises the error of the step that failed,
        with the transaction rolled back.
        """
        first = (BEGIN, Statement(SETTINGS, self.settings)) if self.settings else (BEGIN,)
        if self.at_once:
            *results, committed = await self._exchange((*first, *statements, COMMIT))
            del results[: len(first)]
        else:
            results = []
            for step in first:
                await self._exchange((step,))
            for statement in statements:
                results += await self._exchange((statement,))
                if results[-1].ntuples:
                    break
            (committed,) = await self._exchange((COMMIT,))
        if committed.command_status != b"COMMIT":
            raise psycopg.OperationalError("the transaction was rolled back")
        return self._rows(statements, results)

    async def read(self, *statements: Statement) -> list[list[Row]]:
        """Run statements that read, outside SERIALIZABLE, and return the rows of each."""
        # They are one transaction, up to the message's end, so that the settings are there.
        first = (Statement(SETTINGS, self.settings),) if self.settings else ()
        results = await self._exchange((*first, *statements))
        return self._rows(statements, results[len(first) :])

    async def _exchange(self, steps: Sequence[Statement]) -> list[PGresult]:
        """Send statements in one message; return their results, or raise the first one's error.

        At the deadline, or cancelled, the connection closes.
        """
        values = [
            [None if value is None else value.encode() for value in step.parameters]
            for step in steps
        ]
        if any(value and b"\0" in value for each in values for value in each):
            raise psycopg.DataError("a text with NUL, where libpq would end it")
        new = {} if self.settings else {each.name: each.sql for each in steps if each.name}
        for name in self._known & new.keys():
            del new[name]
        try:
            results = await self._results_of(new, steps, values)
        except psycopg.OperationalError:
            self.finish()
            raise
        for name, result in zip(new, results, strict=False):
            if result.status == ExecStatus.COMMAND_OK:
                self._known.add(name)
        expected = len(new) + len(steps)
        fatal = [each for each in results[:expected] if each.status == ExecStatus.FATAL_ERROR]
        if fatal:
            error = errors.error_from_result(fatal[0])
            if isinstance(error, (errors.InvalidSqlStatementName, errors.FeatureNotSupported)):
                # Prepared, but gone by DEALLOCATE ALL, or from before a change of the table.
                self.finish()
            elif self.pgconn.transaction_status == TransactionStatus.INERROR:
                await self._exchange((ROLLBACK,))
            raise error
        # A server that is told to end the connection may do so in the place of the message's end.
        # What it has said before holds.
        if len(results) != expected and not (self.closed and len(results) > expected):
            self.finish()
            raise psycopg.OperationalError("the server's answers do not match the statements")
        return results[len(new) : expected]

    async def _results_of(
        self,
        new: dict[bytes, bytes],
        steps: Sequence[Statement],
        values: Sequence[list[bytes | None]],
    ) -> list[PGresult]:
        """Prepare what is new, and execute the steps; return the results of both.

        There are fewer if the connection ends in between. Raises psycopg.OperationalError if
        nothing can be sent, and at the deadline.
        """
        loop = asyncio.get_running_loop()
        pgconn = self.pgconn
        if self._watched < 0:
            self._watched = pgconn.socket
            loop.add_reader(self._watched, self._on_readable)
        pgconn.enter_pipeline_mode()
        if new:
            for name, sql in new.items():
                pgconn.send_prepare(name, sql)
            # Without this end of a message all of it would be one transaction, and BEGIN too late
            # to say which kind.
            pgconn.pipeline_sync()
        for step, given in zip(steps, values, strict=True):
            if step.name and not self.settings:
                pgconn.send_query_prepared(step.name, given)
            else:
                pgconn.send_query_params(step.sql, given)
        # After a failure the server passes over what follows, up to this end: COMMIT, too.
        pgconn.pipeline_sync()
        self._syncs = 2 if new else 1
        self._results = []
        self._answer = answer = loop.create_future()
        if pgconn.flush():
            loop.add_writer(self._watched, self._on_writable)
        timer = None
        if self.deadline < inf:
            timer = loop.call_later(max(self.deadline - monotonic(), 0), _give_up, answer)
        try:
            await answer
        except BaseException:
            await self._abandon()
            raise
        finally:
            self._answer = None
            if timer is not None:
                timer.cancel()
        return self._results

    def _on_readable(self) -> None:
        """Take what has come: results, a notice, or the end of the connection."""
        pgconn = self.pgconn
        try:
            pgconn.consume_input()
            ended = False
            while not pgconn.is_busy() and self._syncs:
                result = pgconn.get_result()
                if result is None:
                    if ended:  # one None ends a statement's results; two, and nothing is to come
                        break
                elif result.status == ExecStatus.PIPELINE_SYNC:
                    self._syncs -= 1
                else:
                    self._results.append(result)
                ended = result is None
            if self._answer is None or self._syncs:
                return
            pgconn.exit_pipeline_mode()
        except psycopg.OperationalError:
            self.finish()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _on_writable(self) -> None:
        """Send more of what did not fit into the socket."""
        try:
            if self.pgconn.flush() == 0:
                asyncio.get_running_loop().remove_writer(self._watched)
        except psycopg.OperationalError:
            self._on_readable()  # the server may have said why it went

    def _unwatch(self) -> None:
        """Leave the socket to psycopg, or to be closed."""
        if self._watched >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._watched)
            loop.remove_writer(self._watched)
            self._watched = -1

    def _rows(
        self, statements: Sequence[Statement], results: Sequence[PGresult]
    ) -> list[list[Row]]:
        """Return the rows of each statement, none for one that was not sent."""
        return [
            self._load(statement.name, result) if result is not None and result.ntuples else []
            for statement, result in zip_longest(statements, results)
        ]

    def _load(self, name: bytes, result: PGresult) -> list[Row]:
        if known := self._columns.get(name):
            transformer, names = known
            transformer.set_pgresult(result, set_loaders=False)
        else:
            transformer = Transformer(self)
            transformer.set_pgresult(result)
            names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
            if name in self._known:  # whose columns stay, or it fails
                self._columns[name] = transformer, names
        rows = transformer.load_rows(0, result.ntuples, tuple)
        transformer.set_pgresult(None, set_loaders=False)  # so that its memory is free
        return [dict(zip(names, row, strict=True)) for row in rows]

    def finish(self) -> None:
        """Close it at once, without a word to the server."""
        self._unwatch()
        self.pgconn.finish()

    async def close(self) -> None:
        """Close it."""
        self._unwatch()
        await super().close()

    async def wait(
        self,
        gen: abc.PQGen[T],
        interval: float = 1.0,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> T:
        """Do what psycopg has to do on the socket. Raises psycopg.Error at the deadline, too."""
        self._unwatch()
        if timeout is None and self.deadline < inf:
            # One timer: what goes by intervals is the watch for Ctrl-C, which asyncio has itself.
            interval = timeout = max(self.deadline - monotonic(), 0)
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval, timeout)
        except asyncio.CancelledError:
            await self._abandon()
            raise
        except psycopg.OperationalError:
            if monotonic() >= self.deadline:
                await self._abandon()
            raise

    async def cancel_safe(self, *, timeout: float = CANCEL_TIMEOUT) -> None:  # noqa: ASYNC109
        """Ask the server to cancel; psycopg itself asks for longer where it does so."""
        await super().cancel_safe(timeout=min(timeout, CANCEL_TIMEOUT))

    async def _abandon(self) -> None:
        """End the statement in the server, if that can be told, and close."""
        self._unwatch()
        try:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.silent = True
                with suppress(psycopg.Error):
                    # Before the end of this connection, by which a pooler finds the statement.
                    await self.cancel_safe()
                    answer = generators.fetch(self.pgconn)
                    limit = ANSWER_TIMEOUT
                    await waiting.wait_async(answer, self.pgconn.socket, limit, limit)
                    self.silent = False
        finally:
            self.finish()

    async def apply_settings(self) -> None:
        """Set for this transaction what was not set for the session."""
        if self.settings:
            await self.execute(SETTINGS, self.settings)

    async def search_path(self, *extensions: str) -> str | None:
        """Return the schemas of the tables and of these extensions, as a search_path."""
        cursor = self.cursor(row_factory=tuple_row)
        await cursor.execute(SEARCH_PATH, [TABLES, list(extensions)], prepare=False)
        found = await cursor.fetchone()
        return found[0] if found else None

    async def pin(self, settings: dict[str, str], path: str | None) -> None:
        """Tell the session these settings, and the search_path that was found."""
        await self.execute(SETTINGS, parameters(settings, path, transaction=False), prepare=False)

    async def set_up(self) -> None:
        """Tell a new session what start-up options could not. Raises psycopg.Error.

        The first user does this, and not the pool: where connections break as fast as they are
        made, the pool would pause for longer and longer, and a user just takes the next one.
        """
        settings = self.unpinned
        if settings is None:
            return
        if settings.pooler:
            path = await self.search_path()
            self.settings = parameters(service_settings(settings), path, transaction=True)
        else:
            if settings not in self.paths:
                ((session,),) = await self.read(Statement(SESSION))
                # Unset: there is a pooler, and another client would have the session next.
                if not session["unset"]:
                    self.paths[settings] = await self.search_path()
            if settings in self.paths:
                await self.pin(service_settings(settings), self.paths[settings])
        self.unpinned = None


def _give_up(answer: Future[None]) -> None:
    if not answer.done():
        answer.set_exception(psycopg.OperationalError("the deadline is over"))
