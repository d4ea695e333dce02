"""adopt writes the sample, and for any table files that fit, whatever its names and types are."""

import filecmp
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import RawCursor
from psycopg.rows import dict_row

import db.adopt.command
from db.adopt.catalog import read_table
from db.adopt.files import render
from db.header import Field
from db.queries import one_line
from db.resources import REQUESTS, SAMPLE, Resource, read_resources
from tests.support.adopting import adopt
from tests.support.legacy import run
from tests.support.service import ROOT, sql, until

# What adopt is told for the sample. In this order it writes each folder once.
COMMANDS = {
    "departments": ("--key", "name", "--attributes", ""),
    "employees": ("--key", "department_id,name", "--attributes", ""),
}

TABLES = """
CREATE TYPE plan AS ENUM ('free', 'pro');
CREATE TABLE customers (
    customer_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL,
    full_name text, plan plan NOT NULL DEFAULT 'free', deleted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE tags (
    id serial PRIMARY KEY, account_id bigint, name varchar(40) NOT NULL,
    colour text DEFAULT 'grey');
CREATE TABLE devices (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), serial_number text NOT NULL,
    owner bigint REFERENCES customers);
CREATE TABLE stock (
    id bigserial PRIMARY KEY, warehouse integer NOT NULL, sku text NOT NULL, day date,
    quantity numeric(10,2) NOT NULL DEFAULT 0);
"""

FOUR: dict[str, tuple[str, ...]] = {
    "customers": ("--key", "lower(email)", "--where", "deleted_at IS NULL"),
    "tags": ("--key", "account_id,name"),
    "devices": ("--key", "serial_number"),
    "stock": ("--key", "warehouse, sku, day"),
}

# For each table the values of one key, and the attributes that its new row is sent.
VALUES: dict[str, tuple[list[object], list[object]]] = {
    "customers": (["Ada@Example.org"], [None, "pro", None, None]),
    "tags": ([None, "new"], [None]),
    "devices": (["N-1"], [None]),
    "stock": ([7, "N-1", None], ["2.50"]),
}

FILL = """
INSERT INTO customers (email) VALUES ('ada@example.org'), ('ADA@example.org'), ('al@example.org');
UPDATE customers SET deleted_at = now() WHERE email LIKE 'al%';
INSERT INTO customers (email) VALUES ('al@example.org');
INSERT INTO tags (account_id, name) VALUES (NULL, 'new'), (NULL, 'new'), (1, 'new'), (1, 'old');
INSERT INTO devices (serial_number, owner) VALUES ('N-1', 1), ('N-1', 2), ('N-2', 2);
INSERT INTO stock (warehouse, sku, day)
VALUES (7, 'N-1', NULL), (7, 'N-1', NULL), (7, 'N-1', '2026-11-25');
"""


