"""Makes triggers, such as people have on tables of their own."""

from tests.support.service import sql


def make_trigger(
    database: str,
    table: str,
    body: str,
    when: str = "BEFORE INSERT",
    *,
    name: str = "meddle",
    deferred: bool = False,
) -> None:
    """Run these statements of PL/pgSQL for each row, at COMMIT if `deferred`.

    `name` is that of the trigger and of its function.
    """
    sql(
        database,
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
    )
    kind, how = (
        ("CONSTRAINT TRIGGER", "DEFERRABLE INITIALLY DEFERRED") if deferred else ("TRIGGER", "")
    )
    sql(
        database,
        f"CREATE {kind} {name} {when} ON {table} {how} FOR EACH ROW EXECUTE FUNCTION {name}()",
    )
