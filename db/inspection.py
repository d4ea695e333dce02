"""The questions of sql/inspect: a file each, asked in a READ ONLY transaction."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from time import perf_counter
from typing import NamedTuple, cast
from weakref import WeakKeyDictionary

import psycopg
from psycopg import AsyncRawCursor, IsolationLevel, errors, generators
from psycopg.abc import PQGen
from psycopg.adapt import Buffer, Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from db.connection import Connection
from db.header import File
from db.meter import Meter
from db.pool import OnDemandPool, Pool
from db.queries import INSPECT, shown
from db.resources import RESOURCES
from db.session import MEANING, PLANS, SETTINGS, conninfo, parameters
from db.settings import INSPECTION_POOL_SIZE, Settings
from db.transaction import Unavailable, transact

# Other names are no pages: a hidden file of an editor, a name that no URL holds as it is.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

# Bytes of a file, some thousand lines; what is larger is not a question.
FILE_SIZE = 64 * 1024

# Pages that may wait for a connection; the next gets 503.
QUEUE = 20

# Seconds for one answer, and for that with the wait for a connection.
STATEMENT_TIMEOUT = 3
DEADLINE = STATEMENT_TIMEOUT + 2.0

# Rows of one answer, and bytes of all of them together.
ROW_LIMIT = 1000
SIZE_LIMIT = 4_000_000

# Bytes that the server may send for one answer. A row that is larger than all that an answer may
# have is never whole in memory; what is on its way when there is enough makes it twice as much.
METER_LIMIT = 2 * SIZE_LIMIT

# Bytes that the protocol has before each cell: they count, or a row of NULLs would have none.
CELL_HEAD = 4

# Characters of a server's message.
MESSAGE = 500

TOO_WIDE = f"its first row is over {SIZE_LIMIT:,} bytes, so ask it in psql"

# Each connection of the pages has a meter, which is forgotten with it.
_meters: WeakKeyDictionary[Connection, Meter] = WeakKeyDictionary()

# Each cell is text, JsonText, or None for NULL.
Row = tuple[str | None, ...]

# The pages of each resource, by the end of their names, and the files that they are.
PAGES = {"plan": "select", "duplicates": "duplicates"}

# What goes before a lookup to have its plan.
EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS)\n"


class CannotAnswer(Exception):
    """This server cannot answer the question:"""

    def __str__(self) -> str:
        return f"{self.__doc__} {str(self.args[0])[:MESSAGE]}."


class TooSlow(Unavailable):
    """The question was cancelled: it takes too long for a page. Ask it in psql."""


class ValueRefused(Exception):
    """A parameter's value does not fit its type."""


class Parameter(NamedTuple):
    """A value that a question asks for, and PostgreSQL's name of its type."""

    number: int
    name: str
    type: str


@dataclass(frozen=True)
class Question:
    """An SQL file: its first line is `-- ` and the title, each parameter one `-- $1 name type`."""

    name: str
    file: str  # relative to the checkout
    text: str
    of: File | None = None  # of a resource, whose header says more
    lookup: bool = False  # the question is for its plan

    @property
    def sql(self) -> str:
        """What PostgreSQL gets."""
        return EXPLAIN + self.text if self.lookup else self.text

    @cached_property
    def title(self) -> str:
        """The first line, or else the name."""
        if self.lookup:
            return f"Plan of {self.file}: EXPLAIN of the file that the service runs"
        titled = re.match(r"--[ \t]*(\S.*)", self.text)
        if self.of and titled:
            return titled[1].partition(":")[0]  # and then the columns
        return titled[1] if titled else self.name

    @cached_property
    def parameters(self) -> list[Parameter]:
        """What the lines name, by number."""
        if self.of:
            fields = enumerate(self.of.parameters, 1)
            return [Parameter(number, field.name, field.type) for number, field in fields]
        lines = re.findall(r"^-- \$(\d{1,5}) (\w+) ([^\s,]+)", self.text, re.MULTILINE)
        return sorted(Parameter(int(number), name, type_) for number, name, type_ in lines)


@dataclass(frozen=True)
class Answer:
    """What came back, with when it did and how long it took."""

    columns: list[str]
    rows: list[Row]
    cut: bool  # there are more rows
    at: datetime
    milliseconds: float


def questions() -> list[Question]:
    """Read all questions, each time anew: a new file needs no restart."""
    names = {path.stem for path in INSPECT.glob("*.sql")} | {*_of_resources()}
    found = (read_question(name) for name in names)
    return sorted((each for each in found if each is not None), key=lambda each: each.title)


def read_question(name: str) -> Question | None:
    """Read one question; None if there is none of this name."""
    if file := _of_resources().get(name):
        return Question(name, shown(file.path), file.text, file, file.path.stem == "select")
    path = INSPECT / f"{name}.sql"
    # is_file: a pipe would be read for ever. What goes wrong is someone taking it away just now.
    with suppress(OSError):
        if NAME.fullmatch(name) and path.is_file() and path.stat().st_size <= FILE_SIZE:
            text = path.read_text(encoding="utf-8-sig", errors="replace")
            return Question(name, f"sql/inspect/{name}.sql", text)
    return None


