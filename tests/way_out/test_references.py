"""Rows that refer to merged rows follow them, whatever unique indexes and ON DELETE actions say."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.adopting import commands
from tests.support.service import sql, until

PERSONS = """
CREATE TABLE persons (id bigint PRIMARY KEY, email text NOT NULL, phone text);
CREATE INDEX ON persons (phone);
INSERT INTO persons VALUES
    (1, 'ada', '1'), (2, 'Ada', '2'), (3, 'ADA', '3'), (4, 'al', '4'), (5, 'Al', NULL);
"""

Run = Callable[..., str]


@pytest.fixture
def persons(new_database: Callable[[], str], tmp_path: Path) -> Run:
    """A function that adopts the persons with some options, and runs commands on them."""
    database = new_database()
    sql(database, PERSONS)

    return commands(database, tmp_path, "persons", "--key", "lower(email)")


def rows(database: str, table: str) -> list[tuple[Any, ...]]:
    return sql(database, f"SELECT * FROM {table} ORDER BY 1, 2, 3")


MEMBERS = """
CREATE TABLE members (
    person bigint REFERENCES persons ON DELETE CASCADE, team text, name text NOT NULL,
    since timestamptz, loud text GENERATED ALWAYS AS (upper(team)) STORED,
    PRIMARY KEY (person, team));
CREATE UNIQUE INDEX first_names ON members (lower(name), person) WHERE since IS NOT NULL;
INSERT INTO members VALUES
    (1, 'x', 'a', '2026-01-01'), (2, 'x', 'b', '2026-01-02'), (2, 'y', 'c', '2026-01-03'),
    (3, 'y', 'd', '2026-01-04'), (3, 'z', 'A', '2026-01-05'), (3, 'w', 'A', NULL),
    (4, 'x', 'a', NULL), (5, 'y', 'a', NULL);
