"""Runs more serializable transactions than PostgreSQL remembers."""

from db.way_out import change
from tests.support.service import sql

# Each transaction looks a key up and finds nothing, which leaves a predicate lock behind.
PROCEDURE = """
CREATE OR REPLACE PROCEDURE others(number integer) LANGUAGE plpgsql AS $$
BEGIN
    FOR n IN 1..number LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;
        PERFORM FROM bystanders WHERE id = 1;
    END LOOP;
END
$$
"""


def make_others(database: str) -> None:
    """Make the procedure, which commits some 100,000 transactions a second."""
    sql(database, "CREATE TABLE IF NOT EXISTS bystanders (id integer PRIMARY KEY)")
    sql(database, PROCEDURE)


def remembered(database: str) -> int:
    """Return how many serializable transactions the server has room for, as doctor says."""
    with change.connect(database, "test") as connection:
        (server,) = change.ask(connection, "way_out/doctor/server")
    return int(server["serializable"])


def others(database: str, number: int) -> None:
    """Run so many transactions."""
    sql(database, f"CALL others({number})")
