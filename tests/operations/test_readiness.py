"""The log at the start, and /ready, name what is wrong with a database that can be served."""

from collections.abc import Callable
from pathlib import Path

import pytest

from db.doctor.readiness import version_fault
from db.queries import QUERIES
from tests.support.adopting import adopt
from tests.support.service import serving, sql, until

BUILD = "CREATE INDEX CONCURRENTLY departments_lookup ON departments USING hash"


def test_a_lookup_without_its_index_is_named_until_it_is_built(database: str) -> None:
    sql(database, "DROP INDEX departments_lookup")
    with serving(DATABASE_URL=database) as service:
        ready = service.http.get("/ready")
        assert ready.status_code == 200
        found = [each for each in ready.json()["warnings"] if "departments_lookup" in each]
        assert len(found) == 1
        assert BUILD in found[0]
        until(lambda: BUILD in service.log.read_text())
        assert service.post("/departments", name="Research").status_code == 201
        sql(database, found[0].partition(": ")[2])
        assert "departments_lookup" not in service.http.get("/ready").text


def test_an_invalid_lookup_is_named_with_both_statements(database: str) -> None:
    sql(
        database,
        "UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid = 'employees_lookup'::regclass",
    )
    with serving(DATABASE_URL=database) as service:
        (found,) = [
            each for each in service.http.get("/ready").json()["warnings"] if "employees" in each
        ]
        assert "INVALID: DROP INDEX CONCURRENTLY employees_lookup; CREATE INDEX" in found


OWN_TABLES = {
    "in another schema": ("hid.things", ""),
    "with a name to quote": ("things", "my-things"),
    "partitioned": ("things", ""),
}


@pytest.mark.parametrize("what", OWN_TABLES)
def test_the_statements_can_be_run_as_they_are_printed(
    what: str, new_database: Callable[[], str], tmp_path: Path
) -> None:
    (table, name), database = OWN_TABLES[what], new_database()
    sql(database, "CREATE SCHEMA hid")
    ending = " PARTITION BY HASH (id)" if what == "partitioned" else ""
    sql(database, f"CREATE TABLE {table} (id bigserial PRIMARY KEY, thing text NOT NULL){ending}")
    name = name or "things"
    status, said = adopt(database, tmp_path, table, "--key", "thing", "--as", name)
    assert status == 0, said
    sql(database, QUERIES["way_out/merged"].decode())
    with serving(DATABASE_URL=database, RESOURCES=str(tmp_path)) as service:

        def warnings() -> list[str]:
            answer = service.http.get("/ready")
            assert answer.status_code == 200
            told = answer.json().get("warnings", [])
            return [each for each in told if f"{name}_lookup" in each]

        for begins in ("Without ", ""):
            (found,) = warnings()
            assert found.startswith(begins)
            assert begins or "INVALID" in found
            for statement in found.partition(": ")[2].split("; "):
                sql(database, statement)
            assert warnings() == []
            sql(
                database,
                "UPDATE pg_index SET indisvalid = FALSE FROM pg_class"
                " WHERE oid = indexrelid AND relname = %s",
                f"{name}_lookup",
            )


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (180006, None),
        (180005, "18.6"),
        (150018, "15.19"),
        (150019, None),
        (190000, None),
        (130099, "too old"),
    ],
)
def test_which_versions_are_named(number: int, fault: str | None) -> None:
    found = version_fault(number)
    assert (found is None) == (fault is None)
    assert fault is None or fault in str(found)
