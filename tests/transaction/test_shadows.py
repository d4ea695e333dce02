"""Our SQL never chooses functions and operators that others made beside PostgreSQL's own."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import RawCursor
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from db.programs import BIN
from db.queries import QUERIES, SCRIPTS
from db.roles import roles
from db.schema import apply_schema
from db.session import MEANING, TABLES, pin
from db.way_out.guard import GUARD_ON
from tests.support import legacy
from tests.support.service import LIMIT, ROOT, environment, serving, sql
from tests.support.shadows import cast_shadows, chosen, come_before, unshadowed

FILES = sorted([*(ROOT / "sql").rglob("*.sql"), ROOT / "schema.sql"])

# The types of the ids, of name and of created_at in tables of others, to which the types of our
# parameters do not fit exactly.
OTHER_TYPES = {
    "the schema's types": (),
    "integer": ("integer", "varchar(300)", "timestamp"),
    "numeric": ("numeric", "others.citext", "timestamptz"),
    "domains": ("others.number", "others.word", "others.instant"),
}

MAKE_OTHERS = """
CREATE SCHEMA others;
CREATE EXTENSION citext SCHEMA others;
CREATE DOMAIN others.number AS bigint;
CREATE DOMAIN others.word AS text;
CREATE DOMAIN others.instant AS timestamptz;
ALTER TABLE employees DROP CONSTRAINT employees_department_id_fkey;
DROP INDEX departments_lookup, employees_lookup;
ALTER TABLE departments ALTER id DROP IDENTITY;
ALTER TABLE employees ALTER id DROP IDENTITY;
CREATE SEQUENCE ids;
ALTER TABLE departments
    ALTER id TYPE {id}, ALTER id SET DEFAULT nextval('ids'),
    ALTER name TYPE {name}, ALTER created_at TYPE {at};
ALTER TABLE employees
    ALTER id TYPE {id}, ALTER id SET DEFAULT nextval('ids'), ALTER department_id TYPE {id},
    ALTER name TYPE {name}, ALTER created_at TYPE {at},
    ADD FOREIGN KEY (department_id) REFERENCES departments ON DELETE CASCADE
"""

SHADOWS = """
SELECT oid::bigint FROM pg_proc WHERE prosrc LIKE '%%a shadow%%'
UNION ALL
SELECT oid::bigint FROM pg_operator WHERE oprnamespace = 'public'::regnamespace
"""

# Finds an index, a default or a trigger's condition that was made with a shadow.
MADE_WITH_ONE = """
SELECT pg_describe_object(classid, objid, objsubid)
FROM pg_depend
WHERE deptype = 'n'
  AND refobjid = ANY (%s::oid[])
  AND classid <> 'pg_operator'::regclass::oid
