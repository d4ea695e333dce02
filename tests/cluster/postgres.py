"""PostgreSQL on a machine of the cluster: a primary, and a standby that it waits for."""

import os
import signal
import subprocess
from pathlib import Path

import psutil

from db.embedded import BIN, _initdb, _server_user
from tests.cluster.network import NETWORK, Host
from tests.service import sql, until

STANDBY = "standby"


class Node:
    """A server, in a folder that its user may enter."""

    def __init__(self, host: Host, data_dir: Path) -> None:
        self.host = host
        self._data_dir = data_dir
        data_dir.parent.chmod(0o711)
        # For the tests alone; the services come over the network.
        self.url = f"postgresql://postgres@/postgres?host={data_dir}"

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        return int((self._data_dir / "postmaster.pid").read_text().split()[0])

    def create(self) -> None:
        _initdb(self._data_dir, _server_user())
        trust = f"host {{}} all {NETWORK}.0/24 trust\n"
        with (self._data_dir / "pg_hba.conf").open("a") as file:
            file.write(trust.format("all") + trust.format("replication"))

    def copy(self, primary: "Node") -> None:
        """Make a standby of the primary, which waits for it from now on."""
        user = _server_user()
        self._data_dir.mkdir(mode=0o700)
        os.chown(self._data_dir, user["user"], user["group"])
        url = f"host={primary.host.address} user=postgres application_name={STANDBY}"
        self._run("pg_basebackup", "--dbname", url, "--pgdata", self._data_dir,
                  "--write-recovery-conf", "--checkpoint=fast", "--no-sync")  # fmt: skip
        for lock in self._data_dir.glob(".s.PGSQL.*.lock"):
            lock.unlink()  # of the primary's socket, which is in its data directory
        self.start()
        sql(primary.url, f"ALTER SYSTEM SET synchronous_standby_names = {STANDBY}")
        sql(primary.url, "SELECT pg_reload_conf()")
        streams = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
        until(lambda: sql(primary.url, streams) != [])

    def start(self) -> None:
        options = f"-c listen_addresses={self.host.address} -c max_connections=200"
        options += " -c autovacuum=off"  # whose transactions are nobody's here
        options += f" -c unix_socket_directories={self._data_dir}"
        self._run("pg_ctl", "--pgdata", self._data_dir, "--wait", "--log", self._data_dir / "log",
                  "--options", options, "start")  # fmt: skip

    def kill(self) -> None:
        """End it by kill -9, and wait until its sessions have, too."""
        processes = [psutil.Process(self.pid), *psutil.Process(self.pid).children()]
        processes[0].kill()
        until(lambda: not any(_runs(process) for process in processes))
        # Else the next start takes what is left of the process, which nobody has reaped, for one.
        for lock in (self._data_dir / "postmaster.pid", *self._data_dir.glob(".s.PGSQL.*.lock")):
            lock.unlink()

    def stop(self) -> None:
        """Stop it, if it runs."""
        if (self._data_dir / "postmaster.pid").exists() and psutil.pid_exists(self.pid):
            process = psutil.Process(self.pid)
            process.send_signal(signal.SIGQUIT)
            until(lambda: not _runs(process))

    def promote(self) -> None:
        sql(self.url, "SELECT pg_promote()")

    def next_transaction(self) -> int:
        """The number of the next one that writes."""
        ((number,),) = sql(self.url, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        return int(number)

    def _run(self, program: str, *arguments: object) -> None:
        user = _server_user()
        as_user = ["setpriv", f"--reuid={user['user']}", f"--regid={user['group']}"]
        command = self.host.command(*as_user, "--clear-groups", BIN / program, *arguments)
        done = subprocess.run(command, cwd="/", capture_output=True, text=True)
        log = self._data_dir / "log"
        assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
