"""The checker accepts good histories and rejects bad ones, all of them written by hand."""

from math import inf

import pytest

from tests.proof.linearizability import Call, Key, NotLinearizable, Row, check, history

D = Row("departments", 1, "Research")
ADA = Row("employees", 1, "Ada", 1)
ADA2 = Row("employees", 2, "Ada", 1)
BOB = Row("employees", 3, "Bob", 1)
DEPARTMENT = Key("departments", "Research")
KEY = Key("employees", "Ada", 1)


def post(
    start: float, end: float, status: int | None, *rows: Row, key: Key = KEY, **more: object
) -> Call:
    return Call(0, "POST", key, start, end, status, rows, **more)  # type: ignore[arg-type]


def get(start: float, end: float, status: int, *rows: Row, of: Row = ADA) -> Call:
    return Call(0, "GET", (of.table, of.id), start, end, status, rows)


def delete(start: float, end: float, status: int | None, of: Row = ADA, attempts: int = 1) -> Call:
    return Call(0, "DELETE", (of.table, of.id), start, end, status, attempts=attempts)


def listed(start: float, end: float, *rows: Row) -> Call:
    return Call(0, "LIST", Key("employees", "", 1), start, end, 200, rows)


def merge(start: float, end: float) -> Call:
    return Call(0, "MERGE", None, start, end, 200)


def table(*rows: Row) -> Call:
    return Call(0, "TABLE", None, 100, 101, 200, rows)


NO_ANSWER = float("inf")

GOOD = {
    "nothing happened": ([], [D, ADA]),
    "created, then found": ([post(0, 1, 201, ADA), post(2, 3, 200, ADA), table(D, ADA)], [D]),
    "found while being created": (
        [post(0, 5, 201, ADA), post(1, 2, 200, ADA), get(3, 4, 200, ADA)],
        [D],
    ),
    "not yet there, though its creation had begun": (
        [post(0, 5, 201, ADA), get(1, 2, 404), get(3, 4, 200, ADA)],
        [D],
    ),
    "deleted in between": (
        [post(0, 1, 201, ADA), delete(2, 3, 204), post(4, 5, 201, ADA2), table(D, ADA2)],
        [D],
    ),
    "two deletes at once, one wins": ([delete(0, 2, 204), delete(1, 3, 404)], [D, ADA]),
    "a department takes its employees": (
        [delete(0, 1, 204, D), get(2, 3, 404), post(2, 3, 422), table()],
        [D, ADA],
    ),
    "created just before its department went": (
        [post(0, 5, 201, ADA), delete(1, 4, 204, D), table()],
        [D],
    ),
    "legacy duplicates": (
        [
            post(0, 1, 200, ADA, copies=2),
            post(2, 3, 412, copies=2, strict=True),
            table(D, ADA, ADA2),
        ],
        [D, ADA, ADA2],
    ),
    "one of two duplicates deleted": (
        [delete(0, 1, 204, ADA), post(2, 3, 200, ADA2), table(D, ADA2)],
        [D, ADA, ADA2],
    ),
    "a list in the middle": (
        [post(0, 9, 201, ADA), listed(1, 2), listed(3, 4, ADA), table(D, ADA)],
        [D],
    ),
    "no answer, and it happened": (
        [post(0, NO_ANSWER, None), get(5, 6, 200, ADA), table(D, ADA)],
        [D],
    ),
    "no answer, and it never happened": ([post(0, NO_ANSWER, None), table(D)], [D]),
    "503, and it happened later than the answer": (
        [post(0, 1, 503), listed(2, 3), listed(4, 5, ADA), table(D, ADA)],
        [D],
    ),
    "no answer to a delete, and it happened": ([delete(0, 1, None), get(2, 3, 404)], [D, ADA]),
    "a merge leads from the second row to the first": (
        [
            merge(0, 1),
            get(2, 3, 308, ADA, of=ADA2),
            post(2, 3, 200, ADA),
            delete(2, 3, 404, ADA2),
            table(D, ADA),
        ],
        [D, ADA, ADA2],
    ),
    "the first row was deleted before the merge": (
        [delete(0, 2, 204), merge(1, 3), post(4, 5, 200, ADA2), table(D, ADA2)],
        [D, ADA, ADA2],
    ),
    "two departments, each in its own order": (
        [
            post(0, 1, 201, D, key=DEPARTMENT),
            post(0, 1, 201, Row("departments", 2, "Sales"), key=Key("departments", "Sales")),
        ],
        [],
    ),
}

