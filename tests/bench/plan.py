"""The cells of a run: each is a regime, the size of its table, and the sides that take turns."""

from typing import NamedTuple

from tests.bench import keys
from tests.bench.keys import Regime

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


class Cell(NamedTuple):
    """A regime on a table of some size, and the sides whose speed is compared there."""

    name: str
    regime: Regime
    sides: tuple[str, ...]
    rows: int = 100_000
    connections: int = 32


EXIST = Cell("keys mostly exist", keys.exist, (*SERVICES, *FLOORS))
NEW = Cell("keys mostly new", keys.new, (*SERVICES, PGBENCH))
EMPTY = Cell("empty, never analysed", keys.new, SERVICES, rows=0)
INCREASING = Cell("names in increasing order", keys.increasing, SERVICES)
HOT = Cell("one hot key", keys.hot, SERVICES)
NAMESAKES = Cell("each name in 100 departments", keys.namesakes, SERVICES)


def at(connections: int, cell: Cell) -> Cell:
    return Cell(
        f"{cell.name}, {connections} connections", cell.regime, PAIR, connections=connections
    )


def sized(rows: int, cell: Cell) -> Cell:
    return Cell(f"{cell.name}, {rows:,} rows", cell.regime, PAIR, rows)


HOT_512 = at(512, HOT)
SMALL, MEDIUM, LARGE = 10**3, 10**5, 10**7

# The cells of a stage take turns, as do their sides, so that passing noise hits all of them.
STAGES = [
    [EXIST, NEW, EMPTY, INCREASING, HOT, NAMESAKES],
    [at(connections, cell) for cell in (EXIST, HOT) for connections in (8, 128, 512)],
    [sized(rows, cell) for cell in (EXIST, NEW) for rows in (SMALL, MEDIUM, LARGE)],
]

QUICK_SIDES = (THIS, THIS_PLAIN, ASYNCPG, FASTAPI, DJANGO, FLASK)
QUICK_STAGES = [
    [
        EXIST._replace(sides=(*QUICK_SIDES, NO_DATABASE)),
        NEW._replace(sides=QUICK_SIDES),
        EMPTY._replace(sides=(THIS,)),
        INCREASING._replace(sides=(THIS,)),
    ]
]
