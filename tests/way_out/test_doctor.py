"""Doctor has a line for each condition, which the tests bring about on a database."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from db.doctor import command as doctor
from db.doctor import server
from db.doctor.check import Check
from db.embedded import embedded_server
from db.programs import BIN
from db.schema import apply_schema
from db.settings import Settings
from db.way_out import change
from db.way_out.enforce import enforce
from db.way_out.guard import guard
from tests.support.others import make_others, others, remembered
from tests.support.roles import make_role
from tests.support.service import LIMIT, ROOT, environment, sql, temporary_data_dir, until
from tests.support.standby import hosts, standby_of

pytestmark = pytest.mark.usefixtures("durable")

ROLE = "onerow_test_patient"
NO_RIGHTS = "onerow_test_stranger"

UNGUARDED = (
    "no constraint, and the guard is {}: one row for a key only while all writers go through the"
    " service, or run `python -m db guard on`"
)

TRIED = (
    "5 of 5 keys, inserted and rolled back, were found again as they were sent (triggers have seen"
    " them, and ids are used up)"
)
NOT_TRIED = "not tried, because of the FAIL of "
NULLABLE = "may be NULL, and rows where it is have no key: ALTER TABLE"
LOOKUP = {
    "departments": "CREATE INDEX CONCURRENTLY departments_lookup"
    " ON departments USING hash (hash_record_extended(ROW(name::text), 0::bigint))"
    " WITH (fillfactor = 10);",
    "employees": "CREATE INDEX CONCURRENTLY employees_lookup"
    " ON employees USING hash"
    " (hash_record_extended(ROW(department_id::bigint, name::text), 0::bigint))"
    " WITH (fillfactor = 10);",
}


def command(database: str, **settings: str) -> tuple[int, list[str], str]:
    """Run `python -m db doctor`; return its exit status, lines and error output."""
    done = subprocess.run(
        [sys.executable, "-m", "db", "doctor"],
        cwd=ROOT,
        env=environment(DATABASE_URL=database, **settings),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def checks(database: str, **settings: Any) -> list[Check]:
    """Return doctor's checks, made in this process, which is faster than the command."""
    return list(doctor.checks(database, Settings(**settings)))


def troubles(database: str, **settings: Any) -> list[Check]:
    """Return the checks that are not ok, without the trials that these keep from being made."""
    return [
        check
        for check in checks(database, **settings)
        if check.level != "ok" and not check.detail.startswith(NOT_TRIED)
    ]


def about(subject: str, found: list[Check]) -> Check:
    (check,) = (check for check in found if check.subject == subject)
    return check


def paste(database: str, check: Check) -> None:
    """Run in psql the statements that a line says after its first colon."""
    _, _, statements = check.detail.partition(": ")
    psql: list[str | Path] = [
        BIN / "psql",
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        database,
    ]
    subprocess.run(psql, env=environment(), input=statements.encode(), timeout=LIMIT, check=True)


def as_role(database: str, role: str = ROLE) -> str:
    return make_conninfo(database, user=role)


def allowed(database: str) -> int:
    """Return how many connections the server has for roles that are no superusers."""
    query = (
        "SELECT current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int"
        " - coalesce(current_setting('reserved_connections', true), '0')::int"
    )
    return int(sql(database, query)[0][0])


@pytest.fixture(scope="module", autouse=True)
def roles(server: str) -> None:
    make_role(server, ROLE)
    make_role(server, NO_RIGHTS)


@pytest.fixture
def patient(database: str) -> str:
    """The owner's URL of a database in which all is well for ROLE, with the guard on."""
    sql(database, f"GRANT SELECT, INSERT, DELETE ON departments, employees TO {ROLE}")
    sql(database, f"GRANT SELECT ON merged TO {ROLE}")
    with change.connect(database, "guard") as connection:
        guard(connection, "on")
    return database


def unguard(database: str) -> None:
    with change.connect(database, "guard") as connection:
        guard(connection, "off")


# The command as a whole


