"""PostgreSQL on a machine of the cluster: a primary, or a standby that the primary waits for."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

from db.data_directory import create
from db.programs import BIN, server_user
from tests.faults.cluster.network import NETWORK, Host
from tests.faults.server import Server
from tests.support.service import LIMIT, sql, until

STANDBY = "standby"


class Node:
    """A server, in a folder that its user may enter."""

    def __init__(self, host: Host, data_dir: Path) -> None:
        self.host = host
        self._data_dir = data_dir
        data_dir.parent.chmod(0o711)
        # Only the tests use the socket; the services come over the network. It is not in the data
        # directory, all of which pg_rewind reads.
        self._sockets = data_dir.parent / "sockets"
        self._sockets.mkdir()
        user = server_user()
        os.chown(self._sockets, user["user"], user["group"])
        self.url = f"postgresql://postgres@/postgres?host={self._sockets}"

    @property
    def as_source(self) -> str:
        """The URL to which a standby connects."""
        return f"host={self.host.address} user=postgres dbname=postgres application_name={STANDBY}"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return int((self._data_dir / "postmaster.pid").read_text().split()[0])

    def create(self) -> None:
        self._data_dir.mkdir()
        create(self._data_dir, server_user())
        trust = f"host {{}} all {NETWORK}.0/24 trust\n"
        with (self._data_dir / "pg_hba.conf").open("a") as file:
            file.write(trust.format("all") + trust.format("replication"))
        with (self._data_dir / "postgresql.conf").open("a") as file:
            # pg_rewind reads all the log since the two parted, and the recovery before it removes
            # what is not kept.
            file.write("wal_keep_size = 1GB\n")

    def copy(self, primary: "Node") -> None:
        """Make a standby of the primary, which waits for it from now on."""
        user = server_user()
        self._data_dir.mkdir(mode=0o700)
        os.chown(self._data_dir, user["user"], user["group"])
        self._run("pg_basebackup", "--dbname", primary.as_source, "--pgdata", self._data_dir,
                  "--write-recovery-conf", "--checkpoint=fast", "--no-sync")  # fmt: skip
        self._follow(primary)

    def rejoin(self, primary: "Node") -> None:
        """Make a standby of this former primary, which loses what it alone has."""
        self.stop()
        self._run("pg_rewind", "--source-server", primary.as_source, "--target-pgdata",
                  self._data_dir, "--write-recovery-conf", "--no-sync")  # fmt: skip
        self._follow(primary)

    def _follow(self, primary: "Node") -> None:
        self.start()
        until(lambda: primary.has_standby("async"))
        primary.wait_for_standby(True)

    def wait_for_standby(self, wait: bool) -> None:
        """Let commits wait for the standby, or not."""
        names = STANDBY if wait else "''"
        sql(self.url, f"ALTER SYSTEM SET synchronous_standby_names = {names}")
        sql(self.url, "SELECT pg_reload_conf()")
        if wait:
            until(lambda: self.has_standby("sync"))

    def has_standby(self, state: str) -> bool:
        """Return whether a standby keeps up and is waited for ("sync") or not ("async")."""
        streams = "SELECT FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = %s"
        return sql(self.url, streams, state) != []

    def start(self) -> None:
        options = f"-c listen_addresses={self.host.address} -c max_connections=200"
        options += " -c autovacuum=off"  # whose transactions would be counted, too
        options += f" -c unix_socket_directories={self._sockets}"
        self._run("pg_ctl", "--pgdata", self._data_dir, "--wait", "--log", self._data_dir / "log",
                  "--options", options, "start")  # fmt: skip

    def kill(self) -> None:
        """End it by kill -9, sessions included, and wait until all have ended.

        A session that outlives the server's main process ends its wait for the standby, and shows
        the others what the standby does not have. A machine that dies has no such moment.
        """
        main = psutil.Process(self.pid)
        main.suspend()  # so that it begins no session any more
        processes = [*main.children(), main]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        until(lambda: not any(_runs(process) for process in processes))
        # The next start would take the process, which nobody has reaped, for one that runs.
        for lock in (self._data_dir / "postmaster.pid", *self._sockets.glob(".s.PGSQL.*.lock")):
            lock.unlink()

    def stop(self) -> None:
        """Stop it, if it runs."""
        if (self._data_dir / "postmaster.pid").exists() and psutil.pid_exists(self.pid):
            Server(self._data_dir, self.url).stop(signal.SIGQUIT)

    def promote(self) -> None:
        assert sql(self.url, "SELECT pg_promote()") == [(True,)]

    def count_transaction(self) -> int:
        """Begin a transaction that gets a number, and return the number."""
        ((number,),) = sql(self.url, "SELECT pg_current_xact_id()::text::bigint")
        return int(number)

    def _run(self, program: str, *arguments: object) -> None:
        user = server_user()
        as_user = ["setpriv", f"--reuid={user['user']}", f"--regid={user['group']}"]
        command = self.host.command(*as_user, "--clear-groups", BIN / program, *arguments)
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=LIMIT)
        log = self._data_dir / "log"
        assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
