"""Does this server keep the guarantee? Two requests meet on it in every order of their messages."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import combinations_with_replacement
from time import monotonic
from typing import Any, LiteralString

import psycopg

from db.doctor.check import ADVICE, FAIL, OK, Check, print_all
from db.doctor.readiness import version_fault
from db.engine import ENGINES, POSTGRESQL, Engine, discover
from db.prove.orders import explore
from db.prove.own_tables import in_place, own_schema
from db.prove.scene import KINDS, NONE, ONE, Scene, scene
from db.prove.schedule import Run
from db.settings import Settings, without_secrets

# Seconds for all ways together. A server on the same machine needs a quarter of them.
SECONDS = 120.0

# How the service sends its statements, by the variables that say so.
WAYS: dict[str, dict[str, Any]] = {
    "PIPELINE=1": {"PIPELINE": "1", "POOLER": "0"},
    "PIPELINE=0": {"PIPELINE": "0", "POOLER": "0"},
    "POOLER=1": {"PIPELINE": "1", "POOLER": "1"},
}
BEHIND_A_POOLER = {
    "POOLER=1": WAYS["POOLER=1"],
    "POOLER=1 and PIPELINE=0": {"PIPELINE": "0", "POOLER": "1"},
}


def prove(url: str, settings: Settings) -> bool:
    """Print a line for the server and one for each way; return whether no order broke the promise.

    The tables are in a schema of their own, which is dropped at the end. Raises Refused, or
    psycopg.Error.
    """
    return print_all(_checks(url, settings))


def _checks(url: str, settings: Settings) -> Iterator[Check]:
    engine = ENGINES[settings.engine or discover(url)]
    tables: AbstractContextManager[str]
    tables = in_place(url, engine) if settings.pooler else own_schema(url, engine, "prove")
    with tables as database:
        yield _server(database, engine)
        ways = BEHIND_A_POOLER if settings.pooler else WAYS
        begun = monotonic()
        for number, (name, way) in enumerate(ways.items(), 1):
            deadline = begun + SECONDS * number / len(ways)
            yield asyncio.run(_every_pair(database, name, way, deadline))


def _server(database: str, engine: Engine) -> Check:
    where = without_secrets(database)
    with psycopg.connect(database) as connection:
        number = connection.info.server_version
    if engine is not POSTGRESQL:
        return Check(OK, "server", f"{engine.name}, {where}")
    version = f"PostgreSQL {number // 10_000}.{number % 10_000}"
    if fault := version_fault(number):
        return Check(ADVICE, "server", f"{version} {fault}")
    return Check(OK, "server", f"{version}, {where}")


async def _every_pair(database: str, name: str, way: dict[str, Any], deadline: float) -> Check:
    """Let each pair of requests meet in each order, until `deadline`, of monotonic()."""
    orders = pairs = 0
    before = {0: NONE, 1: ONE}
    every = [(kinds, n) for kinds in combinations_with_replacement(KINDS, 2) for n in before]
    async with scene(database, **way) as there:
        for kinds, copies in every:
            met = f"{' and '.join(kinds)}, where the key had {copies} rows"
            try:
                async for run in explore(partial(_start, there, kinds, before[copies])):
                    orders += 1
                    if wrong := _wrong(run, kinds, await there.rows()):
                        schedule = " ".join(map(str, run.turns))
                        return Check(FAIL, name, f"{wrong} after {met}, in the order {schedule}")
                    if monotonic() > deadline:
                        done = f"{pairs} of {len(every)} pairs of requests, in {orders} orders"
                        return Check(ADVICE, name, f"{done}, each with one row; the time is up")
            except OSError as error:  # TimeoutError, too: a request, or a step, had no answer
                return Check(FAIL, name, f"{type(error).__name__} after {met}")
            pairs += 1
    return Check(OK, name, f"{pairs} pairs of requests, in {orders} orders, each with one row")


async def _start(there: Scene, kinds: tuple[str, ...], rows: LiteralString) -> Run:
    return await there.start(rows, [there.request(KINDS[kind]) for kind in kinds])


def _wrong(run: Run, kinds: tuple[str, ...], rows: list[tuple[str, int, str, int]]) -> str:
    """Return which part of the promise is broken, or ""."""
    keys = [(table, name, department) for table, _, name, department in rows]
    if twice := [key for key in keys if keys.count(key) > 1]:
        return f"{twice[0][0]} has {keys.count(twice[0])} rows for {twice[0][1]!r}"
    answers = [session.task.result() for session in run.sessions if session.task]
    if failed := [each.status for each in answers if each.status >= 500]:
        return f"a request was answered {failed[0]}"
    told = [item for each in answers for item in each.items()]
    if [status for status, row in told if row["name"] == "Ada"].count(201) > 1:
        return "two requests were told that they had created one key"
    if not any(kind.startswith("delete") for kind in kinds):
        there = {id_ for table, id_, _, _ in rows if table == "employees"}
        if lost := [row["id"] for _, row in told if row["id"] not in there]:
            return f"a request was told of a row that is not there, {lost[0]},"
    return ""
