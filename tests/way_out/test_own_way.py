"""The way out works for tables with other ids and keys, quoted names, and in another schema."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from db.queries import QUERIES
from tests.support import legacy
from tests.support.roles import SERVICE, as_role, make_roles
from tests.support.service import Service, serving, sql

pytestmark = pytest.mark.usefixtures("durable")

TABLES = """
CREATE SCHEMA "the shop";
CREATE TABLE "the shop"."Devices" (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "Serial No" text NOT NULL, site integer, note text,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE "the shop".readings (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device uuid NOT NULL REFERENCES "the shop"."Devices", at timestamptz NOT NULL,
    value numeric(10,2) NOT NULL);
CREATE TABLE customers (
    id bigserial PRIMARY KEY, email text NOT NULL, deleted_at timestamptz);
INSERT INTO "the shop"."Devices" (id, "Serial No", site) VALUES
    ('00000000-0000-0000-0000-00000000000a', 'N-1', 7),
    ('00000000-0000-0000-0000-00000000000b', 'N-1', 7),
    ('00000000-0000-0000-0000-00000000000c', 'N-1', NULL),
    ('00000000-0000-0000-0000-00000000000d', 'N-1', NULL),
    ('00000000-0000-0000-0000-00000000000e', 'N-2', NULL);
INSERT INTO "the shop".readings (device, at, value) VALUES
    ('00000000-0000-0000-0000-00000000000a', '2026-11-25T10:00Z', 1),
    ('00000000-0000-0000-0000-00000000000b', '2026-11-25T10:00Z', 2),
    ('00000000-0000-0000-0000-00000000000b', '2026-11-25T11:00Z', 3);
INSERT INTO customers (email) VALUES ('Ada@example.org'), ('ada@example.org'), ('al@example.org');
INSERT INTO customers (email, deleted_at) VALUES ('AL@example.org', now());
"""

ADOPTED = {
    "devices": ('"the shop"."Devices"', "--key", '"Serial No",site', "--as", "devices"),
    "readings": ('"the shop".readings', "--key", "device,at"),
    "customers": ("customers", "--key", "lower(email)", "--where", "deleted_at IS NULL"),
}

# How many rows share a key with another one. Readings do so once their devices are merged.
SURPLUS = {"devices": 2, "readings": 1, "customers": 1}

CONTENT = """
SELECT 'devices', id::text, "Serial No", note FROM "the shop"."Devices"
UNION ALL SELECT 'readings', number::text, device::text, value::text FROM "the shop".readings
UNION ALL SELECT 'customers', id::text, email, deleted_at::text FROM customers
ORDER BY 1, 2
"""


def make_shop(database: str) -> str:
    """Make tables with duplicates in the place of the sample's; return the database's URL."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(b"DROP TABLE departments, employees, merged")
        connection.execute(TABLES.encode())
    return database


@pytest.fixture
def shop(database: str) -> str:
    """The URL of a database with duplicates in the tables of TABLES."""
    return make_shop(database)


@pytest.fixture(scope="module")
def adopted(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that adopt writes for the tables of TABLES."""
    database = make_shop(new_database())
    path = tmp_path_factory.mktemp("resources")
    for words in ADOPTED.values():
        status, output, errors = legacy.run(database, "adopt", *words, RESOURCES=str(path))
        assert "init" in output + errors, (status, output, errors)
    return path


@pytest.fixture
def folder(adopted: Path, tmp_path: Path) -> Path:
    """A copy of the adopted folder, which a test may change."""
    return Path(shutil.copytree(adopted, tmp_path / "resources"))


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(shop: str, folder: Path) -> Command:
    """A function that runs a command on the shop and the folder."""

    def run(*words: str) -> tuple[int, str, str]:
        return legacy.run(shop, *words, RESOURCES=str(folder))

    return run


def well(answer: tuple[int, str, str]) -> str:
    """Return the output of a command that must have ended well."""
    status, output, errors = answer
    assert (status, errors) == (0, ""), output + errors
    return output


def indexes(database: str) -> dict[str, tuple[str, bool]]:
    """Return the definition of each index of ours, and whether it is valid."""
    rows = sql(
        database,
        "SELECT relname::text, pg_get_indexdef(indexrelid), indisvalid FROM pg_index"
        " JOIN pg_class ON pg_class.oid = indexrelid WHERE relname ~ '_(lookup|key)'",
    )
    return {name: (definition, valid) for name, definition, valid in rows}


@pytest.mark.long
def test_from_adopt_to_the_constraint(shop: str, command: Command) -> None:
    before = sql(shop, CONTENT)
    well(command("init"))
    assert {*indexes(shop)} == {f"{name}_lookup" for name in ADOPTED}
    assert sql(shop, "SELECT to_regclass('departments')") == [(None,)]
    assert "FAIL" not in well(command("doctor"))

    status, output, _ = command("duplicates", "--format", "json")
    assert status == 1
    found = {(row["resource"], row["id"]): row for row in json.loads(output)}
    assert [row["copies"] for row in found.values()] == [2, 2, 2]
    assert found["customers", 1]["key"] == {"email": "ada@example.org"}
    assert command("duplicates", "devices")[1].count("N-1") == 2

    assert well(command("guard", "on")).count("is on") == 3
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(shop, 'INSERT INTO "the shop"."Devices" ("Serial No", site) VALUES (\'N-2\', NULL)')

    assert "2 rows would go" in well(command("merge", "devices"))
    assert sql(shop, CONTENT) == before
    output = well(command("merge", "--apply"))
    for name, rows in SURPLUS.items():
        assert f"{name}: {rows} rows merged." in output
    assert well(command("duplicates")).count("every key has one row") == 3
    assert sql(shop, 'SELECT count(DISTINCT device), count(*) FROM "the shop".readings') == [(1, 2)]

    well(command("guard", "off"))
    output = well(command("merge", "--undo"))
    for name, rows in SURPLUS.items():
        assert f"{name}: {rows} rows put back." in output
    assert sql(shop, CONTENT) == before
    assert sql(shop, "SELECT FROM merged") == []

    well(command("merge", "--apply"))
    well(command("enforce"))
    well(command("enforce"))  # ends well where nothing is left to do
    assert all(valid for _, valid in indexes(shop).values())
    assert {f"{name}_key" for name in ADOPTED} < {*indexes(shop)}
    assert "FAIL" not in well(command("doctor"))
    assert "no constraint" not in command("doctor")[1]
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(shop, 'INSERT INTO "the shop"."Devices" ("Serial No", site) VALUES (\'N-2\', NULL)')
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(shop, "INSERT INTO customers (email) VALUES ('ADA@example.org')")
    sql(shop, "INSERT INTO customers (email, deleted_at) VALUES ('ADA@example.org', now())")


@pytest.mark.long
def test_a_limit_and_some_resources(shop: str, command: Command) -> None:
    well(command("init"))
    output = well(command("merge", "--apply", "--limit", "1", "devices"))
    first, second, *_ = output.splitlines()
    assert first.endswith('CREATE INDEX CONCURRENTLY ON "the shop".readings (device)')
    assert second.startswith("devices: 1 rows")
    assert command("duplicates", "customers")[0] == 1
    well(command("merge", "--apply", "customers"))
    assert "customers: 0 rows" not in well(command("merge", "--undo", "customers"))
    assert sql(shop, "SELECT DISTINCT resource FROM merged ORDER BY 1") == [
        ("devices",),
        ("readings",),
    ]


@pytest.mark.long
def test_an_unknown_resource_is_refused_with_those_that_there_are(command: Command) -> None:
    for words in (["doctor"], ["duplicates"], ["guard", "on"], ["merge"], ["enforce"], ["init"]):
        status, output, errors = command(*words, "customers", "orders")
        assert (status, output) == (2, "")
        assert "'orders' is none of" in errors
        assert all(name in errors for name in ADOPTED)


@pytest.mark.long
def test_a_resource_that_cannot_go_on_does_not_hold_up_the_others(
    shop: str, command: Command
) -> None:
    well(command("init"))
    well(command("guard", "on", "devices"))
    # merge refuses the customers, for it has no files for this foreign key. Below, they become a
    # kind of table for which there is no guard.
    sql(shop, "CREATE TABLE orders (customer bigint REFERENCES customers)")
    status, output, errors = command("merge", "--apply")
    assert status == 1
    assert "devices: 2 rows merged." in output
    assert errors.startswith("merge: customers: a foreign key that merge has no SQL for")
    assert errors.endswith(": orders.customer: run the same `python -m db adopt` again\n")

    status, output, errors = command("enforce")
    assert status == 1
    assert errors.startswith("enforce: customers: customers has 1 keys with several rows")
    assert errors.count("\n") == 1
    assert {"devices_key", "readings_key"} < {*indexes(shop)}
    assert "customers_key" not in indexes(shop)

    sql(shop, "CREATE TABLE old_customers () INHERITS (customers)")
    for action, is_ in (("on", "off"), ("off", "off")):
        status, output, errors = command("guard", action)
        assert status == (1 if action == "on" else 0)
        assert f"customers: the guard is {is_}." in output
        assert f"readings: the guard is {action}." in output
        assert ("customers has children" in errors) == (action == "on")


@pytest.mark.long
def test_enforce_that_fails_leaves_the_guard_as_it_was(command: Command) -> None:
    well(command("init"))
    well(command("guard", "on", "customers"))
    assert command("enforce")[0] == 1
    output = command("guard", "status")[1]
    assert "customers: the guard is on." in output
    assert "devices: the guard is off." in output


@pytest.mark.long
def test_guard_on_that_fails_half_way_takes_back_its_own(
    shop: str, command: Command, folder: Path
) -> None:
    well(command("init"))
    always = folder / "devices" / "guard_always.sql"
    text = always.read_text()
    always.write_text(text.replace("devices_guard_update", "devices_guard_none"))
    status, output, errors = command("guard", "on")
    assert (status, errors.startswith("guard: devices: ")) == (1, True)
    assert "devices: the guard is off." in output
    assert "customers: the guard is on." in output
    assert sql(shop, "SELECT to_regclass('\"the shop\".devices_guard_locks')") == [(None,)]


OTHERS = {
    "a function": (
        "CREATE FUNCTION customers_guard() RETURNS text LANGUAGE sql AS $$ SELECT 'mine' $$",
        "the function customers_guard()",
    ),
    "a function with triggers": (
        "CREATE FUNCTION customers_guard() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RETURN NEW; END $$;"
        " CREATE TRIGGER mine BEFORE INSERT ON customers"
        " FOR EACH ROW EXECUTE FUNCTION customers_guard()",
        "the function customers_guard()",
    ),
    "a function with a trigger on another table": (
        "CREATE FUNCTION customers_guard() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RETURN NEW; END $$;"
        ' CREATE TRIGGER customers_guard_insert BEFORE INSERT ON "the shop".readings'
        " FOR EACH ROW EXECUTE FUNCTION customers_guard()",
        "the function customers_guard()",
    ),
    "a table": (
        "CREATE TABLE customers_guard_locks (hash bigint, precious text);"
        " INSERT INTO customers_guard_locks VALUES (1, 'precious')",
        "the table customers_guard_locks",
    ),
    "a table of another type": (
        "CREATE TABLE customers_guard_locks (hash integer);"
        " INSERT INTO customers_guard_locks VALUES (1)",
        "the table customers_guard_locks",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("what", OTHERS)
def test_what_only_bears_a_guards_name_is_not_dropped(
    what: str, shop: str, command: Command
) -> None:
    statements, told = OTHERS[what]
    well(command("init"))
    well(command("merge", "--apply"))
    sql(shop, statements)
    there = (
        "SELECT oid::regprocedure::text FROM pg_proc WHERE proname ~ '_guard$'"
        " UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
        " UNION ALL SELECT oid::regclass::text FROM pg_class WHERE relname ~ '_guard_locks$'"
        " UNION ALL SELECT oid::regclass::text FROM pg_class WHERE relname = 'customers_key'"
    )
    before = sql(shop, there)
    for words in (["guard", "on"], ["guard", "off"], ["enforce"]):
        status, _, errors = command(*words, "customers")
        assert status == 1
        assert f"customers: {told} would be dropped with the guard" in errors
        assert sql(shop, there) == before


@pytest.mark.long
def test_an_endpoint_without_the_way_out(command: Command, folder: Path) -> None:
    kept = {"select.sql", "insert.sql", "get.sql", "list.sql", "delete.sql", "lookup.sql"}
    for path in (folder / "customers").iterdir():
        if path.name not in kept:
            path.unlink()
    well(command("init"))
    assert "FAIL" not in well(command("doctor"))
    for words in (["guard", "on"], ["enforce"], ["merge"], ["duplicates"]):
        status, _, errors = command(*words, "customers")
        assert status == 1
        assert "there is no customers/" in errors


HEADERS = {
    "a parameter's type": (
        "select.sql", "-- $2 site integer", "-- $2 site bigint", "FAIL", ":3: site is integer"
    ),
    "a column's type": (
        "get.sql", "note text", "note integer", "advice", "get.sql:1: note is text"
    ),
    "SQL": (
        "list.sql", "ORDER BY", "ORDER TO", "FAIL", "list.sql: syntax error"
    ),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("wrong", HEADERS)
def test_doctor_holds_headers_against_what_postgresql_says(
    wrong: str, command: Command, folder: Path
) -> None:
    well(command("init"))
    name, said, other, level, told = HEADERS[wrong]
    # Columns and parameters are changed in all files, for their headers must agree.
    for file in (folder / "devices").glob("*.sql"):
        if wrong != "SQL" or file.name == name:
            file.write_text(file.read_text().replace(said, other))
    lines = command("doctor", "devices")[1].splitlines()
    assert any(line.startswith(level) and told in line for line in lines), lines


# Tables that refer to each other


@dataclass
class Adopted:
    """A database, and the folder of the resources that are adopted in it."""

    database: str
    folder: Path

    def command(self, *words: str) -> tuple[int, str, str]:
        return legacy.run(self.database, *words, RESOURCES=str(self.folder))

    def adopt(self, *words: str) -> None:
        _, output, errors = self.command("adopt", *words)
        assert "init" in output + errors, output + errors

    def merge(self, *names: str) -> tuple[int, str, str]:
        return self.command("merge", "--apply", *names)


@pytest.fixture
def tables(database: str, tmp_path: Path) -> Adopted:
    """A database without the sample's tables, and a folder without resources."""
    sql(database, "DROP TABLE departments, employees")
    return Adopted(database, tmp_path / "resources")


def test_what_is_merged_in_turn_is_counted_as_the_least(tables: Adopted) -> None:
    refers = {"g": None, "p": "g", "e": "p", "n": "n"}
    for name, parent in refers.items():
        key = f", {parent} bigint REFERENCES {parent}" if parent else ""
        sql(tables.database, f"CREATE TABLE {name} (id bigint PRIMARY KEY, name text{key})")
        tables.adopt(name, "--key", f"name,{parent}" if parent else "name")
    well(tables.command("init"))
    sql(tables.database, "INSERT INTO g VALUES (1, 'a'), (2, 'a')")
    sql(tables.database, "INSERT INTO p VALUES (1, 'x', 1), (2, 'x', 2), (3, 'x', 2)")
    sql(tables.database, "INSERT INTO e VALUES (1, 'k', 1), (2, 'k', 2), (3, 'k', 3)")
    sql(
        tables.database,
        "INSERT INTO n VALUES (1, 'b', NULL), (2, 'b', NULL), (3, 'c', 1), (4, 'c', 2)",
    )
    said = well(tables.command("merge"))
    assert "g: 1 keys would keep one row each, 1 rows would go, 2 rows refer to those." in said
    assert "p: 1 keys would keep one row each, 2 rows would go, 2 rows refer to those." in said
    assert "e: at least 1 rows would go.\n  More may come to share a key" in said
    assert "n: at least 1 rows would go, at least 1 rows refer to those." in said
    said = well(tables.merge())
    assert said.endswith("e: 2 rows merged.\nn: 2 rows merged.\n")


@pytest.mark.long
def test_rows_that_refer_to_each_other_in_a_circle_stay(tables: Adopted) -> None:
    sql(
        tables.database,
        "CREATE TABLE nodes (id bigint PRIMARY KEY,"
        " parent_id bigint REFERENCES nodes, name text NOT NULL)",
    )
    tables.adopt("nodes", "--key", "parent_id,name")
    well(tables.command("init"))
    rows = [(1, None, "root"), (5, 5, "a"), (3, 5, "a"), (6, 1, "b"), (7, 1, "b")]
    for row in rows:
        sql(tables.database, "INSERT INTO nodes VALUES (%s, %s, %s)", *row)
    status, output, errors = tables.merge()
    assert (status, errors) == (1, "")
    assert "nodes 3 stays as it is: rows refer to each other in a circle" in output
    assert "in a circle: let one refer to a row outside of it, and merge again" in output
    assert sql(tables.database, "SELECT id, parent_id, name FROM nodes") == rows[:-1]


def test_a_column_that_is_gone_is_told_in_one_line(tables: Adopted) -> None:
    sql(tables.database, "CREATE TABLE c (id bigint PRIMARY KEY, email text NOT NULL, prio int)")
    tables.adopt("c", "--key", "email", "--keep", "prio DESC")
    well(tables.command("init"))
    sql(tables.database, "ALTER TABLE c DROP prio")
    told = "c: column c.prio does not exist: run the same `python -m db adopt` again\n"
    for words in (["duplicates"], ["merge"], ["merge", "--format", "csv"], ["merge", "--apply"]):
        status, _, errors = tables.command(*words)
        assert (status, errors.replace("these_rows", "c")) == (1, f"{words[0]}: {told}")


EMPLOYED = {
    "an expression": (
        [["emp", "--key", "coalesce(dep_id,0),name"]],
        "emp.dep_id is inside an expression or the condition of the key of emp",
    ),
    "a condition": (
        [["emp", "--key", "name", "--where", "dep_id <> 2"]],
        "emp.dep_id is inside an expression or the condition of the key of emp",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("what", EMPLOYED)
def test_merge_refuses_to_make_duplicates_of_what_refers(what: str, tables: Adopted) -> None:
    adoptions, told = EMPLOYED[what]
    sql(tables.database, "CREATE TABLE dep (id bigserial PRIMARY KEY, name text NOT NULL)")
    sql(
        tables.database,
        "CREATE TABLE emp (id bigserial PRIMARY KEY, dep_id bigint REFERENCES dep,"
        " name text NOT NULL, badge text NOT NULL)",
    )
    tables.adopt("dep", "--key", "name")
    for words in adoptions:
        tables.adopt(*words)
    well(tables.command("init"))
    sql(tables.database, "INSERT INTO dep (name) VALUES ('d'), ('d')")
    sql(
        tables.database,
        "INSERT INTO emp (dep_id, name, badge) VALUES (1, 'e', 'b'), (2, 'e', 'b')",
    )
    for words in (["--apply"], []):
        status, _, errors = tables.command("merge", *words, "dep")
        assert (status, told in errors) == (1, True), errors
    assert sql(tables.database, "SELECT id, dep_id FROM emp") == [(1, 1), (2, 2)]
    assert sql(tables.database, "SELECT FROM merged") == []


@pytest.mark.long
def test_merge_goes_on_where_no_key_has_what_refers(tables: Adopted) -> None:
    sql(tables.database, "CREATE TABLE dep (id bigserial PRIMARY KEY, name text NOT NULL)")
    sql(
        tables.database,
        "CREATE TABLE emp (id bigserial PRIMARY KEY, dep_id bigint REFERENCES dep,"
        " name text NOT NULL, badge text NOT NULL)",
    )
    tables.adopt("dep", "--key", "name")
    tables.adopt("emp", "--key", "lower(name)")
    well(tables.command("init"))
    sql(tables.database, "INSERT INTO dep (name) VALUES ('d'), ('d')")
    sql(
        tables.database, "INSERT INTO emp (dep_id, name, badge) VALUES (1, 'e', 'b'), (2, 'f', 'c')"
    )
    well(tables.merge("dep"))
    assert sql(tables.database, "SELECT id, dep_id FROM emp") == [(1, 1), (2, 1)]


@pytest.mark.long
def test_a_reference_is_known_whatever_the_search_path_is(tables: Adopted) -> None:
    sql(tables.database, "CREATE SCHEMA shop")
    sql(tables.database, "CREATE TABLE customers (id bigserial PRIMARY KEY, email text NOT NULL)")
    sql(
        tables.database,
        "CREATE TABLE shop.orders (id bigserial PRIMARY KEY,"
        " customer_id bigint NOT NULL REFERENCES customers)",
    )
    sql(
        tables.database,
        "CREATE TABLE shop.items (id bigserial PRIMARY KEY, name text NOT NULL)",
    )
    name = sql(tables.database, "SELECT current_database()")[0][0]
    sql(tables.database, f"ALTER DATABASE {name} SET search_path = public, shop")
    tables.adopt("customers", "--key", "email")
    tables.adopt("shop.items", "--key", "name")
    well(tables.command("init"))
    sql(tables.database, "INSERT INTO customers (email) VALUES ('ada'), ('ada')")
    sql(tables.database, "INSERT INTO shop.orders (customer_id) VALUES (1), (2)")
    assert "customers references" not in tables.command("doctor")[1]
    assert "no SQL" not in tables.command("duplicates")[1]
    assert "1 rows would go" in well(tables.command("merge", "customers"))
    well(tables.merge("customers"))
    assert sql(tables.database, "SELECT customer_id FROM shop.orders") == [(1,), (1,)]
    well(tables.command("merge", "--undo"))
    assert sql(tables.database, "SELECT customer_id FROM shop.orders ORDER BY id") == [(1,), (2,)]


ACTIONS = {
    "ON DELETE SET NULL": ["name,dep_id"],
    "ON DELETE SET DEFAULT": ["coalesce(dep_id,0)"],
    "ON DELETE SET NULL ON UPDATE SET NULL": ["name", "--where", "dep_id IS NULL"],
}


@pytest.mark.long
@pytest.mark.parametrize("actions", ACTIONS)
def test_doctor_fails_where_a_delete_changes_keys_and_nothing_refuses(
    actions: str, tables: Adopted
) -> None:
    sql(tables.database, "CREATE TABLE dep (id bigserial PRIMARY KEY, name text NOT NULL)")
    sql(
        tables.database,
        "CREATE TABLE emp (id bigserial PRIMARY KEY, name text NOT NULL, dep_id bigint)",
    )
    foreign_key = "ALTER TABLE emp ADD CONSTRAINT dep FOREIGN KEY (dep_id) REFERENCES dep"
    sql(tables.database, f"{foreign_key} {actions}")
    tables.adopt("emp", "--key", *ACTIONS[actions])
    well(tables.command("init"))

    def told() -> set[tuple[str, str]]:
        lines = tables.command("doctor")[1].splitlines()
        return {
            (line.split()[0], actions)
            for line in lines
            for actions in re.findall(r"emp key: dep_id is (ON .*), so that", line)
        }

    expected = {("FAIL", actions.partition(" ON UPDATE")[0])}
    if "UPDATE" in actions:
        expected.add(("advice", "ON UPDATE SET NULL"))
    assert told() == expected
    well(tables.command("guard", "on"))
    assert told() == set()
    well(tables.command("enforce"))
    assert told() == set()
    well(tables.command("guard", "off"))

    # ON DELETE CASCADE changes no key, so that doctor has nothing to say.
    sql(tables.database, "ALTER TABLE emp DROP CONSTRAINT IF EXISTS emp_key")
    sql(tables.database, "DROP INDEX IF EXISTS emp_key")
    assert told() == expected
    sql(tables.database, "ALTER TABLE emp DROP CONSTRAINT dep")
    sql(tables.database, f"{foreign_key} ON DELETE CASCADE")
    assert told() == set()


# The command init


@pytest.mark.long
def test_init_replaces_an_index_that_is_another_or_invalid(
    shop: str, command: Command, folder: Path
) -> None:
    well(command("init"))
    made = indexes(shop)
    sql(shop, "DROP INDEX customers_lookup")
    sql(
        shop,
        "CREATE INDEX customers_lookup ON customers USING hash"
        " (hashtextextended(lower(email), 0::bigint)) WITH (fillfactor = 10)",
    )
    sql(
        shop,
        "UPDATE pg_index SET indisvalid = FALSE"
        " WHERE indexrelid = '\"the shop\".devices_lookup'::regclass",
    )
    with serving(DATABASE_URL=shop, RESOURCES=str(folder)) as service:
        told = service.http.get("/ready").json()["warnings"]
        assert any(each.startswith("customers_lookup does not serve") for each in told)
        invalid = '"the shop".devices_lookup is INVALID'
        assert any(each.startswith(invalid) for each in told)
        assert "customers_lookup is not as lookup.sql has it" in well(command("init"))
        assert indexes(shop) == made
        assert "lookup" not in service.http.get("/ready").text


@pytest.mark.parametrize("kind", ["TABLE", "VIEW"])
def test_init_names_what_has_the_name_of_its_index(kind: str, shop: str, command: Command) -> None:
    sql(shop, f"CREATE {kind} customers_lookup AS SELECT 1 AS one")
    status, _, errors = command("init", "customers")
    why = 'customers: relation "customers_lookup" already exists, and is not this index: rename it'
    assert (status, errors) == (1, f"init: {why} first\n")
    assert sql(shop, "SELECT one FROM customers_lookup") == [(1,)]


@pytest.mark.long
def test_init_goes_on_where_an_earlier_one_was_killed(shop: str, command: Command) -> None:
    well(command("init"))
    made = indexes(shop)
    sql(shop, "ALTER INDEX customers_lookup RENAME TO customers_lookup_before")
    well(command("init"))
    assert indexes(shop) == made


@pytest.mark.long
def test_two_inits_at_once_while_others_write(shop: str, folder: Path) -> None:
    with psycopg.connect(shop) as writer:
        writer.execute("INSERT INTO customers (email) VALUES ('grace@example.org')")
        with (
            legacy.start(shop, "init", RESOURCES=str(folder)) as one,
            legacy.start(shop, "init", RESOURCES=str(folder)) as other,
        ):
            writer.commit()
            told = [one.communicate(), other.communicate()]
    assert (one.returncode, other.returncode) == (0, 0), told
    assert {*indexes(shop)} == {f"{name}_lookup" for name in ADOPTED}


@pytest.mark.long
def test_init_makes_text_of_the_ids_that_an_earlier_version_has_merged(
    shop: str, command: Command
) -> None:
    well(command("init"))
    well(command("merge", "--apply", "customers"))
    before = sql(shop, "SELECT * FROM merged")
    sql(shop, "ALTER TABLE merged ALTER id TYPE bigint USING id::bigint")
    sql(shop, "ALTER TABLE merged ALTER kept TYPE bigint USING kept::bigint")
    well(command("init"))
    assert sql(shop, "SELECT * FROM merged") == before
    assert "customers: 1 rows put back." in well(command("merge", "--undo"))


@pytest.mark.long
def test_a_table_merged_of_somebody_elses_is_left_alone(shop: str, command: Command) -> None:
    sql(shop, "CREATE TABLE merged (id bigint PRIMARY KEY, name text, kept boolean)")
    sql(shop, "INSERT INTO merged VALUES (1, 'mine', TRUE)")
    refusal = "merged is somebody else's, for it has no column content, pointed, resource, step"
    status, _, errors = command("init")
    assert (status, refusal in errors) == (1, True)
    assert sql(shop, "SELECT id, kept FROM merged") == [(1, True)]
    assert any(
        line.startswith("FAIL") and refusal in line for line in command("doctor")[1].splitlines()
    )

    # The refusal says to do this.
    with psycopg.connect(shop, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA ours")
        connection.execute("SET search_path = ours")
        connection.execute(QUERIES["way_out/merged"])
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET search_path = ours, public".encode())
    well(command("init"))
    well(command("merge", "--apply", "customers"))
    assert "FAIL" not in command("doctor", "customers")[1]
    assert sql(shop, "SELECT id, kept FROM public.merged") == [(1, True)]
    assert sql(shop, "SELECT resource, id FROM ours.merged") == [("customers", "2")]


# The service, the roles and the pages


def ready(service: Service) -> tuple[int, str]:
    answer = service.http.get("/ready")
    return answer.status_code, answer.text


@pytest.mark.long
def test_ready_names_what_is_missing(shop: str, command: Command, folder: Path) -> None:
    well(command("init"))
    with serving(DATABASE_URL=shop, RESOURCES=str(folder)) as service:
        assert ready(service)[0] == 200
        for table, name in (
            ('"the shop".readings', "readings"),
            ("merged", "merged"),
            ("customers", "customers"),
        ):
            sql(shop, f"ALTER TABLE {table} RENAME TO away")
            assert ready(service)[0] == 503
            assert f"It is about {name}." in ready(service)[1]
            away = table.replace(name, "away")
            sql(shop, f"ALTER TABLE {away} RENAME TO {name}")
            assert ready(service)[0] == 200


@pytest.mark.long
def test_the_roles_have_what_they_need(shop: str, command: Command, folder: Path) -> None:
    well(command("init"))
    make_roles(shop, well(command("roles")))
    with serving(DATABASE_URL=as_role(shop, SERVICE), RESOURCES=str(folder)) as service:
        assert service.post("/customers", email="new@example.org").status_code == 201
        made = service.post("/devices", **{"Serial No": "N-9"})
        assert made.status_code == 201
        reading = {"device": made.json()["id"], "at": "2026-11-25T12:00:00Z", "value": "1.50"}
        assert service.post("/readings", **reading).status_code == 201
        for page in ("devices_duplicates", "devices_plan", "guard_and_constraint"):
            assert service.http.get(f"/inspect/{page}").status_code == 200
        listed = service.http.get("/inspect/guard_and_constraint.json").json()["rows"]
        assert {row["resource"] for row in listed} == {*ADOPTED}
        assert {row["lookup_index"] for row in listed} == {"valid"}
    status, output, _ = legacy.run(as_role(shop, SERVICE), "doctor", RESOURCES=str(folder))
    assert (status, [line for line in output.splitlines() if "the role" in line]) == (0, [])
