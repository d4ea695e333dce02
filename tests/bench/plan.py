"""The cells of a run: an operation, the size of its table, and the sides that take turns."""

from typing import NamedTuple

from tests.bench import keys, operations
from tests.bench.operations import Operation, posts

THIS = "onerow, 2 workers"
THIS_SINGLE = "onerow, 1 worker"
THIS_PLAIN = "onerow, PIPELINE=0"
ASYNCPG = "Starlette + asyncpg"
FASTAPI = "FastAPI + SQLAlchemy"
DJANGO = "Django get_or_create"
FLASK = "Flask-SQLAlchemy recipe"
NO_DATABASE = "no database"
PGBENCH = "pgbench, same SQL"

SERVICES = (THIS, THIS_SINGLE, THIS_PLAIN, ASYNCPG, FASTAPI, DJANGO, FLASK)
FLOORS = (NO_DATABASE, PGBENCH)
PAIR = (THIS, ASYNCPG)
WHOLE = (THIS, ASYNCPG, FASTAPI)  # which serve all operations


class Cell(NamedTuple):
    """An operation on a table of some size, and the sides whose speed is compared there."""

    name: str
    operation: Operation
    sides: tuple[str, ...]
    rows: int = 100_000
    connections: int = 32


EXIST = Cell("keys mostly exist", posts(keys.exist), (*SERVICES, *FLOORS))
NEW = Cell("keys mostly new", posts(keys.new), (*SERVICES, PGBENCH))
EMPTY = Cell("empty, never analysed", posts(keys.new), SERVICES, rows=0)
INCREASING = Cell("names in increasing order", posts(keys.increasing), SERVICES)
HOT = Cell("one hot key", posts(keys.hot), SERVICES)
NAMESAKES = Cell("each name in 100 departments", posts(keys.namesakes), SERVICES)
GET = Cell("GET by id", operations.GETS, WHOLE)
LIST = Cell("list of 20", operations.LISTS, WHOLE)
DELETE = Cell("DELETE", operations.DELETES, WHOLE)
ARRAYS = Cell("arrays of 30 new keys", operations.arrays(30), WHOLE, connections=8)
LINES = Cell("lines with new keys, 1 request", operations.LINES, WHOLE, connections=1)
OTHERS = [GET, LIST, DELETE, ARRAYS, LINES]

# The cells whose rates and times are of keys, of which a request has many.
OF_KEYS = {ARRAYS.name, LINES.name}


def at(connections: int, cell: Cell) -> Cell:
    return Cell(
        f"{cell.name}, {connections} connections", cell.operation, PAIR, connections=connections
    )


def sized(rows: int, cell: Cell) -> Cell:
    return Cell(f"{cell.name}, {rows:,} rows", cell.operation, PAIR, rows)


EXIST_8 = at(8, EXIST)
HOT_512 = at(512, HOT)
SMALL, MEDIUM, LARGE = 10**3, 10**5, 10**7

# The cells of a stage take turns, as do their sides, so that passing noise hits all of them.
STAGES = [
    [EXIST, NEW, EMPTY, INCREASING, HOT, NAMESAKES],
    OTHERS,
    [at(connections, cell) for cell in (EXIST, HOT) for connections in (8, 128, 512)],
    [sized(rows, cell) for cell in (EXIST, NEW) for rows in (SMALL, MEDIUM, LARGE)],
]

QUICK_SIDES = (THIS, THIS_PLAIN, ASYNCPG, FASTAPI, DJANGO, FLASK)
QUICK_STAGES = [
    [
        EXIST._replace(sides=(*QUICK_SIDES, NO_DATABASE)),
        NEW._replace(sides=QUICK_SIDES),
        EMPTY._replace(sides=(THIS,)),
        GET._replace(sides=PAIR),
        LINES._replace(sides=PAIR),
    ]
]
