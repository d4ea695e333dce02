"""PostgreSQL takes each SQL file as it stands; it has one statement; the lookup locks a page."""

import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection, RawCursor
from psycopg.conninfo import make_conninfo

from db.pool import open_pool
from db.queries import QUERIES, SCRIPTS
from db.schema import apply_schema
from db.settings import Settings
from tests.support.legacy import mislead_about_merged
from tests.support.pools import borrowed
from tests.support.service import ROOT, sql

# The files that take whatever columns there are.
WHOLE = ("before", "beside", "differences", "equal", "remove", "restore")

FILES = sorted({*(ROOT / "sql").rglob("*.sql")} - {*SCRIPTS})


@pytest.fixture(scope="module")
def schema(new_database: Callable[[], str]) -> str:
    database = new_database()
    sql(database, "CREATE EXTENSION pg_stat_statements")
    return database


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_postgresql_prepares_the_file_as_it_stands(path: Path, schema: str) -> None:
    text = path.read_text()
    with psycopg.connect(schema, cursor_factory=RawCursor) as connection:
        connection.pgconn.prepare(b"one statement", path.read_bytes())
        prepared = connection.pgconn.describe_prepared(b"one statement")
    parameters = [line for line in text.splitlines() if line.startswith("-- $")]
    assert prepared.error_message == b""
    assert prepared.nparams == len(parameters), "one comment line for each parameter"
    types = sql(
        schema,
        "SELECT array_agg(oid::regtype::text ORDER BY n)"
        " FROM unnest(%s::oid[]) WITH ORDINALITY AS t (oid, n)",
        [prepared.param_type(i) for i in range(prepared.nparams)],
    )[0][0]
    assert [line.split()[3].rstrip(",") for line in parameters] == (types or [])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_file_keeps_to_the_house_style(path: Path) -> None:
    # A function's body may have semicolons.
    text = re.sub(r"\$\$.*\$\$", "", path.read_text(), flags=re.DOTALL)
    assert text.startswith("-- ")
    assert text.endswith(";\n")
    assert text.count(";\n") == 1
    if path.stem not in WHOLE:
        assert not re.search(r"(SELECT|RETURNING|,|\.)\s*\*", text)


def test_schema_may_be_applied_again(schema: str) -> None:
    with psycopg.connect(schema) as connection:
        connection.execute((ROOT / "schema.sql").read_bytes())


def test_schema_has_no_unique_constraint_on_a_key(schema: str) -> None:
    unique = "SELECT indexrelid::regclass::text FROM pg_index WHERE indisunique"
    ours = " AND indrelid IN ('departments'::regclass, 'employees'::regclass) ORDER BY 1"
    assert sql(schema, unique + ours) == [("departments_pkey",), ("employees_pkey",)]


def test_the_lookups_index_is_that_of_the_schema() -> None:
    schema = (ROOT / "schema.sql").read_text().replace("IF NOT EXISTS", "CONCURRENTLY")
    for resource in KEYS:
        lines = QUERIES[f"{resource}/lookup"].decode().splitlines(keepends=True)
        statement = "".join(line for line in lines if not line.startswith("--"))
        assert statement in schema


def test_the_table_merged_is_that_of_the_schema() -> None:
    _, statement = QUERIES["way_out/merged"].decode().split("CREATE TABLE", 1)
    assert statement in (ROOT / "schema.sql").read_text()


def test_what_was_merged_is_found_by_its_id_alone(new_database: Callable[[], str]) -> None:
    database = new_database()
    # Indexes as an earlier version made them, which init replaces.
    sql(database, "ALTER TABLE merged DROP CONSTRAINT merged_pkey, ADD PRIMARY KEY (resource, id)")
    sql(database, "DROP INDEX merged_kept")
    sql(database, "CREATE INDEX merged_kept ON merged (resource, kept)")
    apply_schema(database)
    mislead_about_merged(database, "departments")
    with psycopg.connect(database, cursor_factory=RawCursor) as connection:
        connection.execute("SET enable_seqscan = off")
        for query, parameters, column in (
            ("kept", ["employees", "7"], "id"),
            ("employees/merged", [7, None, 10], "kept"),
            ("way_out/merged_before", ["employees", "7"], "id"),
        ):
            rows = connection.execute(b"EXPLAIN " + QUERIES[query], parameters)
            conditions = [line for (line,) in rows if "Index Cond" in line]
            assert f"({column} = " in conditions[0]
            assert all(re.search(r"\((id|kept) = ", each) for each in conditions)


KEYS: dict[str, list[object]] = {"departments": ["no such name"], "employees": [1, "no such name"]}

# The states of a table: how many rows it has, and whether ANALYZE has seen them.
STATES = [
    pytest.param(rows, analyzed, marks=pytest.mark.long if rows == 100_000 else [])
    for rows in (0, 10, 100_000)
    for analyzed in (False, True)
]


@pytest.mark.anyio
@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(("rows", "analyzed"), STATES)
async def test_a_lookup_that_misses_locks_one_page_of_its_index(
    rows: int, analyzed: bool, plan: str, new_database: Callable[[], str]
) -> None:
    database = new_database()
    sql(
        database,
        "WITH one AS (INSERT INTO departments (name) VALUES ('one') RETURNING id)"
        " INSERT INTO employees (department_id, name)"
        " SELECT id, 'name ' || n FROM one, generate_series(1, %s) AS n",
        rows,
    )
    sql(
        database,
        "INSERT INTO departments (name) SELECT 'n ' || n FROM generate_series(2, %s) n",
        rows,
    )
    if analyzed:
        sql(database, "ANALYZE")
    async with open_pool(Settings(database_url=database, pool_size=1)) as pool:
        for resource, key in KEYS.items():
            async with borrowed(pool) as connection, connection.transaction():
                await connection.execute(f"SET LOCAL plan_cache_mode = {plan}")
                assert await predicate_locks(connection, resource, key) == [
                    {"locktype": "page", "relation": f"{resource}_lookup"}
                ]


