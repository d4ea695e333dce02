"""Draws the keys that a round asks for."""

import random
from collections.abc import Callable, Iterator
from itertools import count

DEPARTMENTS = 100

Key = tuple[int, str]  # department_id, name

# A regime takes how many rows the table held at first, and the round's mark. No other round has
# the same mark, and later rounds have greater ones.
Regime = Callable[[int, str], Iterator[Key]]


def old_name(number: int) -> str:
    """Return the name that OLD_ROWS gives the row with this number."""
    return f"Employee {number}"


OLD_ROWS = f"""
INSERT INTO employees (department_id, name)
SELECT n % {DEPARTMENTS} + 1, 'Employee ' || n FROM generate_series(0, %s - 1) AS n
"""


def exist(rows: int, _: str) -> Iterator[Key]:
    while True:
        number = random.randrange(rows)
        yield number % DEPARTMENTS + 1, old_name(number)


def new(_: int, mark: str) -> Iterator[Key]:
    while True:
        yield random.randint(1, DEPARTMENTS), f"{random.getrandbits(48):012x} {mark}"


def increasing(_: int, mark: str) -> Iterator[Key]:
    """Yield new keys of one department, which are neighbours in a btree of either order."""
    for number in count():
        yield 1, f"{mark} {number:012}"


def hot(_: int, mark: str) -> Iterator[Key]:
    while True:
        yield 1, f"hot {mark}"


def namesakes(_: int, mark: str) -> Iterator[Key]:
    for number in count():
        yield number % DEPARTMENTS + 1, f"{mark} {number // DEPARTMENTS}"
