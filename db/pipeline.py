"""Sends statements together, in one message, and waits once for their results.

The statements go to libpq in its pipeline mode. The socket is watched once for good, and one
future is settled when all is answered. psycopg's cursors take three times the processor time, so
only what is rare uses them, on the same connection.
"""

import asyncio
from asyncio import Future
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import AsyncConnection, abc, errors, generators, waiting
from psycopg.adapt import Transformer
from psycopg.pq import DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

T = TypeVar("T")
Row = dict[str, Any]

# Seconds for telling the server to cancel a statement that nobody waits for any more. A server that
# answers takes milliseconds. The caller, whose deadline is over, waits for this as well.
CANCEL_TIMEOUT = 0.5

# Seconds for the statement to end after that. If it takes longer, the server counts as silent.
ANSWER_TIMEOUT = 0.2

# Seconds between two looks at a connection that has not answered. A deadline is noticed at a look,
# so that one timer serves many messages.
LOOK = 0.05


class Statement(NamedTuple):
    """A file's SQL, with its parameters as text."""

    sql: bytes
    parameters: Sequence[str | None] = ()
    name: bytes = b""  # a connection prepares it at its first use; without a name it never does


ROLLBACK = Statement(b"ROLLBACK")


class PipelineConnection(AsyncConnection[Row]):
    """A connection that closes when its user stops waiting: at the deadline, or when cancelled.

    psycopg's own would keep the user for up to ten seconds, until the server has cancelled.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pipeline_mode = True  # whether a transaction's statements travel in one message
        self.deadline = inf  # by monotonic(): when the request that has the connection gives up
        self.silent = False  # whether the server has not even answered a cancel in time
        # What each transaction begins with where its session may lack the service's settings, as
        # behind a pooler. It may lack what was prepared, too, and so nothing is.
        self.set_config: list[Statement] = []
        self._names: set[bytes] = set()  # those of prepared statements
        self._columns: dict[bytes, tuple[abc.Transformer, list[str]]] = {}  # by those names
        self._watched = -1  # the socket, while the loop watches it for _on_readable()
        self._done: Future[None] | None = None  # settled when the message is answered
        self._results: list[PGresult] = []
        self._looking = False  # whether _look() is to be called

    async def _exchange(self, *steps: Statement, preparing: bool = False) -> list[PGresult]:
        """Send steps in one message, and return the result of each.

        Those with a name are prepared first, by calls with `preparing`, which run none of them. In
        one message with BEGIN, that would begin a transaction before BEGIN sets its level. Raises
        the error of the first step that failed; the transaction has ended by then, or the
        connection. At the deadline, or cancelled, the connection closes.
        """
        values = [_encoded(step.parameters) for step in steps]
        if not (preparing or self.set_config):
            new = {step.name: step for step in steps if step.name and step.name not in self._names}
            if new and self.pipeline_mode:
                await self._exchange(*new.values(), preparing=True)
            else:
                for step in new.values():
                    await self._exchange(step, preparing=True)
        loop = asyncio.get_running_loop()
        try:
            self._send(loop, steps, values, preparing)
            self._done = loop.create_future()
            if not self._looking:
                self._looking = True
                loop.call_later(LOOK, self._look, loop)
            await self._done
        except BaseException:
            await self._abandon()
            raise
        finally:
            results, self._results, self._done = self._results, [], None
        for step, result in zip(steps, results, strict=False):
            if result.status == ExecStatus.FATAL_ERROR:
                raise await self._cleared_up(errors.error_from_result(result))
            if preparing:
                self._names.add(step.name)  # it stays prepared, even if a later step fails
        if len(results) < len(steps):
            self.finish()
            raise psycopg.OperationalError("the server has not answered each statement")
        # A server that ends the connection may send its error in the place of the answer to Sync.
        # The results before that are valid.
        return results[: len(steps)]

    def _send(
        self,
        loop: asyncio.AbstractEventLoop,
        steps: Sequence[Statement],
        values: Sequence[list[bytes | None]],
        preparing: bool,
    ) -> None:
        pgconn = self.pgconn
        if self._watched < 0:
            self._watched = pgconn.socket
            loop.add_reader(self._watched, self._on_readable)
        pgconn.enter_pipeline_mode()
        for step, given in zip(steps, values, strict=True):
            if preparing:
                pgconn.send_prepare(step.name, step.sql)
            elif step.name and not self.set_config:
                pgconn.send_query_prepared(step.name, given)
            else:
                pgconn.send_query_params(step.sql, given)
        # After a failure the server skips what follows up to this Sync, COMMIT included.
        pgconn.pipeline_sync()
        if pgconn.flush():
            loop.add_writer(self._watched, self._on_writable)

    async def _cleared_up(self, error: psycopg.Error) -> psycopg.Error:
        """Leave a failed transaction, and return its error."""
        # Close if the table has changed since the statement was prepared, or if DEALLOCATE ALL has
        # dropped the statement. A trigger can raise the latter error, which then has a context.
        changed = error.diag.source_function == "RevalidateCachedQuery"
        gone = isinstance(error, errors.InvalidSqlStatementName) and not error.diag.context
        if changed or gone:
            self.finish()
        elif self.pgconn.transaction_status == TransactionStatus.INERROR:
            await self._exchange(ROLLBACK)
        return error

    def _on_readable(self) -> None:
        """Take what has come: results, a notice, or the end of the connection."""
        pgconn = self.pgconn
        answered = False
        try:
            pgconn.consume_input()
            was_none = False
            while not pgconn.is_busy() and self._done is not None and not answered:
                result = pgconn.get_result()
                if result is None:
                    if was_none:  # None ends each statement's results, and a second None ends all
                        break
                elif result.status == ExecStatus.PIPELINE_SYNC:
                    answered = True
                    pgconn.exit_pipeline_mode()
                else:
                    self._results.append(result)
                    if result.status == ExecStatus.FATAL_ERROR and _is_last(result):
                        self.finish()
                        break
                was_none = result is None
        except psycopg.OperationalError:
            self.finish()
        if self.closed:
            self.finish()  # libpq may have closed the socket itself
        if (answered or self.closed) and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up at the deadline. Until then, see whether the connection has ended.

        uvloop does not tell that: it stops watching a socket with an error, as after kill -9.
        """
        done = self._done
        if done is None or done.done():
            self._looking = False
            return
        if monotonic() >= self.deadline:
            done.set_exception(psycopg.OperationalError("the deadline is over"))
        else:
            self._on_readable()
        loop.call_later(LOOK, self._look, loop)

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

    def _rows(self, statement: Statement, result: PGresult) -> list[Row]:
        """Return a result's rows, as JSON can have them."""
        if not result.ntuples:
            return []
        if known := self._columns.get(statement.name):
            transformer, names = known
            transformer.set_pgresult(result, set_loaders=False)
        else:
            transformer = Transformer(self)
            transformer.set_pgresult(result)
            names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
            if statement.name in self._names:  # a prepared statement keeps its columns, or fails
                self._columns[statement.name] = transformer, names
        rows = transformer.load_rows(0, result.ntuples, tuple)
        transformer.set_pgresult(None, set_loaders=False)  # so that the result's memory is free
        return [dict(zip(names, row, strict=True)) for row in rows]

    def finish(self) -> None:
        """Close the connection at once: no cancel, no ROLLBACK and no wait."""
        self._unwatch()
        self.pgconn.finish()

    async def close(self) -> None:
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
            # One timer is enough. psycopg's intervals are for Ctrl-C, which asyncio handles itself.
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
        """Ask the server to cancel. psycopg's own calls would wait longer."""
        await super().cancel_safe(timeout=min(timeout, CANCEL_TIMEOUT))

    async def _abandon(self) -> None:
        """Cancel the statement, if the server can be reached, and close the connection."""
        self._unwatch()
        try:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.silent = True
                with suppress(psycopg.Error):
                    # Cancel before closing, because a pooler finds the statement by its client.
                    await self.cancel_safe()
                    answer = generators.fetch(self.pgconn)
                    limit = ANSWER_TIMEOUT
                    await waiting.wait_async(answer, self.pgconn.socket, limit, limit)
                    self.silent = False
        finally:
            self.finish()


def _encoded(parameters: Sequence[str | None]) -> list[bytes | None]:
    """Return parameters as libpq takes them. Raises psycopg.DataError for a NUL."""
    values = [None if value is None else value.encode() for value in parameters]
    for value in values:
        if value and b"\0" in value:
            raise psycopg.DataError("a text with NUL, where libpq would end it")
    return values


def _is_last(result: PGresult) -> bool:
    """Tell whether the server ends the connection after this error."""
    severity = result.error_field(DiagnosticField.SEVERITY_NONLOCALIZED)
    return severity in (b"FATAL", b"PANIC")
