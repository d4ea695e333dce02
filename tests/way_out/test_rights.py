"""The roles of sql/roles.sql can do what they must, and no more."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from db.doctor import command as doctor
from db.embedded import embedded_server
from db.questions import questions
from db.schema import apply_schema
from db.settings import Settings
from db.transaction import RIGHT_MISSING
from tests.support import legacy
from tests.support.adopting import commands
from tests.support.roles import OWNER, SERVICE, as_role, make_roles
from tests.support.service import Service, serving, sql, temporary_data_dir, until


@pytest.fixture
def granted(database: str) -> str:
    """The superuser's URL of a database whose tables belong to the role onerow_owner."""
    make_roles(database)
    return database


def command(database: str, *words: str) -> str:
    """Run `python -m db` as the owner, which must end well; return its output."""
    status, output, errors = legacy.run(as_role(database, OWNER), *words)
    assert (status, errors) == (0, ""), output + errors
    return output


RIGHTS = """
    SELECT relname::text, relowner::regrole::text, relacl::text
    FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT proname, proowner::regrole::text, proacl::text
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT nspname, NULL, nspacl::text FROM pg_namespace WHERE nspname = 'public'
    UNION ALL
    SELECT 'database', NULL, datacl::text FROM pg_database WHERE datname = current_database()
    ORDER BY 1
"""


@pytest.mark.long
def test_the_script_may_run_again(granted: str) -> None:
    command(granted, "guard", "on")
    before = sql(granted, RIGHTS)
    make_roles(granted)
    assert sql(granted, RIGHTS) == before


@pytest.mark.long
def test_a_guard_from_before_the_roles_becomes_the_owners(database: str) -> None:
    assert legacy.run(database, "guard", "on")[0] == 0
    make_roles(database)
    with serving(DATABASE_URL=as_role(database, SERVICE)) as service:
        assert service.post("/departments", name="Research").status_code == 201
    assert {owner for _, owner, _ in sql(database, RIGHTS)} == {OWNER, None}
    command(database, "guard", "off")


@pytest.mark.long
def test_the_maker_of_the_roles_need_not_be_a_superuser() -> None:
    # Only a new server does not have the roles yet.
    with temporary_data_dir() as data_dir, embedded_server(data_dir) as url:
        sql(url, "CREATE ROLE managing LOGIN CREATEROLE")
        sql(url, "CREATE DATABASE managed OWNER managing")
        database = make_conninfo(url, dbname="managed", user="managing")
        apply_schema(database)
        for _ in range(2):
            make_roles(database)
        command(database, "guard", "on")


@pytest.mark.long
def test_the_tables_may_be_in_another_schema(database: str) -> None:
    sql(database, 'CREATE SCHEMA "Its own"')
    for table in ("departments", "employees", "merged"):
        sql(database, f'ALTER TABLE {table} SET SCHEMA "Its own"')
    there = make_conninfo(database, options='-c search_path="Its\\ own"')
    make_roles(there)
    command(there, "guard", "on")
    with serving(DATABASE_URL=as_role(there, SERVICE)) as service:
        assert service.post("/departments", name="Research").status_code == 201


ELSEWHERE = """
CREATE SCHEMA types; CREATE SCHEMA "Its own";
CREATE EXTENSION citext SCHEMA types;
CREATE TYPE types.size AS ENUM ('s', 'm');
CREATE DOMAIN "Its own".size AS types.size;
CREATE FUNCTION "Its own".norm(text) RETURNS text IMMUTABLE LANGUAGE sql RETURN lower($1);
CREATE FUNCTION "Its own".one() RETURNS int LANGUAGE sql RETURN 1;
CREATE TABLE parts (
    id bigserial PRIMARY KEY, sku text NOT NULL, size "Its own".size NOT NULL,
    note types.citext, number integer DEFAULT "Its own".one());
"""


@pytest.fixture
def parts(new_database: Callable[[], str], tmp_path: Path) -> str:
    """The superuser's URL of a database whose types and functions are not beside its table."""
    database = new_database()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(ELSEWHERE)
    run = commands(database, tmp_path)
    run("adopt", "parts", "--key", '"Its own".norm(sku),size')
    run("init")
    make_roles(database, run("roles"))
    return database


@pytest.mark.long
@pytest.mark.usefixtures("durable")
def test_types_and_functions_may_be_in_other_schemas(parts: str, tmp_path: Path) -> None:
    folder = {"RESOURCES": str(tmp_path)}
    for words in (("guard", "on"), ("merge", "--apply"), ("guard", "off"), ("enforce",)):
        status, _, errors = legacy.run(as_role(parts, OWNER), *words, **folder)
        assert (status, errors) == (0, "")
    with serving(DATABASE_URL=as_role(parts, SERVICE), **folder) as service:
        service.await_ready()
        answers = [service.post("/parts", sku=sku, size="s", note="x") for sku in ("N-1", "n-1")]
        assert [answer.status_code for answer in answers] == [201, 200]
    status, output, errors = legacy.run(as_role(parts, SERVICE), "doctor", **folder)
    assert (status, errors) == (0, "")
    assert {line.split()[0] for line in output.splitlines()} == {"ok"}