"""


def test_members_of_one_team_are_found_before_and_stay(persons: Run) -> None:
    database = persons()
    sql(database, MEMBERS)
    persons("adopt")
    before = rows(database, "members")
    said = persons("merge")
    assert "3 rows of members.person have what a unique index allows once: 1 keys stay" in said
    said = persons("merge", "--apply", ends=1)
    assert said == (
        "persons: 1 rows merged.\n"
        "persons 1 stays as it is: two rows of members.person would share what a unique index"
        " allows once\n"
    )
    assert rows(database, "members")[:6] == before[:6]
    assert sql(database, "SELECT team FROM members WHERE person = 4") == [("x",), ("y",)]


@pytest.mark.parametrize("key", ["PRIMARY KEY", "UNIQUE"])
def test_members_of_one_team_are_absorbed_and_come_back(persons: Run, key: str) -> None:
    database = persons()
    members = MEMBERS.replace("PRIMARY KEY", key).replace("team text", "team text NOT NULL")
    members = members.replace("person bigint", "person bigint NOT NULL")
    sql(database, f"{members}; DROP INDEX first_names")
    persons("adopt", "--absorb", "members.person")
    before = rows(database, "persons"), rows(database, "members")
    assert "2 rows of members.person have what a unique index allows once: they go" in persons(
        "merge"
    )
    said = persons("merge", "--apply")
    assert said == "persons: 3 rows merged.\npersons/members.person: 2 rows merged.\n"
    assert [row[:3] for row in rows(database, "members")] == [
        (1, "w", "A"), (1, "x", "a"), (1, "y", "c"), (1, "z", "A"), (4, "x", "a"), (4, "y", "a")
    ]  # fmt: skip
    assert sql(database, "SELECT id, kept FROM merged WHERE resource ~ '/' ORDER BY id") == [
        ('[2, "x"]', '[1, "x"]'), ('[3, "y"]', '[1, "y"]')
    ]  # fmt: skip
    said = persons("merge", "--undo")
    assert said == "persons: 3 rows put back.\npersons/members.person: 2 rows put back.\n"
    assert (rows(database, "persons"), rows(database, "members")) == before


def test_rows_of_partitions_are_absorbed_and_come_back(persons: Run) -> None:
    database = persons()
    sql(
        database,
        """
        CREATE TABLE members (
            id bigint, person bigint REFERENCES persons, team int,
            PRIMARY KEY (id, team), UNIQUE (person, team)) PARTITION BY LIST (team);
        CREATE TABLE others PARTITION OF members DEFAULT;
        INSERT INTO members VALUES (1, 1, 7), (2, 2, 7), (3, 3, 8);
        """,
    )
    persons("adopt", "--absorb", "members.person")
    before = rows(database, "members")
    assert "persons/members.person: 1 rows merged." in persons("merge", "--apply")
    assert rows(database, "members") == [(1, 1, 7), (3, 1, 8)]
    persons("merge", "--undo")
    assert rows(database, "members") == before


def test_what_others_refer_to_is_not_absorbed(persons: Run) -> None:
    database = persons()
    sql(database, f"{MEMBERS}; DROP INDEX first_names")
    persons("adopt", "--absorb", "members.person")
    sql(
        database,
        "CREATE TABLE badges (person bigint, team text,"
        " FOREIGN KEY (person, team) REFERENCES members ON DELETE CASCADE)",
    )
    before = rows(database, "members")
    for words in (["merge"], ["merge", "--apply"]):
        assert "badges.person, team refers to them: adopt members itself" in persons(*words, ends=1)
    assert rows(database, "members") == before


def test_names_with_quotes_are_absorbed(persons: Run) -> None:
    database = persons()
    sql(
        database,
        """
        CREATE TABLE "mem'bers" (
            n bigint PRIMARY KEY, "per'son" bigint REFERENCES persons, team text,
            UNIQUE (team, "per'son"));
        INSERT INTO "mem'bers" VALUES (1, 1, 'x'), (2, 2, 'x');
        """,
    )
    persons("adopt", "--absorb", """"mem'bers"."per'son\"""")
    before = rows(database, """"mem'bers\"""")
    assert """persons/"mem'bers"."per'son": 1 rows merged.""" in persons("merge", "--apply")
    persons("merge", "--undo")
    assert rows(database, """"mem'bers\"""") == before


# Names, an expression and a condition that would begin a line of SQL in a comment.
LINES = r"""
CREATE TABLE evil (what text);
ALTER TABLE persons ADD "of
INSERT INTO evil VALUES (1) --" text GENERATED ALWAYS AS (upper(email)) STORED, ADD "some
INSERT INTO evil VALUES (2) --" text, ADD "other
INSERT INTO evil VALUES (3) --" text;
CREATE TABLE members (
    id bigint PRIMARY KEY, person bigint REFERENCES persons, phone text, "team
INSERT INTO evil VALUES (4) --" text);
CREATE UNIQUE INDEX "index
INSERT INTO evil VALUES (5) --" ON members (person, ("team
INSERT INTO evil VALUES (4) --" || E'\n') COLLATE "C") WHERE phone <> E'a\nINSERT INTO evil VALUES (6) --';
INSERT INTO members VALUES (1, 1, 'p', 'x'), (2, 2, 'p', 'x'), (3, 4, 'p', 'x'), (4, 5, 'p', 'y');
"""  # noqa: E501


def test_no_name_begins_a_line_of_sql(persons: Run) -> None:
    database = persons()
    sql(database, LINES)
    of, some, other = (
        f"{name}\nINSERT INTO evil VALUES ({n}) --"
        for n, name in enumerate(["of", "some", "other"], 1)
    )
    persons("adopt", "--agree", some, "--fill", other, "--refers", f"members.phone={of}")
    persons("merge")
    persons("merge", "--apply", "--only-equal", ends=1)
    persons("merge", "--apply", ends=1)
    assert sql(database, "SELECT what FROM evil") == []
    assert sql(database, "SELECT person FROM members ORDER BY id") == [(1,), (2,), (4,), (4,)]