BAD = {
    "a row that a merge had taken": (
        [merge(0, 1), post(2, 3, 200, ADA2)],
        [D, ADA, ADA2],
    ),
    "a merge into a row that was deleted before": (
        [delete(0, 1, 204), post(2, 3, 200, ADA2), merge(4, 5), table(D)],
        [D, ADA, ADA2],
    ),
    "a row that a merge has taken without a trace": (
        [merge(0, 1), get(2, 3, 404, of=ADA2)],
        [D, ADA, ADA2],
    ),
    "a redirect to a row that is not the kept one": (
        [merge(0, 1), get(2, 3, 308, BOB, of=ADA2)],
        [D, ADA, ADA2, BOB],
    ),
    "a second row": ([post(0, 2, 201, ADA), post(1, 3, 201, ADA2)], [D]),
    "a second row that only the table shows": (
        [post(0, 2, 201, ADA), table(D, ADA, ADA2)],
        [D],
    ),
    "an acknowledged row is missing": ([post(0, 1, 201, ADA), table(D)], [D]),
    "created and not found": ([post(0, 1, 201, ADA), get(2, 3, 404)], [D]),
    "created, but it was there": ([post(0, 1, 201, ADA2)], [D, ADA]),
    "found, but nobody made it": ([post(0, 1, 200, ADA)], [D]),
    "201 for a row that someone else made": ([post(0, 2, 201, ADA), post(1, 3, 201, ADA)], [D]),
    "another key's row": ([post(0, 1, 200, BOB)], [D, BOB]),
    "another department's row": ([post(0, 1, 200, Row("employees", 9, "Ada", 2))], [D, ADA]),
    "not the lowest id": ([post(0, 1, 200, ADA2, copies=2)], [D, ADA, ADA2]),
    "wrong number of duplicates": ([post(0, 1, 200, ADA, copies=3)], [D, ADA, ADA2]),
    "strict, and answered all the same": (
        [post(0, 1, 200, ADA, copies=2, strict=True)],
        [D, ADA, ADA2],
    ),
    "found after its deletion": ([delete(0, 1, 204), get(2, 3, 200, ADA)], [D, ADA]),
    "deleted twice": ([delete(0, 2, 204), delete(1, 3, 204)], [D, ADA]),
    "an orphan": ([delete(0, 1, 204, D), post(2, 3, 201, ADA)], [D]),
    "an employee that outlived its department": ([delete(0, 1, 204, D), table(ADA)], [D, ADA]),
    "422 though the department is there": ([post(0, 1, 422)], [D]),
    "seen, then not yet there": (
        [post(0, 9, 201, ADA), listed(1, 2, ADA), listed(3, 4)],
        [D],
    ),
    "a list out of order": ([listed(0, 1, BOB, ADA)], [D, ADA, BOB]),
    "two unanswered posts make two rows": (
        [post(0, 1, None), post(0, 1, None), table(D, ADA, ADA2)],
        [D],
    ),
    "an unanswered post acted before it began": (
        [listed(0, 1, ADA), post(2, NO_ANSWER, None)],
        [D],
    ),
    "500": ([post(0, 1, 500)], [D]),
    "201 with an id that is taken": ([post(0, 1, 201, Row("employees", 3, "Ada", 1))], [D, BOB]),
    "201 and a number of duplicates": ([post(0, 1, 201, ADA, copies=2)], [D]),
    "a list of one department shows another": (
        [Call(0, "LIST", DEPARTMENT, 0, 1, 200, (D, Row("departments", 2, "Sales")))],
        [D, Row("departments", 2, "Sales")],
    ),
    "a list of one department shows another's employees": (
        [listed(0, 1, ADA, Row("employees", 7, "Ada", 2))],
        [D, ADA, Row("departments", 2, "Sales"), Row("employees", 7, "Ada", 2)],
    ),
}  # fmt: skip