def test_doctor_names_a_right_that_is_lacking_and_goes_on(parts: str, tmp_path: Path) -> None:
    sql(parts, f"REVOKE USAGE ON SCHEMA types FROM {SERVICE}")
    database = as_role(parts, SERVICE)
    status, output, errors = legacy.run(database, "doctor", RESOURCES=str(tmp_path))
    assert (status, errors) == (1, "")
    lacking = "permission denied for schema types: see `python -m db roles`"
    assert f"FAIL   parts: {lacking}" in output.splitlines()
    assert output.splitlines()[-1].startswith("ok     predicate locks: ")


# The rights of the service


def use(service: Service, new: str) -> None:
    """Send a request of every kind; `new` is a name that no row has yet."""
    service.await_ready()
    created = service.post("/departments", name=new)
    assert created.status_code == 201
    assert service.post("/departments", name=new).json() == created.json()
    employee = {"department_id": created.json()["id"], "name": new}
    hired = service.post("/employees", **employee)
    assert hired.status_code == 201
    assert service.post("/employees", **employee).json() == hired.json()
    for row in (created, hired):
        assert service.http.get(row.headers["location"]).json() == row.json()
    listed = service.http.get("/employees", params=employee)
    assert listed.json()["items"] == [hired.json()]
    for question in questions():
        values = {parameter.name: "1" for parameter in question.parameters}
        asked = service.http.get(f"/inspect/{question.name}.json", params=values)
        # Without its extension this question is 501.
        assert asked.status_code == (501 if question.name == "statements" else 200)
    assert service.http.delete(hired.headers["location"]).status_code == 204
    assert service.http.delete(created.headers["location"]).status_code == 204
    assert service.http.get(created.headers["location"]).status_code == 404


@pytest.mark.long
def test_each_role_does_its_part_of_the_way_to_a_constraint(granted: str) -> None:
    legacy.fill(granted, employees=200, departments=20)
    command(granted, "init")
    with serving(DATABASE_URL=as_role(granted, SERVICE), WORKERS="2") as service:
        use(service, "without a guard")
        command(granted, "guard", "on")
        use(service, "with a guard")
        assert legacy.run(as_role(granted, OWNER), "duplicates")[0] == 1
        command(granted, "merge")
        command(granted, "merge", "--apply")
        ((retired,),) = sql(
            granted, "SELECT max(id::bigint) FROM merged WHERE resource = 'departments'"
        )
        assert service.http.get(f"/departments/{retired}").status_code == 308
        command(granted, "guard", "off")
        command(granted, "merge", "--undo")
        command(granted, "merge", "--apply")
        use(service, "merged")
        command(granted, "enforce")
        use(service, "with a constraint")
        command(granted, "duplicates")
        command(granted, "guard", "off")
        assert service.complaints() == []


def test_what_mends_a_right_that_is_missing_is_told(granted: str) -> None:
    sql(granted, f"REVOKE INSERT ON departments FROM {SERVICE}")
    sql(granted, "ALTER TABLE employees ENABLE ROW LEVEL SECURITY")
    with serving(DATABASE_URL=as_role(granted, SERVICE)) as service:
        for path, body in (("/departments", {}), ("/employees", {"department_id": 1})):
            answer = service.post(path, name="Ada", **body)
            assert (answer.status_code, answer.json()["detail"]) == (503, RIGHT_MISSING)
        ready = service.http.get("/ready").json()["detail"]
        assert ready == f"{RIGHT_MISSING} It is about departments."


def test_a_command_that_needs_the_owner_says_so(granted: str) -> None:
    sql(granted, "INSERT INTO departments (name) VALUES ('Research'), ('Research')")
    denied = "permission denied for table departments: run this as the owner of the tables\n"
    status, _, errors = legacy.run(as_role(granted, SERVICE), "merge", "--apply", "departments")
    assert (status, errors) == (1, f"merge: departments: {denied}")
    command(granted, "merge", "--apply")
    status, _, errors = legacy.run(as_role(granted, SERVICE), "merge", "--undo")
    assert status == 1
    assert errors.startswith("merge: permission denied for ")
    assert errors.endswith(": run this as the owner of the tables\n")
    # The owner needs another remedy, which PostgreSQL tells.
    sql(granted, "INSERT INTO departments (name) VALUES ('Research')")
    sql(granted, "ALTER TABLE departments FORCE ROW LEVEL SECURITY, ENABLE ROW LEVEL SECURITY")
    status, _, errors = legacy.run(as_role(granted, OWNER), "merge", "--apply", "departments")
    assert status == 1
    assert errors.endswith("use ALTER TABLE NO FORCE ROW LEVEL SECURITY.\n")


