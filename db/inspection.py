"""The questions of sql/inspect: a file each, asked in a READ ONLY transaction."""

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, cast

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor, IsolationLevel, errors, generators
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader

from db.pool import Connection, Pool, conninfo
from db.queries import QUERIES, ROOT
from db.settings import INSPECTION_POOL_SIZE, Settings
from db.transaction import Unavailable, read

# Pages that may wait for a connection; the next gets 503.
QUEUE = 20

# Seconds for one answer, and for that with the wait for a connection.
STATEMENT_TIMEOUT = 3
DEADLINE = STATEMENT_TIMEOUT + 2.0

# Rows of one answer.
ROW_LIMIT = 1000

# What goes before a lookup to have its plan.
EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS)\n"


class CannotAnswer(Unavailable):
    """This server cannot answer the question:"""

    def __str__(self) -> str:
        return f"{self.__doc__} {self.args[0]}."


class TooSlow(Unavailable):
    """The question takes too long for a page: ask it in psql."""


class ValueRefused(Exception):
    """A parameter's value does not fit its type."""


class Parameter(NamedTuple):
    """A value that a question asks for, and PostgreSQL's name of its type."""

    name: str
    type: str


@dataclass(frozen=True)
class Question:
    """An SQL file: its first line is `-- ` and the title, each parameter one `-- $1 name type`."""

    name: str
    title: str
    sql: str
    parameters: list[Parameter]
    file: Path  # relative to the checkout


@dataclass(frozen=True)
class Answer:
    """What came back, with when it did and how long it took."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    cut: bool  # there are more than ROW_LIMIT rows
    at: datetime
    milliseconds: float


def questions() -> dict[str, Question]:
    """Read the questions, each time anew: a new file needs no restart."""
    return {question.name: question for question in sorted(_read(), key=lambda each: each.title)}


def _read() -> Iterator[Question]:
    for path in (ROOT / "sql" / "inspect").glob("*.sql"):
        with suppress(OSError):  # someone has just taken it away
            text = path.read_text(errors="replace")
            titled = re.match(r"--\s*(\S.*)", text)
            title = titled[1] if titled else path.stem
            yield Question(path.stem, title, text, _parameters(text), path.relative_to(ROOT))
    for name in QUERIES:
        resource, _, rest = name.partition("/")
        if rest == "select":
            text = EXPLAIN + QUERIES[name].decode()
            title = f"Plan of the lookup of {resource}: EXPLAIN of the file that the service runs"
            path = Path("sql", f"{name}.sql")
            yield Question(f"{resource}_plan", title, text, _parameters(text), path)


def _parameters(text: str) -> list[Parameter]:
    lines = re.findall(r"^-- \$\d+ (\w+) ([^\s,]+)", text, re.MULTILINE)
    return [Parameter(name, type_) for name, type_ in lines]


def open_inspection_pool(settings: Settings) -> Pool:
    """Make the pool of the questions' connections; each is made when it is first needed."""
    service = conninfo(settings)
    options = f"{conninfo_to_dict(service)['options']} -c statement_timeout={STATEMENT_TIMEOUT}s"
    return Pool(
        make_conninfo(service, fallback_application_name="onerow inspect", options=options),
        queue=QUEUE,
        min_size=0,
        max_size=INSPECTION_POOL_SIZE,
        kwargs={"autocommit": True, "cursor_factory": AsyncRawCursor, "row_factory": tuple_row},
        configure=_configure,
        open=False,
        name="onerow inspect",
    )


async def _configure(connection: Connection) -> None:
    await connection.set_read_only(True)
    # SERIALIZABLE would take predicate locks, and so disturb what is looked at.
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    # As psql shows them: datetime and timedelta cannot hold every value.
    for name in ("date", "timestamp", "timestamptz", "interval", "bytea"):
        connection.adapters.register_loader(name, TextLoader)


async def ask(pool: Pool, question: Question, values: list[str | None]) -> Answer:
    """Ask a question, with the values of its parameters as text or None for NULL.

    Raises ValueRefused, or Unavailable.
    """

    async def work(connection: AsyncConnection[Any]) -> Answer:
        try:
            async with connection.transaction():
                return await _answer(connection, question, values)
        except errors.QueryCanceled as error:
            raise TooSlow from error
        except (
            psycopg.ProgrammingError,
            errors.FeatureNotSupported,
            errors.ObjectNotInPrerequisiteState,
            errors.ReadOnlySqlTransaction,
        ) as error:
            # These speak of the question and the server, never of a value.
            raise CannotAnswer(error.diag.message_primary or error) from error
        except psycopg.DataError as error:
            if not values:
                raise CannotAnswer(f"SQLSTATE {error.sqlstate}") from error
            raise ValueRefused from error

    return await read(pool, work, seconds=DEADLINE)


async def _answer(
    connection: AsyncConnection[Any], question: Question, values: list[str | None]
) -> Answer:
    started = perf_counter()
    sql = question.sql.encode()
    columns, parameters = await connection.wait(_describe(connection.pgconn, sql))
    if parameters != len(values):
        raise CannotAnswer(f"{parameters} parameters, and {len(values)} lines that name one")
    if len(set(columns)) < max(len(columns), 1):
        raise CannotAnswer("no columns, or two of one name")
    rows: list[tuple[Any, ...]] = []
    cut = False
    # Streamed, and cancelled when there are enough: a file may ask for a whole table.
    async with connection.cursor() as cursor:
        stream = cast(AsyncGenerator[tuple[Any, ...], None], cursor.stream(sql, values))
        async with aclosing(stream):
            async for row in stream:
                if cut := len(rows) == ROW_LIMIT:
                    break
                rows.append(row)
    return Answer(columns, rows, cut, datetime.now(UTC), (perf_counter() - started) * 1000)


def _describe(pgconn: PGconn, sql: bytes) -> PQGen[tuple[list[str], int]]:
    """Return a statement's columns, which a stream of no rows does not tell, and parameters."""
    pgconn.send_prepare(b"", sql)
    (result,) = yield from generators.execute(pgconn)
    if result.status == ExecStatus.COMMAND_OK:
        pgconn.send_describe_prepared(b"")
        (result,) = yield from generators.execute(pgconn)
    if result.status != ExecStatus.COMMAND_OK:
        raise errors.error_from_result(result)
    names = [result.fname(column) or b"" for column in range(result.nfields)]
    return [name.decode() for name in names], result.nparams
