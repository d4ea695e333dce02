"""A refusal by the table is 422, or 409; a fault of the server is 503, and in the log."""

from collections.abc import Iterator

import pytest

from tests.support.service import Service, serving, sql

# The trigger raises the SQLSTATE that is the row's name.
RAISE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    line departments := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF line.name ~ '^[0-9A-Z]{5}$' THEN
        RAISE EXCEPTION 'no' USING ERRCODE = line.name;
    END IF;
    RETURN line;
END $$
"""

REFUSALS = [
    *("09000", "20000", "21000", "22001", "22003", "22007", "22P02", "22023", "23502", "23514"),
    *("23P01", "38000", "44000", "54000", "P0001", "P0002", "P0003", "P0004", "ZZ001", "23ZZZ"),
]
FAULTS = [
    *("0A000", "0L000", "2200H", "24000", "25P01", "26000", "27000", "2B000", "2D000"),
    *("2F005", "34000", "38001", "39P01", "3D000", "3F000", "42501", "42601", "42703", "42883"),
    *("42P01", "53100", "53200", "54001", "55000", "57014", "58030", "F0000", "HV000", "XX000"),
    *("XX001", "XX002"),
]


@pytest.fixture(params=["1", "0"], ids=["pipeline", "plain"])
def service(request: pytest.FixtureRequest, database: str) -> Iterator[Service]:
    with serving(DATABASE_URL=database, PIPELINE=request.param) as service:
        yield service


def test_each_sqlstate_is_the_clients_or_the_servers(service: Service) -> None:
    service.sql(RAISE)
    service.sql(
        "CREATE TRIGGER refuse BEFORE INSERT OR DELETE ON departments"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    answers = {state: service.post("/departments", name=state) for state in REFUSALS + FAULTS}
    found = {state: answer.status_code for state, answer in answers.items()}
    assert found == {**dict.fromkeys(REFUSALS, 422), **dict.fromkeys(FAULTS, 503)}
    assert all(answers[state].headers["retry-after"] for state in FAULTS)
    log = service.log.read_text()
    assert [state for state in FAULTS if f"({state})" not in log] == []
    assert [state for state in REFUSALS if f"({state})" in log] == []
    assert "Traceback" not in log


def test_a_delete_that_fails_by_the_servers_fault(service: Service) -> None:
    service.sql(RAISE)
    service.sql(
        "CREATE TRIGGER refuse BEFORE DELETE ON departments FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    for state, status in (("42883", 503), ("XX000", 503), ("P0001", 409)):
        id_ = service.post("/departments", name=state).json()["id"]
        assert service.http.delete(f"/departments/{id_}").status_code == status


def test_a_sequence_at_its_end_is_no_fault_of_the_client(service: Service, database: str) -> None:
    sql(database, "ALTER SEQUENCE departments_id_seq MAXVALUE 2 RESTART 2")
    assert service.post("/departments", name="the last").status_code == 201
    answer = service.post("/departments", name="one more")
    assert answer.status_code == 503
    assert "(2200H)" in service.log.read_text()


@pytest.mark.parametrize(
    "change",
    [
        "",
        "ALTER TABLE departments RENAME CONSTRAINT departments_pkey TO pk_department",
        "ALTER TABLE departments ADD CONSTRAINT both_of_them UNIQUE (name, id);"
        "ALTER TABLE departments DROP CONSTRAINT departments_pkey CASCADE;"
        "ALTER TABLE departments ADD CONSTRAINT with_it UNIQUE (id) INCLUDE (created_at)",
    ],
    ids=["as init makes it", "renamed", "another"],
)
def test_a_sequence_behind_its_table_is_no_fault_of_the_client(
    change: str, service: Service, database: str
) -> None:
    for statement in filter(None, change.split(";")):
        sql(database, statement)
    # The sequence is behind by two, for the service tries once more after any first violation.
    sql(database, "INSERT INTO departments (id, name) VALUES (1, 'loaded'), (2, 'loaded, too')")
    answer = service.post("/departments", name="one more")
    assert answer.status_code == 503
    assert "(23505)" in service.log.read_text()
    assert service.post("/departments", name="one more").status_code == 201


@pytest.mark.long
@pytest.mark.parametrize("constraint", ["PRIMARY KEY", "UNIQUE"])
def test_a_constraint_on_what_the_client_sends(
    constraint: str, service: Service, database: str
) -> None:
    """It is the client's error even if its name and the value look like those of the ids."""
    sql(database, "ALTER TABLE departments DROP CONSTRAINT departments_pkey CASCADE")
    label = "label text GENERATED ALWAYS AS (left(name, 9)) STORED"
    sql(database, f"ALTER TABLE departments ADD {label}")
    sql(database, f"ALTER TABLE departments ADD CONSTRAINT departments_pkey {constraint} (label)")
    assert service.post("/departments", name="a (id)=(1) b").status_code == 201
    assert service.post("/departments", name="a (id)=(1) c").status_code == 422
