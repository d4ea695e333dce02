"""One PostgreSQL server, and on it a database for each side and size, all filled alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from db.embedded import embedded_server
from db.schema import apply_schema
from tests.bench.keys import DEPARTMENTS, OLD_ROWS, Key
from tests.support.service import temporary_data_dir

# The index of the key. "lookup" is schema.sql as it is. "unique" has a unique constraint in the
# place of the lookup's index, and "plain" an index of the same columns without uniqueness.
Index = Literal["lookup", "unique", "plain"]
INDEXES: dict[Index, str] = {
    "lookup": "",
    "unique": "DROP INDEX employees_lookup;"
    "ALTER TABLE employees ADD CONSTRAINT employees_key UNIQUE (department_id, name)",
    "plain": "DROP INDEX employees_lookup;"
    "CREATE INDEX employees_plain ON employees (department_id, name)",
}

# So many connections are enough for all sides at once.
CONNECTIONS = 400

# With these settings no round alone meets a checkpoint or an autovacuum. All other settings are
# PostgreSQL's defaults, fsync included.
SETTINGS = {"checkpoint_timeout": "1h", "max_wal_size": "32GB", "autovacuum": "off"}

# A round that finds this many times the rows of the start takes them away first.
GROWTH = 1.1


class Server:
    """The server, its main process, and the templates made so far."""

    def __init__(self, url: str, pid: int) -> None:
        self.pid = pid
        self._url = url
        self._templates: set[str] = set()
        self._databases = 0
        for name, value in SETTINGS.items():
            # ALTER SYSTEM runs in no transaction, and takes no parameter.
            self._execute(sql.SQL(f"ALTER SYSTEM SET {name} = {{}}").format(value))
        self._execute(sql.SQL("SELECT pg_reload_conf()"))

    def table(self, rows: int, index: Index) -> "Table":
        """Make a database with so many employees, and analyse them unless there are none."""
        template = f"template_{rows}_{index}"
        if template not in self._templates:
            self._create(template)
            _fill(self._of(template), rows, index)
            self._templates.add(template)
        self._databases += 1
        name = f"side_{self._databases}"
        self._create(name, template)
        return Table(self._of(name), rows)

    def _create(self, name: str, template: str = "template1") -> None:
        self._execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )

    def _of(self, name: str) -> str:
        return urlsplit(self._url)._replace(path=name).geturl()

    def _execute(self, statement: sql.Composed | sql.SQL) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def server() -> Iterator[Server]:
    """Start the server; stop it and delete its data at the end."""
    with temporary_data_dir() as data_dir, embedded_server(data_dir, CONNECTIONS) as url:
        pid = int((data_dir / "postmaster.pid").read_text().splitlines()[0])
        yield Server(url, pid)


def _fill(url: str, rows: int, index: Index) -> None:
    apply_schema(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO departments (name)"
            " SELECT 'Department ' || n FROM generate_series(1, %s) AS n",
            [DEPARTMENTS],
        )
        if rows:
            # To insert 10^7 rows with the indexes in place would take an hour.
            connection.execute("DROP INDEX employees_lookup, employees_department")
            connection.execute("SET session_replication_role = replica")  # skips foreign key checks
            connection.execute(OLD_ROWS.replace(" % ", " %% ").encode(), [rows])
            apply_schema(url)
        if INDEXES[index]:
            connection.execute(INDEXES[index].encode())
        if rows:
            connection.execute("VACUUM ANALYZE")


class Table:
    """The employees of one database."""

    def __init__(self, url: str, rows: int) -> None:
        self.url = url
        self.rows = rows
        self._last_old = self._ask("SELECT coalesce(max(id), 0) FROM employees")[0]
        self._last = self._last_old  # the largest id before the round

    def make_ready(self) -> None:
        """Bring the table back to about the rows of the start."""
        if not self.rows:
            self._ask("TRUNCATE employees")
            return
        since = "FROM employees WHERE id > %s"
        (more,) = self._ask(f"SELECT count(*) {since}", self._last_old)
        if self.rows + more > self.rows * GROWTH:
            self._ask(f"DELETE {since}", self._last_old)
            self._ask("VACUUM ANALYZE employees")

    def begin_round(self) -> None:
        """Note which rows are there."""
        (self._last,) = self._ask("SELECT coalesce(max(id), 0) FROM employees")

    def add(self, keys: Iterator[Key], number: int) -> list[int]:
        """Add so many rows, and return their ids."""
        names = [name for _, name in islice(keys, number)]
        with psycopg.connect(self.url) as connection:
            added = connection.execute(
                "INSERT INTO employees (department_id, name)"
                " SELECT 1, name FROM unnest(%s::text[]) AS name RETURNING id",
                [names],
            )
            return [id_ for (id_,) in added.fetchall()]

    def made_since(self) -> tuple[int, int]:
        """Return how many rows the round made, and how many share their key with another row."""
        # A round asks for keys of old rows, or for names that no other round asks for.
        made, duplicates = self._ask(
            "SELECT count(*), count(*) - count(DISTINCT (department_id, name))"
            " FILTER (WHERE name NOT LIKE 'Employee %%') FROM employees WHERE id > %s",
            self._last,
        )
        return made, duplicates

    def _ask(self, query: str, *parameters: object) -> Any:
        # A side that keeps a lock between requests is an error, which must not hang the benchmark.
        patience = "-c lock_timeout=30s"
        with psycopg.connect(self.url, autocommit=True, options=patience) as connection:
            cursor = connection.execute(query.encode(), parameters or None)
            return cursor.fetchone() if cursor.description else None
