"""Starlette and asyncpg by hand, with a unique constraint and ON CONFLICT.

Each choice was measured: see "How the peers were tuned" in ../README.md.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, NamedTuple

import asyncpg
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# The statement takes one round trip whether the row is there or not, and uses up no id where it is.
# It returns no row where another creator was first and committed meanwhile, for its own snapshot is
# older.
GET_OR_CREATE = """
WITH found AS (
    SELECT id, department_id, name, created_at
    FROM employees
    WHERE department_id = $1 AND name = $2
), added AS (
    INSERT INTO employees (department_id, name)
    SELECT $1, $2
    WHERE NOT EXISTS (SELECT FROM found)
    ON CONFLICT (department_id, name) DO NOTHING
    RETURNING id, department_id, name, created_at
)
SELECT 200, id, department_id, name, created_at FROM found
UNION ALL
SELECT 201, id, department_id, name, created_at FROM added
"""
GET = """
SELECT 200, id, department_id, name, created_at
FROM employees
WHERE department_id = $1 AND name = $2
"""

CONNECTIONS = 16

Statement = Callable[[int, str], Awaitable[Any]]


class Session(NamedTuple):
    """A connection with its statements prepared. A queue of them is cheaper than asyncpg's pool."""

    connection: Any
    get_or_create: Statement
    get: Statement


async def connect() -> Session:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    statements = [await connection.prepare(query) for query in (GET_OR_CREATE, GET)]
    # asyncpg leaves the transaction of a PREPARE open, with its locks, until the next execution.
    await statements[-1].fetchrow(0, "")
    return Session(connection, *(statement.fetchrow for statement in statements))


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
    # The queue gives out the session that came back last, which the processor's caches know.
    sessions: asyncio.LifoQueue[Session] = asyncio.LifoQueue()
    for _number in range(CONNECTIONS):
        sessions.put_nowait(await connect())
    yield {"sessions": sessions}
    while not sessions.empty():
        await sessions.get_nowait().connection.close()


class Key(msgspec.Struct):
    department_id: Annotated[int, msgspec.Meta(ge=1)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


decode = msgspec.json.Decoder(Key).decode
encode = msgspec.json.Encoder().encode


async def create(request: Request) -> Response:
    try:
        key = decode(await request.body())
    except msgspec.DecodeError as error:
        return Response(str(error), 422)
    sessions = request.state.sessions
    session = await sessions.get()
    try:
        if session.connection.is_closed():
            session = await connect()
        row = await session.get_or_create(key.department_id, key.name)
        if row is None:
            row = await session.get(key.department_id, key.name)
    finally:
        sessions.put_nowait(session)
    status, id_, department_id, name, created_at = row
    content = {"id": id_, "department_id": department_id, "name": name, "created_at": created_at}
    return Response(encode(content), status, media_type="application/json")


app = Starlette(routes=[Route("/employees", create, methods=["POST"])], lifespan=lifespan)