@pytest.mark.usefixtures("durable")
def test_the_doctor_finds_no_right_too_many_nor_too_few(granted: str) -> None:
    command(granted, "guard", "on")
    found = list(doctor.checks(as_role(granted, SERVICE), Settings()))
    assert {check.level for check in found} == {"ok"}
    found = list(doctor.checks(as_role(granted, OWNER), Settings()))
    owned = {check.subject for check in found if check.level != "ok"}
    assert owned == {"departments", "employees", "merged", "role"}


@pytest.mark.long
def test_of_others_the_pages_show_who_they_are_and_not_what_they_say(granted: str) -> None:
    with (
        serving(DATABASE_URL=as_role(granted, SERVICE)) as service,
        psycopg.connect(granted, application_name="the holder") as holder,
        ThreadPoolExecutor(1) as thread,
    ):
        holder.execute("LOCK TABLE departments /* hunter2 */")
        post = thread.submit(service.post, "/departments", name="Research")

        def waits() -> list[dict[str, object]]:
            return list(service.http.get("/inspect/waiting.json").json()["rows"])

        until(lambda: waits() != [])
        (wait,) = waits()
        assert (wait["waiting_application"], wait["holding_application"]) == (
            "onerow",
            "the holder",
        )
        assert wait["holding_query"] == "<insufficient privilege>" != wait["waiting_query"]
        assert "hunter2" not in service.http.get("/inspect/waiting").text
        holder.rollback()
        assert post.result().status_code == 201


@pytest.fixture(scope="module")
def guarded(new_database: Callable[[], str]) -> str:
    """The URL of a database with the guard on, and a table of another application."""
    database = new_database()
    make_roles(database)
    command(database, "guard", "on")
    sql(database, "CREATE TABLE salaries (id bigint)")
    return database


@pytest.fixture(scope="module", params=[SERVICE, OWNER])
def session(request: pytest.FixtureRequest, guarded: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(as_role(guarded, request.param), autocommit=True) as connection:
        yield connection


NEITHER = [
    "SELECT FROM salaries",
    "CREATE TABLE pg_catalog.mine ()",
    "CREATE SCHEMA mine",
    "CREATE DATABASE mine",
    "CREATE ROLE mine",
    "CREATE EXTENSION pg_stat_statements",
    "CREATE PUBLICATION mine FOR TABLE departments",
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE c AS 'libc', 'getpid'",
    "SET ROLE pg_execute_server_program",
    "GRANT pg_read_all_data TO CURRENT_USER",
    "ALTER ROLE onerow_service CREATEROLE",
    "ALTER SYSTEM SET fsync = off",
    "SET session_replication_role = replica",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY departments TO '/departments'",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT pg_reload_conf()",
    "SELECT rolpassword FROM pg_authid",
    "SELECT lo_import('/etc/passwd')",
]

NOT_THE_SERVICE = [
    "UPDATE departments SET name = 'x'",
    "UPDATE employees SET department_id = 1",
    "TRUNCATE employees",
    "SELECT FROM departments FOR UPDATE",
    "INSERT INTO departments (name) VALUES ('x') ON CONFLICT (id) DO UPDATE SET name = 'y'",
    "INSERT INTO merged (resource, id, kept, content, pointed) VALUES ('', 1, 1, '{}', '{}')",
    "UPDATE merged SET kept = 1",
    "DELETE FROM merged",
    "TRUNCATE merged",
    "SELECT nextval('departments_id_seq')",
    "SELECT setval('employees_id_seq', 1)",
    "SELECT FROM employees_guard_locks",
    "INSERT INTO employees_guard_locks VALUES (1)",
    "DELETE FROM departments_guard_locks",
    "DROP TABLE employees_guard_locks",
    "DROP FUNCTION employees_guard() CASCADE",
    "ALTER FUNCTION employees_guard() SECURITY INVOKER",
    "ALTER TABLE employees DISABLE TRIGGER employees_guard_insert",
    "ALTER TABLE employees ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE departments ADD note text",
    "ALTER TABLE departments OWNER TO CURRENT_USER",
    "CREATE UNIQUE INDEX mine ON departments (name)",
    "DROP INDEX employees_lookup",
    "REINDEX TABLE employees",
    "DROP TABLE merged",
    "CREATE TABLE mine ()",
    "CREATE VIEW mine AS SELECT id FROM departments",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
    "CREATE TRIGGER mine AFTER INSERT ON departments EXECUTE FUNCTION employees_guard()",
    "CREATE RULE mine AS ON DELETE TO departments DO INSTEAD NOTHING",
    "CREATE POLICY mine ON departments",
    "COMMENT ON TABLE departments IS 'mine'",
    "SET ROLE onerow_owner",
    "GRANT onerow_owner TO CURRENT_USER",
]


@pytest.mark.parametrize("statement", NEITHER)
def test_what_neither_role_may_do(statement: str, session: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(statement.encode())


@pytest.mark.parametrize("session", [SERVICE], indirect=True)
@pytest.mark.parametrize("statement", NOT_THE_SERVICE)
def test_what_the_service_may_not_do(statement: str, session: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(statement.encode())
