"""The headlines of the questions: what each comes to, where that is cheap to know."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress

import psycopg
from psycopg.rows import tuple_row

from db.answers import Answer, CannotAnswer, JsonText, ask, check_ours
from db.connection import Connection
from db.pool import Pool
from db.questions import Question
from db.session import SET_CONFIG, parameters
from db.transaction import Unavailable, transact

# The list of questions has a headline only where PostgreSQL's planner puts the cost at COST or
# less. The duplicates of 20,000 rows cost 2,200, and take 0.13 s. So a table of more than some
# 80,000 rows is not read whole each time that somebody opens the list. The planner may be wrong,
# and a lock may be in the way, so each headline has HEADLINE_TIMEOUT, and all together have
# HEADLINES seconds.
COST = 10_000.0
HEADLINE_TIMEOUT = "200ms"
HEADLINES = 1.0
PLANNED = b"EXPLAIN (FORMAT JSON)\n"


async def headlines(pool: Pool, listed: Sequence[Question]) -> dict[str, str]:
    """Return the headlines of those questions that have one, by the question's name.

    A headline that costs too much, fails or takes too long is left out. Nothing is raised.
    """
    found: dict[str, str] = {}

    async def work(connection: Connection) -> None:
        limit = parameters({"statement_timeout": HEADLINE_TIMEOUT}, None, transaction=True)
        async with connection.transaction():
            await connection.apply_settings()
            await connection.execute(SET_CONFIG, limit)
            # The duplicates lead the list. They are asked last, since their tables may be locked.
            for question in (each for each in reversed(listed) if each.headline):
                try:
                    # Use a savepoint, because an answer that fails or is cut ends a transaction.
                    async with connection.transaction(force_rollback=True):
                        await check_ours(connection, question)
                        if await _cost(connection, question) <= COST:
                            nothing = [None for _ in question.parameters]
                            answer = await ask(connection, question, nothing)
                            found[question.name] = _headline(question, answer)
                except (CannotAnswer, psycopg.DatabaseError):
                    if connection.closed:
                        raise

    with suppress(CannotAnswer, Unavailable, psycopg.Error):
        await transact(pool, work, seconds=HEADLINES)
    return found


async def _cost(connection: Connection, question: Question) -> float:
    """Return what the planner thinks that the answer costs, in its own unit."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(PLANNED + question.sql.encode(), [None for _ in question.parameters])
        found = await cursor.fetchone()
    assert found is not None
    return float(json.loads(found[0])[0]["Plan"]["Total Cost"])


def _headline(question: Question, answer: Answer) -> str:
    """Return the headline with each {column} replaced by what the column comes to.

    Whole numbers are summed up, other values are listed once each, and {rows} counts the rows.
    """

    def told(placeholder: re.Match[str]) -> str:
        name = placeholder[1]
        if name == "rows":
            return f"{'over ' if answer.cut else ''}{len(answer.rows):,}"
        if name not in answer.columns:
            return placeholder[0]
        position = answer.columns.index(name)
        cells = [cell for row in answer.rows if (cell := row[position]) is not None]
        if cells and all(isinstance(cell, JsonText) and cell.isdecimal() for cell in cells):
            return f"{sum(map(int, cells)):,}"
        return ", ".join(sorted(set(cells))) or "none"

    return re.sub(r"\{(\w+)\}", told, question.headline)
