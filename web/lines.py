"""Gets or creates the row of each line of a body, and answers while more lines arrive.

The lines are of JSON (application/x-ndjson), and so is the answer, a line for a line, in order.
Several transactions are on their way at once, each with the lines that had arrived.
"""

import asyncio
from asyncio import Queue, Task
from collections.abc import AsyncIterator
from functools import partial

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from db.rows import Outcome, Values, select
from db.transaction import (
    Attempts,
    AttemptsExhausted,
    InsertTooLate,
    QueueFull,
    Unavailable,
    transact,
)
from web.creation import found_or_created, told
from web.endpoint import Endpoint
from web.errors import ERROR_HANDLERS, on_error
from web.problem import problem, unavailable
from web.validation import Invalid, as_text, from_body

# How many transactions of one request are on their way. One fills the time in which another waits
# for COMMIT; a request should not take all of the pool's connections.
TRANSACTIONS = 4

# How many such requests a process answers at once. Each holds up to some 3 MB of lines.
REQUESTS = 16

# The most keys of a transaction, whatever the server's settings allow. The insert must come within
# 50 ms of the begin.
MOST_KEYS = 200

# Seconds after which a transaction that found the queue for connections full is tried again. A
# client that sends lines waits, and is not refused.
QUEUE_PAUSE = 0.25

_requests = 0


class Lines(StreamingResponse):
    """An answer that is sent as it is made.

    Starlette's own would read the body, too, to see whether the client has gone.
    """

    media_type = "application/x-ndjson"

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        await self.stream_response(send)


async def create_lines(
    endpoint: Endpoint, request: Request, *, most: int, seconds: float
) -> Response:
    """Return the answer to lines of at most `most` bytes; each transaction has so many seconds."""
    if _requests >= REQUESTS:
        return unavailable("Too many requests with lines.")
    pages = partial(select, query="pages", values=[])
    ((row),) = await transact(request.state.pool, pages, seconds=seconds)
    size = max(1, min(row["pages"], MOST_KEYS))
    return Lines(_Answers(endpoint, request, most, seconds, size).lines())


class _Answers:
    """One request's lines, on their way to be answered."""

    def __init__(
        self, endpoint: Endpoint, request: Request, most: int, seconds: float, size: int
    ) -> None:
        self._endpoint = endpoint
        self._request = request
        self._most = most
        self._seconds = seconds
        self._size = size  # the most keys of a transaction
        self._unavailable = False  # whether lines were answered with 503, after which none is read
        self._lines: Queue[bytes | Response | None] = Queue(size)
        self._batches: Queue[Task[list[bytes]] | None] = Queue(TRANSACTIONS - 1)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the lines of the answer."""
        global _requests
        _requests += 1
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._read()), group.create_task(self._begin(group))]
                while (batch := await self._batches.get()) is not None:
                    for line in await batch:
                        yield line + b"\n"
                    if self._unavailable:
                        break
                for task in tasks:
                    task.cancel()
        finally:
            _requests -= 1

    async def _read(self) -> None:
        """Put each line into the queue, a problem in the place of one that is too long."""
        too_long = problem(413, f"The line is over {self._most} bytes.")
        rest = bytearray()
        skipping = False
        try:
            async for part in self._request.stream():
                rest += part
                *lines, tail = rest.split(b"\n")
                for line in lines:
                    if skipping or len(line) > self._most:
                        await self._lines.put(too_long)
                    elif line.strip():
                        await self._lines.put(bytes(line))
                    skipping = False
                rest = tail
                if len(rest) > self._most:
                    skipping = True
                    rest.clear()
            if skipping:
                await self._lines.put(too_long)
            elif rest.strip():
                await self._lines.put(bytes(rest))
        except ClientDisconnect:
            pass  # what has arrived is done all the same
        await self._lines.put(None)

    async def _begin(self, group: asyncio.TaskGroup) -> None:
        """Begin a transaction with the lines that are there, as soon as one more may begin."""
        line = await self._lines.get()
        while line is not None:
            batch = [line]
            line = b""
            while len(batch) < self._size and not self._lines.empty():
                line = self._lines.get_nowait()
                if line is None:
                    break
                batch.append(line)
            await self._batches.put(group.create_task(self._answered(batch)))
            if line is not None:
                line = await self._lines.get()
        await self._batches.put(None)

    async def _answered(self, batch: list[bytes | Response]) -> list[bytes]:
        """Return the answers to some lines."""
        items: dict[int, Values] = {}
        answers: dict[int, bytes] = {}
        for place, line in enumerate(batch):
            if isinstance(line, Response):
                answers[place] = bytes(line.body)
                continue
            try:
                items[place] = as_text(from_body(line, self._endpoint.types.body))
            except (HTTPException, Invalid) as error:
                answers[place] = bytes((await on_error(self._request, error)).body)
        made = await self._created([*items.values()])
        answers |= dict(zip(items, made, strict=True))
        return [answers[place] for place in range(len(batch))]

    async def _created(self, items: list[Values]) -> list[bytes]:
        """Get or create the row of each item, in one transaction if that can be."""
        if not items:
            return []
        attempts = Attempts()
        try:
            outcomes = await self._transacted(items, attempts)
        except tuple(ERROR_HANDLERS) as error:
            may_go_alone = not isinstance(error, Unavailable) or isinstance(
                error, AttemptsExhausted | InsertTooLate
            )
            if len(items) > 1 and may_go_alone:
                half = len(items) // 2
                return await self._created(items[:half]) + await self._created(items[half:])
            answer = await on_error(self._request, error)
            self._unavailable = self._unavailable or answer.status_code == 503
            return [bytes(answer.body)] * len(items)
        finally:
            self._request.state.metrics.transaction("POST", self._endpoint.name, attempts)
        told_each = (told(self._endpoint, self._request, each) for each in outcomes)
        return [msgspec.json.encode(each) for each in told_each]

    async def _transacted(self, items: list[Values], attempts: Attempts) -> list[Outcome]:
        while True:
            try:
                return await found_or_created(
                    self._endpoint,
                    self._request.state.pool,
                    items,
                    seconds=self._seconds,
                    attempts=attempts,
                    array=len(items) > 1,
                )
            except QueueFull:
                await asyncio.sleep(QUEUE_PAUSE)
