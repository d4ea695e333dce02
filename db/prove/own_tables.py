"""The sample's tables, made for a run in a place of their own, and dropped after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import getpid

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo

from db.engine import Engine
from db.header import quoted
from db.signals import signals_deferred
from db.way_out.change import Refused

TABLES = ("employees", "departments", "merged")  # those that refer to others first


@contextmanager
def own_schema(url: str, engine: Engine, name: str) -> Iterator[str]:
    """Make a schema with the tables; yield a URL whose search_path it is; drop it at the end.

    Raises Refused, or psycopg.Error.
    """
    schema = f"onerow_{name}_{getpid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        info = connection.info  # has what PG* variables say, too
        own = make_conninfo(
            url,
            host=info.host,
            port=info.port,
            user=info.user,
            dbname=info.dbname,
            password=info.password,
            options=f"{info.options} -c search_path={schema}".strip(),
        )
        lacks = f"GRANT CREATE ON DATABASE {quoted(info.dbname)} TO {quoted(info.user)};"
    try:
        _run(url, f"CREATE SCHEMA {schema}")
    except errors.InsufficientPrivilege as error:
        raise Refused(f"{error.diag.message_primary}: {lacks}") from None
    try:
        with psycopg.connect(own, autocommit=True) as connection:
            if connection.execute("SELECT current_schema()").fetchone() != (schema,):
                raise Refused(
                    "a pooler drops the search_path: set POOLER=1, and name a database that has"
                    f" no tables {', '.join(TABLES)}"
                )
        _run(own, engine.schema.read_text())
        yield own
    finally:
        with signals_deferred():
            _run(url, f"DROP SCHEMA {schema} CASCADE")


@contextmanager
def in_place(url: str, engine: Engine) -> Iterator[str]:
    """Make the tables where a pooler leads to; drop them at the end.

    Raises Refused if one of them is there, or psycopg.Error.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        for table in TABLES:
            row = connection.execute("SELECT to_regclass(%s)", [table]).fetchone()
            if row != (None,):
                raise Refused(f"behind a pooler it needs a database without a table {table}")
    try:
        _run(url, engine.schema.read_text())
        yield url
    finally:
        with signals_deferred():
            _run(url, "".join(f"DROP TABLE IF EXISTS {table};" for table in TABLES))


def _run(url: str, script: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(script.encode())
