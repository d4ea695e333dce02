"""Sends requests of many clients at once, drawn from a seed, and notes what became of each."""

import asyncio
import random
import re
from collections.abc import Iterable
from itertools import count, takewhile
from math import inf
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from tests.proof.linearizability import Call, Key, Row
from tests.support.service import LIMIT

# A department's name is for so many clients, and each makes so many calls, one after the other.
# With 16 calls at most the checker has its verdict at once, even where few were answered.
CLIENTS = 4
CALLS = 4
NAMES_AT_ONCE = 8

KINDS = (
    *["create employee"] * 6,
    *["create department"] * 2,
    "get employee",
    "get department",
    "list employees",
    "list departments",
    *["delete employee"] * 2,
    "delete department",
)
EMPLOYEES = ("Ada", "Grace")

# Seconds that a client waits at most after a refusal. Without a pause, most calls would come during
# an outage.
PAUSE = 0.05

# Seconds between the probes of a prober. There are two probers, because there are two workers.
PROBE = 0.02
PROBERS = 2


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    head: bytes
    body: bytes

    def number(self, pattern: bytes, default: int) -> int:
        """Return the number that the pattern finds in the head."""
        found = re.search(pattern, self.head, re.IGNORECASE)
        return int(found[1]) if found else default


class Client:
    """A client with a keep-alive connection, which is made anew where it broke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, content: object = None) -> Answer | None:
        """Return the answer, or None if the connection broke before it was there."""
        try:
            async with asyncio.timeout(LIMIT):
                return await self._ask(request(method, path, content))
        except (OSError, EOFError, TimeoutError):
            self.close()
            return None

    async def _ask(self, sent: bytes) -> Answer:
        reader, writer = await self._connected()
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        answer = Answer(int(head[9:12]), head, b"")
        body = await reader.readexactly(answer.number(rb"\r\ncontent-length: (\d+)", 0))
        return answer._replace(body=body)

    async def leave(self, sent: bytes, after: float) -> None:
        """Send these bytes, and close the connection so many seconds later."""
        _, writer = await self._connected()
        writer.write(sent)
        await asyncio.sleep(after)
        self.close()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


def request(method: str, path: str, content: object) -> bytes:
    """Return the bytes of a request."""
    body = b"" if content is None else msgspec.json.encode(content)
    fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode() + body


# Stands in the place of a status where no answer came.
NO_ANSWER = 0


class Probe(NamedTuple):
    """When an answer of /ready came, and its status."""

    time: float
    status: int


class Traffic:
    """The clients, and the probers of /ready beside them."""

    def __init__(self, port: int, seed: str) -> None:
        self.calls: list[Call] = []
        self.probes: list[Probe] = []
        self.answered = 0
        self.refused = 0
        self.longest = 0.0  # seconds that a caller waited
        self.slowest: Call | None = None  # whose call it was
        self.leaving = 0.0  # the share of the callers that do not wait for their answer
        self.left: list[Call] = []  # the calls whose callers did not wait
        self.over = False
        self._port = port
        self._seed = seed
        self._numbers = count(1)
        self.first_ready = inf  # when /ready said 200 for the first time
        self._posted = -inf  # when a POST was last answered with 2xx
        self._ready = -inf  # when /ready last said 200

    async def run(self) -> None:
        """Go on until `over`, and then until the last request has ended."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(NAMES_AT_ONCE):
                tasks.create_task(self._names())
            for _ in range(PROBERS):
                tasks.create_task(self._probe())

    def served(self, after: float) -> bool:
        """Whether both a POST and /ready have been served since."""
        return min(self._posted, self._ready) >= after

    def told(self, status: int, after: float) -> bool:
        """Whether /ready has told this status since."""
        since = takewhile(lambda probe: probe.time > after, reversed(self.probes))
        return any(probe.status == status for probe in since)

    async def create(self, number: int, name: str) -> None:
        """Create a department of this name as client `number` of a name of its own."""
        target = Key("departments", name)
        client = Client(self._port)
        start = monotonic()
        answer = await client.ask(*http("POST", target))
        client.close()
        self.calls.append(ended(number, "POST", target, start, answer))

    async def _probe(self) -> None:
        while not self.over:
            client = Client(self._port)  # a new connection may go to either worker
            answer = await client.ask("GET", "/ready")
            client.close()
            self.probes.append(Probe(monotonic(), answer.status if answer else NO_ANSWER))
            if answer and answer.status == 200:
                self._ready = self.probes[-1].time
                self.first_ready = min(self.first_ready, self._ready)
            await asyncio.sleep(PROBE)

    async def _names(self) -> None:
        while not self.over:
            name = f"no. {next(self._numbers)}"
            known: dict[str, list[int]] = {"departments": [], "employees": []}
            async with asyncio.TaskGroup() as tasks:
                for number in range(CLIENTS):
                    tasks.create_task(self._calls(number, name, known))

    async def _calls(self, number: int, name: str, known: dict[str, list[int]]) -> None:
        rng = random.Random(f"{self._seed} {name} {number}")
        client = Client(self._port)
        for _ in range(CALLS):
            method, target = draw(rng, name, known)
            start = monotonic()
            leaves = rng.random() < self.leaving
            answer = None
            if leaves:
                sent = request(*http(method, target))
                await client.leave(sent[: rng.choice((len(sent), -1))], rng.uniform(0, 0.005))
            else:
                answer = await client.ask(*http(method, target))
            call = ended(number, method, target, start, answer)
            self.calls.append(call)
            if leaves:
                self.left.append(call)
            if call.end - start > self.longest:
                self.longest, self.slowest = call.end - start, call
            if not call.answered:
                self.refused += 1
                await asyncio.sleep(rng.uniform(0, PAUSE))
                continue
            self.answered += 1
            if method == "POST" and call.status in (200, 201):
                self._posted = call.end
            for row in call.rows:
                if row.id not in known[row.table]:
                    known[row.table].append(row.id)
        client.close()