def test_what_refers_to_a_child_too_is_not_absorbed(persons: Run) -> None:
    database = persons()
    sql(
        database,
        """
        CREATE TABLE visits (id bigint PRIMARY KEY, person bigint REFERENCES persons, day date);
        CREATE TABLE badges (
            id bigint PRIMARY KEY, person bigint REFERENCES persons,
            visit bigint REFERENCES visits, label text, UNIQUE (label, person));
        """,
    )
    persons("adopt", "--absorb", "badges.person")
    persons("adopt", "visits", "--key", "person,day")
    said = persons("merge", ends=1)
    assert "cannot be moved, for badges.person and badges.visit refer to rows that are" in said


def test_a_table_of_the_same_name_in_another_schema_is_another_table(persons: Run) -> None:
    database = persons()
    members = "members (id bigint PRIMARY KEY, person bigint UNIQUE REFERENCES persons)"
    sql(database, f"CREATE SCHEMA x; CREATE TABLE {members}; CREATE TABLE x.{members}")
    sql(database, "INSERT INTO members VALUES (1, 1), (2, 2); INSERT INTO x.members VALUES (1, 5)")
    persons("adopt", "--absorb", "members.person")
    before = sql(database, "TABLE members"), sql(database, "TABLE x.members")
    assert "persons/members.person: 1 rows merged." in persons("merge", "--apply")
    assert sql(database, "SELECT id, person FROM x.members") == [(1, 4)]
    persons("merge", "--undo")
    assert (sql(database, "TABLE members"), sql(database, "TABLE x.members")) == before


ACTIONS = [
    "CASCADE",
    *(
        pytest.param(each, marks=pytest.mark.long)
        for each in ("SET NULL", "SET DEFAULT", "NO ACTION")
    ),
]


@pytest.mark.parametrize("action", ACTIONS)
def test_no_action_of_a_delete_ever_fires(persons: Run, action: str) -> None:
    database = persons()
    sql(
        database,
        f"""
        CREATE TABLE notes (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            person bigint DEFAULT 4 REFERENCES persons ON DELETE {action});
        CREATE INDEX ON notes (person);
        INSERT INTO notes (person) VALUES (1), (2), (3), (3);
        CREATE TABLE fired (what text);
        CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' OR NEW.person IS DISTINCT FROM 1 THEN
                INSERT INTO fired VALUES (TG_OP || NEW.person);
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER fire AFTER UPDATE OR DELETE ON notes FOR EACH ROW EXECUTE FUNCTION fire()
        """,
    )
    persons("adopt")
    sql(database, "DELETE FROM persons WHERE id IN (4, 5)")
    with psycopg.connect(database) as writer, ThreadPoolExecutor(1) as threads:
        # A writer refers to a row that goes after the merge has taken its snapshot.
        writer.execute("INSERT INTO notes (person) VALUES (3)")
        merging = threads.submit(persons, "merge", "--apply")
        until(
            lambda: (
                sql(
                    database,
                    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND application_name = 'onerow merge' AND datname = current_database()",
                )
                != []
            )
        )
        writer.commit()
        merging.result()
    assert sql(database, "SELECT id, person FROM notes ORDER BY id") == [
        (n, 1) for n in range(1, 6)
    ]
    assert rows(database, "fired, persons, (VALUES (1)) AS one (n)") == []
    assert sql(database, "SELECT pointed FROM merged ORDER BY id") == [
        ({"notes.person": ["2"]},),
        ({"notes.person": ["3", "4", "5"]},),
    ]


NAMED = """
CREATE TABLE calls (id bigint PRIMARY KEY, phone text, person bigint);
CREATE INDEX ON calls (person);
INSERT INTO calls VALUES (1, '1', 1), (2, '2', 2), (3, '3', NULL), (4, '4', 5), (5, NULL, 9);
"""