def script(database: str, statements: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(statements.encode())


@pytest.fixture(scope="module")
def empty(new_database: Callable[[], str]) -> str:
    """A database for tables of each test's own."""
    return new_database()


@pytest.fixture(scope="module")
def four(new_database: Callable[[], str]) -> str:
    database = new_database()
    script(database, TABLES + FILL)
    return database


@pytest.fixture(scope="module")
def folder(four: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What adopt writes for the four tables."""
    folder = tmp_path_factory.mktemp("four")
    for table, words in FOUR.items():
        status, said = adopt(four, folder, table, *words)
        assert status == 0, said
    return folder


# The sample


@pytest.mark.parametrize("names", [list(COMMANDS), list(reversed(COMMANDS))], ids=str)
def test_the_sample_is_its_output(names: list[str], empty: str, tmp_path: Path) -> None:
    for name in names:
        status, said = adopt(empty, tmp_path, name, *COMMANDS[name])
        assert status == 0, said
    for path in SAMPLE:
        assert same(path, tmp_path / path.name)


def same(one: Path, other: Path) -> bool:
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert files == {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
    _, different, failed = filecmp.cmpfiles(one, other, list(map(str, files)), shallow=False)
    assert (different, failed) == ([], [])
    return True


def test_an_enforced_sample_is_still_its_output(database: str, tmp_path: Path) -> None:
    assert run(database, "enforce")[0] == 0
    for name, words in COMMANDS.items():
        assert adopt(database, tmp_path, name, *words)[0] == 0
    for path in SAMPLE:
        assert same(path, tmp_path / path.name)


# What adopt writes


def fit(database: str, folder: Path) -> dict[str, Resource]:
    """Prepare every file, and hold the headers of the requests against what PostgreSQL says."""
    resources = read_resources(folder)
    with psycopg.connect(database, cursor_factory=RawCursor) as connection:
        for resource in resources.values():
            for name, file in resource.files.items():
                connection.pgconn.prepare(b"", file.text.encode())
                described = connection.pgconn.describe_prepared(b"")
                assert described.error_message == b"", (name, described.error_message)
                if name not in REQUESTS:
                    continue
                names = [described.fname(n) for n in range(described.nfields)]
                assert [(each or b"").decode() for each in names] == [f.name for f in file.columns]
                types = [described.ftype(n) for n in range(described.nfields)]
                assert types == oids(connection, file.columns)
                types = [described.param_type(n) for n in range(described.nparams)]
                assert types == oids(connection, file.parameters)
    return resources


def oids(connection: psycopg.Connection, fields: tuple[Field, ...]) -> list[int]:
    named = [re.sub(r"\(.*?\)", "", field.type) for field in fields]
    query = (
        "SELECT array_agg(to_regtype(name)::oid ORDER BY n)"
        " FROM unnest($1::text[]) WITH ORDINALITY AS t (name, n)"
    )
    (found,) = connection.execute(query.encode(), [named]).fetchall()[0]
    return [int(oid) for oid in found or []]


def test_every_file_fits(four: str, folder: Path) -> None:
    resources = fit(four, folder)
    assert set(resources) == set(FOUR)
    customers = resources["customers"]
    assert [field.name for field in customers.key] == ["email"]
    assert customers.columns[0] == Field("id", "bigint")
    assert customers.files["insert"].parameters[2].labels == ("free", "pro")
    assert [field.optional for field in resources["stock"].key] == [False, False, True]
    assert resources["stock"].filters[0].needs == ("sku", "day")
    assert customers.references == ["devices.owner"]


@pytest.mark.parametrize("table", FOUR)
def test_a_second_time_finds_all_as_it_was(table: str, four: str, folder: Path) -> None:
    status, said = adopt(four, folder, table, *FOUR[table])
    assert status == 0
    assert ": 0 files written" in said


SAID = {
    "customers": "1 keys have 1 rows too many",
    "tags": "1 keys have 1 rows too many",
    "devices": "1 keys have 1 rows too many",
    "stock": "1 keys have 1 rows too many",
}


@pytest.mark.parametrize("table", FOUR)
def test_it_tells_the_duplicates_and_what_comes_next(table: str, four: str, folder: Path) -> None:
    _, said = adopt(four, folder, table, *FOUR[table])
    assert SAID[table] in said
    assert said.endswith("Next: python -m db init\n")


def query(
    connection: psycopg.Connection, file: Path, *parameters: object
) -> list[tuple[object, ...]]:
    cursor = connection.execute(file.read_bytes(), parameters)
    return cursor.fetchall() if cursor.description else []


def inserted(connection: psycopg.Connection, file: Path, *parameters: object) -> tuple[object, ...]:
    """Return the row that insert.sql makes.

    The insert is sent until it makes one, for on a busy machine it may come too late.
    """
    rows: list[tuple[object, ...]] = []

    def done() -> bool:
        with suppress(psycopg.errors.InvalidTextRepresentation):
            rows.extend(query(connection, file, *parameters))
        return bool(rows)

    until(done)
    return rows[0]


@pytest.mark.parametrize("table", FOUR)
def test_a_key_is_made_once_and_found_again(
    table: str, new_database: Callable[[], str], folder: Path
) -> None:
    database = new_database()
    script(database, TABLES)
    key, attributes = VALUES[table]
    with psycopg.connect(database, cursor_factory=RawCursor, autocommit=True) as connection:
        assert query(connection, folder / table / "select.sql", *key) == []
        made = inserted(connection, folder / table / "insert.sql", *key, *attributes)
        assert query(connection, folder / table / "insert.sql", *key, *attributes) == []
        (found,) = query(connection, folder / table / "select.sql", *key)
        assert found == (*made, 1)
        (got,) = query(connection, folder / table / "get.sql", made[0])
        assert got == made
        if table == "customers":
            assert query(connection, folder / table / "select.sql", "ADA@EXAMPLE.ORG") == [found]
            assert made[1:4] == ("Ada@Example.org", None, "pro")
        if table == "tags":  # an attribute that is NULL gets the column's default
            assert made[3] == "grey"
        nones = [None] * len(key)
        listed = query(connection, folder / table / "list.sql", None, 10, *nones)
        assert listed == [made]
        if None not in key:
            assert query(connection, folder / table / "list.sql", None, 10, *key) == [made]
        assert query(connection, folder / table / "delete.sql", made[0]) == [(made[0],)]


# The states of a table: how many rows it has, and whether ANALYZE has seen them.
STATES = [(rows, analyzed) for rows in (0, 10, 30_000) for analyzed in (False, True)]

GENERATE = {
    "customers": "INSERT INTO customers (email) SELECT 'e' || n FROM generate_series(1, %s) AS n",
    "tags": "INSERT INTO tags (account_id, name)"
    " SELECT nullif(n %% 10, 0), 'n' || n FROM generate_series(1, %s) AS n",
    "devices": "INSERT INTO devices (serial_number)"
    " SELECT 's' || n FROM generate_series(1, %s) AS n",
    "stock": "INSERT INTO stock (warehouse, sku, day)"
    " SELECT n %% 10, 's' || n, nullif('2026-11-25'::date + n %% 3, '2026-11-25')"
    " FROM generate_series(1, %s) AS n",
}

OTHER_INDEXES = """
CREATE INDEX ON tags (account_id, id);
CREATE INDEX ON stock (sku, id);
CREATE INDEX ON customers (deleted_at, customer_no);
"""


@pytest.mark.parametrize(("rows", "analyzed"), STATES)
def test_a_lookup_that_misses_locks_one_page_of_its_index(
    rows: int, analyzed: bool, new_database: Callable[[], str], folder: Path
) -> None:
    database = new_database()
    script(database, TABLES + OTHER_INDEXES)
    for table in FOUR:
        sql(database, (folder / table / "lookup.sql").read_text())
        sql(database, GENERATE[table], rows)
    if analyzed:
        sql(database, "ANALYZE")
    held = (
        "SELECT locktype, relation::regclass::text FROM pg_locks"
        " WHERE mode = 'SIReadLock' AND pid = pg_backend_pid()"
    )
    for plan in ("force_custom_plan", "force_generic_plan"):
        for table, (key, _) in VALUES.items():
            with psycopg.connect(database, cursor_factory=RawCursor) as connection:
                connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
                connection.execute("SET enable_seqscan = off")
                connection.execute(f"SET plan_cache_mode = {plan}".encode())
                query(connection, folder / table / "select.sql", *key)
                # PostgreSQL also locks pages of its own catalogs, whose names have pg_ in them.
                locks = [lock for lock in connection.execute(held) if "pg_" not in lock[1]]
                assert locks == [("page", f"{table}_lookup")], (table, plan)


def test_a_row_outside_the_condition_is_no_copy(
    new_database: Callable[[], str], folder: Path
) -> None:
    database = new_database()
    script(database, TABLES + FILL)
    customers = folder / "customers"
    now = "2026-11-25T12:00:00Z"
    with psycopg.connect(database, cursor_factory=RawCursor, autocommit=True) as connection:
        (found,) = query(connection, customers / "select.sql", "AL@example.org")
        assert found[0] == 4
        outside = ("new@example.org", None, None, now, None)
        with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="kept no row"):
            until(lambda: bool(query(connection, customers / "insert.sql", *outside)))
        for file in ("lookup", "index"):
            if file == "index":
                sql(database, "DELETE FROM devices")
                sql(database, "DELETE FROM customers WHERE email = 'ADA@example.org'")
            query(connection, customers / f"{file}.sql")
        sql(database, "UPDATE customers SET deleted_at = now()")
        made = inserted(connection, customers / "insert.sql", "al@example.org", *[None] * 4)
        assert made[0] not in (3, 4)
    assert not (customers / "constraint.sql").exists()


def test_a_list_reads_only_the_rows_that_count(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    script(database, TABLES)
    _, said = adopt(database, tmp_path, "customers", *FOUR["customers"])
    advice = next(line for line in said.splitlines() if "CREATE INDEX" in line)
    statement = advice.removeprefix("customers: ").partition(";")[0]
    folder = tmp_path / "customers"
    sql(database, (folder / "lookup.sql").read_text())
    sql(database, statement)
    insert = (
        "INSERT INTO customers (email, deleted_at)"
        " SELECT n || '@example.org', {} FROM generate_series(1, 3000) AS n"
    )
    sql(database, insert.format("now()"))
    sql(database, insert.format("NULL"))
    sql(database, "ANALYZE")
    with psycopg.connect(database, cursor_factory=RawCursor) as connection:
        connection.execute("SET enable_seqscan = off")
        explain = b"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + (folder / "list.sql").read_bytes()
        for key, index in (
            (None, "customers_customer_no_idx"),
            ("7@EXAMPLE.org", "customers_lookup"),
        ):
            plan = "\n".join(line for (line,) in connection.execute(explain, [None, 10, key]))
            assert index in plan, plan
            assert "Rows Removed" not in plan, plan


def test_null_is_one_key_to_the_guard_and_the_constraint(
    new_database: Callable[[], str], folder: Path
) -> None:
    database = new_database()
    script(database, TABLES)
    tags = folder / "tags"
    guard = ("search_path", "locks", "", "insert", "update", "always")
    for file in guard:
        script(database, (tags / f"guard{'_' if file else ''}{file}.sql").read_text())
    insert = "INSERT INTO tags (account_id, name) VALUES (NULL, 'new')"
    sql(database, insert)
    with pytest.raises(psycopg.errors.UniqueViolation, match="the guard of tags"):
        sql(database, insert)
    sql(database, (tags / "guard_off.sql").read_text())
    for file in ("index", "constraint"):
        sql(database, (tags / f"{file}.sql").read_text())
    with pytest.raises(psycopg.errors.UniqueViolation, match="tags_key"):
        sql(database, insert)


def test_before_version_15_the_unique_index_is_of_arrays(
    new_database: Callable[[], str],
) -> None:
    database = new_database()
    script(database, TABLES)
    with psycopg.connect(
        database, autocommit=True, cursor_factory=RawCursor, row_factory=dict_row
    ) as connection:
        table = read_table(connection, "stock", "warehouse,sku,day", None)
    files = render(replace(table, version=140_000), [table])
    assert "constraint.sql" not in files
    script(database, files["index.sql"])
    insert = "INSERT INTO stock (warehouse, sku, day) VALUES (7, 'N-1', {})"
    for day in ("NULL", "'2026-11-25'"):
        sql(database, insert.format(day))
        with pytest.raises(psycopg.errors.UniqueViolation):
            sql(database, insert.format(day))
    for null in ("warehouse", "sku"):
        assert f"ARRAY[{null}" not in files["index.sql"]


# Files that were edited


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_edited_file_stays_as_it_is(four: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    edited = tmp_path / "tags" / "list.sql"
    before = edited.read_text()
    edited.write_text(before + "-- edited\n")
    (tmp_path / "tags" / "get.sql").unlink()
    words = ("tags", *FOUR["tags"])
    for _ in range(2):
        status, said = adopt(four, tmp_path, *words)
        assert status == 0, said
        assert "edited (--force writes them): list.sql" in said
        assert edited.read_text() == before + "-- edited\n"
    assert (tmp_path / "tags" / "get.sql").exists()
    adopt(four, tmp_path, *words, "--force")
    assert edited.read_text() == before
    assert same(folder, tmp_path)


def test_another_key_is_written_over_what_was_not_edited(
    four: str, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    status, said = adopt(four, tmp_path, "tags", "--key", "lower(name)")
    assert status == 0, said
    assert [field.name for field in fit(four, tmp_path)["tags"].key] == ["name"]
    assert not (tmp_path / "tags" / "constraint.sql").exists()


def test_a_folder_by_hand_is_left_alone(four: str, tmp_path: Path) -> None:
    (tmp_path / "tags").mkdir()
    for name in REQUESTS:
        shutil.copy(ROOT / "sql" / "departments" / f"{name}.sql", tmp_path / "tags")
    _, said = adopt(four, tmp_path, "tags", "--key", "name", "--as", "tags")
    for name in REQUESTS:
        text = (ROOT / "sql" / "departments" / f"{name}.sql").read_text()
        assert (tmp_path / "tags" / f"{name}.sql").read_text() == text
    assert "delete.sql, get.sql, insert.sql, list.sql, select.sql" in said


# Files with which the service would not start


def test_a_change_that_an_edited_file_does_not_fit_is_not_written(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    script(database, TABLES)
    for table in ("customers", "devices"):
        assert adopt(database, tmp_path, table, *FOUR[table])[0] == 0
    edited = {name: tmp_path / name / "list.sql" for name in ("customers", "devices")}
    for path in edited.values():
        path.write_text(path.read_text() + "-- edited\n")
    script(database, "ALTER TABLE customers ADD note text; ALTER TABLE devices ADD note text")
    before = contents(tmp_path)
    for name in edited:
        status, said = adopt(database, tmp_path, name, *FOUR[name])
        assert status == 1
        assert f"{edited[name]}:1: must return what get.sql returns" in said
        assert f"{tmp_path / name}: nothing is written" in said
        assert contents(tmp_path) == before
        assert read_resources(tmp_path)
    # The customers fit once their own file is replaced. The devices, which refer to them, still
    # have an edited file, so that their folder stays as it can be served.
    status, said = adopt(database, tmp_path, "customers", *FOUR["customers"], "--force")
    assert (status, f"{tmp_path}/devices: nothing is written" in said) == (1, True)
    assert "note" in [field.name for field in read_resources(tmp_path)["customers"].columns]
    status, said = adopt(database, tmp_path, "devices", *FOUR["devices"], "--force")
    assert status == 0, said
    fit(database, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "why"), [("-- $1 id", "must be `-- $1"), ("FROM", "syntax error")], ids=str
)
def test_what_would_stop_the_start_is_not_written(
    wrong: str, why: str, four: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adopt gets a fault by monkeypatch here, for none of its own is known."""

    def faulty(*given: Any, **options: Any) -> dict[str, str]:
        files = render(*given, **options)
        return {**files, "get.sql": files["get.sql"].replace(f"{wrong} ", f"{wrong} ( ")}

    assert adopt(four, tmp_path, "stock", *FOUR["stock"])[0] == 0
    before = contents(tmp_path)
    monkeypatch.setattr(db.adopt.command, "render", faulty)
    for name in ("tags", "stock"):
        status, said = adopt(four, tmp_path, name, *FOUR[name])
        assert (status, why in said, f"{tmp_path}/{name}: nothing is" in said) == (1, True, True)
        assert said.endswith("Next: mend that, and adopt it again\n")
        assert contents(tmp_path) == before
        assert set(read_resources(tmp_path)) == {"stock"}


def test_a_table_of_ones_own_that_is_called_merged(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    script(
        database,
        "DROP TABLE IF EXISTS merged; CREATE TABLE merged (id bigserial PRIMARY KEY, name text);"
        "CREATE TABLE t (id bigserial PRIMARY KEY, name text)",
    )
    for words in (("t",), ("merged",), ("merged", "--as", "others")):
        status, said = adopt(database, tmp_path, *words, "--key", "name")
        assert status == 1
        assert 'column "resource" of relation "merged" does not exist' in said
        assert "nothing is written" in said
    assert not any(tmp_path.iterdir())
    sql(database, "ALTER TABLE merged RENAME TO merges")
    for table in ("t", "merges"):
        status, said = adopt(database, tmp_path, table, "--key", "name")
        assert status == 0, said


# Each table has one folder


def test_a_folder_stays_with_its_table(new_database: Callable[[], str], tmp_path: Path) -> None:
    database = new_database()
    for schema in "ab":
        script(
            database,
            f"CREATE SCHEMA {schema};"
            f" CREATE TABLE {schema}.dup (id bigserial PRIMARY KEY, name text)",
        )
    assert adopt(database, tmp_path, "a.dup", "--key", "name")[0] == 0
    before = contents(tmp_path)
    for _ in range(2):
        for words in ((), ("--force",)):
            status, said = adopt(database, tmp_path, "b.dup", "--key", "name", *words)
            assert status == 1
            assert said == f"{tmp_path}/dup: this folder is of a.dup; give another name with --as"
        assert contents(tmp_path) == before
        # The folder stays a.dup's without the table, whose rows may still be in merged.
        sql(database, "DROP TABLE IF EXISTS a.dup")
    assert adopt(database, tmp_path, "b.dup", "--key", "name", "--as", "dup2")[0] == 0


def test_a_table_has_one_folder(new_database: Callable[[], str], tmp_path: Path) -> None:
    database = new_database()
    script(database, TABLES)
    assert adopt(database, tmp_path, "tags", *FOUR["tags"])[0] == 0
    before = contents(tmp_path)
    words = ("public.tags", "--key", "name", "--as", "labels")
    status, said = adopt(database, tmp_path, *words)
    assert (status, "tags is served by this folder already" in said) == (1, True)
    assert contents(tmp_path) == before
    assert adopt(database, tmp_path, "public.tags", *FOUR["tags"])[0] == 0
    for path in (tmp_path / "tags").glob("*.sql"):
        path.unlink()
    assert adopt(database, tmp_path, *words)[0] == 0


# Tables that are out of the ordinary

TRAPS = """
CREATE SCHEMA "my Shop";
CREATE TYPE "my Shop"."Plan$$" AS ENUM ('it''s', 'b"; --', '$$');
CREATE TABLE "my Shop"."x; DROP TABLE tags; --" (
    "Order No" uuid PRIMARY KEY, "E-Mail" text NOT NULL, "it's 100%" "my Shop"."Plan$$",
    "select" integer NOT NULL DEFAULT 3, id text, copies integer, "limit" text);
CREATE TABLE keys (id bigserial PRIMARY KEY, other text NOT NULL, keys integer NOT NULL);
CREATE TABLE missing (id bigserial PRIMARY KEY, inserted text NOT NULL);
CREATE TABLE generated (
    id bigserial PRIMARY KEY, name text NOT NULL,
    lowered text GENERATED ALWAYS AS (lower(name)) STORED,
    number bigint GENERATED ALWAYS AS IDENTITY);
CREATE TABLE naturals (code varchar(5) PRIMARY KEY, name text NOT NULL);
CREATE DOMAIN words AS text DEFAULT 'none' CHECK (length(value) < 100);
CREATE DOMAIN numbers AS bigint;
CREATE TABLE domains (id numbers PRIMARY KEY DEFAULT 7, name words NOT NULL, note words);
CREATE COLLATION german FROM "C";
CREATE TABLE collated (id bigserial PRIMARY KEY, name text COLLATE german NOT NULL, x text);
CREATE TABLE pairs (
    a bigint UNIQUE, id bigint PRIMARY KEY DEFAULT 1, name text NOT NULL, UNIQUE (id, name));
CREATE TABLE refers (id bigint PRIMARY KEY, pair bigint, name text, a bigint REFERENCES pairs (a),
    plain bigint REFERENCES pairs ON DELETE CASCADE,
    FOREIGN KEY (pair, name) REFERENCES pairs (id, name));
CREATE TABLE parted (id bigint PRIMARY KEY DEFAULT 1, name text NOT NULL) PARTITION BY HASH (id);
CREATE TABLE parent (id bigserial PRIMARY KEY, name text NOT NULL);
CREATE TABLE child () INHERITS (parent);
CREATE TABLE tree (id bigserial PRIMARY KEY, name text NOT NULL, above bigint REFERENCES tree);
CREATE TABLE new (id bigserial PRIMARY KEY, name text NOT NULL);
CREATE TABLE types (
    id bigserial PRIMARY KEY, a smallint, b integer, c bigint, d text, e varchar(9), f boolean,
    g numeric, h numeric(5,2), i uuid, j date, k time, l time(3), m timestamp, n timestamptz(2),
    o jsonb, p char(3), q inet, r integer[], s double precision);
CREATE TABLE jsons (number bigserial PRIMARY KEY, name text NOT NULL, content json, copies int);
CREATE VIEW seen AS SELECT id, name FROM parent;
CREATE TABLE keyless (name text);
CREATE TABLE composite (a bigint, b bigint, name text, PRIMARY KEY (a, b));
"""

ADOPTED: dict[str, tuple[str, ...]] = {
    "awkward": ('"my Shop"."x; DROP TABLE tags; --"', "--key", 'lower("E-Mail"),"it\'s 100%"'),
    "keys": ("keys", "--key", "other,keys"),
    "missing": ("missing", "--key", "inserted"),
    "generated": ("generated", "--key", "name"),
    "naturals": ("naturals", "--key", "name"),
    "domains": ("domains", "--key", "name"),
    "collated": ("collated", "--key", "name,lower(x)"),
    "pairs": ("pairs", "--key", "name"),
    "parted": ("parted", "--key", "name"),
    "parent": ("parent", "--key", "trim(name)", "--where", "name <> '''$$' OR id > 3"),
    "tree": ("tree", "--key", "above,name"),
    **{f"of_{c}": ("types", "--key", c) for c in "abcdefghijklmn"},
}


GUARD = ("guard_search_path", "guard_locks", "guard", "guard_insert", "guard_update")


@pytest.fixture(scope="module")
def traps(new_database: Callable[[], str]) -> str:
    database = new_database()
    script(database, TRAPS)
    return database


@pytest.mark.parametrize("name", ADOPTED)
def test_every_file_fits_tables_as_they_are(name: str, traps: str, tmp_path: Path) -> None:
    status, said = adopt(traps, tmp_path, *ADOPTED[name], "--as", name)
    assert status == 0, said
    resource = fit(traps, tmp_path)[name]
    with psycopg.connect(traps) as connection:
        for file in GUARD:
            if name != "parted":
                connection.execute(resource.files[file].text.encode())
        for file in ("lookup", "index", "constraint"):
            if file in resource.files:
                text = resource.files[file].text.replace(" CONCURRENTLY", "")
                if name != "parted" or file == "lookup":
                    connection.execute(text.encode())
        connection.rollback()
    assert sql(traps, "SELECT count(*) FROM parent") == [(0,)]


def test_names_that_try_to_be_sql_are_names(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    traps = new_database()
    script(traps, TRAPS)
    status, said = adopt(traps, tmp_path, *ADOPTED["awkward"])
    assert status == 1
    assert "--as NAME" in said
    status, said = adopt(traps, tmp_path, *ADOPTED["awkward"], "--as", "awkward")
    resource = fit(traps, tmp_path)["awkward"]
    assert [field.name for field in resource.key] == ["E-Mail", "it's 100%"]
    assert resource.key[1].labels == ("it's", 'b"; --', "$$")
    assert [field.name for field in resource.columns] == [
        "id", "E-Mail", "it's 100%", "select", "limit"
    ]  # fmt: skip
    assert [field.name for field in resource.fields][2:] == ["Order No", "select", "limit"]
    for left_out in ("id is left out", "copies is left out", "Order No has no default"):
        assert left_out in said
    key = ["Ada", "$$"]
    with psycopg.connect(traps, cursor_factory=RawCursor, autocommit=True) as connection:
        with connection.transaction():
            for file in GUARD:
                query(connection, tmp_path / "awkward" / f"{file}.sql")
        number = "0190a5de-7c3b-7cc1-8ad4-2f6f3a1e9b57"
        insert = tmp_path / "awkward" / "insert.sql"
        made = inserted(connection, insert, *key, number, None, None)
        assert (str(made[0]), made[3]) == (number, 3)
        with pytest.raises(psycopg.errors.UniqueViolation, match="the guard of awkward"):
            connection.execute(
                'INSERT INTO "my Shop"."x; DROP TABLE tags; --"'
                ' ("Order No", "E-Mail", "it\'s 100%")'
                " VALUES (gen_random_uuid(), 'ADA', '$$')"
            )


def test_the_guard_of_a_table_that_has_its_variables_names(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    script(database, "CREATE TABLE found (id bigserial PRIMARY KEY, other text, tg_name text)")
    status, said = adopt(database, tmp_path, "found", "--key", "other,tg_name")
    assert status == 0, said
    with psycopg.connect(database, cursor_factory=RawCursor) as connection:
        for file in GUARD:
            query(connection, tmp_path / "found" / f"{file}.sql")
    sql(database, "INSERT INTO found (other) VALUES ('a'), ('b')")
    with pytest.raises(psycopg.errors.UniqueViolation, match="the guard of found"):
        sql(database, "UPDATE found SET other = 'a'")


NOTES = {
    "generated": "",
    "naturals": "code has no default, so that a request must bring one for a new row",
    "pairs": "refers.a refers to it, and merge refuses one that does not refer to id",
    "parted": "parted is a partitioned table: the service works, but merge, guard and enforce",
    "parent": "parent has children, whose rows are among its own (public.child)",
    "of_a": "o is left out: its type, jsonb, has no form in a request",
}


@pytest.mark.parametrize("name", NOTES)
def test_it_says_what_it_left_out(name: str, traps: str, tmp_path: Path) -> None:
    status, said = adopt(traps, tmp_path, *ADOPTED[name], "--as", name)
    assert status == 0, said
    assert NOTES[name] in said
    resource = fit(traps, tmp_path)[name]
    if name == "pairs":
        assert "refers.pair, name refers to it, and merge refuses a foreign key of several" in said
        assert resource.references == ["refers.plain"]
    if name == "generated":
        assert [field.name for field in resource.fields] == ["name"]
        assert "lowered" in [field.name for field in resource.columns]


REFUSED: dict[str, tuple[str, ...]] = {
    "new has a name that means something else": ("new", "--key", "name"),
    "there is no such table": ("nothing", "--key", "a"),
    "seen is a view": ("seen", "--key", "name"),
    "keyless has no primary key of one column": ("keyless", "--key", "name"),
    "composite has no primary key of one column": ("composite", "--key", "name"),
    "id is the primary key": ("parent", "--key", "id"),
    "two parts of the key are made of name": ("parent", "--key", "lower(name),name"),
    "must be made of one column": ("parent", "--key", "name || id"),
    "must be marked IMMUTABLE": ("types", "--key", "n::text"),
    "o cannot be in a key": ("types", "--key", "o"),
    "p cannot be in a key": ("types", "--key", "p"),
    "that cannot be in a key: double precision": ("types", "--key", "s * 2"),
    "so no request can set it": ("generated", "--key", "lowered"),
    "cannot use subquery": ("parent", "--key", "(SELECT name)"),
    "syntax error": ("parent", "--key", "lower(name)); DROP TABLE keyless; --"),
    "syntax error at or near": ("parent", "--key", "lower(name)), (name"),
    "PostgreSQL does not take name INCLUDE": ("parent", "--key", "name INCLUDE (id)"),
    "unterminated quoted string": ("parent", "--key", "name || 'x"),
    "true) OR (true: syntax error": ("parent", "--key", "name", "--where", "true) OR (true"),
    "cannot use subquery in index predicate": (
        *("parent", "--key", "name"),
        *("--where", "EXISTS (SELECT FROM public.keyless)"),
    ),
    "is no condition of the table's columns": ("parent", "--key", "name", "--where", "true"),
    "no columns that a request can set": ("parent", "--key", "name", "--attributes", "id"),
    "a resource cannot be called inspect": ("parent", "--key", "name", "--as", "inspect"),
    "a resource cannot be called ../x": ("parent", "--key", "name", "--as", "../x"),
    "needs its schema": ("parent", "--key", "nope(name)"),
    "PostgreSQL does not take now(): functions in index": (
        *("parent", "--key", "name"),
        *("--keep", "now() DESC"),
    ),
    "--keep cannot count by it": ("parent", "--key", "name", "--keep", "referring"),
    "is no order of the table's columns": ("parent", "--key", "name", "--keep", "length('x')"),
    "ORDER BY position 1 is not": ("parent", "--key", "name", "--keep", "1"),
    "may not have a comment": ("parent", "--key", "name", "--keep", "name -- DESC"),
    "name DESC; DROP TABLE keyless: syntax error": (
        *("parent", "--key", "name"),
        *("--keep", "name DESC; DROP TABLE keyless"),
    ),
    "name) DESC, (name: syntax error": (
        *("parent", "--key", "name"),
        *("--keep", "name) DESC, (name"),
    ),
    "could not identify an ordering operator": ("jsons", "--key", "name", "--keep", "content"),
    "parent has no column nope for --fill": ("parent", "--key", "name", "--fill", "nope"),
    "id is the primary key, and cannot be in --fill": ("parent", "--key", "name", "--fill", "id"),
    "id is the primary key, and cannot be in --agree": ("parent", "--key", "name", "--agree", "id"),
    "lowered is generated, and cannot be in --largest": (
        *("generated", "--key", "name"),
        *("--largest", "lowered"),
    ),
    "d is in the key, and cannot be in --together": (
        *("types", "--key", "d"),
        *("--together", "d,b"),
    ),
    "b is in the condition of --where, and cannot be in --newest": (
        *("types", "--key", "d", "--where", "b > 0"),
        *("--newest", "b"),
    ),
    "b is in --fill and in --largest": ("types", "--key", "d", "--fill", "b", "--largest", "b"),
    "all of --fill or all of --newest": (
        *("types", "--key", "d", "--fill", "b", "--newest", "s", "--by", "b"),
        *("--together", "b,s"),
    ),
    "must have two columns or more": ("types", "--key", "d", "--together", "b"),
    "b is in two of --together": (
        *("types", "--key", "d"),
        *("--together", "b,s", "--together", "o,b"),
    ),
    "--newest needs one that --by names": ("types", "--key", "d", "--newest", "b"),
    "--by goes with --newest": ("types", "--key", "d", "--by", "b"),
    "copies cannot be in --keep": ("jsons", "--key", "name", "--keep", "copies"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_it_refuses(why: str, traps: str, tmp_path: Path) -> None:
    status, said = adopt(traps, tmp_path, *REFUSED[why])
    assert status == 1
    assert why in said
    assert not any(tmp_path.iterdir())
    assert sql(traps, "SELECT count(*) FROM keyless") == [(0,)]


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\u2028b"])
def test_names_that_cannot_be_printed(name: str, traps: str, tmp_path: Path) -> None:
    for statement in (
        f'CREATE TABLE "{name}" (id bigserial PRIMARY KEY, name text)',
        f'CREATE TABLE trap (id bigserial PRIMARY KEY, name text, "{name}" text)',
    ):
        sql(traps, statement)
    try:
        status, said = adopt(traps, tmp_path, f'"{name}"', "--key", "name", "--as", "trap")
        assert (status, name in said) == (1, False)
        status, said = adopt(traps, tmp_path, "trap", "--key", f'"{name}"')
        assert (status, name in said) == (1, False)
        status, said = adopt(traps, tmp_path, "trap", "--key", "name")
        assert (status, "is left out" in said, name in said) == (0, True, False)
        assert not any(name in path.read_text() for path in tmp_path.rglob("*.sql"))
    finally:
        sql(traps, f'DROP TABLE "{name}", trap')


def test_citext_is_one_key_whatever_its_case(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    script(
        database,
        "CREATE SCHEMA extensions; CREATE EXTENSION citext SCHEMA extensions;"
        " CREATE TABLE users (name extensions.citext PRIMARY KEY,"
        " email extensions.citext NOT NULL)",
    )
    status, said = adopt(database, tmp_path, "users", "--key", "email")
    assert status == 0, said
    fit(database, tmp_path)
    users = tmp_path / "users"
    with psycopg.connect(database, cursor_factory=RawCursor, autocommit=True) as connection:
        made = inserted(connection, users / "insert.sql", "Ada@x", "Ada")
        assert query(connection, users / "insert.sql", "ADA@X", "Al") == []
        assert query(connection, users / "select.sql", "ada@X") == [(*made, 1)]
        assert made == ("Ada", "Ada@x")
        for file in ("lookup", "index", "constraint"):
            text = (users / f"{file}.sql").read_text().replace(" CONCURRENTLY", "")
            connection.execute(text.encode())


@pytest.mark.parametrize("collation", ["C", "C.utf8"])
def test_citext_is_one_key_whatever_its_collation(
    collation: str, new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    if not sql(database, "SELECT FROM pg_collation WHERE collname = %s", collation):
        pytest.skip(f"this server has no collation {collation}")
    column = f'citext COLLATE "{collation}" NOT NULL'
    script(
        database,
        f"CREATE EXTENSION citext; CREATE TABLE users (id bigserial PRIMARY KEY, name {column})",
    )
    status, said = adopt(database, tmp_path, "users", "--key", "name")
    assert status == 0, said
    users = tmp_path / "users"
    assert "nulls" not in (users / "index.sql").read_text().lower()
    with psycopg.connect(database, cursor_factory=RawCursor, autocommit=True) as connection:
        made = inserted(connection, users / "insert.sql", "Ärzte")
        # Only the collation of the database tells whether these are equal.
        equal = [*sql(database, "SELECT FROM users WHERE name = 'ärzte'")] != []
        found = [(*made, 1)] if equal else []
        assert query(connection, users / "select.sql", "ärzte") == found
        assert query(connection, users / "select.sql", "ÄRZTE") == [(*made, 1)]


@pytest.fixture
def caseless(new_database: Callable[[], str]) -> str:
    """A database with a collation by which texts are equal whatever their case."""
    database = new_database()
    try:
        sql(
            database,
            "CREATE COLLATION caseless"
            " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this build of PostgreSQL has no ICU")
    return database


def test_a_collation_has_its_say(caseless: str, tmp_path: Path) -> None:
    database = caseless
    script(
        database,
        "CREATE TABLE names (id bigserial PRIMARY KEY, name text COLLATE caseless NOT NULL,"
        ' turkish text COLLATE "tr-x-icu" NOT NULL)',
    )
    status, said = adopt(database, tmp_path, "names", "--key", "name,lower(turkish)")
    assert status == 0, said
    names = tmp_path / "names"
    with psycopg.connect(database, cursor_factory=RawCursor, autocommit=True) as connection:
        for file in ("lookup", "index"):
            query(connection, names / f"{file}.sql")
        made = inserted(connection, names / "insert.sql", "Ada", "IV")
        # In Turkish, I is the capital of a letter that is not i.
        assert query(connection, names / "select.sql", "ADA", "ıv") == [(*made, 1)]
        assert query(connection, names / "select.sql", "ADA", "iv") == []
        assert query(connection, names / "insert.sql", "ada", "ıv") == []
        with pytest.raises(psycopg.errors.UniqueViolation, match="names_key"):
            sql(database, "INSERT INTO names (name, turkish) VALUES ('aDA', 'ıV')")


@pytest.mark.parametrize("type_", ["text", "varchar(40)", 'text COLLATE "tr-x-icu"'])
@pytest.mark.parametrize("expression", ["name", "btrim(name)"])
def test_a_key_may_end_with_a_collation(
    expression: str, type_: str, caseless: str, tmp_path: Path
) -> None:
    sql(caseless, 'CREATE SCHEMA "Its own"')
    sql(caseless, 'ALTER COLLATION caseless SET SCHEMA "Its own"')
    sql(caseless, f"CREATE TABLE names (id bigserial PRIMARY KEY, name {type_} NOT NULL)")
    key = f'{expression} COLLATE "Its own".caseless'
    status, said = adopt(caseless, tmp_path, "names", "--key", key)
    assert status == 0, said
    fit(caseless, tmp_path)
    names = tmp_path / "names"
    with psycopg.connect(caseless, cursor_factory=RawCursor, autocommit=True) as connection:
        for file in ("lookup", "index"):
            query(connection, names / f"{file}.sql")
        made = inserted(connection, names / "insert.sql", "Äb")
        for name in ("äB", "ÄB", "äb"):
            assert query(connection, names / "select.sql", name) == [(*made, 1)]
            assert query(connection, names / "select_many.sql", [name]) == [(*made, 1)]
            assert query(connection, names / "insert.sql", name) == []
            with pytest.raises(psycopg.errors.UniqueViolation, match="names_key"):
                sql(caseless, "INSERT INTO names (name) VALUES (%s)", name)
        assert query(connection, names / "select.sql", "Ab") == []


def test_a_collation_at_the_end_is_in_the_files(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    table = "CREATE TABLE names (id bigserial PRIMARY KEY, name text NOT NULL, note varchar)"
    sql(database, table)
    words = ("--key", 'name COLLATE "C"', "--keep", 'lower(note) COLLATE "C" DESC, name')
    status, said = adopt(database, tmp_path, "names", *words)
    assert status == 0, said
    fit(database, tmp_path)
    files = {path.stem: path.read_text() for path in (tmp_path / "names").glob("*.sql")}
    assert 'ROW((name COLLATE pg_catalog."C"))' in files["lookup"]
    assert 'ROW(($1::text COLLATE pg_catalog."C"))' in files["select"]
    assert 'ORDER BY lower(note::text) COLLATE pg_catalog."C" DESC, name, id' in files["select"]
    # The constraint of a column has the column's own collation.
    assert "constraint" not in files
    # By the collation that the column has, the key is the column.
    words = ("--key", 'name COLLATE "default"', "--keep", 'lower(note) COLLATE "default" DESC')
    assert adopt(database, tmp_path, "names", *words)[0] == 0
    assert not any("COLLATE" in path.read_text() for path in tmp_path.rglob("*.sql"))


def test_a_folder_that_cannot_be_written(four: str, tmp_path: Path) -> None:
    (tmp_path / "tags" / "get.sql").mkdir(parents=True)
    status, said = adopt(four, tmp_path, "tags", *FOUR["tags"])
    assert (status, said) == (1, f"{tmp_path}/tags/get.sql: Is a directory")
    assert [path.name for path in (tmp_path / "tags").iterdir()] == ["get.sql"]


@pytest.mark.parametrize("engine", [None, "yugabytedb"], ids=str)
def test_an_id_may_be_of_an_enum(
    engine: str | None, new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    script(
        database,
        "CREATE TYPE mood AS ENUM ('ok', 'it''s', 'sad');"
        " CREATE TABLE moods (mood mood PRIMARY KEY, name text)",
    )
    status, said = adopt(database, tmp_path, "moods", "--key", "name", engine=engine)
    assert status == 0, said
    assert fit(database, tmp_path)["moods"].id.labels == ("ok", "it's", "sad")
    with psycopg.connect(database, cursor_factory=RawCursor, autocommit=True) as connection:
        moods = tmp_path / "moods"
        for n, mood in enumerate(("sad", "it's")):
            inserted(connection, moods / "insert.sql", f"N{n}", mood)
        assert query(connection, moods / "get.sql", "it's") == [("it's", "N1")]
        nones = [None]
        assert query(connection, moods / "list.sql", "it's", 9, *nones) == [("sad", "N0")]
        assert query(connection, moods / "delete.sql", "sad") == [("sad",)]


GEOMETRY = ("path", "line", "box", "circle", "point", "polygon", "time", "name", "int4")


@pytest.mark.parametrize("name", GEOMETRY)
def test_a_table_may_be_called_as_a_type(name: str, empty: str, tmp_path: Path) -> None:
    script(
        empty,
        f'CREATE TABLE "{name}" (id bigserial PRIMARY KEY, name text, more text);'
        f" INSERT INTO \"{name}\" (name, more) VALUES ('a', NULL), ('a', 'b')",
    )
    status, said = adopt(empty, tmp_path, f'"{name}"', "--key", "name", "--fill", "more")
    assert status == 0, said
    fit(empty, tmp_path)
    with psycopg.connect(empty, cursor_factory=RawCursor) as connection:
        folder = tmp_path / name
        assert query(connection, folder / "remove.sql", [2], [1], "{}") == [(2, True)]
        assert query(connection, folder / "fill.sql", [2], [1]) == [(1, True, True, True)]
        assert query(connection, folder / "unfill.sql", "2") == [("more", "put back")]
        taken = {"before": {"more": None}, "after": {"more": "b"}}
        assert query(connection, folder / "restore.sql", "2") == [("1", {}, taken, None, [])]


LINES = ["a\n-- b", "a\n-- $1 b", "\\\n--'", "a\r\n  b  c"]


@pytest.mark.long
@pytest.mark.parametrize("line", LINES)
def test_a_literal_keeps_its_lines(
    line: str, new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    script(
        database,
        "CREATE TABLE parents (id bigserial PRIMARY KEY, name text);"
        "CREATE TABLE states (id bigserial PRIMARY KEY, name text, state text,"
        " parent_id bigint REFERENCES parents)",
    )
    sql(database, "INSERT INTO states (name, state) VALUES ('a', %s), ('a', 'b')", line)
    said_so = line.replace("\\", "\\\\").replace("'", "\\'")  # the escapes of an E'' literal
    where = f"state -- it's this one\n <> E'{said_so}'"
    status, said = adopt(database, tmp_path, "states", "--key", "name", "--where", where)
    assert (status, "Every key has one row" in said) == (0, True), said
    before = contents(tmp_path)
    # To adopt the parent writes the child's files again, by the command that is noted in them.
    assert adopt(database, tmp_path, "parents", "--key", "name")[0] == 0
    assert {path: contents(tmp_path)[path] for path in before} == before
    resources = {"RESOURCES": str(tmp_path)}
    status, output, errors = run(database, "init", **resources)
    assert status == 0, output + errors
    assert run(database, "enforce", **resources)[0] == 0
    sql(database, "INSERT INTO states (name, state) VALUES ('a', %s)", line)
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(database, "INSERT INTO states (name, state) VALUES ('a', 'c')")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("-- what\nCREATE INDEX x\n    ON t -- why\n    (a);\n", "CREATE INDEX x ON t (a);"),
        ("SELECT\n  'a\n-- b', E'\\'\n-- b\\\n'", "SELECT 'E"),
        ('SELECT "--a",\n $$--b$$', 'SELECT "--a", $$--b$$'),
    ],
)
def test_a_statement_on_one_line(text: str, line: str) -> None:
    line = line.replace("'E", r"E'a\n-- b', E'\'\n-- b\n'")
    assert one_line(text.encode()) == line


def test_two_foreign_keys_of_one_column_are_one_reference(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    script(
        database,
        "CREATE TABLE parents (id bigserial PRIMARY KEY, name text);"
        "CREATE TABLE children (id bigserial PRIMARY KEY, parent_id bigint"
        " REFERENCES parents REFERENCES parents ON DELETE CASCADE);"
        "INSERT INTO parents (name) VALUES ('a'), ('a');"
        "INSERT INTO children (parent_id) VALUES (1), (2)",
    )
    assert adopt(database, tmp_path, "parents", "--key", "name")[0] == 0
    folder = tmp_path / "parents"
    assert (folder / "delete.sql").read_text().count("ON DELETE CASCADE") == 1
    with psycopg.connect(database, cursor_factory=RawCursor, row_factory=dict_row) as connection:
        for file in ("duplicates", "plan"):
            (row,) = connection.execute((folder / f"{file}.sql").read_bytes()).fetchall()
            # The report counts the rows that refer to either; the plan, those that merge repoints.
            assert row["referring"] == {"duplicates": 2, "plan": 1}[file]


SETS = {
    "SET NULL": ("--key", "a,name"),
    "SET DEFAULT": ("--key", "a,name"),
    "SET NULL of the condition": ("--key", "name", "--where", "a IS NULL"),
    "CASCADE": ("--key", "a,name"),
    "SET NULL of another": ("--key", "name"),
}


@pytest.mark.parametrize("sets", SETS)
def test_a_delete_that_gives_rows_another_key(
    sets: str, new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    script(
        database,
        "CREATE TABLE above (id bigserial PRIMARY KEY);"
        "CREATE TABLE rows (id bigserial PRIMARY KEY, name text, a bigint"
        f" REFERENCES above ON DELETE {sets.partition(' of')[0]});"
        "INSERT INTO above VALUES (1), (2);"
        "INSERT INTO rows (name, a) VALUES ('x', 1), ('x', NULL), ('x', 2)"
        + ("; DELETE FROM rows WHERE a > 0" if sets.endswith("another") else ""),
    )
    status, said = adopt(database, tmp_path, "rows", *SETS[sets])
    assert status == 0, said
    note = "a is set to NULL or its default where a row of public.above is deleted"
    can_be = sets in [*SETS][:3]
    assert (note in said) == can_be
    with psycopg.connect(database, cursor_factory=RawCursor) as connection:
        for file in GUARD:
            query(connection, tmp_path / "rows" / f"{file}.sql")
    if can_be:
        with pytest.raises(psycopg.errors.UniqueViolation, match="the guard of rows"):
            sql(database, "DELETE FROM above WHERE id = 1")
    else:
        sql(database, "DELETE FROM above WHERE id = 1")


def test_a_foreign_key_may_set_some_of_its_columns(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    try:
        script(
            database,
            "CREATE TABLE above (a bigint, b bigint, PRIMARY KEY (a, b));"
            "CREATE TABLE rows (id bigserial PRIMARY KEY, a bigint, b bigint,"
            " FOREIGN KEY (a, b) REFERENCES above ON DELETE SET NULL (a))",
        )
    except psycopg.errors.SyntaxError:
        pytest.skip("before PostgreSQL 15 it sets all of them")
    status, said = adopt(database, tmp_path, "rows", "--key", "a,b")
    assert status == 0
    assert ("a is set to NULL" in said, "b is set to NULL" in said) == (True, False)


def test_a_key_that_is_called_as_a_page_is(empty: str, tmp_path: Path) -> None:
    script(
        empty,
        'CREATE TABLE pages (id bigserial PRIMARY KEY, "limit" int, name text, x int);'
        "CREATE INDEX ON pages (x)",
    )
    status, said = adopt(empty, tmp_path, "pages", "--key", '"limit",name,x')
    assert status == 0, said
    assert said.count("a list cannot be filtered by") == 2
    for line in (
        "filtered by limit, for it takes that for its pages",
        "filtered by name, for that needs limit, which it takes for its pages",
    ):
        assert line in said
    assert [field.name for field in fit(empty, tmp_path)["pages"].filters] == ["x"]


DEFAULTS = {
    "order_no text": "nextval('numbers')",
    "token text": "gen_random_uuid()",
    "code varchar(36)": "gen_random_uuid()",
    "day text": "current_date",
    "at time": "now()",
    "zero text": "0",
    "label mood": "'it''s ::text'",
    "joined text": "'a' || 'b'::text",
    "small smallint": "1 + 1",
    "price numeric(5,2)": "9.5",
    "stamp timestamptz": "now()",
    "named words": "'x'",
    "done boolean": "true",
}


def test_a_default_is_of_its_columns_type(new_database: Callable[[], str], tmp_path: Path) -> None:
    database = new_database()
    columns = "".join(f", {column} DEFAULT {value}" for column, value in DEFAULTS.items())
    script(
        database,
        "CREATE TYPE mood AS ENUM ('ok', 'it''s ::text'); CREATE DOMAIN words AS text;"
        f" CREATE SEQUENCE numbers; CREATE TABLE t (id bigserial PRIMARY KEY, name text{columns})",
    )
    status, said = adopt(database, tmp_path, "t", "--key", "name")
    assert status == 0, said
    fit(database, tmp_path)
    with psycopg.connect(database, cursor_factory=RawCursor, autocommit=True) as connection:
        nones = [None] * len(DEFAULTS)
        made = inserted(connection, tmp_path / "t" / "insert.sql", "Ada", *nones)
        assert None not in made
        row = dict(zip(DEFAULTS, made[2:], strict=True))
    assert (row["zero text"], row["label mood"]) == ("0", "it's ::text")
    assert len(str(row["code varchar(36)"])) == 36


def test_a_column_that_no_field_can_be_called_as(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    database = new_database()
    script(
        database,
        'CREATE TABLE made ("the ""id""" serial PRIMARY KEY, name text, "a\\b" text, "a""b" text);'
        'CREATE TABLE brought ("a""b" int PRIMARY KEY, name text)',
    )
    status, said = adopt(database, tmp_path, "made", "--key", "name")
    assert status == 0, said
    for name in ("a\\b", 'a"b'):
        assert f"{name} is left out: no field of a request can be called so" in said
    assert [field.name for field in fit(database, tmp_path)["made"].columns] == ["id", "name"]
    for words in (("made", "--key", '"a""b"'), ("brought", "--key", "name")):
        status, said = adopt(database, tmp_path / "none", *words)
        assert (status, "no field of a request can be called so" in said) == (1, True)
    assert not (tmp_path / "none").exists()


def test_an_adopted_child_has_its_parents_file_written(empty: str, tmp_path: Path) -> None:
    collisions = tmp_path / "departments" / "employees.department_id" / "collisions.sql"
    adopt(empty, tmp_path, "departments", *COMMANDS["departments"])
    assert not collisions.exists()
    adopt(empty, tmp_path, "employees", *COMMANDS["employees"])
    assert collisions.exists()


def test_an_engine_without_hash_indexes(empty: str, tmp_path: Path) -> None:
    for name, words in COMMANDS.items():
        status, said = adopt(empty, tmp_path, name, *words, engine="yugabytedb")
        assert status == 0, said
    fit(empty, tmp_path)
    for path in sorted((ROOT / "sql" / "distributed").glob("*/*.sql")):
        assert (tmp_path / path.parent.name / path.name).read_text() == path.read_text()
    assert not (tmp_path / "departments" / "guard.sql").exists()


def test_the_command(four: str, tmp_path: Path) -> None:
    """adopt runs without any resource, and with one that stops all other commands."""
    folder = tmp_path / "not" / "yet"
    words, resources = ("adopt", "tags", *FOUR["tags"]), {"RESOURCES": str(folder)}
    status, _, errors = run(four, "doctor", **resources)
    assert (status, errors) == (
        1,
        f"RESOURCES={folder}: No such file or directory\n",
    )
    status, output, _ = run(four, *words, **resources)
    assert status == 0
    assert output.endswith("Next: python -m db init\n")
    get = folder / "tags" / "get.sql"
    get.unlink()
    status, _, errors = run(four, "doctor", **resources)
    assert (status, "has no get.sql" in errors) == (1, True)
    assert run(four, *words, **resources)[0] == 0
    assert get.exists()
    status, _, errors = run(four, "adopt", "keyless", "--key", "x", **resources)
    assert (status, errors) == (
        1, "adopt: there is no such table, or the name is not as SQL has it: see \\d in psql\n"
    )  # fmt: skip
