"""Starts pgbouncer, as docs/machines.md configures it, before a test's server."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from db.programs import server_user
from tests.support.documents import blocks, section
from tests.support.haproxy import free_port
from tests.support.service import LIMIT, temporary_data_dir, until

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@dataclass
class PgBouncer:
    """A pgbouncer, which runs unless a test has stopped it."""

    url: str
    _command: list[str | Path]
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # pgbouncer refuses to be root, as PostgreSQL does.
        self._process = subprocess.Popen(self._command, **server_user())
        until(self._listens)

    def stop(self) -> None:
        """End pgbouncer at once, with all its connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(LIMIT)

    def _listens(self) -> bool:
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def pooling(database: str, address: str = "127.0.0.1", **settings: str) -> Iterator[PgBouncer]:
    """Start pgbouncer before the server of this URL, with settings besides the document's."""
    assert PGBOUNCER is not None
    with psycopg.connect(database) as connection:
        given = connection.info
        name = given.dbname
        words = {"host": given.host, "port": given.port, "user": given.user}
        if given.password:
            words["password"] = given.password
        server = " ".join("{}='{}'".format(k, str(v).replace("'", "''")) for k, v in words.items())
    port = free_port()
    (ini,) = blocks(section("docs/machines.md#a-pooler-in-between"), "ini")
    # Any client may connect, and for the server is the role of this URL.
    ini = re.sub(r"^onerow = .*", lambda _: f"* = {server}", ini, flags=re.MULTILINE)
    ini = re.sub(r"^auth_.*\n", "", ini, flags=re.MULTILINE)
    ini = ini.replace("listen_port = 6432", f"listen_port = {port}")
    ini = ini.replace("listen_addr = 127.0.0.1", f"listen_addr = {address}")
    ini += "auth_type = any\nunix_socket_dir =\n"
    ini += "".join(f"{name} = {value}\n" for name, value in settings.items())
    with temporary_data_dir() as path:
        file = path.with_name("pgbouncer.ini")
        file.touch(0o600)
        file.write_text(ini)
        if user := server_user():
            os.chown(file, user["user"], user["group"])
        path.parent.chmod(0o711)
        url = f"postgresql://postgres@{address}:{port}/{name}"
        pgbouncer = PgBouncer(url, [PGBOUNCER, "--quiet", file])
        try:
            pgbouncer.start()
            yield pgbouncer
        finally:
            pgbouncer.stop()