def test_references_without_a_foreign_key_follow_and_come_back(persons: Run) -> None:
    database = persons()
    sql(database, NAMED)
    words = ("--refers", "calls.person", "--refers", "calls.phone=phone")
    persons("adopt", *words)
    before = rows(database, "calls")
    said = persons("merge")
    assert "3 rows would go, 4 rows refer to those" in said
    assert "This makes one: CREATE INDEX CONCURRENTLY ON calls (phone)\n" in said
    assert "calls.person has no index" not in said
    assert "persons.phone has no index" not in said
    sql(database, "DROP INDEX persons_phone_idx")
    assert "persons.phone has no index" in persons("merge")
    sql(database, "CREATE INDEX ON persons (phone)")
    assert persons("merge", "--apply").splitlines()[1:] == ["persons: 3 rows merged."]
    assert rows(database, "calls") == [
        (1, "1", 1), (2, "1", 1), (3, "1", None), (4, "4", 4), (5, None, 9)
    ]  # fmt: skip
    sql(database, "UPDATE calls SET phone = '7' WHERE id = 2")
    said = persons("merge", "--undo", ends=1)
    assert "persons 2 is back, but 1 of the 1 rows of calls.phone that pointed at it" in said
    assert rows(database, "calls") == [(2, "7", 2) if row[0] == 2 else row for row in before]
    # Without a value in the row that stays there would be nothing to refer to.
    sql(database, "UPDATE persons SET phone = NULL WHERE id = 1")
    said = persons("merge", "--apply", ends=1)
    assert "persons 1 stays as it is: calls.phone still refers to it" in said


def test_a_foreign_key_to_another_column_is_followed_where_it_is_named(persons: Run) -> None:
    database = persons()
    sql(
        database,
        """
        ALTER TABLE persons ADD UNIQUE (phone);
        CREATE TABLE calls (id int PRIMARY KEY, phone text REFERENCES persons (phone));
        INSERT INTO calls VALUES (1, '1'), (2, '2');
        """,
    )
    refused = "calls.phone refers to it, and merge refuses one that does not refer to id"
    assert refused in persons("adopt")
    assert "merge refuses" not in persons("adopt", "--refers", "calls.phone=phone")
    persons("merge", "--apply")
    assert sql(database, "SELECT phone FROM calls") == [("1",), ("1",)]
    persons("merge", "--undo")
    assert sql(database, "SELECT phone FROM calls ORDER BY id") == [("1",), ("2",)]


FRIENDS = """
CREATE TABLE friends (
    a bigint REFERENCES persons, b bigint REFERENCES persons, why text, PRIMARY KEY (a, b));
CREATE INDEX ON friends (b);
INSERT INTO friends VALUES (2, 2, 'p'), (3, 2, 'q'), (5, 2, 'r'), (2, 5, 's');
INSERT INTO persons VALUES (6, 'bob', NULL), (7, 'Bob', NULL), (8, 'eve', NULL), (9, 'Eve', NULL);
INSERT INTO friends VALUES (7, 9, 't'), (9, 7, 'u'), (2, 9, 'v'), (9, 3, 'w')
"""


def test_what_refers_twice_in_its_key_comes_back(persons: Run) -> None:
    database = persons()
    sql(database, FRIENDS)
    sql(database, "DELETE FROM friends WHERE why = 'q'")
    persons("adopt")
    before = rows(database, "persons"), rows(database, "friends")
    persons("merge", "--apply")
    assert rows(database, "friends") == [
        (1, 1, "p"), (1, 4, "s"), (1, 8, "v"), (4, 1, "r"), (6, 8, "t"), (8, 1, "w"), (8, 6, "u")
    ]  # fmt: skip
    persons("merge", "--undo")
    assert (rows(database, "persons"), rows(database, "friends")) == before
    # Rows that would become one stay, also where only both columns together say so.
    sql(database, "DELETE FROM friends WHERE why = 'p'")
    sql(database, "INSERT INTO friends VALUES (3, 2, 'x'), (2, 3, 'y')")
    before = rows(database, "persons"), rows(database, "friends")
    said = persons("merge", "--apply", ends=1)
    assert "persons 1 stays as it is: two rows of friends." in said
    persons("merge", "--undo")
    assert (rows(database, "persons"), rows(database, "friends")) == before


