"""Makes a standby of a test's server, and the URL of both."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from db.embedded import embedded_server
from db.programs import run, server_user
from tests.support.service import temporary_data_dir


@contextmanager
def standby_of(primary: str) -> Iterator[str]:
    """Copy this server, start the copy as its standby, and yield its URL."""
    as_user = server_user()
    with temporary_data_dir() as data_dir:
        data_dir.mkdir(mode=0o700)
        if as_user:
            os.chown(data_dir, as_user["user"], as_user["group"])
            data_dir.parent.chmod(0o711)
        run(as_user, "pg_basebackup", "--dbname", primary, "--pgdata", data_dir,
            "--write-recovery-conf", "--checkpoint=fast", "--no-sync")  # fmt: skip
        for lock in data_dir.glob(".s.PGSQL.*.lock"):
            lock.unlink()  # the copy has the lock of the primary's socket
        with embedded_server(data_dir) as url:
            yield url


def hosts(*urls: str) -> str:
    """Return the URL of these servers together."""
    given = [conninfo_to_dict(url) for url in urls]
    several = {name: ",".join(str(each[name]) for each in given) for name in ("host", "port")}
    return make_conninfo(urls[0], **several)
