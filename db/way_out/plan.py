"""Plan: shows what merge would do, and where the rows that it would merge differ."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from db.pipeline import Row
from db.resources import RESOURCES, Resource
from db.texts import printable, say
from db.way_out.change import Session, ask, for_each
from db.way_out.duplicates import differences, duplicates, key_text
from db.way_out.references import (
    check,
    check_columns,
    children,
    is_absorbed,
    is_merged_in_turn,
    unindexed,
)

# How many keys the plan shows, and how many rows of each.
EXAMPLES = 5

# How many keys are looked at in one go for rows that would be in the way.
SOME = 1000

# Characters of a value in the plan, enough for a time with its zone. CSV and JSON have all of it.
WIDTH = 25


def plan(
    connection: Session, names: Iterable[str] = RESOURCES, but: list[str] | None = None
) -> None:
    """Print what merge would do; `but` is that of merge(). Raises Refused."""
    names = list(names)
    check_columns(connection, names, but or [])
    for_each(connection, names, lambda name: _tell(connection, name, but))


def _tell(connection: Session, name: str, but: list[str] | None) -> None:
    check(connection, name)
    totals = ask(connection, f"{name}/plan")[0]
    least = "at least " if is_merged_in_turn(RESOURCES[name]) else ""
    # How many keys such rows have in the end is not known, for two of their keys may become one.
    counted = "" if least else f"{totals['keys']:,} keys would keep one row each, "
    referring = totals["referring"]
    say(
        f"{name}: {counted}{least}{totals['removed']:,} rows would go"
        + (f", {least}{referring:,} rows refer to those." if referring else ".")
    )
    if least:
        say("  More may come to share a key as the rows that they refer to are merged in turn.")
    for line in unindexed(connection, name):
        say(f"  {line}")
    for line in _in_the_way(connection, RESOURCES[name]):
        say(f"  {line}")
    keys = list(islice(duplicates(connection, name), EXAMPLES))
    differ: Counter[str] = Counter()
    unequal = set()
    shown: dict[object, list[Row]] = {key["id"]: [] for key in keys}
    for row in differences(connection, name):
        differ[row["column_name"]] += 1
        if row["column_name"] not in (but or []):
            unequal.add(row["id"])
        if row["id"] in shown:
            shown[row["id"]].append(row)
    if differ:
        told = (f"{printable(column)} ({number:,})" for column, number in differ.most_common())
        say(f"  So many keys have rows that differ: {', '.join(told)}.")
    if but is not None and keys:
        say(f"  Of {keys[0]['total']:,} keys, {keys[0]['total'] - len(unequal):,} have equal rows.")
    for key in keys:
        pairs = ask(connection, f"{name}/surplus", [key["id"]])
        going = ", ".join(str(pair["id"]) for pair in pairs[:EXAMPLES])
        more = f" and {len(pairs) - EXAMPLES:,} more" if len(pairs) > EXAMPLES else ""
        say(f"  {key_text(key)}: {key['id']} stays, {going}{more} would go")
        for line in _side_by_side(shown[key["id"]]):
            say(f"    {line}")


def _in_the_way(connection: Session, resource: Resource) -> Iterator[str]:
    """Yield how many rows of each reference a unique index would keep from being pointed."""
    there = [each for each in resource.references if f"{each}/conflicts" in resource.files]
    rows: Counter[str] = Counter()
    keys: dict[str, set[object]] = {each: set() for each in there}
    ids = (key["id"] for key in (duplicates(connection, resource.name) if there else ()))
    while some := list(islice(ids, SOME)):
        pairs = ask(connection, f"{resource.name}/surplus", some)
        going, kept = [pair["id"] for pair in pairs], [pair["kept"] for pair in pairs]
        for each in there:
            for row in ask(connection, f"{resource.name}/{each}/conflicts", going, kept):
                rows[each] += 1
                keys[each].add(row["stays"])
    for each, number in rows.items():
        if is_absorbed(resource, each):
            what = "they go into merged, too"
        elif each in children(resource):
            what = "some keys stay as they are, unless merging its own keys clears the way"
        else:
            what = f"{len(keys[each]):,} keys stay as they are"
        yield f"{number:,} rows of {each} have what a unique index allows once: {what}."


def _side_by_side(rows: list[Row]) -> list[str]:
    """Return the lines of a table that has a column for each row of a key, by `differences`."""
    if not rows:
        return []
    lines = [["", *rows[0]["ids"][: EXAMPLES + 1]]]
    lines += [[row["column_name"], *map(_cell, row["values"][: EXAMPLES + 1])] for row in rows]
    cells = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _cell(value: str | None) -> str:
    if value is None:
        return "NULL"
    return value if len(value) <= WIDTH else f"{value[: WIDTH - 3]}..."