def test_a_value_that_rows_of_other_keys_have_is_not_pointed_away(persons: Run) -> None:
    database = persons()
    sql(database, NAMED)
    sql(database, "INSERT INTO persons VALUES (6, 'bob', '2'), (7, 'Al', '3')")
    sql(database, "UPDATE persons SET phone = '5' WHERE id = 5")
    sql(database, "INSERT INTO calls VALUES (6, '5', NULL)")
    persons("adopt", "--refers", "calls.phone=phone")
    before = rows(database, "calls")
    # That 2 is bob's, too, and 3 is of a row that goes for another key.
    said = persons("merge", "--apply", ends=1)
    assert "persons 1 stays as it is: calls.phone still refers to it" in said
    assert "persons 4 stays as it is: calls.phone still refers to it" in said
    assert rows(database, "calls") == before
    sql(database, "UPDATE persons SET phone = NULL WHERE id = 6")
    sql(database, "UPDATE persons SET phone = NULL WHERE id = 7")
    persons("merge", "--apply")
    assert sql(database, "SELECT phone FROM calls WHERE phone <> '1'") == [("4",), ("4",)]


def test_equal_rows_with_children_that_come_to_share_a_key(persons: Run) -> None:
    database = persons()
    sql(
        database,
        """
        UPDATE persons SET email = lower(email), phone = NULL;
        CREATE TABLE visits (
            id bigint PRIMARY KEY, person bigint REFERENCES persons, day date, note text);
        INSERT INTO visits VALUES
            (1, 1, '2026-01-01', 'x'), (2, 2, '2026-01-01', 'x'),
            (3, 4, '2026-01-01', 'y'), (4, 5, '2026-01-01', 'z');
        """,
    )
    persons("adopt")
    persons("adopt", "visits", "--key", "person,day")
    said = persons("merge", "--only-equal", "--apply")
    assert "persons: 2 rows merged." in said
    assert "persons: 1 keys stay as they are, for their copies differ" in said
    assert sql(database, "SELECT id, person FROM visits ORDER BY id") == [(1, 1), (3, 4), (4, 5)]


def test_the_row_in_the_way_must_be_there_in_the_end(persons: Run) -> None:
    database = persons()
    sql(database, f"{MEMBERS}; DROP INDEX first_names")
    persons("adopt", "--absorb", "members.person")
    with psycopg.connect(database) as writer, ThreadPoolExecutor(1) as threads:
        writer.execute("DELETE FROM members WHERE person = 1")
        merging = threads.submit(persons, "merge", "--apply")
        until(
            lambda: (
                merging.done()
                or sql(
                    database,
                    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND application_name = 'onerow merge' AND datname = current_database()",
                )
                != []
            )
        )
        writer.commit()
        merging.result()
    # Without the row that was in the way, another one takes its place.
    assert (1, "x", "b") in [row[:3] for row in rows(database, "members")]


def test_what_a_key_refers_to_for_good_locks_writers_out_once(persons: Run) -> None:
    database = persons()
    sql(
        database,
        f"""
        {MEMBERS};
        CREATE TABLE badges (
            person bigint, team text,
            FOREIGN KEY (person, team) REFERENCES members ON DELETE CASCADE);
        INSERT INTO badges VALUES (5, 'y');
        CREATE SEQUENCE tries;
        CREATE FUNCTION count_tries() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM nextval('tries');
            RETURN NEW;
        END $$;
        CREATE TRIGGER tries BEFORE UPDATE ON members FOR EACH ROW
            WHEN (OLD.person = 5) EXECUTE FUNCTION count_tries();
        """,
    )
    persons("adopt")
    said = persons("merge", "--apply", ends=1)
    assert "persons 4 stays as it is: update or delete on table" in said
    # It is tried in a batch, alone, and with the writers locked out.
    assert sql(database, "SELECT last_value FROM tries") == [(3,)]


