"""Doctor's trial finds tables that store another key than they are sent, and says which."""

import psycopg
import pytest

from db.doctor import command as doctor
from db.doctor.check import Check
from db.doctor.trial import INSERT_AGE
from db.queries import QUERIES
from db.resources import RESOURCES
from db.settings import Settings
from db.way_out.change import connect
from tests.support.service import sql

FUNCTION = "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$;"
BEFORE = (
    FUNCTION
    + " CREATE TRIGGER change BEFORE INSERT ON departments FOR EACH ROW EXECUTE FUNCTION change()"
)
AFTER = BEFORE.replace("BEFORE", "AFTER")
DEFERRED = (
    FUNCTION + " CREATE CONSTRAINT TRIGGER change AFTER INSERT ON departments"
    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION change()"
)
LOWER = "UPDATE departments SET name = lower(name) WHERE id = NEW.id; RETURN NULL;"
STORED = "another key is stored than is sent"
AGAIN = "the row that was inserted is not found again"
NONE = "no row is stored: a trigger, a rule or a policy keeps it away"

ALL = "a plain name, blanks around it, capitals, accents, 255 characters"

# For each fault a trigger on departments, the names that show it, and what doctor says of them.
BREAKS = {
    "trims": (BEFORE.format("NEW.name := trim(NEW.name); RETURN NEW;"), "blanks around it", STORED),
    "trims the end": (
        BEFORE.format("NEW.name := rtrim(NEW.name); RETURN NEW;"), "blanks around it", STORED
    ),
    "lowers": (BEFORE.format("NEW.name := lower(NEW.name); RETURN NEW;"), "capitals", STORED),
    "normalises": (
        BEFORE.format("NEW.name := normalize(NEW.name); RETURN NEW;"), "accents", STORED
    ),
    "cuts": (
        BEFORE.format("NEW.name := left(NEW.name, 200); RETURN NEW;"), "255 characters", STORED
    ),
    "lowers after": (AFTER.format(LOWER), "capitals", AGAIN),
    "lowers at COMMIT": (DEFERRED.format(LOWER), "capitals", AGAIN),
    "deletes at COMMIT": (
        DEFERRED.format("DELETE FROM departments WHERE id = NEW.id; RETURN NULL;"), ALL, AGAIN
    ),
    "swallows": (BEFORE.format("RETURN NULL;"), ALL, NONE),
    "writes elsewhere": (
        BEFORE.format(
            "INSERT INTO merged (resource, id, kept, content, pointed)"
            " VALUES ('else', NEW.id, 0, '{}', '{}'); RETURN NULL;"
        ),
        ALL,
        NONE,
    ),
    "makes two": (
        AFTER.format(
            "IF pg_trigger_depth() = 1 THEN"
            " INSERT INTO departments (name) VALUES (NEW.name); END IF; RETURN NULL;"
        ),
        ALL,
        "2 rows are stored",
    ),
    "does more by a rule": (
        "CREATE RULE twice AS ON INSERT TO departments DO ALSO"
        " INSERT INTO merged (resource, id, kept, content, pointed)"
        " VALUES ('else', NEW.id, 0, '{}', '{}')",
        "",
        "",
    ),
}  # fmt: skip


def said(database: str, resource: str = "departments") -> list[Check]:
    subject = f"{resource} trial"
    return [check for check in doctor.checks(database, Settings()) if check.subject == subject]


def content(database: str) -> list[tuple[object, ...]]:
    return sql(
        database,
        "SELECT (SELECT count(*) FROM departments), (SELECT count(*) FROM employees),"
        " (SELECT count(*) FROM merged)",
    )


@pytest.mark.parametrize("change", BREAKS)
def test_a_table_that_stores_another_key(change: str, database: str) -> None:
    statement, names, what = BREAKS[change]
    with connect(database, "test") as connection:
        connection.execute(statement.encode())
    failed = [check for check in said(database) if check.level == "FAIL"]
    assert failed == ([("FAIL", "departments trial", f"{names}: {what}")] if names else [])
    assert content(database) == [(0, 0, 0)]


@pytest.mark.parametrize("department", [True, False], ids=["there", "to be made"])
def test_an_employee_that_comes_to_another_department(department: bool, database: str) -> None:
    if department:
        sql(database, "INSERT INTO departments (name) VALUES ('Research')")
    before = content(database)
    assert [check.level for check in said(database, "employees")] == ["ok"]
    statement = BEFORE.replace("departments", "employees").format(
        "INSERT INTO departments (name) VALUES ('Sales') RETURNING id INTO NEW.department_id;"
        " RETURN NEW;"
    )
    with connect(database, "test") as connection:
        connection.execute(statement.encode())
    assert said(database, "employees") == [("FAIL", "employees trial", f"{ALL}: {STORED}")]
    assert content(database) == before


