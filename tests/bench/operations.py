"""What the requests of a round ask for."""

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

from tests.bench import keys
from tests.bench.databases import Table
from tests.bench.keys import DEPARTMENTS, Key, Regime
from tests.bench.load import Request

PAGE = 20  # rows of a list

# So many rows are made for each second of deletes, which is more than any side can take.
DELETES_A_SECOND = 10_000


class Operation(NamedTuple):
    """A kind of requests, made for a table and a round's mark and seconds."""

    name: str
    requests: Callable[[Table, str, int], Iterator[Request]]
    keys: int = 1  # of a request
    streamed: bool = False  # whether the requests are sent as the lines of one


def body(key: Key) -> bytes:
    department_id, name = key
    return msgspec.json.encode({"department_id": department_id, "name": name})


def post(drawn: Iterable[Key]) -> Iterator[Request]:
    for key in drawn:
        yield Request("POST", "/employees", body(key))


def posts(regime: Regime, *, streamed: bool = False) -> Operation:
    """Return the operation that gets or creates the keys of a regime, one with a request."""
    return Operation(
        regime.__name__,
        lambda table, mark, _: post(regime(table.rows, mark)),
        streamed=streamed,
    )


def arrays(size: int) -> Operation:
    """Return the operation that creates so many new keys with each request."""

    def requests(table: Table, mark: str, _: int) -> Iterator[Request]:
        drawn = keys.new(table.rows, mark)
        while True:
            items = b",".join(map(body, islice(drawn, size)))
            yield Request("POST", "/employees", b"[%b]" % items)

    return Operation("arrays", requests, keys=size)


def _gets(table: Table, _mark: str, _: int) -> Iterator[Request]:
    while True:
        yield Request("GET", f"/employees/{random.randint(1, table.rows)}")


def _lists(table: Table, _mark: str, _: int) -> Iterator[Request]:
    while True:
        query = f"department_id={random.randint(1, DEPARTMENTS)}&limit={PAGE}"
        yield Request("GET", f"/employees?{query}&after={random.randrange(table.rows)}")


def _deletes(table: Table, mark: str, seconds: int) -> Iterator[Request]:
    for id_ in table.add(keys.new(table.rows, mark), DELETES_A_SECOND * seconds):
        yield Request("DELETE", f"/employees/{id_}")


GETS = Operation("gets", _gets)
LISTS = Operation("lists", _lists)
DELETES = Operation("deletes", _deletes)
LINES = posts(keys.new, streamed=True)