def _of_resources() -> dict[str, File]:
    """Return the files of resources that are pages, too, by the page's name."""
    # Of PostgreSQL: what other engines have instead is in a folder of its own.
    return {
        f"{resource.name}_{page}": resource.files[name]
        for resource in RESOURCES.values()
        for page, name in PAGES.items()
        if name in resource.files
    }


def open_inspection_pool(settings: Settings) -> Pool:
    """Make the pool of the questions' connections; each is made when it is first needed."""
    service = conninfo(settings)
    options = str(conninfo_to_dict(service)["options"])
    if not settings.pooler:
        # The service's own avoid sequential scans, at any price.
        options += f" -c statement_timeout={STATEMENT_TIMEOUT}s -c enable_seqscan=on"
    source = AsyncConnectionPool(
        make_conninfo(service, fallback_application_name="onerow inspect", options=options),
        connection_class=Connection,
        min_size=0,
        max_size=INSPECTION_POOL_SIZE,
        kwargs={
            "autocommit": True,
            "cursor_factory": AsyncRawCursor,
            "row_factory": tuple_row,
            "prepare_threshold": None,
        },
        configure=_configure,
        # Behind a pooler it would be another session that is reset.
        reset=None if settings.pooler else _reset,
        open=False,
        name="onerow inspect",
    )
    return OnDemandPool(source, QUEUE)


async def _configure(connection: Connection) -> None:
    limit = f"{STATEMENT_TIMEOUT}s"
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    pinned = {**MEANING, **dict.fromkeys(limits, limit), "enable_seqscan": "on"}
    path = await connection.search_path("pg_stat_statements")
    # In each transaction, for DISCARD ALL undoes what was set for the session.
    connection.settings = parameters(pinned, path, transaction=True)
    await connection.set_read_only(True)
    # SERIALIZABLE would take predicate locks, and so disturb what is looked at.
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
        """Return it; in a database in SQL_ASCII it may be any bytes."""
        return bytes(data).decode(errors="replace")


class Json(Text):
    """Loads JSON, and numbers with all their digits."""

    def load(self, data: Buffer) -> str:
        """Return a JsonText, or else NaN or an infinity, which JSON does not have."""
        text = super().load(data)
        return text if text.endswith(("NaN", "Infinity")) else JsonText(text)


class Boolean(Loader):
    """Loads a boolean."""

    def load(self, data: Buffer) -> JsonText:
        """Return true or false."""
        return JsonText("true" if bytes(data) == b"t" else "false")


NUMBERS = ("int2", "int4", "int8", "oid", "float4", "float8", "numeric")
LOADERS: dict[str, type[Loader]] = {
    **dict.fromkeys((*NUMBERS, "json", "jsonb"), Json),
    "bool": Boolean,
}


async def ask(pool: Pool, question: Question, values: list[str | None]) -> Answer:
    """Ask a question, with the values of its parameters as text, or None for NULL.

    Raises ValueRefused, CannotAnswer, or Unavailable.
    """

    async def work(connection: Connection) -> Answer:
        try:
            async with connection.transaction():
                await connection.apply_settings()
                if question.lookup:  # planned as the service does
                    await connection.execute(SETTINGS, parameters(PLANS, None, transaction=True))
                return await _answer(connection, question, values)
        except errors.QueryCanceled as error:
            raise TooSlow from error
        except psycopg.DatabaseError as error:
            if connection.closed:
                raise  # it is asked again on another
            # What the server says to a question without values cannot repeat any.
            if any(values):
                if isinstance(error, psycopg.DataError):
                    raise ValueRefused from error
                raise CannotAnswer(f"SQLSTATE {error.sqlstate}") from error
            raise CannotAnswer(error.diag.message_primary or error) from error

    return await transact(pool, work, seconds=DEADLINE)


async def _answer(connection: Connection, question: Question, values: list[str | None]) -> Answer:
    started = perf_counter()
    sql = question.sql.encode()
    columns, parameters = await connection.wait(_describe(connection.pgconn, sql))
    if [each.number for each in question.parameters] != list(range(1, parameters + 1)):
        raise CannotAnswer(f"it has {parameters} parameters, and its lines name others")
    if len(set(columns)) < max(len(columns), 1):
        raise CannotAnswer("it has no columns, or two of one name")
    rows: list[Row] = []
    size = 0
    cut = False
    meter = _meters[connection]
    meter.renew()
    try:
        async with connection.cursor() as cursor:
            # Streamed, and cancelled when it is enough: a file may ask for a whole table.
            stream = cast(AsyncGenerator[Row, None], cursor.stream(sql, values))
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
    """Return a statement's columns, which a stream of no rows does not tell, and parameters.

    Raises CannotAnswer.
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
        raise CannotAnswer(error.diag.message_primary)  # it has not seen the values yet
    names = [result.fname(column) or b"" for column in range(result.nfields)]
    return [name.decode() for name in names], result.nparams
