"""Gets or creates the row of each line of a body, and answers while more lines arrive.

The body is lines of JSON (application/x-ndjson). The answer has one line for each, in order.
Several transactions run at once, each with the lines that had arrived when it began.
"""

import asyncio
from asyncio import Queue, Semaphore, Task, TaskGroup
from collections import deque
from functools import partial
from itertools import takewhile
from time import monotonic

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from db.rows import Outcome, Values, read
from db.transaction import Attempts, QueueFull, Unavailable, transact
from web.creation import LOCK_AFTER, answer_of, count_rows, found_or_created
from web.endpoint import Endpoint
from web.errors import HANDLED, on_error
from web.http_connection import HttpConnection
from web.problem import problem, unavailable
from web.validation import Invalid, as_text, from_body

# How many transactions of one request run at once. While one waits for COMMIT, another can work.
# There are no more, because a request should not take all of the pool's connections.
TRANSACTIONS = 4

# How many such requests a process answers at once. Each holds up to some 3 MB.
REQUESTS = 16

# The most keys of a transaction, whatever the server's settings allow, and the most bytes of their
# lines. There are no more, because the insert must come within 50 ms of BEGIN.
MOST_KEYS = 200
MOST_BYTES = 2**18

# Seconds after which a transaction that found the queue for connections full is tried again. A
# client that sends lines is made to wait, and is not refused.
QUEUE_PAUSE = 0.25

ENDING = "The service ends: send this line and what follows to another."


class Lines(StreamingResponse):
    """The answer to lines, which is sent while they arrive."""

    media_type = "application/x-ndjson"
    begun = 0  # requests of this process that are being answered

    def __init__(
        self, endpoint: Endpoint, request: Request, *, most: int, seconds: float, size: int
    ) -> None:
        """Take a request, whose lines have at most `most` bytes each.

        A transaction takes at most `size` keys, and `seconds` with all of its attempts.
        """
        super().__init__(())
        Lines.begun += 1
        self._endpoint = endpoint
        self._request = request
        self._most = most
        self._seconds = seconds
        self._size = size
        # For each part of the body that has arrived, its lines. A line that is too long is replaced
        # by its answer. None means the end.
        self._arrived: Queue[list[bytes | Response] | None] = Queue(2)
        self._batches: Queue[Task[tuple[bytes, bool]] | None] = Queue()
        self._free = Semaphore(TRANSACTIONS)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the answer. Starlette's own method would read the body, to see a disconnect."""
        try:
            headers = self.raw_headers
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with TaskGroup() as group:
                tasks = [group.create_task(self._read()), group.create_task(self._begin(group))]
                is_last = False
                while not is_last and (batch := await self._batches.get()) is not None:
                    lines, is_last = await batch
                    self._free.release()
                    await send({"type": "http.response.body", "body": lines, "more_body": True})
                for task in tasks:
                    task.cancel()
                while not self._batches.empty() and (batch := self._batches.get_nowait()):
                    batch.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            Lines.begun -= 1

    async def _read(self) -> None:
        """Cut what arrives into lines."""
        too_long = problem(413, f"The line is over {self._most} bytes.")
        rest = bytearray()  # the last line, as far as it has arrived
        skipping = False  # whether that line is too long already
        try:
            async for part in self._request.stream():
                first, *others = part.split(b"\n")
                rest += first
                lines: list[bytes | Response] = []
                for line in others:
                    if skipping or len(rest) > self._most:
                        lines.append(too_long)
                    elif rest.strip():
                        lines.append(bytes(rest))
                    skipping = False
                    rest = bytearray(line)
                if len(rest) > self._most:
                    skipping = True
                    rest.clear()
                if lines:
                    await self._arrived.put(lines)
            if skipping:
                await self._arrived.put([too_long])
            elif rest.strip():
                await self._arrived.put([bytes(rest)])
        except ClientDisconnect:
            pass  # what has arrived is done all the same
        await self._arrived.put(None)

    async def _begin(self, group: TaskGroup) -> None:
        """Begin transactions with the lines that are there, each as soon as one more may run."""
        waiting: deque[bytes | Response] = deque()
        ended = False
        while not ended or waiting:
            await self._free.acquire()
            while not ended and (not waiting or not self._arrived.empty()):
                if len(waiting) >= self._size:
                    break
                arrived = await self._arrived.get()
                ended = arrived is None
                waiting += arrived or ()
            batch: list[bytes | Response] = []
            size = 0
            while waiting and len(batch) < self._size and size < MOST_BYTES:
                batch.append(line := waiting.popleft())
                size += len(line) if isinstance(line, bytes) else 0
            if batch:
                self._batches.put_nowait(group.create_task(self._answered(batch)))
        self._batches.put_nowait(None)

    async def _answered(self, batch: list[bytes | Response]) -> tuple[bytes, bool]:
        """Return the answers to some lines, and whether the last is a 503, which ends them all."""
        if HttpConnection.draining:
            return bytes(unavailable(ENDING).body) + b"\n", True
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
        made, is_last = await self._created([*items.values()], monotonic() + self._seconds)
        answers |= dict(zip(items, made, strict=False))
        answered = takewhile(answers.__contains__, range(len(batch)))
        return b"".join(answers[place] + b"\n" for place in answered), is_last

    async def _created(self, items: list[Values], deadline: float) -> tuple[list[bytes], bool]:
        """Get or create the row of each item, in one transaction if that can be.

        Returns the answers, and whether the last of them is a 503, behind which none is made.
        """
        if not items:
            return [], False
        attempts = Attempts()
        try:
            outcomes = await self._transacted(items, attempts, deadline)
        except HANDLED as error:
            # A half may succeed where the whole conflicts again and again, and halving finds the
            # line that the table refuses.
            if len(items) == 1 or (isinstance(error, Unavailable) and monotonic() >= deadline):
                answer = await on_error(self._request, error)
                return [bytes(answer.body)], answer.status_code == 503
            half = len(items) // 2
            first, is_last = await self._created(items[:half], deadline)
            if is_last:
                return first, True
            second, is_last = await self._created(items[half:], deadline)
            return first + second, is_last
        finally:
            self._request.state.metrics.transaction("POST", self._endpoint.name, attempts)
        answers = [answer_of(self._request, each) for each in outcomes]
        lines = [msgspec.json.encode(each) for each in answers]
        count_rows(self._endpoint, self._request, answers)
        return lines, False

    async def _transacted(
        self, items: list[Values], attempts: Attempts, deadline: float
    ) -> list[Outcome]:
        while True:
            left = deadline - monotonic()
            try:
                return await found_or_created(
                    self._endpoint,
                    self._request.state.pool,
                    items,
                    # Leave time for the halves.
                    seconds=left if len(items) == 1 else left / 2,
                    attempts=attempts,
                    lock_after=LOCK_AFTER if len(items) > 1 else None,
                )
            except QueueFull:
                if monotonic() + QUEUE_PAUSE > deadline:
                    raise
                await asyncio.sleep(QUEUE_PAUSE)


# How many keys a transaction can lock one by one; empty until the server was asked.
_pages: list[int] = []


async def create_lines(
    endpoint: Endpoint, request: Request, *, most: int, seconds: float
) -> Response:
    """Return the answer to lines of at most `most` bytes; each transaction has `seconds`."""
    if not _pages:
        pages = partial(read, query="pages", values=[])
        (row,) = await transact(request.state.pool, pages, seconds=seconds)
        _pages.append(row["pages"])
    if Lines.begun >= REQUESTS:
        raise QueueFull
    size = max(1, min(_pages[0], MOST_KEYS))
    return Lines(endpoint, request, most=most, seconds=seconds, size=size)