def ended(
    number: int, method: str, target: Key | tuple[str, int], start: float, answer: Answer | None
) -> Call:
    """Return the call of a client, which ends now, with this answer or none."""
    if answer is None:
        return Call(number, method, target, start, monotonic())
    if answer.status == 503 and b"application/problem+json" in answer.head:  # the service's own
        assert answer.number(rb"\r\nretry-after: (\d+)", 0) > 0
    return Call(
        number,
        method,
        target,
        start,
        monotonic(),
        answer.status,
        rows(target, answer),
        answer.number(rb"\r\nduplicates: (\d+)", 1),
        answer.number(rb"attempts=(\d+)", 1),
    )


def draw(
    rng: random.Random, name: str, known: dict[str, list[int]]
) -> tuple[str, Key | tuple[str, int]]:
    """Return the next call's method and target, as Call has them."""
    verb, what = rng.choice(KINDS).split()
    table = what.rstrip("s") + "s"
    employee = rng.choice(EMPLOYEES)
    if not known[table if verb in ("get", "delete") else "departments"]:
        return "POST", Key("departments", name)
    if verb in ("get", "delete"):
        return verb.upper(), (table, rng.choice(known[table]))
    method = "POST" if verb == "create" else "LIST"
    if table == "departments":
        return method, Key(table, name)
    return method, Key(table, employee, rng.choice(known["departments"]))


def http(method: str, target: Key | tuple[str, int]) -> tuple[str, str, object]:
    """Return method, path and content of the request for a call."""
    if not isinstance(target, Key):
        table, id_ = target
        return method, f"/{table}/{id_}", None
    fields: dict[str, str | int] = {"name": target.name}
    if target.department_id:
        fields["department_id"] = target.department_id
    if method == "POST":
        return method, f"/{target.table}", fields
    return "GET", f"/{target.table}?{urlencode(fields)}", None


def rows(target: Key | tuple[str, int], answer: Answer) -> tuple[Row, ...]:
    """Return the rows of an answer, in its order."""
    if answer.status not in (200, 201):
        return ()
    content = msgspec.json.decode(answer.body)
    items: Iterable[dict[str, str | int]] = content.get("items", [content])
    return tuple(
        msgspec.convert((target[0], item["id"], item["name"], item.get("department_id", 0)), Row)
        for item in items
    )
