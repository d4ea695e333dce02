"""Checks that PostgreSQL takes a resource's files, and that their headers are true."""

from collections.abc import Iterator

import psycopg
from psycopg import errors, pq

from db.doctor.check import ADVICE, FAIL, Check
from db.header import Field, File
from db.queries import shown
from db.resources import REQUESTS, Resource
from db.way_out.change import Session, ask

STATEMENT = b""  # the unnamed statement, which the next one replaces


def checks(connection: Session, resource: Resource) -> Iterator[Check]:
    """Yield what is wrong with the files of requests, with the path, and the line of a header."""
    for name in sorted(REQUESTS):
        file = resource.files[name]
        # adopt calls this in a transaction, which an error would abort without a savepoint.
        with connection.transaction(force_rollback=True):
            if message := refusal(connection, file.text.encode()):
                found = [Check(FAIL, resource.name, f"{shown(file.path)}: {message}")]
            else:
                found = list(_header(connection, resource.name, name, file))
        yield from found


def way_out(connection: Session, resource: Resource) -> Iterator[Check]:
    """Yield which of the other files PostgreSQL refuses."""
    for name, file in resource.files.items():
        if name in REQUESTS:
            continue
        with connection.transaction(force_rollback=True):
            message = refusal(connection, file.text.encode())
        if message:
            yield Check(ADVICE, f"{resource.name} way out", f"{shown(file.path)}: {message}")


def refusal(connection: Session, statement: bytes) -> str | None:
    """Return why PostgreSQL does not prepare a statement, or None if it does."""
    result = connection.pgconn.prepare(STATEMENT, statement)
    if result.status == pq.ExecStatus.COMMAND_OK:
        return None
    return told(errors.error_from_result(result))


def told(error: psycopg.Error) -> str:
    """Return what an error says, on one line, and what to do where a right is missing."""
    said = error.diag.message_primary or str(error).partition("\n")[0]
    lacks = isinstance(error, errors.InsufficientPrivilege)
    return f"{said}: see `python -m db roles`" if lacks else said


def _header(connection: Session, subject: str, name: str, file: File) -> Iterator[Check]:
    """Yield how the header differs from the statement, which has just been prepared."""
    prepared = connection.pgconn.describe_prepared(STATEMENT)
    if prepared.nparams != len(file.parameters):
        detail = (
            f"names {len(file.parameters)} parameters, and the statement has {prepared.nparams}"
        )
        yield Check(FAIL, subject, f"{shown(file.path)}:1: {detail}")
        return
    lines = file.text.splitlines()
    types = [prepared.param_type(number) for number in range(prepared.nparams)]
    for number, type_ in _others(connection, file.parameters, types):
        line = next(at for at, text in enumerate(lines, 1) if text.startswith(f"-- ${number} "))
        detail = f"{shown(file.path)}:{line}: {file.parameters[number - 1].name} is {type_}"
        yield Check(FAIL, subject, detail)
    columns = [(prepared.fname(number) or b"").decode() for number in range(prepared.nfields)]
    if columns != [each.name for each in file.columns]:
        yield Check(FAIL, subject, f"{shown(file.path)}:1: the columns are {', '.join(columns)}")
        return
    if name != "get":  # Resource has checked that the other files return the same columns
        return
    types = [prepared.ftype(number) for number in range(prepared.nfields)]
    for number, type_ in _others(connection, file.columns, types):
        # The column is served as it is stored. Only what /openapi.json says of it is wrong.
        detail = f"{shown(file.path)}:1: {file.columns[number - 1].name} is {type_}"
        yield Check(ADVICE, subject, detail)


def _others(
    connection: Session, fields: tuple[Field, ...], types: list[int]
) -> list[tuple[int, str]]:
    """Return the number, from 1, and the true type of each field whose header has another type."""
    rows = ask(connection, "way_out/doctor/types", types, [field.type for field in fields])
    return [(row["number"], row["type"]) for row in rows]
