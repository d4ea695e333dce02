"""Asks the questions of db.questions, in READ ONLY transactions on connections of their own."""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import cast
from weakref import WeakKeyDictionary

import psycopg
from psycopg import IsolationLevel, errors, generators
from psycopg.abc import PQGen
from psycopg.adapt import Buffer, Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import tuple_row

from db.connection import Connection
from db.meter import Meter
from db.ours import STATEMENTS, not_ours
from db.pool import Pool
from db.questions import Question
from db.session import MEANING, PLANS, SET_CONFIG, conninfo, parameters
from db.settings import INSPECTION_POOL_SIZE, Settings
from db.transaction import Unavailable, transact

# Pages that may wait for a connection; the next gets 503.
QUEUE = 20

# Seconds for one answer, and for the answer with the wait for a connection.
STATEMENT_TIMEOUT = 3
DEADLINE = STATEMENT_TIMEOUT + 2.0

# Rows of one answer, and bytes of all of them together.
ROW_LIMIT = 1000
SIZE_LIMIT = 4_000_000

# Bytes that the server may send for one answer, so that a row that is too large for an answer is
# never whole in memory. It is twice SIZE_LIMIT, because more rows are on their way when the answer
# has enough.
METER_LIMIT = 2 * SIZE_LIMIT

# Bytes that the protocol has before each cell. They count, because rows of NULLs have no others.
CELL_HEAD = 4

# Characters of a server's message, which may quote a whole statement.
MESSAGE = 500

TOO_WIDE = f"its first row is over {SIZE_LIMIT:,} bytes, so ask it in psql"

# The meter of each connection of the pages; it is forgotten together with the connection.
_meters: WeakKeyDictionary[Connection, Meter] = WeakKeyDictionary()

# A cell is text, or JsonText, or None for NULL.
Cells = tuple[str | None, ...]


class CannotAnswer(Exception):
    """This server cannot answer the question:"""

    def __str__(self) -> str:
        return f"{self.__doc__} {str(self.args[0])[:MESSAGE]}."


class TooSlow(Unavailable):
    """The question was cancelled: it takes too long for a page. Ask it in psql."""


class ValueRefused(Exception):
    """A parameter's value does not fit its type."""


@dataclass(frozen=True)
class Answer:
    """What came back, with when it did and how long it took."""

    columns: list[str]
    rows: list[Cells]
    cut: bool  # there are more rows
    at: datetime
    milliseconds: float


def open_inspection_pool(settings: Settings) -> Pool:
    """Make the pool of the questions' connections; each is made when it is first needed."""
    service = conninfo(settings)
    options = str(conninfo_to_dict(service)["options"])
    if not settings.pooler:
        # A question may read a whole table; the service's own statements must not.
        options += f" -c statement_timeout={STATEMENT_TIMEOUT}s -c enable_seqscan=on"
    return Pool(
        make_conninfo(service, fallback_application_name="onerow inspect", options=options),
        queue=QUEUE,
        kept=0,  # each question gives its connection back to psycopg's pool, which resets it
        min_size=0,
        max_size=INSPECTION_POOL_SIZE,
        kwargs={
            "autocommit": True,
            "row_factory": tuple_row,
            "prepare_threshold": None,
        },
        configure=_configure_reader,
        # Behind a pooler the reset would reach another session.
        reset=None if settings.pooler else _reset,
        name="onerow inspect",
    )


async def _configure_reader(connection: Connection) -> None:
    limit = f"{STATEMENT_TIMEOUT}s"
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    pinned = {**MEANING, **dict.fromkeys(limits, limit), "enable_seqscan": "on"}
    # Each transaction sets these, because DISCARD ALL undoes what was set for the session.
    connection.begin_with(pinned, await connection.search_path(STATEMENTS))
    await connection.set_read_only(True)
    # SERIALIZABLE would take predicate locks, and so change what the pages show.
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    for type_ in connection.adapters.types:
        connection.adapters.register_loader(type_.oid, LOADERS.get(type_.name, Text))
        connection.adapters.register_loader(type_.array_oid, Text)
    _meters[connection] = Meter(connection, METER_LIMIT)


async def _reset(connection: Connection) -> None:
    # A function in a question may have changed a setting, or taken an advisory lock.
    await connection.execute(b"DISCARD ALL")


class JsonText(str):
    """A cell that is JSON as it stands."""


class Text(Loader):
    """Loads a value as psql shows it."""

    def load(self, data: Buffer) -> str:
        """Return the text. In a database in SQL_ASCII it may be any bytes."""
        return bytes(data).decode(errors="replace")


