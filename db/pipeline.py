"""The transaction of a get or create in one round trip instead of four.

The steps are those of db.queries.get_or_create() in db.transaction.serializable(), which is the way
to read it, and so are the SQL files. By libpq's pipeline mode all of them travel together: BEGIN,
select, insert, COMMIT. The insert makes no row where the select has found one.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from db.pool import Connection
from db.queries import QUERIES, Outcome, statement
from db.transaction import LateInsert

STATEMENTS = {"begin": b"BEGIN ISOLATION LEVEL SERIALIZABLE", "commit": b"COMMIT", **QUERIES}


async def get_or_create(
    connection: Connection, resource: str, key: Sequence[Any], attributes: Sequence[Any] = ()
) -> Outcome:
    """Return the row of `key`, creating it if there is none, in a transaction that has committed.

    Raises the error of the step that failed, its transaction rolled back.
    """
    parameters = [None if value is None else str(value).encode() for value in (*key, *attributes)]
    if any(value and b"\0" in value for value in parameters):
        raise psycopg.DataError("a text with NUL, where libpq would end it")
    try:
        steps = _transaction(connection, resource, parameters, len(key))
        found, inserted = await connection.wait(steps)
    except (errors.InvalidSqlStatementName, errors.FeatureNotSupported):
        # Prepared, but gone by DEALLOCATE ALL, or from before a change of the table.
        connection.pgconn.finish()
        raise
    result = found if found.ntuples else inserted
    if not result.ntuples:
        raise LateInsert
    transformer = Transformer(connection)
    transformer.set_pgresult(result)
    names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
    row = dict(zip(names, transformer.load_row(0, tuple), strict=True))
    return Outcome(row, row.pop("copies", 1), created=result is inserted)


def _transaction(
    connection: Connection, resource: str, values: list[bytes | None], key: int
) -> PQGen[tuple[PGresult, PGresult]]:
    """Return what was found, and what was inserted; neither has a row if it was too late."""
    pgconn = connection.pgconn
    select = statement(connection, f"{resource}/select")
    insert = statement(connection, f"{resource}/insert")
    new = []
    if not connection.settings:
        steps = ("begin", select, insert, "commit")
        new = [name for name in steps if name not in connection.prepared]
    pgconn.enter_pipeline_mode()
    if new:
        for name in new:
            pgconn.send_prepare(name.encode(), STATEMENTS[name])
        # Without a sync all of it would be one transaction, and BEGIN too late to say which kind.
        pgconn.pipeline_sync()
    _send(connection, "begin")
    if connection.settings:
        _send(connection, "settings", [value.encode() for value in connection.settings])
    _send(connection, select, values[:key])
    _send(connection, insert, values)
    _send(connection, "commit")
    # One sync, at the end: after a failure the server passes over what follows, COMMIT too.
    pgconn.pipeline_sync()
    number = len(new) + bool(new) + (6 if connection.settings else 5)
    *begun, found, inserted, committed, _ = yield from _results(pgconn, number)
    for name, result in zip(new, begun, strict=False):
        if result.status == ExecStatus.COMMAND_OK:
            connection.prepared.add(name)
    # A server that is told to end the connection may do so in the place of the last sync's answer.
    # What it has said before holds, and the pool closes the connection.
    with suppress(psycopg.OperationalError):
        pgconn.exit_pipeline_mode()
    for result in (*begun, found, inserted, committed):
        if result.status == ExecStatus.FATAL_ERROR:
            if pgconn.transaction_status == TransactionStatus.INERROR:
                pgconn.send_query(b"ROLLBACK")
                yield from generators.execute(pgconn)
            raise errors.error_from_result(result)
    if committed.command_status != b"COMMIT":
        raise psycopg.OperationalError("the transaction was rolled back")
    return found, inserted


def _send(connection: Connection, name: str, parameters: list[bytes | None] | None = None) -> None:
    if connection.settings:
        connection.pgconn.send_query_params(STATEMENTS[name], parameters)
    else:
        connection.pgconn.send_query_prepared(name.encode(), parameters)


def _results(pgconn: PGconn, number: int) -> PQGen[list[PGresult]]:
    """Send what is queued and wait for this many results, those of a sync included."""
    yield from generators.send(pgconn)
    results: list[PGresult] = []
    ended = False
    while len(results) < number:
        result = yield from generators.fetch(pgconn)
        if result is not None:
            results.append(result)
        elif ended:  # one None ends a statement's results; two, and there is nothing to come
            pgconn.finish()
            raise psycopg.OperationalError("the server's answers do not match the statements")
        ended = result is None
    return results