@pytest.mark.anyio
@pytest.mark.parametrize("index", ["", "UNIQUE"])
@pytest.mark.parametrize("rows", [0, 100, 20_000])
@pytest.mark.parametrize("file", ["select_many", "insert_many"])
async def test_many_keys_lock_a_page_for_each(
    file: str, rows: int, index: str, new_database: Callable[[], str]
) -> None:
    """Another index of the key, which could be read as a whole, is left alone."""
    database = new_database()
    sql(database, f"CREATE {index} INDEX others ON departments (name)")
    sql(
        database,
        "INSERT INTO departments (name) SELECT 'n ' || n FROM generate_series(1, %s) n",
        rows,
    )
    sql(database, "VACUUM ANALYZE departments")
    keys = f"{{{','.join(f'new {n}' for n in range(20))}}}"
    more = [] if file == "select_many" else ["f"]
    async with (
        open_pool(Settings(database_url=database, pool_size=1)) as pool,
        borrowed(pool) as connection,
        connection.transaction(),
    ):
        locks = await predicate_locks(connection, "departments", [keys, *more], file)
    assert {(lock["locktype"], lock["relation"]) for lock in locks} == {
        ("page", "departments_lookup")
    }
    assert len(locks) <= 20


async def predicate_locks(
    connection: AsyncConnection[dict[str, object]],
    resource: str,
    key: list[object],
    file: str = "select",
) -> list[dict[str, object]]:
    await connection.execute(QUERIES[f"{resource}/{file}"], key)
    cursor = await connection.execute(
        "SELECT locktype, relation::regclass::text AS relation FROM pg_locks"
        " WHERE mode = 'SIReadLock' AND pid = pg_backend_pid()"
        " AND relation IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)"
    )
    return await cursor.fetchall()


# The files that find rows by an id, and the parameters that they are given.
BY_ID: dict[str, list[object]] = {
    **{f"{resource}/{file}": [7] for resource in KEYS for file in ("get", "delete")},
    "departments/list": [7, 20, None],
    "employees/list": [7, 20, 7, None],
    **{f"{resource}/keep": [[7]] for resource in KEYS},
    "departments/employees.department_id/left": [[7]],
    "departments/employees.department_id/repoint": [[7], [8]],
    "departments/employees.department_id/repoint_back": ["7", "8", ["7"]],
    "departments/remove": [[7], [8], "{}", "{}"],
    "departments/before": [[7]],
    "departments/beside": ["7", "{}"],
}


@pytest.mark.parametrize("type_", ["bigint", "integer", "numeric", "ids"])
def test_an_index_serves_what_goes_by_an_id(type_: str, database: str) -> None:
    for statement in (
        "CREATE DOMAIN ids AS bigint",
        "DROP INDEX departments_lookup, employees_lookup",
        "ALTER TABLE employees DROP CONSTRAINT employees_department_id_fkey",
        *(f"ALTER TABLE {resource} ALTER id DROP IDENTITY" for resource in KEYS),
        *(f"ALTER TABLE {resource} ALTER id TYPE {type_}" for resource in KEYS),
        f"ALTER TABLE employees ALTER department_id TYPE {type_}",
        "INSERT INTO departments (id, name) SELECT n, 'n' || n FROM generate_series(1, 20000) AS n",
        "INSERT INTO employees (id, department_id, name)"
        " SELECT n, n, 'n' FROM generate_series(1, 20000) AS n",
        "ANALYZE",
    ):
        sql(database, statement)
    with psycopg.connect(database, cursor_factory=RawCursor) as connection:
        for file, parameters in BY_ID.items():
            plan = connection.execute(b"EXPLAIN " + QUERIES[file], parameters).fetchall()
            lines = "\n".join(line for (line,) in plan)
            assert "Index Cond: " in lines, (file, lines)
            assert "Seq Scan" not in lines, (file, lines)


def test_a_hash_collision_is_not_a_duplicate(database: str) -> None:
    # All keys collide here, for the lookup's hash function is replaced by one that returns 0.
    sql(database, "CREATE SCHEMA fake")
    sql(
        database,
        "CREATE FUNCTION fake.hash_record_extended(record, bigint) RETURNS bigint"
        " IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 0; END'",
    )
    sql(database, "INSERT INTO departments (name) VALUES ('one'), ('other')")
    sql(
        database,
        "INSERT INTO employees (department_id, name)"
        " VALUES (1, 'Ada'), (2, 'Ada'), (1, 'Grace'), (2, 'Grace')",
    )
    collide = make_conninfo(database, options="-c search_path=fake,pg_catalog,public")
    with psycopg.connect(collide, cursor_factory=RawCursor) as connection:
        found = connection.execute(QUERIES["employees/select"], [2, "Grace"]).fetchall()
        assert [(row[0], row[-1]) for row in found] == [(4, 1)]
        found = connection.execute(QUERIES["departments/select"], ["other"]).fetchall()
        assert [(row[0], row[-1]) for row in found] == [(2, 1)]
        assert connection.execute(QUERIES["employees/select"], [2, "Alan"]).fetchall() == []
        for key in ([0, 100, 2, "Ada"], [0, 100, None, "Ada"], [0, 100, 2, None]):
            listed = connection.execute(QUERIES["employees/list"], key).fetchall()
            assert all(key[3] in (None, row[2]) and key[2] in (None, row[1]) for row in listed)
            assert listed