class Json(Text):
    """Loads JSON, and numbers with all their digits."""

    def load(self, data: Buffer) -> str:
        """Return a JsonText, or a plain str for NaN and infinities, which JSON does not have."""
        text = super().load(data)
        return text if text.endswith(("NaN", "Infinity")) else JsonText(text)


class Boolean(Loader):
    def load(self, data: Buffer) -> JsonText:
        return JsonText("true" if bytes(data) == b"t" else "false")


NUMBERS = ("int2", "int4", "int8", "oid", "float4", "float8", "numeric")
LOADERS: dict[str, type[Loader]] = {
    **dict.fromkeys((*NUMBERS, "json", "jsonb"), Json),
    "bool": Boolean,
}


async def answer_to(pool: Pool, question: Question, values: list[str | None]) -> Answer:
    """Ask a question, with the values of its parameters as text, or None for NULL.

    Raises ValueRefused, CannotAnswer, or Unavailable.
    """

    async def work(connection: Connection) -> Answer:
        try:
            async with connection.transaction():
                await connection.apply_settings()
                await check_ours(connection, question)
                if question.lookup:  # its plan must be the one that the service gets
                    await connection.execute(SET_CONFIG, parameters(PLANS, None, transaction=True))
                return await ask(connection, question, values)
        except errors.QueryCanceled as error:
            raise TooSlow from error
        except psycopg.DatabaseError as error:
            if connection.closed:
                raise  # transact() asks again on another connection
            # The server's message may repeat a value, so it is shown only if there was none.
            if any(values):
                if isinstance(error, psycopg.DataError):
                    raise ValueRefused from error
                raise CannotAnswer(f"SQLSTATE {error.sqlstate}") from error
            raise CannotAnswer(error.diag.message_primary or error) from error

    return await transact(pool, work, seconds=DEADLINE)


async def check_ours(connection: Connection, question: Question) -> None:
    """Raise CannotAnswer if a name of ours in the SQL leads to somebody else's table or view."""
    asked = [name for name in ("merged", STATEMENTS) if re.search(rf"\b{name}\b", question.sql)]
    if asked and (others := await not_ours(connection, *asked)):
        raise CannotAnswer(f"{others[0]} is somebody else's")


async def ask(connection: Connection, question: Question, values: Sequence[str | None]) -> Answer:
    """Ask a question in the transaction that has begun. Raises CannotAnswer or psycopg.Error."""
    started = perf_counter()
    sql = question.sql.encode()
    columns, parameters = await connection.wait(_describe(connection.pgconn, sql))
    if [each.number for each in question.parameters] != list(range(1, parameters + 1)):
        raise CannotAnswer(f"it has {parameters} parameters, and its lines name others")
    if len(set(columns)) < max(len(columns), 1):
        raise CannotAnswer("it has no columns, or two of one name")
    rows: list[Cells] = []
    size = 0
    cut = False
    meter = _meters[connection]
    meter.renew()
    try:
        async with connection.cursor() as cursor:
            # A file may ask for a whole table, so rows are streamed until there are enough.
            stream = cast(AsyncGenerator[Cells, None], cursor.stream(sql, values))
            async with aclosing(stream):
                async for row in stream:
                    size += sum(CELL_HEAD + _bytes(cell) for cell in row)
                    if cut := len(rows) == ROW_LIMIT or size > SIZE_LIMIT:
                        break
                    rows.append(row)
    except psycopg.OperationalError:
        if not meter.exceeded:
            raise
        cut = True
    if cut and not rows:
        raise CannotAnswer(TOO_WIDE)
    return Answer(columns, rows, cut, datetime.now(UTC), (perf_counter() - started) * 1000)


def _bytes(cell: str | None) -> int:
    return 0 if cell is None else len(cell) if cell.isascii() else len(cell.encode())


def _describe(pgconn: PGconn, sql: bytes) -> PQGen[tuple[list[str], int]]:
    """Return the names of a statement's columns, and how many parameters it has.

    A stream without rows would not tell the columns. Raises CannotAnswer.
    """
    pgconn.send_prepare(b"", sql)
    (result,) = yield from generators.execute(pgconn)
    if result.status == ExecStatus.COMMAND_OK:
        pgconn.send_describe_prepared(b"")
        (result,) = yield from generators.execute(pgconn)
    if result.status != ExecStatus.COMMAND_OK:
        error = errors.error_from_result(result)
        if isinstance(error, psycopg.OperationalError):
            raise error
        # The server has not seen the values yet, so its message cannot repeat one.
        raise CannotAnswer(error.diag.message_primary)
    names = [result.fname(column) or b"" for column in range(result.nfields)]
    return [name.decode() for name in names], result.nparams
