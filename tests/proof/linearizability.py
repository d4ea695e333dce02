"""Does some sequential order of the calls explain every answer and, at the end, the tables?

The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993): take any call that
started before every other outstanding call ended, let it act on the model, go on; step back where
no answer fits. Lowe's memory of (calls taken, state) keeps it from trying twice what it has seen
("Testing for linearizability", 2017). Each department's name is an object of its own, with all that
hangs on it, and a history is linearizable if it is so for every object (Herlihy and Wing,
"Linearizability", 1990), so each is searched alone.

A call without an answer, or with 503, may have acted at any time from its start on, or never. Where
a connection to the database breaks in COMMIT, a client may be told 200 for its own row, or 404 for
its own deletion. The checker rejects that, unless `broken_commits` allows for it: then each earlier
attempt is a call without an answer, which acted before the one that was answered, or never. The
name of a department is known from the answers that show its row, so a call about a department that
no answer shows cannot be placed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import NamedTuple


class Row(NamedTuple):
    """A row of either table, with the columns that an answer shows."""

    table: str
    id: int
    name: str
    department_id: int = 0  # 0 for a department


class Key(NamedTuple):
    """The key that a POST asks for."""

    table: str
    name: str
    department_id: int = 0

    def __str__(self) -> str:
        return _text([self])


State = frozenset[Row]

# The table, in a state, of an employee that a merge has retired. In the place of a department it
# has the id of the row that was kept, as a negative number.
RETIRED = "retired"


@dataclass(frozen=True)
class Call:
    """One call and its answer.

    `method` and `target` are "POST" with a Key, "GET" or "DELETE" with (table, id), "LIST" with a
    Key whose name is empty where the employees of a department were not filtered by it, "MERGE"
    with None for a merge of the employees of one key, and "TABLE" with None for the final look at
    the tables themselves, when all calls are over. The row of a 308 is the one that it leads to.
    """

    client: int
    method: str
    target: Key | tuple[str, int] | None
    start: float  # seconds, of one clock for all calls
    end: float = inf
    status: int | None = None  # None where no answer came
    rows: tuple[Row, ...] = ()  # the rows of the answer, in its order
    copies: int = 1  # what the header Duplicates says
    attempts: int = 1
    strict: bool = False  # whether it was sent with Prefer: handling=strict

    @property
    def answered(self) -> bool:
        return self.status not in UNKNOWN

    @property
    def begun(self) -> bool:
        """Whether it may have done anything. It has not if it was refused before an attempt."""
        return self.status != 503 or self.attempts > 0


# These statuses say nothing of what was done; 502 and 504 are a proxy's that had no answer either.
UNKNOWN = (None, 502, 503, 504)


class NotLinearizable(AssertionError):
    """No sequential order explains this history."""


@dataclass
class Object:
    """The calls on one department name, and the rows of it before the first of them."""

    calls: list[Call] = field(default_factory=list)
    before: set[Row] = field(default_factory=set)


def check(
    calls: Iterable[Call],
    before: Iterable[Row],
    *,
    broken_commits: Sequence[tuple[float, float]] = (),
) -> None:
    """Raise NotLinearizable, with the history, unless some order explains it.

    `broken_commits` has the times, each from and to, in which connections may have broken while
    they committed.
    """
    begun = [call for call in calls if call.begun]
    for name, part in _objects(begun, set(before)).items():
        if not _explained(part, broken_commits):
            raise NotLinearizable(
                f"no order of these calls explains the answers about department {name!r}:\n"
                + history(part.calls, part.before)
            )


def history(calls: Iterable[Call], before: Iterable[Row] = ()) -> str:
    """Return a line for each call, by their start; times are milliseconds from the first one's."""
    calls = sorted(calls, key=lambda call: call.start)
    lines = [f"  before: {_text([row])}" for row in sorted(before)]
    zero = calls[0].start if calls else 0
    for call in calls:
        end = f"{(call.end - zero) * 1000:8.2f}" if call.end < inf else "     ..."
        asked = call.target if call.target is not None else ""
        text = _text([asked]) if isinstance(asked, Key) else " ".join(map(str, asked))
        notes = [f"copies={call.copies}"] * (call.copies > 1)
        notes += [f"attempts={call.attempts}"] * (call.attempts > 1) + ["strict"] * call.strict
        answer = " ".join([str(call.status or "no answer"), _text(call.rows), *notes])
        lines.append(
            f"  {(call.start - zero) * 1000:8.2f} -{end} client {call.client}:"
            f" {call.method} {text} -> {answer}"
        )
    return "\n".join(lines)


