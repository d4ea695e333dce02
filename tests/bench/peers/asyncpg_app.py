"""Starlette and asyncpg by hand, with a unique constraint and ON CONFLICT.

Each choice was measured: see "How the peers were tuned" in ../README.md.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode

import asyncpg
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

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
FIND = """
SELECT 200, id, department_id, name, created_at
FROM employees
WHERE department_id = $1 AND name = $2
"""
# The same for many keys, whose rows come back in any order.
GET_OR_CREATE_MANY = """
WITH given AS (
    SELECT DISTINCT department_id, name
    FROM unnest($1::bigint[], $2::text[]) AS g (department_id, name)
), found AS (
    SELECT id, department_id, name, created_at
    FROM employees
    JOIN given USING (department_id, name)
), added AS (
    INSERT INTO employees (department_id, name)
    SELECT department_id, name FROM given EXCEPT SELECT department_id, name FROM found
    ON CONFLICT (department_id, name) DO NOTHING
    RETURNING id, department_id, name, created_at
)
SELECT 200, id, department_id, name, created_at FROM found
UNION ALL
SELECT 201, id, department_id, name, created_at FROM added
"""
GET = "SELECT id, department_id, name, created_at FROM employees WHERE id = $1"
LIST = """
SELECT id, department_id, name, created_at
FROM employees
WHERE department_id = $1 AND id > $2
ORDER BY id
LIMIT $3 + 1
"""
DELETE = "DELETE FROM employees WHERE id = $1 RETURNING id"

CONNECTIONS = 16

# The keys of a statement where lines are sent.
BATCH = 200


class Session(NamedTuple):
    """A connection with its statements prepared. A queue of them is cheaper than asyncpg's pool."""

    connection: Any
    get_or_create: Any
    find: Any
    get: Any
    delete: Any
    list: Any
    get_or_create_many: Any


async def connect() -> Session:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    one = [await connection.prepare(query) for query in (GET_OR_CREATE, FIND, GET, DELETE)]
    many = [await connection.prepare(query) for query in (LIST, GET_OR_CREATE_MANY)]
    # asyncpg leaves the transaction of a PREPARE open, with its locks, until the next execution.
    await many[-1].fetch([], [])
    return Session(connection, *(each.fetchrow for each in one), *(each.fetch for each in many))


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
decode_array = msgspec.json.Decoder(list[Key]).decode
encode = msgspec.json.Encoder().encode


async def ask(request: Request, statement: str, *values: Any) -> Any:
    sessions = request.state.sessions
    session = await sessions.get()
    try:
        if session.connection.is_closed():
            session = await connect()
        return await getattr(session, statement)(*values)
    finally:
        sessions.put_nowait(session)


def content(row: Any) -> dict[str, Any]:
    id_, department_id, name, created_at = row
    return {"id": id_, "department_id": department_id, "name": name, "created_at": created_at}


def answer(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")


class Stream(StreamingResponse):
    """Starlette's own also reads the body, in order to see that the client has gone."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self.stream_response(send)


async def create(request: Request) -> Response:
    if request.headers["content-type"] == "application/x-ndjson":
        return Stream(lines(request), media_type="application/x-ndjson")
    body = await request.body()
    try:
        if body.startswith(b"["):
            return answer(await create_many(request, decode_array(body)))
        key = decode(body)
    except msgspec.DecodeError as error:
        return Response(str(error), 422)
    row = await ask(request, "get_or_create", key.department_id, key.name)
    if row is None:
        row = await ask(request, "find", key.department_id, key.name)
    status, *columns = row
    return answer(content(columns), status)


async def create_many(request: Request, keys: list[Key]) -> list[dict[str, Any]]:
    found = await ask(
        request,
        "get_or_create_many",
        [key.department_id for key in keys],
        [key.name for key in keys],
    )
    rows = {(row["department_id"], row["name"]): row for row in found}
    told = []
    for key in keys:
        pair = key.department_id, key.name
        if pair not in rows:  # another creator was first
            rows[pair] = await ask(request, "find", *pair)
        status, *columns = rows[pair]
        told.append({"status": status, "row": content(columns)})
        rows[pair] = (200, *columns)
    return told


async def lines(request: Request) -> AsyncIterator[bytes]:
    rest = b""
    batch: list[Key] = []
    async for part in request.stream():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            batch.append(decode(line))
            if len(batch) == BATCH:
                yield b"".join(encode(each) + b"\n" for each in await create_many(request, batch))
                batch = []
    if rest:
        batch.append(decode(rest))
    yield b"".join(encode(each) + b"\n" for each in await create_many(request, batch))


async def get(request: Request) -> Response:
    row = await ask(request, "get", request.path_params["id"])
    return Response(status_code=404) if row is None else answer(content(row))


async def list_(request: Request) -> Response:
    given = request.query_params
    department_id, after, limit = (int(given[name]) for name in ("department_id", "after", "limit"))
    rows = [content(row) for row in await ask(request, "list", department_id, after, limit)]
    following = None
    if len(rows) > limit:
        del rows[limit:]
        following = f"/employees?{urlencode({**given, 'after': rows[-1]['id']})}"
    return answer({"items": rows, "next": following})


async def delete(request: Request) -> Response:
    row = await ask(request, "delete", request.path_params["id"])
    return Response(status_code=404 if row is None else 204)


app = Starlette(
    routes=[
        Route("/employees", create, methods=["POST"]),
        Route("/employees", list_, methods=["GET"]),
        Route("/employees/{id:int}", get, methods=["GET"]),
        Route("/employees/{id:int}", delete, methods=["DELETE"]),
    ],
    lifespan=lifespan,
)
