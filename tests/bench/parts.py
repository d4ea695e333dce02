"""Where a request's processor time goes in the server: `python -m tests.bench.parts`.

One process has the service and its clients, which have no sockets: they hand requests over as bytes
and get the bytes of answers. So only PostgreSQL runs beside it, and no noise of a client counts.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from functools import partial
from time import process_time
from typing import Any
from unittest.mock import patch

import uvicorn
import uvloop
from uvicorn.server import ServerState

import web.creation
from db.embedded import embedded_server
from db.rows import Outcome, get_or_create
from db.schema import apply_schema
from db.transaction import Attempts, transact
from tests.support.service import sql, temporary_data_dir
from web.http_connection import HttpConnection

ROWS = 2000
CLIENTS = 16  # on one worker, as 32 are on two
REQUESTS = 2000  # of a round, all clients' together
ROUNDS = 7  # of which the best one counts

FILL = f"""
INSERT INTO departments (name) VALUES ('Research');
INSERT INTO employees (department_id, name)
SELECT 1, 'name ' || n FROM generate_series(1, {ROWS}) AS n;
ANALYZE
"""


class Client(asyncio.Transport):
    """A client that asks for one thing after the other."""

    def __init__(self, config: uvicorn.Config, state: dict[str, Any]) -> None:
        super().__init__()
        self._answered: asyncio.Future[bytes] | None = None
        self._connection = HttpConnection(config, ServerState(), state)
        self._connection.connection_made(self)

    async def ask(self, requests: list[bytes]) -> None:
        """Ask, and see that each answer is a good one."""
        for request in requests:
            self._answered = asyncio.get_running_loop().create_future()
            self._connection.data_received(request)
            answer = await self._answered
            assert answer.startswith(b"HTTP/1.1 200 "), answer

    def write(self, data: Any) -> None:
        """Take an answer."""
        assert self._answered is not None
        self._answered.set_result(data)

    def get_write_buffer_size(self) -> int:
        """Tell that everything has been sent."""
        return 0

    def is_closing(self) -> bool:
        """Tell that the connection stays."""
        return False

    def abort(self) -> None:
        """End the measurement, because the service has given up."""
        raise AssertionError("the connection was broken")


def post(number: int) -> bytes:
    """Return a request for a row that is there."""
    body = json.dumps({"department_id": 1, "name": f"name {number % ROWS + 1}"})
    head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"POST /employees HTTP/1.1\r\n{head}\r\n\r\n{body}".encode()


def get(path: str) -> bytes:
    """Return a request for what is at a path."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def measure(what: str, ask: Callable[[int], Awaitable[None]]) -> None:
    """Print the microseconds of the process for each request that 16 times `ask` makes."""
    best = float("inf")
    for _ in range(ROUNDS):
        before = process_time()
        await asyncio.gather(*map(ask, range(CLIENTS)))
        best = min(best, process_time() - before)
    print(f"{what:40}{best / REQUESTS * 1e6:8.1f}", flush=True)


async def parts(app: Any) -> None:
    """Measure requests, and then what they consist of."""
    config = uvicorn.Config(app.app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    config.load()
    async with app.app.router.lifespan_context(app.app) as state:
        clients = [Client(config, state) for _ in range(CLIENTS)]

        async def http(client: int, requests: list[bytes]) -> None:
            await clients[client].ask(requests[client::CLIENTS])

        ways = {
            "POST of a row that is there": [post(number * 97) for number in range(REQUESTS)],
            "GET of a row": [get(f"/employees/{n * 97 % ROWS + 1}") for n in range(REQUESTS)],
            "GET /live": [get("/live")] * REQUESTS,
        }
        for what, requests in ways.items():
            await measure(what, partial(http, requests=requests))

        work = partial(get_or_create, resource="employees", key=["1", "name 1"], attributes=[])

        async def transactions(_client: int) -> None:
            for _ in range(REQUESTS // CLIENTS):
                await transact(state["pool"], work, seconds=60)

        await measure("the transaction of that POST alone", transactions)

        async def none(_pool: object, _work: object, *, attempts: Attempts, **_: Any) -> Outcome:
            attempts.begun += 1
            return Outcome({"id": 1, "department_id": 1, "name": "name 1"}, 1, created=False)

        web.creation.transact = none  # type: ignore[attr-defined, assignment]
        requests = ways["POST of a row that is there"]
        await measure("that POST without its transaction", partial(http, requests=requests))


def main() -> None:
    """Measure on an embedded server of its own."""
    with temporary_data_dir() as folder, embedded_server(folder) as url:
        apply_schema(url)
        sql(url, FILL)
        os.environ["DATABASE_URL"] = url
        import app  # it reads the variable

        with patch.object(app, "end_in_order"):  # there is no uvicorn to end
            uvloop.run(parts(app))


if __name__ == "__main__":
    main()