REFUSED = {
    "--refers calls must be TABLE.COLUMN": ("--refers", "calls"),
    "--refers Calls.phone must be TABLE.COLUMN": ("--refers", "Calls.phone"),
    "there is no such table": ("--refers", "nothing.phone"),
    "--refers calls.nope: calls has no column nope": ("--refers", "calls.nope"),
    "--refers calls.phone=nope: persons has no column nope": ("--refers", "calls.phone=nope"),
    "--refers calls.phone=phone: phone is taken over": (
        *("--refers", "calls.phone=phone"),
        *("--fill", "phone"),
    ),
    "--refers keyless.phone: merge refuses it, for its rows": ("--refers", "keyless.phone"),
    "--refers members.person: it is a reference already": ("--refers", "members.person"),
    "--absorb friends.a: friends.b refers to persons, too": ("--absorb", "friends.a"),
    "--absorb keyless.person: merge refuses it, for its rows cannot be told apart": (
        *("--absorb", "keyless.person"),
    ),
    "--absorb members.person: first_names and members_pkey could both": (
        *("--absorb", "members.person"),
    ),
    "--absorb calls.phone: this is no reference": (
        *("--refers", "calls.phone=phone"),
        *("--absorb", "calls.phone"),
    ),
}


KEYLESS = (
    "CREATE TABLE keyless (phone text, person bigint REFERENCES persons, UNIQUE (person, phone))"
)


def test_adopt_refuses_references_that_it_cannot_follow(persons: Run) -> None:
    sql(persons(), f"{NAMED}; {MEMBERS}; {FRIENDS}; {KEYLESS}")
    for why, words in REFUSED.items():
        assert why in persons("adopt", *words, ends=1)


@pytest.mark.parametrize("reference", ["id", "email", "filled"])
def test_rows_that_go_together_refer_to_each_other_again(persons: Run, reference: str) -> None:
    database = persons()
    to_id = reference != "email"
    sql(
        database,
        "ALTER TABLE persons ADD boss " + ("bigint REFERENCES persons" if to_id else "text"),
    )
    sql(
        database, "ALTER TABLE persons ADD told text GENERATED ALWAYS AS ('x' || boss::text) STORED"
    )
    bosses = {2: 3, 3: 2, 5: 5} if to_id else {2: "'ADA'", 3: "'Ada'", 5: "'Al'"}
    for person, boss in bosses.items():
        sql(database, f"UPDATE persons SET boss = {boss} WHERE id = {person}")
    words = {"id": [], "email": ["--refers", "persons.boss=email"], "filled": ["--fill", "boss"]}
    before = sql(database, "SELECT id, boss, told FROM persons ORDER BY id")
    persons("adopt", *words[reference])
    persons("init")
    persons("merge", "--apply")
    assert sql(database, "SELECT count(*) FROM persons") == [(2,)]
    said = persons("merge", "--undo")
    assert said == "persons: 3 rows put back.\n"
    assert sql(database, "SELECT id, boss, told FROM persons ORDER BY id") == before


