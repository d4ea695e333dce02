"""The faults, each of which is a row of the table."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event

import psycopg

from tests.faults.proxy import Lose
from tests.faults.scene import POOL_SIZE, WORKERS, Fault, Scene
from tests.faults.server import sessions
from tests.support.others import make_others, others, remembered
from tests.support.service import LIMIT, sql
from tests.support.stalls import has_looked


@contextmanager
def backends_killed(scene: Scene) -> Iterator[None]:
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'onerow' AND datname = current_database()"
        " ORDER BY random() LIMIT 1"
    )
    lifted = Event()

    def killer() -> None:
        with psycopg.connect(scene.database, autocommit=True) as connection:
            while not lifted.wait(0.006):  # to kill one takes time, too
                scene.hits += len(connection.execute(kill).fetchall())

    with ThreadPoolExecutor(1) as thread:
        killing = thread.submit(killer)
        try:
            yield
        finally:
            lifted.set()
        killing.result()


@contextmanager
def stopped(scene: Scene, how: signal.Signals) -> Iterator[None]:
    scene.server.stop(how)
    scene.hits += 1
    try:
        yield
    finally:
        scene.server.start()


@contextmanager
def worker_killed(scene: Scene) -> Iterator[None]:
    worker = scene.workers()[-1]
    worker.kill()
    scene.wait(lambda: worker not in scene.workers())
    scene.hits += 1
    yield
    scene.wait(lambda: len(scene.workers()) == WORKERS)


@contextmanager
def network_cut(scene: Scene) -> Iterator[None]:
    scene.do(scene.proxy.cut())
    yield
    scene.do(scene.proxy.listen())


@contextmanager
def network_delayed(scene: Scene) -> Iterator[None]:
    scene.proxy.delay = 0.005  # each way, as between two regions
    yield
    scene.proxy.delay = 0


@contextmanager
def silent(scene: Scene, *, lost: bool) -> Iterator[None]:
    scene.do(scene.proxy.hold())
    yield
    scene.do(scene.proxy.release(lost=lost))


@contextmanager
def cut_at_commit(scene: Scene, lose: Lose) -> Iterator[None]:
    scene.proxy.lose = lose
    yield
    scene.proxy.lose = None


@contextmanager
def creator_stalled(scene: Scene) -> Iterator[None]:
    # One creator's insert is held back. Another one creates the row, and then so many transactions
    # of others end that PostgreSQL has forgotten the conflict.
    name = f"stalled {scene.struck}"
    stalled = scene.proxy.stall(name)
    slow = scene.start(scene.traffic.create(0, name))
    scene.wait(lambda: stalled.is_set() and has_looked(scene.database))
    scene.do(scene.traffic.create(1, name))
    make_others(scene.database)
    others(scene.database, 2 * remembered(scene.database))
    yield
    scene.do(scene.proxy.resume())
    slow.result(LIMIT)


@contextmanager
def callers_gone(scene: Scene) -> Iterator[None]:
    scene.traffic.leaving = 0.3
    yield
    scene.traffic.leaving = 0


@contextmanager
def pool_used_up(scene: Scene) -> Iterator[None]:
    with psycopg.connect(scene.database) as connection:
        # With only one table locked, requests about the other get through, and /ready says so.
        while not _locked(connection):
            connection.rollback()
        waited: set[int] = set()

        def used_up() -> bool:
            waited.update(sessions(scene.database, "wait_event_type = 'Lock'"))
            return len(waited) >= WORKERS * POOL_SIZE

        # On a busy machine the first may have given up before the last one waits.
        scene.wait(used_up)
        scene.hits += len(waited)
        yield


def _locked(connection: psycopg.Connection) -> bool:
    try:
        connection.execute("LOCK TABLE departments, employees IN ACCESS EXCLUSIVE MODE")
    except psycopg.errors.DeadlockDetected:  # a request has the second and waits for the first
        return False
    return True


@contextmanager
def disk_full(scene: Scene) -> Iterator[None]:
    ballast = scene.server.folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    refused = scene.traffic.refused
    scene.wait(lambda: scene.traffic.refused > refused)  # PostgreSQL's files have some room left
    scene.hits += 1
    yield
    ballast.unlink()
    scene.server.start()  # the full disk may have ended it


@contextmanager
def disk_full_for_the_log(scene: Scene) -> Iterator[None]:
    with disk_full(scene):
        with suppress(psycopg.OperationalError):
            while True:
                sql(scene.database, "SELECT pg_switch_wal()")  # fails where there is no next file
        scene.wait(lambda: not scene.server.takes_connections())
        yield


# Callers may be told this while nothing can be served.
OUTAGE = (503,)

# Enough for a new cluster, which takes 50 MB, and for the write-ahead log of the requests.
SMALL = "256m"


def stop(name: str, how: signal.Signals) -> Fault:
    return Fault(name, partial(stopped, how=how), OUTAGE, down=True, breaks_commits=True)


def cut(name: str, lose: Lose) -> Fault:
    return Fault(name, partial(cut_at_commit, lose=lose), breaks_commits=True, proxied=True)


FAULTS = (
    Fault("a backend killed every few milliseconds", backends_killed, breaks_commits=True),
    stop("PostgreSQL stopped, fast", signal.SIGINT),
    stop("PostgreSQL stopped, immediate", signal.SIGQUIT),
    stop("kill -9 of PostgreSQL", signal.SIGKILL),
    Fault("kill -9 of a worker", worker_killed, (None,), kills_workers=True),
    Fault("network cut", network_cut, OUTAGE, down=True, breaks_commits=True, proxied=True),
    Fault("network delayed", network_delayed, proxied=True),
    Fault("network stalled", partial(silent, lost=False), OUTAGE, down=True, proxied=True),
    Fault("network a black hole", partial(silent, lost=True), OUTAGE, down=True, proxied=True),
    cut("cut before COMMIT arrives", Lose.COMMIT),
    cut("cut before COMMIT is answered", Lose.ANSWER),
    Fault(
        "a creator stalls while others pass",
        creator_stalled,
        proxied=True,
        deadline=30,  # in this time all the others can pass
    ),
    Fault("callers gone", callers_gone),
    Fault("pool used up", pool_used_up, OUTAGE, down=True),
    Fault("disk full", disk_full, OUTAGE, breaks_commits=True, disk=SMALL),
    Fault(
        "disk full, and PostgreSQL down",
        disk_full_for_the_log,
        OUTAGE,
        down=True,
        breaks_commits=True,
        disk=SMALL,
    ),
)