def test_all_is_well(patient: str) -> None:
    status, lines, stderr = command(as_role(patient), WORKERS="2", POOL_SIZE="3")
    assert (status, stderr) == (0, "")
    assert lines[0].startswith("ok     server: PostgreSQL ")
    assert lines[1:-2] == [
        "ok     writes: this server takes them",
        "ok     durability: a commit is on disk",
        "ok     departments: columns and rights",
        "ok     employees: columns and rights",
        "ok     merged: columns and rights",
        "ok     departments lookup: Bitmap Index Scan of departments_lookup",
        "ok     departments key: no constraint, but the guard is on and holds for all writers",
        f"ok     departments trial: {TRIED}",
        "ok     employees lookup: Bitmap Index Scan of employees_lookup",
        "ok     employees key: no constraint, but the guard is on and holds for all writers",
        f"ok     employees trial: {TRIED}",
        "ok     schemas: nobody else may create there",
        f"ok     role: {ROLE} has no powers over the server",
        f"ok     connections: WORKERS x (POOL_SIZE + 2) = 10 of {allowed(patient)}"
        " that the server lets this role have",
    ]
    assert lines[-2].startswith("ok     serializable transactions: the server remembers ")
    assert lines[-1].startswith("ok     predicate locks: ")


def test_what_init_makes_gets_advice_and_exit_status_0(database: str) -> None:
    status, lines, stderr = command(database)
    assert (status, stderr) == (0, "")
    ((role,),) = sql(database, "SELECT current_user")
    *advice, powers = (line for line in lines if not line.startswith("ok     "))
    owns = "the role owns it; the service needs no more than"
    assert advice == [
        f"advice departments: {owns} SELECT, INSERT, DELETE",
        f"advice employees: {owns} SELECT, INSERT, DELETE",
        f"advice merged: {owns} SELECT",
        f"advice departments key: {UNGUARDED.format('off')}",
        f"advice employees key: {UNGUARDED.format('off')}",
    ]
    assert powers.startswith(f"advice role: {role} is a superuser")
    assert powers.endswith(": the service needs none of it")


def test_one_failure_makes_exit_status_1_and_the_other_checks_run(patient: str) -> None:
    sql(patient, "DROP TABLE merged")
    status, lines, stderr = command(as_role(patient))
    assert (status, stderr) == (1, "")
    assert [line for line in lines if not line.startswith("ok     ")] == [
        "FAIL   merged: no such table in the search_path: run `python -m db init`",
        f"advice departments trial: {NOT_TRIED}merged",
        f"advice employees trial: {NOT_TRIED}merged",
    ]
    assert lines[-1].startswith("ok     predicate locks: ")


@pytest.mark.parametrize(
    "elsewhere", [{"dbname": "no_such"}, {"host": "/no/such"}, {"user": "no_such"}]
)
def test_a_url_that_leads_nowhere(elsewhere: dict[str, str], database: str) -> None:
    status, lines, stderr = command(make_conninfo(database, **elsewhere))
    assert (status, lines) == (1, [])
    assert stderr.startswith("doctor: connection ")
    assert "no_such" in stderr or "/no/such" in stderr
    assert "Traceback" not in stderr


# The server


@pytest.mark.parametrize(
    ("version", "level", "tells"),
    [
        (130022, "FAIL", "is too old: the SQL needs 14 or later"),
        (140023, "FAIL", "can miss a conflict on an index that was empty at the start:"),
        (140024, "ok", ""),
        (150018, "FAIL", "update it to 15.19 or later"),
        (160014, "FAIL", "update it to 16.15 or later"),
        (170010, "FAIL", "update it to 17.11 or later"),
        (180005, "FAIL", "update it to 18.6 or later"),
        (180006, "ok", ""),
        (190000, "ok", ""),
    ],
)
def test_versions(version: int, level: str, tells: str) -> None:
    # The server's row is made up, since there is only one server here.
    check = server.version({"version_num": version, "version": "0.0 (Here)"})
    assert (check.level, check.subject) == (level, "server")
    assert check.detail.startswith("PostgreSQL 0.0 (Here)")
    assert tells in check.detail


@pytest.fixture(scope="module")
def own_server() -> Iterator[str]:
    """The URL of a server whose settings a test may change, and change back."""
    with temporary_data_dir() as data_dir, embedded_server(data_dir) as url:
        apply_schema(url)
        yield url


@contextmanager
def configured(server: str, **settings: object) -> Iterator[None]:
    def follows(name: str, value: str) -> None:
        sql(server, "SELECT pg_reload_conf()")
        until(lambda: sql(server, "SELECT current_setting(%s)", name) == [(value,)])

    before = {name: sql(server, "SELECT current_setting(%s)", name)[0][0] for name in settings}
    for name, value in settings.items():
        sql(server, f"ALTER SYSTEM SET {name} = '{value}'")
        follows(name, str(value))
    try:
        yield
    finally:
        for name, value in before.items():
            sql(server, f"ALTER SYSTEM RESET {name}")
            follows(name, value)