"""


LONG = ("integer", "numeric", "domains")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.long if name in LONG else []) for name in OTHER_TYPES
    ],
)
def shadowed(request: pytest.FixtureRequest, new_database: Callable[[], str]) -> str:
    database = new_database()
    sql(database, "CREATE EXTENSION pg_stat_statements")
    types = OTHER_TYPES[request.param]
    if types:
        id_, name, at = types
        for statement in MAKE_OTHERS.format(id=id_, name=name, at=at).split(";"):
            sql(database, statement)
        # Makes the lookups' indexes, which ALTER TYPE cannot change.
        apply_schema(database)
    cast_shadows(database, FILES, [type_ for type_ in types if "others." in type_])
    return database


class Watched:
    """A session like those of the commands, in which the server tells what it has chosen."""

    def __init__(self, database: str) -> None:
        self.told: list[str] = []
        self.shadows = {oid for (oid,) in sql(unshadowed(database), SHADOWS)}
        self.connection = psycopg.connect(
            database, autocommit=True, cursor_factory=RawCursor, row_factory=dict_row
        )
        pin(self.connection, MEANING)
        self.connection.execute("SET debug_print_parse = on")
        self.connection.execute("SET client_min_messages = log")
        self.connection.add_notice_handler(
            lambda notice: self.told.append(str(notice.message_detail))
        )

    def chosen(self) -> set[int]:
        """Return the shadows that were chosen since the last call."""
        told, self.told = "\n".join(self.told), []
        return chosen(told, self.shadows)


@pytest.fixture(scope="module")
def watched(shadowed: str) -> Iterator[Watched]:
    watched = Watched(shadowed)
    with watched.connection:
        yield watched


# Scripts, which have several statements, have tests of their own below.
STATEMENTS = [file for file in FILES if file not in SCRIPTS]


@pytest.mark.parametrize("file", STATEMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_chooses_a_shadow(file: Path, watched: Watched) -> None:
    prepared = watched.connection.pgconn.prepare(b"", file.read_bytes())
    assert prepared.error_message == b""
    assert watched.chosen() == set()


def test_the_test_would_see_a_shadow(watched: Watched) -> None:
    for statement in (
        b"SELECT FROM departments WHERE hash_record_extended(ROW(name), 0) = 0::bigint",
        b"SELECT FROM pg_trigger WHERE tgfoid = 'now()'::regprocedure",
        b"SELECT 100.0 * 2::bigint",
    ):
        watched.connection.pgconn.prepare(b"", statement)
        assert watched.chosen() != set(), statement


def test_the_guard_and_the_indexes_choose_no_shadow(watched: Watched) -> None:
    with watched.connection.transaction(force_rollback=True):
        execute = watched.connection.execute
        for resource in ("departments", "employees"):
            execute(f"DROP INDEX {resource}_lookup".encode())
            for file in GUARD_ON:
                execute(QUERIES[f"{resource}/{file}"])
        execute((ROOT / "schema.sql").read_bytes())
        # The guard runs twice, for it lets the first row in and refuses the second.
        for table, columns in (("departments", "name"), ("employees", "department_id, name")):
            values = "'Ada'" if table == "departments" else "(SELECT id FROM departments), 'Ada'"
            insert = f"INSERT INTO {table} ({columns}) VALUES ({values})".encode()
            execute(insert)
            with (
                pytest.raises(psycopg.errors.UniqueViolation, match="the guard"),
                watched.connection.transaction(),
            ):
                execute(insert)
            execute(f"UPDATE {table} SET name = 'Grace'".encode())
        assert len(watched.told) > 20
        assert watched.chosen() == set()
        oids = list(watched.shadows)
        made = execute(MADE_WITH_ONE.replace("%s", "$1").encode(), [oids]).fetchall()
        assert made == []


def test_the_script_of_the_roles_chooses_no_shadow(shadowed: str, tmp_path: Path) -> None:
    run_roles(shadowed, tmp_path)


@pytest.mark.long
def test_the_script_of_the_roles_where_shadows_come_first(preceded: str, tmp_path: Path) -> None:
    run_roles(preceded, tmp_path)


def run_roles(database: str, tmp_path: Path) -> None:
    # The script lowers what the server tells, which must be everything here.
    script = tmp_path / "roles.sql"
    text = roles()
    assert "SET client_min_messages = warning;\n" in text
    script.write_text(text.replace("SET client_min_messages = warning;\n", ""))
    options = "-c debug_print_parse=on -c client_min_messages=log"
    done = subprocess.run(
        [BIN / "psql", "--no-psqlrc", "--quiet", "--file", script, database],
        env=environment(PGOPTIONS=options),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("parse tree") > 4
    shadows = {oid for (oid,) in sql(unshadowed(database), SHADOWS)}
    assert chosen(done.stderr, shadows) == set()


# "numeric" is left out: its ids would be strings in the answers, and doctor refuses its citext.
@pytest.mark.long
@pytest.mark.usefixtures("durable")
@pytest.mark.parametrize("shadowed", sorted({*OTHER_TYPES} - {"numeric"}), indirect=True)
def test_service_and_commands_run_among_shadows(shadowed: str) -> None:
    with serving(DATABASE_URL=shadowed) as service:
        created = service.post("/departments", name="Research")
        assert created.status_code == 201
        employee = {"department_id": created.json()["id"], "name": "Ada"}
        hired = service.post("/employees", **employee)
        assert (hired.status_code, service.post("/employees", **employee).status_code) == (201, 200)
        assert service.http.get("/employees", params=employee).json()["items"] == [hired.json()]
        for question in ("departments_duplicates", "sizes", "waiting", "transactions"):
            assert service.http.get(f"/inspect/{question}").status_code == 200
        calm = unshadowed(shadowed)
        sql(calm, "INSERT INTO public.departments (name) VALUES ('Research')")
        for words in (["merge", "--apply"], ["guard", "on"], ["doctor"], ["duplicates"]):
            status, output, errors = legacy.run(shadowed, *words)
            assert (status, errors) == (0, ""), output + errors
        assert service.http.delete(hired.headers["location"]).status_code == 204
        assert legacy.run(shadowed, "guard", "off")[0] == 0


@pytest.fixture(scope="module")
def preceded(new_database: Callable[[], str]) -> str:
    database = new_database()
    sql(database, "CREATE EXTENSION pg_stat_statements")
    cast_shadows(database, FILES)
    come_before(database)
    return database


# These files run in a session whose search_path is not set yet.
FIRST: dict[str, list[object]] = {
    "search_path": [TABLES, ["pg_stat_statements"]],
    "session": [],
    "set_config": ['{"search_path": "public, pg_temp", "synchronous_commit": "on"}', False],
    "timeline": [],
}


@pytest.mark.parametrize("file", FIRST)
def test_a_session_begins_without_shadows_that_come_first(file: str, preceded: str) -> None:
    shadows = {oid for (oid,) in sql(unshadowed(preceded), SHADOWS)}
    told: list[str] = []
    options = "-c debug_print_parse=on -c client_min_messages=log"
    with psycopg.connect(
        make_conninfo(preceded, options=options), autocommit=True, cursor_factory=RawCursor
    ) as connection:
        connection.add_notice_handler(lambda notice: told.append(str(notice.message_detail)))
        found = connection.execute(QUERIES[file], FIRST[file]).fetchall()
        if file == "search_path":
            assert found == [("public, pg_temp",)]
    assert told != []
    assert chosen("\n".join(told), shadows) == set()


def test_a_schema_is_made_among_shadows(preceded: str) -> None:
    calm = unshadowed(preceded)
    made = "SELECT pg_get_indexdef('public.departments_lookup'::regclass)"
    before = sql(calm, made)
    sql(calm, "CREATE SCHEMA away")
    for table in TABLES:
        sql(calm, f"ALTER TABLE public.{table} SET SCHEMA away")
    apply_schema(preceded)
    assert sql(calm, made) == before
    oids = [oid for (oid,) in sql(calm, SHADOWS)]
    assert sql(calm, MADE_WITH_ONE, oids) == []


@pytest.mark.long
@pytest.mark.parametrize("pooler", ["0", "1"])
def test_service_and_commands_run_where_shadows_come_first(pooler: str, preceded: str) -> None:
    with serving(DATABASE_URL=preceded, POOLER=pooler) as service:
        created = service.post("/departments", name=f"Research {pooler}")
        assert created.status_code == 201
        service.await_ready()
        assert service.http.get(f"/departments/{created.json()['id']}").json() == created.json()
        assert service.http.get("/inspect/sizes").status_code == 200
    for words in (["merge", "--apply"], ["guard", "on"], ["guard", "off"], ["duplicates"]):
        status, output, errors = legacy.run(preceded, *words)
        assert (status, errors) == (0, ""), output + errors
    assert legacy.run(preceded, "doctor")[2] == ""
