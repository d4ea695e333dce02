"""Gets or creates rows. A parent that a merge retired is replaced by the row that it kept."""

from collections.abc import Sequence
from functools import partial
from time import monotonic

import psycopg
from starlette.requests import Request

from db.pool import Pool
from db.refusal import is_taken_id
from db.rows import Outcome, Retired, Values, get_or_create, get_or_create_many, look_up
from db.transaction import Attempts, transact
from web.endpoint import Endpoint
from web.validation import Invalid, prefers_strict, wrong

# How many keys a transaction can look for and lock page by page, by PostgreSQL's default of
# max_pred_locks_per_relation. With more keys it locks the whole index of the lookup, and conflicts
# with every creator.
PAGE_LOCKS = 30

# After this many failed attempts an array begins to keep other writers out. An array with more than
# PAGE_LOCKS keys does so after one, because its next attempt would most likely fail, too.
LOCK_AFTER = 3

Items = Sequence[Values]  # what a request has for each row: the key, and then the attributes


async def found_or_created(
    endpoint: Endpoint,
    pool: Pool,
    items: Items,
    *,
    seconds: float,
    attempts: Attempts,
    lock_after: int | None = None,
) -> list[Outcome]:
    """Get or create the row of each item, all in one transaction.

    After `lock_after` failed attempts each second one keeps other writers out, but not behind a
    pooler. `lock_after` is None for a request of one item that is no array. Raises Invalid, and
    what transact() raises.
    """
    array = lock_after is not None
    deadline = monotonic() + seconds
    name, width = endpoint.name, len(endpoint.resource.key)
    again = True
    while True:
        attempt = partial(
            transact,
            pool,
            seconds=deadline - monotonic(),
            attempts=attempts,
            key_constraint=f"{name}_key",
        )
        try:
            if lock_after is not None:
                many = partial(
                    get_or_create_many,
                    resource=name,
                    width=width,
                    items=items,
                    attempts=attempts,
                    lock_after=lock_after,
                )
                return await attempt(many)
            key, attributes = items[0][:width], items[0][width:]
            one = partial(get_or_create, resource=name, key=key, attributes=attributes)
            return [await attempt(one)]
        except psycopg.errors.UniqueViolation as error:
            if is_taken_id(error) and any(field.name == "id" for field in endpoint.resource.fields):
                taken = (
                    wrong("", "has an id that is another row's")
                    if array
                    else wrong("id", "is another row's")
                )
                raise Invalid([taken]) from None
            raise
        except psycopg.errors.ForeignKeyViolation:
            kept = await _kept_parents(endpoint, pool, items, deadline, array=array)
            if kept != items:
                items = kept
            elif endpoint.parents and again:
                # The parent may have been put back meanwhile. If it fails again, another foreign
                # key is the cause.
                again = False
            else:
                raise  # a foreign key to a table that is no resource


async def _kept_parents(
    endpoint: Endpoint, pool: Pool, items: Items, deadline: float, *, array: bool
) -> Items:
    """Return the items with the kept row in the place of each parent that a merge retired.

    Raises Invalid for parents that do not exist.
    """
    kept = [list(values) for values in items]
    missing = []
    found: dict[tuple[str, str], object] = {}
    for item, values in enumerate(kept):
        for position, field in enumerate(endpoint.resource.fields):
            parent, id_ = endpoint.parents.get(field.name), values[position]
            if parent is None or id_ is None:
                continue
            if (parent, id_) not in found:
                found[parent, id_] = await look_up(pool, parent, id_, deadline - monotonic())
            where = found[parent, id_]
            if where is None:
                missing.append(wrong(field.name, "does not exist", item if array else None))
            elif isinstance(where, Retired):
                values[position] = where.kept
    if missing:
        raise Invalid(missing)
    return kept


def answer_of(request: Request, outcome: Outcome) -> dict[str, object]:
    """Return the answer for one of many keys."""
    row, copies, created = outcome
    refused = copies > 1 and prefers_strict(request)
    status = 412 if refused else 201 if created else 200
    return {"status": status, "row": row, "duplicates": copies}


def count_rows(endpoint: Endpoint, request: Request, answers: list[dict[str, object]]) -> None:
    """Count the rows of such answers. Call it after they were encoded, which may fail."""
    for status in (each["status"] for each in answers):
        if status != 412:
            request.state.metrics.row(endpoint.name, created=status == 201)
