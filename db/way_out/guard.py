"""The guard: triggers that refuse every writer a second row for a key, at any isolation level."""

from collections.abc import Iterable

from db.resources import RESOURCES, Resource
from db.texts import say
from db.way_out.change import Refused, Session, ask, change, for_each, sql_of, wait_for_turn
from db.way_out.kind import refuse_relatives

# The files of each action, in order. guard_search_path comes first, because it lets the guard's
# objects be made and dropped in the schema of its table.
GUARD_OFF = ("guard_search_path", "guard_off", "guard_locks_drop")
GUARD_ON = (
    # An old guard is dropped, and a new one made, because a guard must be younger than any row that
    # was written without it.
    *GUARD_OFF,
    "guard_locks",
    "guard",
    "guard_insert",
    "guard_update",
    "guard_always",
)


def refuse_others_objects(connection: Session, resource: Resource) -> None:
    """Raise Refused if dropping the guard would drop a table or a function of somebody else's."""
    others = ask(connection, "way_out/guard_others", resource.table, resource.name)
    if others:
        raise Refused(
            f"{' and '.join(each['description'] for each in others)} would be dropped with the"
            " guard, and is no part of it: rename it first"
        )


def guard_status(connection: Session, resource: Resource) -> str:
    """Return "on", "off", or "incomplete" if a part of the guard is missing or disabled."""
    status: str = ask(connection, "way_out/guard_status", resource.table, resource.name)[0][
        "status"
    ]
    return status


def refuse_guarded(connection: Session, resource: Resource) -> None:
    """Raise Refused if there is a guard, which would refuse the rows that undo puts back."""
    if guard_status(connection, resource) != "off":
        raise Refused("the guard refuses duplicates: run `python -m db guard off` first")


def guard(connection: Session, action: str, names: Iterable[str] = RESOURCES) -> bool:
    """Turn guards on or off, or only ask for their status, and print the status of each.

    `action` is "on", "off" or "status". Returns whether all are as asked for; "status" asks for on.
    Raises Refused, which names the resources whose guard could not be changed.
    """

    well = True

    def turn(name: str) -> None:
        resource = RESOURCES[name]
        if action == "on":
            refuse_relatives(connection, resource)
        refuse_others_objects(connection, resource)
        files = GUARD_ON if action == "on" else GUARD_OFF
        # All in one transaction, so that a guard is there as a whole or not at all.
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