def _text(rows: Iterable[Row | Key | str]) -> str:
    words = []
    for row in rows:
        if isinstance(row, str):
            words.append(row)
            continue
        what = row.table[:-1]
        where = f" in {row.department_id}" if row.department_id else ""
        number = f" {row.id}" if isinstance(row, Row) else ""
        words.append(f"{what}{number} {row.name!r}{where}")
    return ", ".join(words)


def _objects(calls: list[Call], before: set[Row]) -> dict[str, Object]:
    """Split the calls by department name; the final look at the tables is a call on each object."""
    seen = before | {row for call in calls for row in call.rows}
    departments = {row.id: row.name for row in seen if row.table == "departments"}
    owner = {("departments", id_): name for id_, name in departments.items()}
    for row in seen:
        if row.table == "employees":
            owner["employees", row.id] = departments.get(row.department_id, "?")
    asked = {call.target.name for call in calls if isinstance(call.target, Key)
             and _names_department(call.target)}  # fmt: skip
    names = {*owner.values(), *asked, "?"}
    objects = {name: Object() for name in sorted(names)}
    for row in before:
        objects[owner[row.table, row.id]].before.add(row)
    for call in calls:
        if not call.answered and call.method in ("GET", "LIST"):
            continue  # a read without an answer says nothing
        touched = _touched(call, departments, owner, objects)
        if foreign := [row for row in call.rows if owner[row.table, row.id] not in touched]:
            raise NotLinearizable(f"not asked for: {_text(foreign)}\n{history([call])}")
        for name in touched:
            rows = tuple(row for row in call.rows if owner[row.table, row.id] == name)
            objects[name].calls.append(replace(call, rows=rows))
    return objects


def _names_department(key: Key) -> bool:
    return key.table == "departments" and key.name != ""


def _touched(
    call: Call,
    departments: dict[int, str],
    owner: dict[tuple[str, int], str],
    objects: dict[str, Object],
) -> list[str]:
    target = call.target
    if target is None:
        return list(objects)
    if not isinstance(target, Key):
        return [owner.get(target, "?")]
    if target.department_id:
        return [departments.get(target.department_id, "?")]
    assert _names_department(target), "a list of everything is on no single object"
    return [target.name]


def _explained(part: Object, broken_commits: Sequence[tuple[float, float]]) -> bool:
    calls: list[Call] = []
    spent: list[int] = []  # for each call, as bits, the calls after which it can act no more
    for call in sorted(part.calls, key=lambda call: call.start):
        broken = any(call.start < end and call.end > start for start, end in broken_commits)
        earlier = _earlier_attempts(call) if broken else []
        last = 1 << len(calls) + len(earlier)
        spent += [1 << len(calls) + i | last for i in range(len(earlier) + 1)]
        calls += [*earlier, call]
    ends = [call.end if call.answered else inf for call in calls]
    must = sum(1 << i for i, call in enumerate(calls) if call.answered)
    fresh = _unaccounted(part)
    start = (0, frozenset(part.before))
    stack, visited = [start], {start}
    while stack:
        taken, state = stack.pop()
        if taken & must == must:
            return True
        # Any call that started before the first of the outstanding calls ended may be next.
        first_end = min(end for i, end in enumerate(ends) if not taken >> i & 1)
        for i, call in enumerate(calls):
            if call.start > first_end:
                break
            if taken & spent[i]:
                continue
            for after in step(call, state, fresh):
                if after == state and not call.answered:
                    continue  # the same as if it had never acted
                node = (taken | 1 << i, after)
                if node not in visited:
                    visited.add(node)
                    stack.append(node)
    return False


