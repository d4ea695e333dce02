"""The guard: triggers by which no writer, whatever its isolation level, adds to the duplicates."""

from collections.abc import Iterable

from db.resources import RESOURCES, Resource
from db.texts import say
from db.way_out.change import Connection, Refused, ask, change, for_each, sql_of, wait_for_turn
from db.way_out.kind import refuse_relatives

# In order. The search_path first: the guard's objects belong beside its table, wherever that is.
GUARD_OFF = ("guard_search_path", "guard_off", "guard_locks_drop")
GUARD_ON = (
    *GUARD_OFF,  # a new guard each time: it must be younger than any row written without it
    "guard_locks",
    "guard",
    "guard_insert",
    "guard_update",
    "guard_always",
)


def refuse_others_objects(connection: Connection, resource: Resource) -> None:
    """Raise Refused if what to drop a guard would drop is not a guard's."""
    others = ask(connection, "way_out/guard_others", resource.table, resource.name)
    if others:
        raise Refused(
            f"{' and '.join(each['description'] for each in others)} would be dropped with the"
            " guard, and is none of it: rename it first"
        )


def guard_status(connection: Connection, resource: Resource) -> str:
    """Return "on", "off" or "incomplete"."""
    status: str = ask(connection, "way_out/guard_status", resource.table, resource.name)[0][
        "status"
    ]
    return status


def refuse_guarded(connection: Connection, resource: Resource) -> None:
    """Raise Refused if the guard would refuse the rows that undo puts back."""
    if guard_status(connection, resource) != "off":
        raise Refused("the guard refuses duplicates: run `python -m db guard off` first")


def guard(connection: Connection, action: str, names: Iterable[str] = RESOURCES) -> bool:
    """Turn guards on or off, or neither, and print how they are; return whether that is well.

    Raises Refused, which names the resources whose guard is as it was.
    """

    well = True

    def turn(name: str) -> None:
        resource = RESOURCES[name]
        if action == "on":
            refuse_relatives(connection, resource)
        refuse_others_objects(connection, resource)
        files = GUARD_ON if action == "on" else GUARD_OFF
        # In one transaction: a guard is there as a whole or not at all.
        change(connection, [resource.table], [sql_of(f"{name}/{file}") for file in files])

    def tell(name: str) -> None:
        nonlocal well
        status = guard_status(connection, RESOURCES[name])
        say(f"{name}: the guard is {status}.")
        well &= status == ("off" if action == "off" else "on")

    try:
        if action != "status":
            wait_for_turn(connection)
            for_each(connection, names, turn)
    finally:
        for_each(connection, names, tell)
    return well
