"""Undo gives the row that stayed its own values again, or says what it keeps and why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.adopting import commands
from tests.support.service import sql

CUSTOMERS = """
CREATE TABLE customers (
    id bigint PRIMARY KEY, email text NOT NULL, phone text, city text, kind text,
    price numeric, seen boolean NOT NULL DEFAULT FALSE, words text,
    updated_at timestamptz NOT NULL DEFAULT '2024-01-01');
INSERT INTO customers VALUES
    (1, 'Ada', NULL, NULL), (2, 'Ada', '555', NULL), (3, 'Ada', NULL, 'Bath');
"""


@pytest.fixture
def customers(new_database: Callable[[], str], tmp_path: Path) -> Callable[..., str]:
    """A function that adopts the customers with some options, and runs commands on them."""
    database = new_database()
    sql(database, CUSTOMERS)

    return commands(database, tmp_path, "customers", "--key", "email")


def rows(database: str) -> list[tuple[Any, ...]]:
    return sql(database, "SELECT * FROM customers ORDER BY id")


def trigger(database: str, body: str, when: str = "TRUE") -> None:
    """Make a trigger that runs this PL/pgSQL before each update of a customer."""
    sql(
        database,
        "CREATE OR REPLACE FUNCTION customers_change() RETURNS trigger LANGUAGE plpgsql"
        f" AS $$ BEGIN {body} RETURN NEW; END $$;"
        " CREATE OR REPLACE TRIGGER change BEFORE UPDATE ON customers FOR EACH ROW"
        f" WHEN ({when}) EXECUTE FUNCTION customers_change()",
    )


def test_what_a_trigger_changes_beside_is_recorded_and_named(customers: Callable[..., str]) -> None:
    database = customers()
    trigger(
        database,
        "NEW.updated_at := now(); NEW.words := concat(NEW.phone, NEW.city); NEW.seen := TRUE;",
    )
    sql(database, "UPDATE customers SET words = ''")
    sql(database, "UPDATE customers SET id = id")  # the words are those of the trigger
    sql(database, "ALTER TABLE customers DISABLE TRIGGER change")
    sql(database, "UPDATE customers SET seen = FALSE, updated_at = '2024-01-01'")
    sql(database, "ALTER TABLE customers ENABLE TRIGGER change")
    before = rows(database)
    customers("adopt", "--fill", "phone,city")
    customers("merge", "--apply")
    recorded = sql(database, "SELECT filled FROM merged ORDER BY step")
    assert [set(filled) for (filled,) in recorded] == [
        {"before", "after", "beside"},
        {"before", "after"},
    ]
    assert recorded[0][0]["beside"] == {
        "seen": False,
        "updated_at": "2024-01-01T00:00:00+00:00",
        "words": "",
    }
    # The words follow from the columns that are back.
    said = customers("merge", "--undo", ends=1)
    assert said.splitlines()[1:] == [
        "customers 2 is back, but customers 1 keeps seen (it was false) and updated_at"
        ' (it was "2024-01-01T00:00:00+00:00"), which a trigger changed'
    ]
    assert [row[:6] + row[7:8] for row in rows(database)] == [row[:6] + row[7:8] for row in before]


@pytest.mark.parametrize("key", ["email", "lower(email)", "kind"])
def test_no_trigger_makes_a_second_row_for_a_key(customers: Callable[..., str], key: str) -> None:
    database = customers()
    sql(database, "UPDATE customers SET kind = 'x'")
    changes = {"email": "NEW.email := lower(NEW.email)", "lower(email)": "NEW.email := 'al'"}
    trigger(database, f"{changes.get(key, 'NEW.kind := NULL')};")
    before = rows(database)
    where = () if key != "kind" else ("--where", "kind = 'x'")
    named = ("customers", "--key", "email" if where else key)
    customers("adopt", *named, "--fill", "phone", *where)
    said = customers("merge", "--apply", ends=1)
    assert (
        "customers 1 stays as it is: a trigger gave the row that stays another key as it took over"
        in said
    )
    assert rows(database) == before


def test_no_row_comes_back_while_the_one_that_took_it_over_cannot_give_it_back(
    customers: Callable[..., str],
) -> None:
    database = customers()
    before = rows(database)
    customers("adopt", "--fill", "phone,city")
    customers("merge", "--apply")

    def refused() -> None:
        said = customers("merge", "--undo", ends=1)
        for id_, column in ((2, "phone"), (3, "city")):
            why = f"customers 1 would not get back its own {column}\n"
            assert f"customers {id_} stays as it is: {why}" in said
        assert len(rows(database)) == 1

    # The files of now take over other columns, or these together with others.
    customers("adopt", "--together", "city,words", "--force")
    refused()
    customers("adopt", "--fill", "phone,city", "--force")
    trigger(database, "RETURN NULL;", "OLD.id = 1")
    refused()
    sql(database, "DROP TRIGGER change ON customers")
    customers("merge", "--undo")
    assert rows(database) == before


def test_undo_tells_when_the_row_that_took_over_is_gone(customers: Callable[..., str]) -> None:
    database = customers()
    before = rows(database)
    customers("adopt", "--fill", "phone")
    customers("merge", "--apply")
    sql(database, "DELETE FROM customers WHERE id = 1")
    said = customers("merge", "--undo", ends=1)
    assert said.splitlines()[1:] == [
        "customers 2 is back, but customers 1, which took over phone, is gone"
    ]
    assert rows(database) == before[1:]


def test_a_row_comes_back_after_the_one_that_took_it_over(customers: Callable[..., str]) -> None:
    database = customers()
    customers("adopt", "--fill", "phone")
    customers("merge", "--apply")
    sql(database, "INSERT INTO customers (id, email) VALUES (0, 'Ada')")
    before = rows(database)
    customers("merge", "--apply")
    # Row 1 cannot come back, and so those that went into it stay where they are.
    sql(database, "ALTER TABLE customers ADD CHECK (id <> 1)")
    said = customers("merge", "--undo", ends=1)
    assert "customers 2 stays as it is: customers 1 went later, and must come back first\n" in said
    sql(database, "ALTER TABLE customers DROP CONSTRAINT customers_id_check")
    customers("merge", "--undo")
    assert rows(database)[0] == before[0]
    assert [row[0] for row in rows(database)] == [0, 1, 2, 3]
    assert rows(database)[1][2] is None


def test_a_value_that_only_looks_different_has_changed(customers: Callable[..., str]) -> None:
    database = customers()
    sql(database, "UPDATE customers SET price = 1.0 WHERE id = 2")
    customers("adopt", "--fill", "price")
    customers("merge", "--apply")
    sql(database, "UPDATE customers SET price = 1.00")
    said = customers("merge", "--undo", ends=1)
    assert "customers 1 keeps price, which changed since it was taken over" in said
    assert sql(database, "SELECT price::text FROM customers WHERE id = 1") == [("1.00",)]


def test_rows_that_went_into_one_row_come_back_in_order(customers: Callable[..., str]) -> None:
    database = customers()
    before = rows(database)[:2]
    sql(database, "DELETE FROM customers WHERE id = 3")
    customers("adopt", "--largest", "phone")
    customers("merge", "--apply")
    sql(database, "INSERT INTO customers (id, email, phone) VALUES (3, 'Ada', '777')")
    customers("merge", "--apply")
    # Another row has the id of the last one that went, and so that one cannot come back.
    sql(database, "INSERT INTO customers (id, email) VALUES (3, 'Grace')")
    said = customers("merge", "--undo", ends=1)
    assert said.splitlines()[-1] == (
        "customers 2 stays as it is: customers 3 went later, and must come back first"
    )
    sql(database, "DELETE FROM customers WHERE id = 3")
    customers("merge", "--undo")
    assert [row[:3] for row in rows(database)] == [
        *(row[:3] for row in before),
        (3, "Ada", "777"),
    ]


def test_a_row_waits_for_the_row_that_it_went_into(customers: Callable[..., str]) -> None:
    database = customers()
    sql(
        database,
        "DELETE FROM customers WHERE id = 1;"
        "CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint REFERENCES customers);"
        "INSERT INTO orders VALUES (1, 3)",
    )
    customers("adopt")
    customers("merge", "--apply")
    sql(database, "INSERT INTO customers (id, email) VALUES (1, 'Ada')")
    customers("merge", "--apply")
    sql(database, "INSERT INTO customers (id, email) VALUES (2, 'Grace')")
    said = customers("merge", "--undo", ends=1)
    assert said.splitlines()[-1] == (
        "customers 3 stays as it is: customers 2 went later, and must come back first"
    )
    sql(database, "DELETE FROM customers WHERE id = 2")
    customers("merge", "--undo")
    assert sql(database, "SELECT customer_id FROM orders") == [(3,)]


def test_another_resources_rows_with_the_same_ids_are_left_alone(
    customers: Callable[..., str],
) -> None:
    database = customers()
    sql(
        database,
        "CREATE TABLE firms (LIKE customers INCLUDING ALL);"
        "INSERT INTO firms (id, email, phone, city) VALUES"
        " (1, 'Byron', NULL, NULL), (2, 'Byron', '777', NULL), (3, 'Byron', NULL, 'Rome')",
    )
    firms = "SELECT * FROM firms ORDER BY id"
    before = rows(database), sql(database, firms)
    for table in ("customers", "firms"):
        customers("adopt", table, "--key", "email", "--fill", "phone,city")
    customers("merge", "--apply")
    gave = "SELECT id, filled -> 'after' FROM merged WHERE resource = %s ORDER BY id"
    assert sql(database, gave, "customers") == [("2", {"phone": "555"}), ("3", {"city": "Bath"})]
    assert sql(database, gave, "firms") == [("2", {"phone": "777"}), ("3", {"city": "Rome"})]
    customers("merge", "--undo", "customers")
    assert rows(database) == before[0]
    assert sql(database, "SELECT id, phone, city FROM firms") == [(1, "777", "Rome")]
    customers("merge", "--undo", "firms")
    assert sql(database, firms) == before[1]


def test_a_domain_that_is_never_null_does_not_keep_a_row_away(
    customers: Callable[..., str],
) -> None:
    database = customers()
    sql(
        database,
        "CREATE DOMAIN never_null AS text NOT NULL;"
        "ALTER TABLE customers ADD full_name never_null DEFAULT 'Ada'",
    )
    before = rows(database)
    customers("adopt", "--fill", "phone,city")
    customers("merge", "--apply")
    customers("merge", "--undo")
    assert rows(database) == before


def test_columns_that_came_and_went_since(customers: Callable[..., str]) -> None:
    database = customers()
    customers("adopt")
    customers("merge", "--apply")
    sql(
        database,
        "ALTER TABLE customers DROP kind, ADD active boolean NOT NULL DEFAULT TRUE;"
        "UPDATE merged SET content = content || '{\"kind\": 7}'",
    )
    for remedy in ("content || '{\"active\": true}'", "content - 'kind'"):
        assert "stays as it is" in customers("merge", "--undo", ends=1)
        sql(database, f"UPDATE merged SET content = {remedy} WHERE resource = 'customers'")
    customers("merge", "--undo")
    assert sql(database, "SELECT id, active FROM customers ORDER BY id") == [
        (id_, True) for id_ in (1, 2, 3)
    ]
