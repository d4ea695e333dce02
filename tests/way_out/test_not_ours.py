"""What somebody else has made under the name of a table of ours is not used, nor its code run."""

from collections.abc import Iterator

import pytest

from tests.support import legacy
from tests.support.roles import SERVICE, as_role, make_role, make_roles
from tests.support.service import ROOT, Service, serving, sql

MALLORY = "onerow_test_mallory"

# What runs this has lost.
EVIL = """
CREATE SEQUENCE public.ran;
GRANT ALL ON public.ran TO PUBLIC;
CREATE FUNCTION public.evil() RETURNS text LANGUAGE sql VOLATILE AS
    'SELECT pg_catalog.nextval(''public.ran'')::text';
CREATE FUNCTION public.evil_trigger() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM public.evil(); RETURN NEW; END'
"""

# merged as init makes it.
_, TABLE = (ROOT / "sql/way_out/merged.sql").read_text().split("CREATE TABLE IF NOT EXISTS", 1)
TABLE = f"CREATE TABLE{TABLE.rstrip().removesuffix(';')}"
TRIGGER = (
    "CREATE TRIGGER evil BEFORE INSERT ON public.merged"
    " FOR EACH ROW EXECUTE FUNCTION public.evil_trigger()"
)
VIEW = """
CREATE VIEW public.merged AS
SELECT 1::bigint AS step, 'departments' AS resource, '999' AS id, public.evil() AS kept,
    '{}'::jsonb AS content, '{}'::jsonb AS pointed, now() AS merged_at
"""


@pytest.fixture(scope="module", autouse=True)
def mallory(server: str) -> None:
    make_role(server, MALLORY)


@pytest.fixture
def prey(database: str) -> str:
    """The superuser's URL of a database without merged, in whose schema MALLORY may create."""
    sql(database, f"GRANT CREATE ON SCHEMA public TO {MALLORY}")
    sql(database, "DROP TABLE merged")
    for statement in EVIL.split(";\n"):
        sql(as_role(database, MALLORY), statement)
    return database


def make(database: str, *statements: str) -> None:
    for statement in statements:
        sql(as_role(database, MALLORY), statement)


def has_run(database: str) -> bool:
    return bool(sql(database, "SELECT is_called FROM ran")[0][0])


def test_no_command_uses_a_merged_of_somebody_elses(prey: str) -> None:
    make(prey, TABLE, TRIGGER, "GRANT ALL ON public.merged TO PUBLIC")
    sql(prey, "INSERT INTO departments (name) VALUES ('Research'), ('Research')")
    for words in (["init"], ["merge"], ["merge", "--apply"], ["merge", "--undo"], ["doctor"]):
        status, output, errors = legacy.run(prey, *words)
        told = output + errors
        assert status == 1, (words, told)
        assert f"the table merged is somebody else's, for it belongs to {MALLORY}" in told, words
    assert not has_run(prey)


def test_the_owner_is_one_of_ours_and_the_trigger_is_not(prey: str) -> None:
    assert legacy.run(prey, "init")[0] == 0
    sql(prey, f"GRANT TRIGGER ON merged TO {MALLORY}")
    make(prey, TRIGGER)
    sql(prey, "INSERT INTO departments (name) VALUES ('Research'), ('Research')")
    status, output, errors = legacy.run(prey, "merge", "--apply")
    assert (status, output) == (1, "departments: 0 rows merged.\nemployees: 0 rows merged.\n")
    assert f"it has the trigger evil, whose function belongs to {MALLORY}" in errors
    assert not has_run(prey)


def test_a_maker_of_merged_who_may_act_as_the_tables_owner(prey: str) -> None:
    for table in ("departments", "employees"):
        sql(prey, f"ALTER TABLE {table} OWNER TO pg_monitor")
    sql(prey, f"GRANT pg_monitor TO {MALLORY}")
    try:
        make(prey, TABLE)
        assert legacy.run(prey, "merge", "--apply") == (
            0,
            "departments: 0 rows merged.\nemployees: 0 rows merged.\n",
            "",
        )
        # A superuser counts as a member of every role, and yet does not own all.
        _, output, errors = legacy.run(prey, "doctor")
        assert ("the role owns it" in output, errors) == (False, "")
    finally:
        sql(prey, f"REVOKE pg_monitor FROM {MALLORY}")


def test_init_takes_no_sample_that_is_there_and_somebody_elses(prey: str) -> None:
    sql(prey, "DROP TABLE departments, employees")
    make(prey, "CREATE TABLE public.employees (id bigint PRIMARY KEY, department_id bigint)")
    refusal = f"init: the table employees is there already, and belongs to {MALLORY}: run this as"
    status, _, errors = legacy.run(prey, "init")
    assert (status, errors.startswith(refusal)) == (1, True), errors
    assert sql(prey, "SELECT to_regclass('departments'), to_regclass('merged')") == [(None, None)]


@pytest.fixture
def service(prey: str) -> Iterator[Service]:
    """A service that begins while there is no table merged."""
    assert legacy.run(prey, "init")[0] == 0
    make_roles(prey)
    sql(prey, "DROP TABLE merged")
    with serving(DATABASE_URL=as_role(prey, SERVICE)) as service:
        yield service


def test_the_service_uses_no_merged_of_somebody_elses(service: Service, prey: str) -> None:
    assert service.http.get("/departments/999").status_code == 503
    make(prey, VIEW, "GRANT ALL ON public.merged TO PUBLIC")
    why = "The table merged is somebody else's: `python -m db doctor` says whose."
    for path in ("/ready", "/departments/999"):
        answer = service.http.get(path)
        assert (answer.status_code, answer.json()["detail"]) == (503, why), path
    page = service.http.get("/inspect/merged.json")
    assert (page.status_code, "merged is somebody else's" in page.text) == (501, True)
    # The list of questions plans and asks those that have a headline.
    assert service.http.get("/inspect").status_code == 200
    assert not has_run(prey)


def test_no_page_reads_statistics_of_somebody_elses(service: Service, prey: str) -> None:
    columns = ("mean_exec_time", "max_exec_time", "calls", "total_exec_time", "rows", "queryid")
    select = ", ".join(f"1::bigint AS {column}" for column in columns)
    view = f"CREATE VIEW public.pg_stat_statements AS SELECT {select}, public.evil() AS query, dbid"
    here = "FROM (SELECT oid AS dbid FROM pg_database WHERE datname = current_database()) AS here"
    make(prey, f"{view} {here}", "GRANT SELECT ON public.pg_stat_statements TO PUBLIC")
    sql(prey, "CREATE SCHEMA statistics")
    for extension in (False, True):
        if extension:
            sql(prey, "CREATE EXTENSION pg_stat_statements SCHEMA statistics")
        page = service.http.get("/inspect/statements.json")
        assert page.status_code == 501, page.text
        assert page.json()["detail"].endswith("pg_stat_statements is somebody else's.")
    assert not has_run(prey)