def test_undo_where_what_referred_is_gone(persons: Run) -> None:
    database = persons()
    sql(
        database,
        "CREATE TABLE orders (id bigint PRIMARY KEY, person bigint REFERENCES persons);"
        "CREATE TABLE badges (person bigint PRIMARY KEY REFERENCES persons);"
        "INSERT INTO orders VALUES (1, 2), (2, 5); INSERT INTO badges VALUES (1), (2), (4)",
    )
    words = ("--absorb", "badges.person")
    persons("adopt", *words)
    persons("merge", "--apply")
    sql(database, "ALTER TABLE orders RENAME TO purchases; DROP TABLE badges")
    said = persons("merge", "--undo", ends=1)
    assert said.splitlines()[-1] == (
        "merge: persons: badges.person is gone, or has another name: run `adopt` again"
    )
    persons("adopt")
    said = persons("merge", "--undo", ends=1)
    gone = "orders.person, which pointed at it, is gone or has another name: change that in"
    assert sorted(said.splitlines()) == [
        f"persons 2 stays as it is: {gone} merged.pointed",
        f"persons 5 stays as it is: {gone} merged.pointed",
        "persons/badges.person: 1 rows stay in merged, for adopt knows no such reference any more",
        "persons: 1 rows put back.",
    ]
    sql(
        database,
        "UPDATE merged SET pointed = pointed - 'orders.person'"
        " || jsonb_build_object('purchases.person', pointed -> 'orders.person')"
        " WHERE pointed ? 'orders.person'",
    )
    persons("merge", "--undo", ends=1)
    assert len(rows(database, "persons")) == 5
    assert sql(database, "SELECT person FROM purchases ORDER BY id") == [(2,), (5,)]


TOUCHING = """
CREATE TABLE orders (id bigint PRIMARY KEY, person bigint REFERENCES persons);
INSERT INTO orders VALUES (1, 1), (2, 2), (3, 3), (4, 3);
ALTER TABLE persons ADD updated_at timestamptz NOT NULL DEFAULT '2020-01-01', ADD orders int;
UPDATE persons SET updated_at = '2024-01-01' WHERE id = 3;
UPDATE persons SET orders = (SELECT count(*) FROM orders WHERE person = persons.id);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE persons SET updated_at = now() WHERE id IN (OLD.person, NEW.person);
    UPDATE persons SET orders = orders - 1 WHERE id = OLD.person;
    UPDATE persons SET orders = orders + 1 WHERE id = NEW.person;
    RETURN NULL;
END $$;
CREATE TRIGGER touch AFTER UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();
"""


def test_rows_are_kept_as_they_were_before_triggers_touched_them(persons: Run) -> None:
    database = persons()
    sql(database, TOUCHING)
    before = rows(database, "persons")
    persons("adopt", "--newest", "phone", "--by", "updated_at")
    persons("merge", "--apply")
    kept = sql(database, "SELECT phone, orders FROM persons WHERE id = 1")
    assert kept == [("3", 4)]
    filled = sql(database, "SELECT filled FROM merged WHERE id = '3'")[0][0]
    assert filled["own"] == {"orders": 2, "updated_at": "2024-01-01T00:00:00+00:00"}
    said = persons("merge", "--undo", ends=1)
    # The same triggers count the orders again, and touch the rows again.
    was = '(it was "{}-01-01T00:00:00+00:00")'
    keeps = f"persons 1 keeps updated_at {was.format(2020)}, which a trigger changed"
    assert sorted(said.splitlines()) == [
        f"persons 2 is back, but a trigger has changed its updated_at {was.format(2020)}",
        f"persons 3 is back, but a trigger has changed its updated_at {was.format(2024)}",
        f"persons 3 is back, but {keeps}",
        "persons: 3 rows put back.",
    ]
    after = rows(database, "persons")
    assert [(*row[:3], *row[4:]) for row in after] == [(*row[:3], *row[4:]) for row in before]


ORDERS = """
CREATE TABLE orders (id bigint PRIMARY KEY, person bigint REFERENCES persons);
INSERT INTO orders VALUES (1, 1), (2, 2), (3, 2), (4, 5);
"""

COUNTING = """
ALTER TABLE persons ADD orders int NOT NULL DEFAULT 0;
UPDATE persons SET orders = (SELECT count(*) FROM orders WHERE person = persons.id);
CREATE FUNCTION count_orders() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE persons SET orders = orders - 1 WHERE id = OLD.person;
    UPDATE persons SET orders = orders + 1 WHERE id = NEW.person;
    RETURN NULL;
END $$;
CREATE TRIGGER count_orders AFTER INSERT OR UPDATE OR DELETE ON orders
FOR EACH ROW EXECUTE FUNCTION count_orders();
"""