@pytest.mark.long
@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
def test_a_server_that_a_crash_corrupts(name: str, own_server: str) -> None:
    with configured(own_server, **{name: "off"}):
        detail = f"{name} off: a crash loses rows that were told 201"
        assert about("durability", checks(own_server)) == ("FAIL", "durability", detail)
    assert about("durability", checks(own_server)).level == "ok"


@pytest.mark.parametrize(("value", "level"), [("off", "advice"), ("local", "ok")])
def test_synchronous_commit(value: str, level: str, patient: str) -> None:
    name = conninfo_to_dict(patient)["dbname"]
    sql(patient, f"ALTER DATABASE {name} SET synchronous_commit = {value}")
    status, lines, _ = command(as_role(patient))
    assert status == 0
    detail = {
        "advice": "advice durability: synchronous_commit is off, but not in the service, which sets"
        " it: a crash loses what others committed last",
        "ok": "ok     durability: a commit is on disk",
    }
    assert detail[level] in lines


def test_who_else_may_create_beside_the_tables(patient: str) -> None:
    nobody = ("ok", "schemas", "nobody else may create there")
    assert about("schemas", checks(as_role(patient))) == nobody
    # The owner of a served table can do worse than create beside it; the owner of another cannot.
    sql(patient, "GRANT CREATE ON SCHEMA public TO pg_read_all_data")
    sql(patient, "ALTER TABLE employees OWNER TO pg_read_all_data")
    assert about("schemas", checks(as_role(patient))) == nobody
    sql(patient, "GRANT CREATE ON SCHEMA public TO PUBLIC, pg_monitor")
    sql(patient, "CREATE TABLE another ()")
    sql(patient, "ALTER TABLE another OWNER TO pg_monitor")
    assert about("schemas", checks(as_role(patient))) == (
        "advice",
        "schemas",
        "others may create there what looks like a table or a function of ours:"
        " everyone, pg_monitor in public",
    )


def test_who_else_may_create_the_schema_of_the_role(patient: str) -> None:
    name = conninfo_to_dict(patient)["dbname"]
    sql(patient, f"GRANT CREATE ON DATABASE {name} TO pg_monitor")
    check = about("schemas", checks(as_role(patient)))
    assert check.level == "advice"
    assert check.detail.endswith(f" of ours: pg_monitor in {ROLE}, which is not there yet")
    # Neither the role's own schema nor one behind the tables' can be somebody else's then.
    sql(patient, f"CREATE SCHEMA {ROLE} AUTHORIZATION {ROLE}")
    assert about("schemas", checks(as_role(patient))).level == "ok"
    sql(patient, f"ALTER DATABASE {name} SET search_path = public")
    sql(patient, f"DROP SCHEMA {ROLE}")
    assert about("schemas", checks(as_role(patient))).level == "ok"


@pytest.mark.parametrize("owned", ["schema", "database"])
def test_an_owner_of_the_schema_who_owns_no_table(owned: str, patient: str) -> None:
    name = conninfo_to_dict(patient)["dbname"]
    sql(patient, "ALTER SCHEMA public OWNER TO pg_database_owner")
    if owned == "schema":
        sql(patient, "ALTER SCHEMA public OWNER TO pg_monitor")
        sql(patient, "REVOKE ALL ON SCHEMA public FROM pg_monitor")
    else:
        sql(patient, f"ALTER DATABASE {name} SET search_path = public")
        sql(patient, f"ALTER DATABASE {name} OWNER TO pg_monitor")
    sql(patient, "GRANT USAGE ON SCHEMA public TO PUBLIC")
    check = about("schemas", checks(as_role(patient)))
    assert (check.level, check.detail.rpartition(": ")[2]) == ("advice", "pg_monitor in public")


def test_who_else_may_make_triggers(patient: str) -> None:
    sql(patient, "GRANT TRIGGER ON departments, merged TO pg_monitor")
    sql(patient, "GRANT TRIGGER ON merged TO PUBLIC")
    detail = (
        "others may make some, which run with the rights of this role:"
        " pg_monitor on departments; everyone, pg_monitor on merged"
    )
    # Each role may do what everyone may.
    own = "the role has TRIGGER, which the service does not need"
    assert troubles(as_role(patient)) == [
        ("advice", "merged", own),
        ("advice", "triggers", detail),
    ]


