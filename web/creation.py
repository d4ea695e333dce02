"""Gets or creates rows, with the kept row in the place of a parent that a merge retired."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

import psycopg

from db.pool import Pool
from db.refusal import is_taken_id
from db.rows import Retired, Values, look_up
from db.transaction import Attempts, Work, transact
from web.endpoint import Endpoint
from web.validation import Invalid, wrong

T = TypeVar("T")
Items = Sequence[Values]  # what a request has for each row: the key, and then the attributes


async def found_or_created(
    endpoint: Endpoint,
    pool: Pool,
    work: Callable[[Items], Work[T]],
    items: Items,
    *,
    seconds: float,
    attempts: Attempts,
    array: bool,
) -> T:
    """Run `work` for the items, and again where merges have put other parents in their place.

    `array` tells whether the request has an array of items. Raises Invalid, and what transact()
    raises.
    """
    deadline = monotonic() + seconds
    again = True
    while True:
        try:
            return await transact(
                pool,
                work(items),
                seconds=deadline - monotonic(),
                attempts=attempts,
                key_constraint=f"{endpoint.name}_key",
            )
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
                again = False  # it has just been put back; or it is someone's foreign key again
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