@pytest.mark.parametrize("way", ["child", "absorbed"])
def test_what_triggers_count_is_right_when_others_went_as_well(persons: Run, way: str) -> None:
    database = persons()
    sql(
        database,
        "CREATE TABLE orders (id bigint PRIMARY KEY, person bigint NOT NULL REFERENCES persons,"
        " what text NOT NULL, UNIQUE (person, what));"
        "INSERT INTO orders VALUES (1, 1, 'a'), (2, 2, 'a'), (3, 2, 'b'), (4, 5, 'a');" + COUNTING,
    )
    if way == "child":
        sql(database, "ALTER TABLE orders DROP CONSTRAINT orders_person_what_key")
        persons("adopt", "orders", "--key", "person,what")
        persons("adopt")
        persons("init")
        persons("guard", "on")
    else:
        persons("adopt", "--absorb", "orders.person")
    before = rows(database, "persons"), rows(database, "orders")
    persons("merge", "persons", "--apply")
    assert sql(database, "SELECT orders FROM persons ORDER BY id") == [(2,), (1,)]
    if way == "child":
        persons("guard", "off")
    persons("merge", "--undo")
    assert (rows(database, "persons"), rows(database, "orders")) == before


def test_a_count_is_not_put_back_where_what_was_counted_has_changed(persons: Run) -> None:
    database = persons()
    sql(database, ORDERS + COUNTING)
    persons("adopt")
    persons("merge", "--apply")
    sql(database, "DELETE FROM orders WHERE id = 3")
    said = persons("merge", "--undo", ends=1)
    assert "1 of the 2 rows of orders.person that pointed at it have changed since" in said
    counted = sql(database, "SELECT id, orders FROM persons ORDER BY id")
    assert counted == [(1, 1), (2, 1), (3, 0), (4, 0), (5, 1)]


def test_rows_that_an_earlier_version_merged_have_no_values_of_their_own(persons: Run) -> None:
    database = persons()
    sql(database, ORDERS + COUNTING)
    before = rows(database, "persons")
    persons("adopt")
    persons("merge", "--apply")
    sql(database, "UPDATE merged SET filled = NULL")
    persons("merge", "--undo")
    assert rows(database, "persons") == before


@pytest.mark.parametrize("words", [[], ["--fill", "phone"], ["--newest", "head", "--by", "id"]])
def test_resources_that_refer_to_each_other_come_back(persons: Run, words: list[str]) -> None:
    database = persons()
    sql(
        database,
        "CREATE TABLE teams (id bigint PRIMARY KEY, lead bigint NOT NULL REFERENCES persons,"
        " name text NOT NULL);"
        "ALTER TABLE persons ADD head bigint REFERENCES teams;"
        "INSERT INTO teams VALUES (10, 1, 'a'), (11, 2, 'a'), (12, 2, 'b');"
        "UPDATE persons SET head = 11 WHERE id = 2; UPDATE persons SET head = 10 WHERE id = 1",
    )
    persons("adopt", "teams", "--key", "lead,name")
    persons("adopt", *words)
    persons("init")
    persons("guard", "on")
    before = rows(database, "persons"), rows(database, "teams")
    persons("merge", "persons", "--apply")
    assert sql(database, "SELECT id FROM teams ORDER BY id") == [(10,), (12,)]
    persons("guard", "off")
    persons("merge", "--undo")
    assert (rows(database, "persons"), rows(database, "teams")) == before


def test_a_referring_table_with_a_name_of_the_files(persons: Run) -> None:
    sql(persons(), "CREATE TABLE these_pairs (id bigint PRIMARY KEY, p bigint REFERENCES persons)")
    assert "whose name means something else in the files" in persons("adopt")