def _earlier_attempts(call: Call) -> list[Call]:
    """Return the attempts before the last, none of which was answered."""
    return [replace(call, status=None, end=inf, rows=(), copies=1)] * (call.attempts - 1)


def _unaccounted(part: Object) -> dict[Key, set[int]]:
    """Return for each key the ids in the answers that no answered call is known to have made."""
    made = {row for call in part.calls if call.status == 201 for row in call.rows} | part.before
    found: dict[Key, set[int]] = {}
    for call in part.calls:
        for row in call.rows:
            if row not in made:
                found.setdefault(Key(row.table, row.name, row.department_id), set()).add(row.id)
    return found


def step(call: Call, state: State, fresh: dict[Key, set[int]]) -> Iterator[State]:
    """Yield each state in which the call, acting now, may leave the model, if its answer fits."""
    target = call.target
    if call.method == "POST":
        assert isinstance(target, Key)
        yield from _post(call, target, state, fresh)
    elif call.method == "DELETE":
        assert isinstance(target, tuple)
        gone = {row for row in state if (row.table, row.id) == target}
        if target[0] == "departments" and gone:
            gone |= {row for row in state if row.department_id == target[1]}
        if not call.answered or call.status == (204 if gone else 404):
            yield state - gone
    elif not call.answered:
        yield state
    elif call.method == "MERGE":
        yield _merged(state)
    elif call.method == "GET":
        assert isinstance(target, tuple)
        rows = tuple(row for row in state if (row.table, row.id) == target)
        kept = [-row.department_id for row in state if (row.table, row.id) == (RETIRED, target[1])]
        if kept:
            fits = call.status == 308 and [row.id for row in call.rows] == kept
        else:
            fits = call.status == (200 if rows else 404) and call.rows == rows
        if fits:
            yield state
    elif call.method == "LIST":
        assert isinstance(target, Key)
        wanted = [
            row
            for row in state
            if row.table == target.table
            and target.name in ("", row.name)
            and target.department_id in (0, row.department_id)
        ]
        if call.status == 200 and call.rows == tuple(sorted(wanted, key=lambda row: row.id)):
            yield state
    elif call.method == "TABLE" and set(call.rows) == {r for r in state if r.table != RETIRED}:
        yield state


def _merged(state: State) -> State:
    """Return the state in which each key of an employee has its first row alone."""
    first: dict[Key, int] = {}
    after = set()
    for row in sorted(state):
        kept = first.setdefault(Key(row.table, row.name, row.department_id), row.id)
        merged = row.table == "employees" and kept != row.id
        after.add(Row(RETIRED, row.id, row.name, -kept) if merged else row)
    return frozenset(after)


def _post(call: Call, key: Key, state: State, fresh: dict[Key, set[int]]) -> Iterator[State]:
    same = sorted(row.id for row in state if Key(row.table, row.name, row.department_id) == key)
    parents = {row.id for row in state if row.table == "departments"}
    orphan = key.table == "employees" and key.department_id not in parents
    if not call.answered:
        if same or orphan:
            yield state
            return
        unseen = min((row.id for row in state), default=0)  # no answer shows this row, or its id
        for id_ in (*fresh.get(key, ()), min(unseen, 0) - 1):
            yield state | {Row(key.table, id_, key.name, key.department_id)}
    elif orphan:
        if call.status == 422:
            yield state
    elif same:
        refused = call.strict and len(same) > 1
        first = Row(key.table, same[0], key.name, key.department_id)
        expected = (412, ()) if refused else (200, (first,))
        if (call.status, call.rows) == expected and call.copies == len(same):
            yield state
    elif call.status == 201 and len(call.rows) == 1:
        row = call.rows[0]
        used = any((row.table, row.id) == (other.table, other.id) for other in state)
        if Key(row.table, row.name, row.department_id) == key and call.copies == 1 and not used:
            yield state | {row}