@pytest.mark.parametrize(
    ("constraint", "names", "why"),
    [
        ("CHECK (name = trim(name))", "blanks around it", "new row for relation"),
        ("CHECK (name ~ '^[A-Z]')", ALL, "new row for relation"),
    ],
)
def test_a_table_that_refuses_a_key_is_no_failure(
    constraint: str, names: str, why: str, database: str
) -> None:
    sql(database, f"ALTER TABLE departments ADD CONSTRAINT neat {constraint}")
    check, *_ = said(database)
    assert check.level == "advice"
    assert check.detail.startswith(f"{names}: refused with 422, {why}")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("INSERT INTO departments (id, name) SELECT n, n FROM generate_series(1, 5) AS n",
         'duplicate key value violates unique constraint "departments_pkey"'),
        ("ALTER SEQUENCE departments_id_seq MAXVALUE 2 RESTART 2",
         'nextval: reached maximum value of sequence "departments_id_seq" (2)'),
    ],
    ids=["behind its table", "at its end"],
)  # fmt: skip
def test_what_is_the_servers_fault_is_a_failure(change: str, why: str, database: str) -> None:
    sql(database, change)
    (found,) = (check for check in said(database) if check.level != "ok")
    assert found.level == "FAIL"
    assert found.detail.endswith(f": {why}")


def test_a_trigger_that_raises_a_state_of_its_own_is_no_failure(database: str) -> None:
    body = "RAISE EXCEPTION 'no' USING ERRCODE = 'ZZ001';"
    with connect(database, "test") as connection:
        connection.execute(BEFORE.format(body).encode())
    assert said(database) == [("advice", "departments trial", f"{ALL}: refused with 422, no")]


def test_a_short_column_refuses_a_long_key(database: str) -> None:
    sql(database, "ALTER TABLE employees ALTER name TYPE varchar(50)")
    refused, kept = said(database, "employees")
    assert refused.level == "advice"
    assert refused.detail.startswith("255 characters: refused with 422, value too long")
    assert kept.detail.startswith("4 of 5 keys")


TYPES = {
    "char(10)": "name is character(10), which takes blanks at the end for nothing",
    "char(300)": "name is character(300), which takes blanks at the end for nothing",
    "bpchar": "name is bpchar, which takes blanks at the end for nothing",
    "name": "name is name, which cuts off what is longer than 63 bytes",
    '"char"': 'name is "char", which keeps one byte',
    "padded": "name is character(10), which takes blanks at the end for nothing",
    "citext": "name is citext, which a constraint compares without case, and the lookup with it",
}


@pytest.mark.parametrize("type_", TYPES)
def test_a_type_that_cannot_hold_what_it_is_sent(type_: str, database: str) -> None:
    if type_ == "citext":
        sql(database, "CREATE EXTENSION citext")
    sql(database, "CREATE DOMAIN short AS char(10)")
    sql(database, "CREATE DOMAIN padded AS short")
    sql(database, "DROP INDEX departments_lookup")
    sql(database, f"ALTER TABLE departments ALTER name TYPE {type_}")
    checks = list(doctor.checks(database, Settings()))
    assert ("FAIL", "departments", TYPES[type_]) in checks


@pytest.mark.parametrize("type_", ["numeric(9, -2)", "real", "double precision"])
def test_a_number_that_is_rounded(type_: str, database: str) -> None:
    if "-2" in type_ and sql(database, "SHOW server_version_num")[0][0] < "150000":
        pytest.skip("a negative scale is there since PostgreSQL 15")
    sql(database, "ALTER TABLE employees DROP CONSTRAINT employees_department_id_fkey")
    sql(database, "DROP INDEX employees_lookup")
    sql(database, f"ALTER TABLE employees ALTER department_id TYPE {type_}")
    details = [check.detail for check in doctor.checks(database, Settings())]
    assert f"department_id is {type_.replace(', ', ',')}, which rounds" in details


@pytest.mark.parametrize("type_", ["text", "varchar", "varchar(300)", 'text COLLATE "C"'])
def test_a_type_that_holds_every_key(type_: str, database: str) -> None:
    sql(database, f"ALTER TABLE departments ALTER name TYPE {type_}")
    assert [check.level for check in said(database)] == ["ok"]


def test_a_collation_by_which_the_lookup_finds_nothing(database: str) -> None:
    try:
        sql(
            database,
            "CREATE COLLATION careless"
            " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server is built without ICU, and has no such collation")
    sql(database, "ALTER TABLE departments ALTER name TYPE text COLLATE careless")
    # The column's values are hashed by its own collation, and a parameter by the database's.
    assert said(database) == [("FAIL", "departments trial", f"{ALL}: {STORED}")]


def test_a_table_that_fails_already_is_not_tried(database: str) -> None:
    sql(database, "ALTER TABLE employees SET UNLOGGED")
    with connect(database, "test") as connection:
        connection.execute(AFTER.format(LOWER).encode())
    # The failure of another table hides nothing of this one.
    failed, *_ = said(database)
    assert failed == ("FAIL", "departments trial", f"capitals: {AGAIN}")
    why = "not tried, because of the FAIL of {}"
    assert said(database, "employees") == [("advice", "employees trial", why.format("employees"))]
    # A trial of an employee may make a department.
    sql(database, "ALTER TABLE employees SET LOGGED, ALTER department_id DROP NOT NULL")
    sql(database, "ALTER TABLE departments ALTER name TYPE char(300)")
    for resource in ("departments", "employees"):
        detail = why.format("departments")
        assert said(database, resource) == [("advice", f"{resource} trial", detail)]


def test_the_age_is_that_of_the_sql() -> None:
    age = f"interval '{INSERT_AGE * 1000:.0f} milliseconds'"
    for resource in RESOURCES:
        assert QUERIES[f"{resource}/insert"].decode().count(age) == 2