# Only broken commits explain these.
GOOD_IF_BROKEN = {
    "200 for its own row": ([post(0, 1, 200, ADA, attempts=2), table(D, ADA)], [D]),
    "200 for its own row, and that of the only other creator": (
        [post(0, 5, 200, ADA, attempts=3), post(1, 4, 200, ADA), table(D, ADA)],
        [D],
    ),
    "404 for its own deletion": ([delete(0, 1, 404, attempts=2), table(D)], [D, ADA]),
    "404 for its own deletion of a department": (
        [delete(0, 1, 404, D, attempts=2), table()],
        [D, ADA],
    ),
    "made, deleted by another, and made again": (
        [
            post(0, 9, 201, ADA2, attempts=2),
            get(1, 2, 200, ADA),
            delete(3, 4, 204, ADA),
            table(D, ADA2),
        ],
        [D],
    ),
    "made, gone with its department, and refused": (
        [post(0, 9, 422, attempts=2), get(1, 2, 200, ADA), delete(3, 4, 204, D), table()],
        [D],
    ),
}

BAD_EVEN_SO = {
    "200 for its own row at the first attempt": ([post(0, 1, 200, ADA), table(D, ADA)], [D]),
    "200 for a row that is not there": ([post(0, 1, 200, ADA, attempts=2), table(D)], [D]),
    "201 for a row that is not there": ([post(0, 1, 201, ADA, attempts=2), table(D)], [D]),
    "a second row by the second attempt": (
        [post(0, 1, 201, ADA2, attempts=2), table(D, ADA, ADA2)],
        [D],
    ),
    "404, and it is still there": (
        [delete(0, 1, 404, attempts=2), table(D, ADA)],
        [D, ADA],
    ),
    "404 for a deletion that comes later": (
        [delete(0, 1, 404, attempts=2), get(2, 3, 200, ADA), table(D)],
        [D, ADA],
    ),
    "404 for its own deletion at the first attempt": (
        [delete(0, 1, 404), table(D)],
        [D, ADA],
    ),
    "204, and it is still there": ([delete(0, 1, 204), table(D, ADA)], [D, ADA]),
    "an earlier attempt that comes later": (
        [
            post(0, 1, 201, ADA, attempts=2),
            delete(2, 3, 204, ADA),
            get(4, 5, 200, ADA2),
            table(D, ADA2),
        ],
        [D],
    ),
    "two that were told 201": (
        [post(0, 5, 201, ADA, attempts=2), post(0, 5, 201, ADA, attempts=2), table(D, ADA)],
        [D],
    ),
    "two ids for one key": (
        [post(0, 5, 200, ADA, attempts=2), post(0, 5, 200, ADA2, attempts=2)],
        [D],
    ),
}


ALWAYS = [(-inf, inf)]


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_are_accepted(name: str) -> None:
    calls, before = GOOD[name]
    check(calls, before)


@pytest.mark.parametrize("name", BAD)
def test_bad_histories_are_rejected(name: str) -> None:
    calls, before = BAD[name]
    with pytest.raises(NotLinearizable):
        check(calls, before)


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_are_accepted_with_broken_commits_too(name: str) -> None:
    calls, before = GOOD[name]
    check(calls, before, broken_commits=ALWAYS)


@pytest.mark.parametrize("name", BAD)
def test_bad_histories_are_rejected_with_broken_commits_too(name: str) -> None:
    calls, before = BAD[name]
    with pytest.raises(NotLinearizable):
        check(calls, before, broken_commits=ALWAYS)


@pytest.mark.parametrize("name", GOOD_IF_BROKEN)
def test_what_broken_commits_explain_is_accepted_for_them_only(name: str) -> None:
    calls, before = GOOD_IF_BROKEN[name]
    with pytest.raises(NotLinearizable):
        check(calls, before)
    check(calls, before, broken_commits=ALWAYS)
    with pytest.raises(NotLinearizable):
        check(calls, before, broken_commits=[(-2, -1), (1000, inf)])


@pytest.mark.parametrize("name", BAD_EVEN_SO)
def test_what_broken_commits_do_not_explain_is_rejected(name: str) -> None:
    calls, before = BAD_EVEN_SO[name]
    with pytest.raises(NotLinearizable):
        check(calls, before, broken_commits=ALWAYS)


def test_a_history_prints_a_line_a_call_in_time_order() -> None:
    calls = [post(2, 3, 200, ADA, copies=2), get(0, 1, 404), post(4, NO_ANSWER, None)]
    assert history(calls, [D]).splitlines() == [
        "  before: department 1 'Research'",
        "      0.00 - 1000.00 client 0: GET employees 1 -> 404 ",
        "   2000.00 - 3000.00 client 0: POST employee 'Ada' in 1"
        " -> 200 employee 1 'Ada' in 1 copies=2",
        "   4000.00 -     ... client 0: POST employee 'Ada' in 1 -> no answer ",
    ]