def test_a_database_that_is_read_only(patient: str) -> None:
    name = conninfo_to_dict(patient)["dbname"]
    sql(patient, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert troubles(as_role(patient)) == [
        ("FAIL", "writes", "the session is read-only: see default_transaction_read_only")
    ]


@pytest.fixture
def standby(own_server: str) -> Iterator[str]:
    with standby_of(own_server) as url:
        yield url


@pytest.mark.long
def test_a_standby_alone_and_as_one_of_several_hosts(own_server: str, standby: str) -> None:
    failure = "this is a standby: DATABASE_URL must lead to the primary"
    status, lines, stderr = command(standby)
    assert (status, stderr) == (1, "")
    assert [line for line in lines if line.startswith("FAIL")] == [f"FAIL   writes: {failure}"]

    # Of several hosts the service takes one that can be written to.
    assert about("writes", checks(hosts(standby, own_server))).level == "ok"


# Tables


@pytest.mark.parametrize("table", ["departments", "employees", "merged"])
def test_a_table_that_is_missing(table: str, patient: str) -> None:
    sql(patient, f"DROP TABLE {table} CASCADE")
    found = troubles(as_role(patient))
    assert found[0] == (
        "FAIL", table, "no such table in the search_path: run `python -m db init`"
    )  # fmt: skip
    if table != "merged":
        assert (
            "FAIL", f"{table} lookup", f'relation "{table}" does not exist'
        ) in found  # fmt: skip


def test_a_column_that_is_missing(patient: str) -> None:
    unguard(patient)
    sql(patient, "ALTER TABLE employees RENAME department_id TO department")
    found = checks(as_role(patient))
    missing = 'column "department_id" does not exist'
    details = [check.detail for check in found if check.subject == "employees"]
    assert details == [
        f"sql/employees/get.sql: {missing}",
        f"sql/employees/insert.sql: {missing}",
        f"sql/employees/list.sql: {missing}",
        f"sql/employees/select.sql: {missing}",
    ]
    assert about("employees lookup", found) == ("FAIL", "employees lookup", missing)
    assert about("departments", found).level == "ok"


def test_a_column_of_merged_that_is_missing(patient: str) -> None:
    sql(patient, "ALTER TABLE merged RENAME kept TO stays")
    assert troubles(as_role(patient)) == [
        ("FAIL", "merged", 'sql/kept.sql: column "kept" does not exist')
    ]


def test_a_column_that_was_dropped_is_none_of_its_business(patient: str) -> None:
    sql(patient, "ALTER TABLE employees ADD badge integer, ADD note text DEFAULT ''")
    sql(patient, "ALTER TABLE employees DROP badge")
    assert troubles(as_role(patient)) == []


def test_an_unlogged_table(patient: str) -> None:
    sql(patient, "ALTER TABLE employees SET UNLOGGED")
    (found,) = troubles(as_role(patient))
    assert found == (
        "FAIL", "employees", "a crash empties it: ALTER TABLE employees SET LOGGED;"
    )  # fmt: skip
    paste(patient, found)
    assert troubles(as_role(patient)) == []


@pytest.mark.long
def test_row_security_fails_only_where_it_is_active(patient: str) -> None:
    sql(patient, "ALTER TABLE departments ENABLE ROW LEVEL SECURITY")
    failure = "row security hides rows from this role, and so makes duplicates"
    nothing = "it finds nothing: row security lets this role see no row"
    assert troubles(as_role(patient)) == [
        ("FAIL", "departments", failure),
        ("FAIL", "departments lookup", nothing),
    ]
    sql(patient, "CREATE POLICY few ON departments USING (id > 9)")
    found = checks(as_role(patient))
    assert about("departments", found) == ("FAIL", "departments", failure)
    assert "DROP" not in about("departments lookup", found).detail, "the index is good"
    assert about("departments", checks(patient)).level == "advice", "the owner sees all rows"


@pytest.mark.parametrize(
    ("table", "right"),
    [("departments", "SELECT"), ("employees", "INSERT"), ("employees", "DELETE")],
)
def test_a_right_that_is_missing(table: str, right: str, patient: str) -> None:
    sql(patient, f"REVOKE {right} ON {table} FROM {ROLE}")
    expected = [("FAIL", table, f"the role lacks {right}")]
    if right == "SELECT":
        expected.append(("FAIL", f"{table} lookup", f"permission denied for table {table}"))
    assert troubles(as_role(patient)) == expected


def test_a_role_without_rights(patient: str) -> None:
    found = troubles(as_role(patient, NO_RIGHTS))
    assert found[:3] == [
        ("FAIL", "departments", "the role lacks SELECT, INSERT, DELETE"),
        ("FAIL", "employees", "the role lacks SELECT, INSERT, DELETE"),
        ("FAIL", "merged", "the role lacks SELECT"),
    ]


def test_rights_that_the_service_does_not_need(patient: str) -> None:
    sql(patient, f"GRANT UPDATE, TRUNCATE ON departments TO {ROLE}")
    sql(patient, f"GRANT INSERT, DELETE ON merged TO {ROLE}")
    does_not_need = "which the service does not need"
    assert troubles(as_role(patient)) == [
        ("advice", "departments", f"the role has UPDATE, TRUNCATE, {does_not_need}"),
        ("advice", "merged", f"the role has INSERT, DELETE, {does_not_need}"),
    ]


@pytest.mark.parametrize("owned", [True, False], ids=["serial", "a shared sequence"])
def test_a_sequence_that_the_role_may_not_use(owned: bool, patient: str) -> None:
    sql(patient, "ALTER TABLE employees ALTER id DROP IDENTITY")
    sql(patient, "CREATE SEQUENCE ids" + (" OWNED BY employees.id" if owned else ""))
    sql(patient, "ALTER TABLE employees ALTER id SET DEFAULT nextval('ids')")
    failure = ("FAIL", "employees", "the role lacks USAGE on ids")
    assert troubles(as_role(patient)) == [failure]
    sql(patient, f"GRANT USAGE ON SEQUENCE ids TO {ROLE}")
    assert troubles(as_role(patient)) == []


def test_key_columns_that_may_be_null(patient: str) -> None:
    sql(
        patient, "ALTER TABLE employees ALTER department_id DROP NOT NULL, ALTER name DROP NOT NULL"
    )
    found = troubles(as_role(patient))
    assert found == [
        ("advice", "employees", f"{column} {NULLABLE} employees ALTER {column} SET NOT NULL;")
        for column in ("department_id", "name")
    ]
    for check in found:
        paste(patient, check)
    assert troubles(as_role(patient)) == []


# Lookups


@pytest.mark.parametrize("resource", ["departments", "employees"])
def test_a_lookup_without_its_index(resource: str, patient: str) -> None:
    sql(patient, f"DROP INDEX {resource}_lookup")
    status, lines, _ = command(as_role(patient))
    failure = "a Seq Scan locks all keys, so that all creators conflict"
    assert status == 1
    assert f"FAIL   {resource} lookup: {failure}: {LOOKUP[resource]}" in lines
    (found,) = troubles(as_role(patient))
    paste(patient, found)
    assert troubles(as_role(patient)) == []


@pytest.mark.long
def test_a_lookup_whose_index_is_another_one(patient: str) -> None:
    sql(patient, "DROP INDEX departments_lookup")
    sql(patient, "CREATE INDEX departments_lookup ON departments (name)")
    failure = "a Seq Scan locks all keys, so that all creators conflict"
    remedy = "departments_lookup does not serve it, see `python -m db init`"
    assert troubles(as_role(patient)) == [("FAIL", "departments lookup", f"{failure}: {remedy}")]


def test_a_lookup_whose_index_is_invalid(patient: str) -> None:
    sql(patient, "DROP INDEX employees_lookup")
    with psycopg.connect(patient) as writer:
        # The build gives up waiting for this writer, and leaves an invalid index.
        writer.execute("LOCK TABLE departments, employees IN ROW EXCLUSIVE MODE")
        impatient = make_conninfo(patient, options="-c lock_timeout=50")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            sql(impatient, LOOKUP["employees"])
    (found,) = troubles(as_role(patient))
    assert found == (
        "FAIL",
        "employees lookup",
        f"its index is INVALID: DROP INDEX CONCURRENTLY employees_lookup; {LOOKUP['employees']}",
    )
    paste(patient, found)
    assert troubles(as_role(patient)) == []


@pytest.mark.parametrize("analyzed", [False, True], ids=["never analysed", "analysed"])
@pytest.mark.parametrize("rows", [0, 10_000])
def test_a_lookup_on_few_and_many_rows(rows: int, analyzed: bool, database: str) -> None:
    sql(database, "INSERT INTO departments (name) SELECT n FROM generate_series(1, %s) n", rows)
    sql(database, "INSERT INTO employees (department_id, name) SELECT id, name FROM departments")
    if analyzed:
        sql(database, "ANALYZE")
    found = checks(database)
    for resource in ("departments", "employees"):
        level, _, detail = about(f"{resource} lookup", found)
        assert level == "ok"
        assert detail.endswith(f"Index Scan of {resource}_lookup")  # may be a Bitmap Index Scan


# Keys


def key_check(database: str) -> Check:
    """Return the check of employees' key; that of departments must be all right."""
    found = checks(as_role(database))
    assert about("departments key", found).level == "ok"
    return about("employees key", found)


def test_the_guard_off_and_incomplete(patient: str) -> None:
    sql(patient, "ALTER TABLE employees DISABLE TRIGGER employees_guard_insert")
    assert key_check(patient) == ("advice", "employees key", UNGUARDED.format("incomplete"))
    sql(patient, "ALTER TABLE employees ENABLE TRIGGER employees_guard_insert")
    assert key_check(patient) == ("advice", "employees key", UNGUARDED.format("incomplete"))
    sql(patient, "ALTER TABLE employees ENABLE ALWAYS TRIGGER employees_guard_insert")
    assert key_check(patient).level == "ok"
    sql(patient, "DROP FUNCTION employees_guard CASCADE")
    assert key_check(patient) == ("advice", "employees key", UNGUARDED.format("off"))


@pytest.mark.parametrize("columns", ["department_id, name", "name, department_id"])
def test_a_unique_index_a_constraint_and_its_way_there(columns: str, patient: str) -> None:
    sql(patient, f"CREATE UNIQUE INDEX employees_key ON employees ({columns})")
    state = "employees_key is not yet a constraint: run `python -m db enforce` again"
    assert key_check(patient) == ("advice", "employees key", state)
    with change.connect(patient, "enforce") as connection:
        enforce(connection)
    held = "the constraint {} holds for all writers"
    found = checks(as_role(patient))
    assert about("employees key", found).detail == held.format("employees_key")
    assert about("departments key", found).detail == held.format("departments_key")
    assert troubles(as_role(patient)) == []


def test_a_unique_index_that_is_invalid(patient: str) -> None:
    unguard(patient)
    sql(patient, "INSERT INTO departments (name) VALUES ('Research'), ('Research')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(patient, "CREATE UNIQUE INDEX CONCURRENTLY departments_key ON departments (name)")
    state = "departments_key is INVALID: run `python -m db enforce` again"
    check = about("departments key", checks(as_role(patient)))
    assert check == ("advice", "departments key", state)


ANOTHER = {
    "an index": "CREATE UNIQUE INDEX another ON employees (department_id, name)",
    "an index that includes more": "CREATE UNIQUE INDEX another"
    " ON employees (department_id, name) INCLUDE (id)",
    "a constraint": "ALTER TABLE employees ADD CONSTRAINT another UNIQUE (name, department_id)",
    "a name to quote": 'CREATE UNIQUE INDEX "An other" ON employees (name, department_id)',
}


@pytest.mark.long
@pytest.mark.parametrize("statement", ANOTHER.values(), ids=ANOTHER)
def test_a_unique_index_of_another_name(statement: str, patient: str) -> None:
    sql(patient, statement)
    another = '"An other"' if "An other" in statement else "another"
    found = key_check(patient)
    assert found == (
        "FAIL",
        "employees key",
        f"{another} is unique, but concurrent creators get 422 by it unless it is called so:"
        f" ALTER INDEX {another} RENAME TO employees_key;",
    )
    paste(patient, found)
    renamed = key_check(patient)
    if "CONSTRAINT" in statement:
        assert renamed.detail == "the constraint employees_key holds for all writers"
    else:
        assert renamed.detail.startswith("employees_key is not yet a constraint: ")
        with change.connect(patient, "enforce") as connection:
            enforce(connection)
    assert troubles(as_role(patient)) == []


def test_a_natural_primary_key(patient: str) -> None:
    sql(patient, "ALTER TABLE employees DROP CONSTRAINT employees_pkey")
    sql(patient, "ALTER TABLE employees ADD PRIMARY KEY (department_id, name)")
    paste(patient, key_check(patient))
    held = ("ok", "employees key", "the constraint employees_key holds for all writers")
    assert key_check(patient) == held


@pytest.mark.parametrize("partial", [True, False])
def test_a_unique_index_that_has_to_go(partial: bool, patient: str) -> None:
    if partial:
        sql(patient, "CREATE UNIQUE INDEX another ON employees (department_id, name) WHERE id > 9")
    else:
        sql(patient, "CREATE UNIQUE INDEX employees_key ON employees (department_id, name)")
        sql(patient, "CREATE UNIQUE INDEX another ON employees (department_id, name)")
    failure = "concurrent creators get 422 by the unique index another: drop it"
    assert key_check(patient) == ("FAIL", "employees key", failure)


@pytest.mark.parametrize(
    "index",
    [
        "departments (created_at)",
        "employees (created_at)",
        "employees (department_id) INCLUDE (name)",
        "employees (department_id, name) WHERE id > 9",
        "employees (department_id, lower(name))",
    ],
)
def test_an_index_of_something_else_that_has_the_keys_name(index: str, patient: str) -> None:
    sql(patient, f"CREATE UNIQUE INDEX employees_key ON {index}")
    failure = "employees_key is an index of something else: rename it first"
    assert key_check(patient) == ("FAIL", "employees key", failure)


def test_a_unique_index_by_which_other_texts_are_equal(patient: str) -> None:
    try:
        sql(
            patient,
            "CREATE COLLATION caseless"
            " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server is built without ICU, and has no such collation")
    columns = "department_id, name COLLATE caseless"
    sql(patient, f"CREATE UNIQUE INDEX employees_key ON employees ({columns})")
    failure = "employees_key is an index of something else: rename it first"
    assert key_check(patient) == ("FAIL", "employees key", failure)


def test_no_foreign_key_to_departments(patient: str) -> None:
    sql(patient, "ALTER TABLE employees DROP CONSTRAINT employees_department_id_fkey")
    detail = (
        "employees.department_id has no foreign key to departments,"
        " so its rows may refer to one that is gone"
    )
    assert troubles(as_role(patient)) == [("FAIL", "departments references", detail)]


@pytest.mark.parametrize("resource", ["departments", "employees"])
def test_a_foreign_key_of_someone_elses(resource: str, patient: str) -> None:
    sql(patient, f"CREATE TABLE badges (id bigint, owner bigint REFERENCES {resource})")
    detail = (
        f"badges.owner refers to {resource}, and merge refuses to run: see docs/duplicates.md"
        " on how to teach it"
    )
    assert troubles(as_role(patient)) == [("advice", f"{resource} references", detail)]


# The role, connections and predicate locks


@pytest.mark.parametrize(
    ("attribute", "power"),
    [
        ("SUPERUSER", "is a superuser"),
        ("BYPASSRLS", "bypasses row security"),
        ("CREATEROLE", "may create roles"),
        ("CREATEDB", "may create databases"),
    ],
)
def test_powers_that_the_service_does_not_need(attribute: str, power: str, patient: str) -> None:
    sql(patient, f"ALTER ROLE {NO_RIGHTS} {attribute}")
    try:
        role = about("role", checks(as_role(patient, NO_RIGHTS)))
    finally:
        sql(patient, f"ALTER ROLE {NO_RIGHTS} NO{attribute}")
    assert role == ("advice", "role", f"{NO_RIGHTS} {power}: the service needs none of it")


def test_more_connections_than_the_server_has(patient: str) -> None:
    limit = allowed(patient)
    detail = f"WORKERS x (POOL_SIZE + 2) = {{}} of {limit} that the server lets this role have"
    assert about("connections", checks(as_role(patient), pool_size=limit - 2)) == (
        "ok", "connections", detail.format(limit)
    )  # fmt: skip
    assert troubles(as_role(patient), pool_size=limit - 1) == [
        ("advice", "connections", f"{detail.format(limit + 1)}: requests will wait, or get 503")
    ]


@pytest.mark.long
@pytest.mark.parametrize("limited", ["role", "database"])
def test_more_connections_than_the_role_or_the_database_has(limited: str, patient: str) -> None:
    name = ROLE if limited == "role" else conninfo_to_dict(patient)["dbname"]
    sql(patient, f"ALTER {limited} {name} CONNECTION LIMIT 7")
    try:
        status, lines, _ = command(as_role(patient))
    finally:
        sql(patient, f"ALTER {limited} {name} CONNECTION LIMIT -1")
    assert status == 0
    assert (
        "advice connections: WORKERS x (POOL_SIZE + 2) = 10 of 7"
        " that the server lets this role have: requests will wait, or get 503" in lines
    )


def test_how_many_serializable_transactions_the_server_remembers(own_server: str) -> None:
    # While an older transaction goes on, PostgreSQL keeps the predicate lock of each one that it
    # remembers. It gives the locks of those that it forgets to a dummy transaction.
    make_others(own_server)
    most = remembered(own_server)
    detail = about("serializable transactions", checks(own_server)).detail
    assert detail.startswith(f"the server remembers {most:,}, enough for {most * 20:,} a second")
    serializable = "-c default_transaction_isolation=serializable"
    with psycopg.connect(own_server, options=serializable) as old:
        old.execute("SELECT FROM bystanders")
        others(own_server, 2 * most)
        query = (
            "SELECT count(DISTINCT virtualtransaction),"
            " count(*) FILTER (WHERE virtualtransaction = '-1/0') > 0"
            " FROM pg_locks WHERE mode = 'SIReadLock'"
        )
        assert sql(own_server, query) == [(most, True)]


@pytest.mark.parametrize(("room", "level"), [(320, "advice"), (1000, "ok")])
def test_a_server_that_remembers_few(room: int, level: str) -> None:
    # The server's row is made up, as with the versions.
    check = server.serializable({"serializable": room})
    assert (check.level, f"enough for {room * 20:,} a second" in check.detail) == (
        level,
        True,
    )
    assert "max_prepared_transactions" in check.detail


@pytest.mark.long
def test_predicate_locks_that_run_out(own_server: str) -> None:
    # PostgreSQL keeps a lock for each row, up to 250 of a table, instead of one for its page.
    tables = [f"many_{n}" for n in range(150)]
    for table in tables:
        sql(own_server, f"CREATE TABLE {table} (id integer PRIMARY KEY)")
        sql(own_server, f"INSERT INTO {table} SELECT generate_series(1, 240)")
    limits = configured(own_server, max_pred_locks_per_page=999)
    by_index = "-c default_transaction_isolation=serializable -c enable_seqscan=off"
    by_index += " -c enable_bitmapscan=off -c enable_indexonlyscan=off"
    with limits, psycopg.connect(own_server, options=by_index) as reader:
        for table in tables[:140]:
            reader.execute(f"SELECT id FROM {table} WHERE id > 0")
        assert about("predicate locks", checks(own_server)).level == "ok"
        for table in tables[140:]:
            reader.execute(f"SELECT id FROM {table} WHERE id > 0")
        level, _, detail = about("predicate locks", checks(own_server))
        assert level == "advice"
        assert detail.startswith("36,")
        assert detail.endswith(" of 70,400 in use: raise max_pred_locks_per_transaction")


# Triggers


@pytest.mark.parametrize("resource", ["departments", "employees"])
def test_triggers_for_each_statement(resource: str, patient: str) -> None:
    sql(
        patient,
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RETURN NULL; END $$",
    )
    fires = "EXECUTE FUNCTION nothing()"
    for name, rest in (
        ("told_b", f"AFTER INSERT ON {resource} FOR EACH STATEMENT {fires}"),
        ("told_a", f"BEFORE UPDATE OR INSERT ON {resource} {fires}"),
        ("told_always", f"AFTER INSERT ON {resource} {fires}"),
        ("each_row", f"AFTER INSERT ON {resource} FOR EACH ROW {fires}"),
        ("no_insert", f"AFTER UPDATE OR DELETE OR TRUNCATE ON {resource} {fires}"),
        ("disabled", f"AFTER INSERT ON {resource} {fires}"),
        ("for_a_replica", f"AFTER INSERT ON {resource} {fires}"),
    ):
        sql(patient, f"CREATE TRIGGER {name} {rest}")
    sql(patient, f"ALTER TABLE {resource} ENABLE ALWAYS TRIGGER told_always")
    sql(patient, f"ALTER TABLE {resource} DISABLE TRIGGER disabled")
    sql(patient, f"ALTER TABLE {resource} ENABLE REPLICA TRIGGER for_a_replica")
    assert troubles(as_role(patient)) == [
        (
            "advice",
            f"{resource} triggers",
            "each POST fires told_a, told_always, told_b, FOR EACH STATEMENT, even where its key"
            " has a row; with PIPELINE=0 only a POST of a new key does",
        )
    ]
