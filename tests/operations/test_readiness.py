"""The log at the start, and /ready, name what is wrong with a database that can be served."""

import pytest

from db.doctor.readiness import version_fault
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
