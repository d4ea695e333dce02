"""The server's directory may be a copy, stale, oddly placed or named, or another user's."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from db import embedded, programs
from db.data_directory import PID_FILE, SOCKET, remove_stale_notes
from db.embedded import embedded_server
from db.programs import BIN, EmbeddedServerError, server_user
from tests.support.service import (
    LIMIT,
    ROOT,
    environment,
    postmaster,
    serving,
    sql,
    temporary_data_dir,
    until,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")

# Each starts a server of its own. `make test` starts those of test_embedded.py.
pytestmark = pytest.mark.long

NOBODY = 65534


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data directory whose server does not run. Tests copy it, for initdb takes longer."""
    with temporary_data_dir() as path:
        with embedded_server(path):
            pass
        with (path / "postgresql.conf").open("a") as file:
            # The power does not fail in a test, and each stop would wait for the disk.
            file.write("fsync = off\n")
        yield path


@pytest.fixture
def data_dir(made: Path) -> Iterator[Path]:
    """A data directory that no other test uses."""
    with temporary_data_dir() as path:
        copy(made, path)
        yield path


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a data directory."""
    with temporary_data_dir() as path:
        yield path.parent


def copy(source: Path, target: Path, how: str = "-a") -> None:
    subprocess.run(["cp", how, source, target], check=True)
    if os.geteuid() == 0:
        target.parent.chmod(0o711)


def starts(data_dir: Path) -> bool:
    with embedded_server(data_dir) as url:
        return sql(url, "SELECT 1") == [(1,)]


def refused(data_dir: Path) -> str:
    """Return the refusal, which must be one line that begins with the variable."""
    with pytest.raises(EmbeddedServerError) as error, embedded_server(data_dir):
        pass
    said = str(error.value)
    assert said.startswith(f"DATA_DIR={str(data_dir)!r} ")
    assert said.isprintable(), "it is one line"
    return said


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mount a file system at the folder. Without an option for it, all users may write there."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def some_process() -> Iterator[int]:
    """Start a process of the server's user that has nothing to do with the server; yield its id."""
    with subprocess.Popen(["sleep", "600"], cwd="/", **server_user()) as process:
        try:
            yield process.pid
        finally:
            process.kill()


# Copies of a directory, and the process id that is noted in them


@pytest.mark.parametrize("name", ["copy", "copy" * 30])
def test_a_copy_of_a_running_directory_has_a_server_of_its_own(data_dir: Path, name: str) -> None:
    with embedded_server(data_dir) as url:
        sql(url, "CREATE TABLE kept AS SELECT 'both' AS place")
        sql(url, "CHECKPOINT")
        original = postmaster(data_dir)
        copied = data_dir.parent / name
        copy(data_dir, copied)
        with embedded_server(copied) as other:
            assert postmaster(copied) not in (None, original)
            sql(other, "INSERT INTO kept VALUES ('copy')")
            assert sql(other, "SELECT place FROM kept") == [("both",), ("copy",)]
        assert postmaster(copied) is None
        assert postmaster(data_dir) == original
        assert sql(url, "SELECT place FROM kept") == [("both",)]


def test_a_copy_that_shares_its_files_is_refused(data_dir: Path) -> None:
    copied = data_dir.parent / "copy"
    with embedded_server(data_dir) as url:
        copy(data_dir, copied, "-al")
        assert "hard links" in refused(copied)
        assert sql(url, "SELECT 1") == [(1,)]
        shutil.rmtree(copied)
    assert postmaster(data_dir) is None


@pytest.mark.parametrize("note", [PID_FILE, f"{SOCKET}.lock"])
def test_a_process_id_that_is_someone_elses_now(data_dir: Path, note: str) -> None:
    with some_process() as process:
        lines = [process, data_dir, 1_700_000_000, 5432, "/tmp", "", "1 1", "ready   "]
        (data_dir / note).write_text("".join(f"{line}\n" for line in lines))
        assert starts(data_dir)


@as_root
def test_a_process_id_that_root_in_a_container_may_not_look_at(data_dir: Path) -> None:
    without = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
    with some_process() as process:
        (data_dir / PID_FILE).write_text(f"{process}\n{data_dir}\n")
        with serving(*without, sys.executable, "app.py", DATA_DIR=str(data_dir)) as service:
            service.await_ready()


@pytest.mark.parametrize("note", [PID_FILE, f"{SOCKET}.lock"])
def test_a_note_that_the_power_failure_emptied(data_dir: Path, note: str) -> None:
    (data_dir / note).touch()
    assert starts(data_dir)


NOBODYS = [
    *(b"0\n", b"-0", b"00", b"many", b"\0" * 512, b"2147483648", b"4294967296", b"9" * 5000),
    *("٣\n".encode(), b"\x1c5", b"\xff"),
]


def test_notes_of_an_id_that_no_process_can_have(data_dir: Path) -> None:
    notes = [data_dir / PID_FILE, data_dir / f"{SOCKET}.lock"]
    for content in NOBODYS:
        for note in notes:
            note.write_bytes(content)
        remove_stale_notes(data_dir, server_user())
        assert not any(note.exists() for note in notes), content
    notes[0].write_bytes(NOBODYS[0])
    notes[1].write_bytes(NOBODYS[0])
    assert starts(data_dir)


@pytest.mark.parametrize("name", [PID_FILE, f"{SOCKET}.lock", SOCKET, "postmaster.opts"])
def test_what_stands_in_the_place_of_a_file_of_the_servers(data_dir: Path, name: str) -> None:
    path = data_dir / name
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "thesis.txt").write_text("mine")
    assert refused(data_dir).endswith(
        f"{str(path)!r} is a directory, and the server makes a file of its own there: remove it"
    )
    assert (path / "thesis.txt").read_text() == "mine"
    shutil.rmtree(path)
    if name != SOCKET:
        for make in (os.mkfifo, lambda path: path.symlink_to("nowhere")):
            make(path)
            assert f"{str(path)!r} is no plain file" in refused(data_dir)
            path.unlink()
    else:
        path.write_text("left")  # PostgreSQL removes a stale socket by itself
        assert starts(data_dir)


def test_a_process_that_nobody_has_reaped(data_dir: Path) -> None:
    with subprocess.Popen(["true"], cwd="/", **server_user()) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        (data_dir / PID_FILE).write_text(f"{process.pid}\n{data_dir}\n")
        assert starts(data_dir)


def test_a_server_that_someone_else_has_started_is_left_alone(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "ORPHANS_TIMEOUT", 1)  # seconds in which the start tries again
    with tempfile.TemporaryDirectory() as sockets:
        Path(sockets).chmod(0o777)
        server = subprocess.Popen(
            [BIN / "postgres", "-D", data_dir, "-c", "listen_addresses=", "-k", sockets],
            cwd="/",
            stderr=subprocess.DEVNULL,
            **server_user(),
        )
        with server:
            url = f"postgresql://postgres@/postgres?host={sockets}"
            until(lambda: _takes_connections(url))
            assert f"PID {server.pid}" in refused(data_dir)
            assert sql(url, "SELECT 1") == [(1,)]
            assert postmaster(data_dir) == server.pid
            server.terminate()


def _takes_connections(url: str) -> bool:
    try:
        return sql(url, "SELECT 1") == [(1,)]
    except psycopg.OperationalError:
        return False


def test_a_server_of_another_directory_that_took_the_place_is_left_alone(
    data_dir: Path, made: Path
) -> None:
    moved = data_dir.parent / "moved"
    with embedded_server(data_dir):
        data_dir.rename(moved)
        copy(made, data_dir)
        second = embedded_server(data_dir)
        url = second.__enter__()
        mine = postmaster(data_dir)
    assert postmaster(data_dir) == mine
    assert sql(url, "SELECT 1") == [(1,)]
    second.__exit__(None, None, None)
    assert postmaster(data_dir) is None
    assert starts(moved), "the next to come finds the first one's server, and stops it"
    assert postmaster(moved) is None


# Where the directory is


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_an_empty_folder(folder: Path, mode: int) -> None:
    data_dir = folder / "data"
    data_dir.mkdir()
    data_dir.chmod(mode)
    assert starts(data_dir)
    assert starts(data_dir)


@as_root
def test_an_empty_mount_point(folder: Path) -> None:
    data_dir = folder / "data"
    data_dir.mkdir()
    with mounted(data_dir, "size=200m"):
        (data_dir / "lost+found").mkdir(mode=0o700)
        with embedded_server(data_dir) as url:
            sql(url, "CREATE TABLE kept AS SELECT 1 AS id")
            os.kill(postmaster(data_dir) or 0, signal.SIGKILL)
        with embedded_server(data_dir) as url:
            assert sql(url, "SELECT id FROM kept") == [(1,)]


def test_a_folder_that_all_users_share(folder: Path) -> None:
    data_dir = folder / "data"
    data_dir.mkdir()
    data_dir.chmod(0o1777)
    assert "all users share" in refused(data_dir)
    assert data_dir.stat().st_mode & 0o7777 == 0o1777


def test_what_others_may_have_left_there_is_not_ours(folder: Path) -> None:
    data_dir = folder / "data"
    (data_dir / ".initdb-finished").mkdir(parents=True)
    data_dir.chmod(0o777)
    assert "in the way" in refused(data_dir)


def test_a_parent_in_which_nothing_can_be_made(folder: Path) -> None:
    """Such is the parent of a volume in a container whose own file system is read-only."""
    data_dir = folder / "data"
    data_dir.mkdir()
    if os.geteuid() == 0:
        folder.chmod(0o711)
        subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], check=True)
        try:
            with mounted(data_dir, "size=200m"):
                assert starts(data_dir)
        finally:
            subprocess.run(["umount", folder], check=True)
    else:
        folder.chmod(0o500)
        assert starts(data_dir)
        folder.chmod(0o700)
    assert list(folder.iterdir()) == [data_dir]


@pytest.mark.parametrize("link", [True, False])
def test_what_stands_beside_it_stays(folder: Path, link: bool) -> None:
    theirs = folder / "theirs"
    theirs.mkdir()
    for name in ("data.lock", "data.init"):
        (theirs / name).mkdir()
        (theirs / name / "thesis.txt").write_text("mine")
        beside = folder / name
        target = theirs / name / "thesis.txt" if name == "data.lock" else theirs / name
        if link:
            beside.symlink_to(target)
        else:
            target.rename(beside)
    before = sorted(folder.rglob("*"))
    assert starts(folder / "data")
    after = [path for path in folder.rglob("*") if folder / "data" not in (path, *path.parents)]
    assert sorted(after) == before
    assert {path.read_text() for path in after if path.is_file()} == {"mine"}


def test_a_link_inside_it_is_not_followed(folder: Path) -> None:
    data_dir = folder / "data"
    theirs = folder / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("mine")
    data_dir.mkdir()
    (data_dir / ".initdb").symlink_to(theirs)
    refused(data_dir)
    assert (theirs / "thesis.txt").read_text() == "mine"


def test_a_file(folder: Path) -> None:
    (folder / "data").write_text("mine")
    assert "is a file" in refused(folder / "data")
    assert "Not a directory" in refused(folder / "data" / "below")
    assert (folder / "data").read_text() == "mine"


def test_a_link_to_nothing(folder: Path) -> None:
    (folder / "data").symlink_to(folder / "disk")
    assert "not there: mount" in refused(folder / "data")
    assert "not there: mount" in refused(folder / "data" / "below")
    (folder / "circle").symlink_to(folder / "circle")
    assert "not there: mount" in refused(folder / "circle")
    assert not (folder / "disk").exists()


def test_a_link_to_a_folder(folder: Path, data_dir: Path) -> None:
    link = folder / "link"
    link.symlink_to(data_dir)
    with embedded_server(link), embedded_server(data_dir):
        assert postmaster(data_dir) is not None
    assert postmaster(data_dir) is None


def test_folders_above_it_that_are_missing_are_made(folder: Path) -> None:
    assert starts(folder / "a" / "b" / "data")


@as_root
def test_a_disk_that_can_only_be_read(folder: Path, made: Path) -> None:
    with mounted(folder, "size=200m"):
        copy(made, folder / "data")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        for name in ("data", "other"):
            assert "Read-only file system" in refused(folder / name)
        said = service_says(DATA_DIR=str(folder / "data"))
        assert said.startswith(f"DATA_DIR='{folder}/data' cannot be used: ")
        assert said.count("\n") == 1


def service_says(**settings: str) -> str:
    """Return the error of a service that must not start."""
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment(PORT="0", **settings),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


@as_root
def test_a_disk_without_room(folder: Path, made: Path) -> None:
    with mounted(folder, "size=60m"):
        copy(made, folder / "data")
        with suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        assert shutil.disk_usage(folder).free == 0
        for name in ("data", "other"):
            assert "room" in refused(folder / name)
        (folder / "filler").unlink()
        assert starts(folder / "data")


# The rights and the owner of the directory


@as_root
@pytest.mark.parametrize("empty", [True, False])
def test_a_directory_of_another_user(folder: Path, made: Path, empty: bool) -> None:
    data_dir = folder / "data"
    if empty:
        data_dir.mkdir()
    else:
        copy(made, data_dir)
    os.chown(data_dir, NOBODY, NOBODY)
    assert "belongs to the user " in refused(data_dir)
    assert data_dir.stat().st_uid == NOBODY


@as_root
def test_a_folder_above_it_that_another_user_has_closed(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    assert "chmod o+x" in refused(folder / "data")
    assert folder.stat().st_mode & 0o777 == 0o700


@as_root
def test_a_plain_user(folder: Path, made: Path) -> None:
    """A user who is not root may serve from a directory of its own, and not from another's."""
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if subprocess.run([*nobody, sys.executable, "-c", ""], cwd=ROOT).returncode != 0:
        pytest.skip("the checkout is closed to other users")
    os.chown(folder, NOBODY, NOBODY)
    with serving(*nobody, sys.executable, "app.py", DATA_DIR=str(folder / "data")) as service:
        assert service.post("/departments", name="Research").status_code == 201
        assert "as whom" not in refused(folder / "data")
        assert service.stop() == 0
    assert postmaster(folder / "data") is None

    copy(made, folder / "roots")
    for name, said in (("roots", "belongs to the user"), ("/nobodys", "Permission denied")):
        done = subprocess.run(
            [*nobody, sys.executable, "app.py"],
            cwd=ROOT,
            env=environment(PORT="0", DATA_DIR=str(folder / name)),
            capture_output=True,
            text=True,
        )
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


@as_root
def test_no_useradd_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"onerow-test-{os.getpid()}"
    monkeypatch.setattr(programs, "SERVER_USER", name)
    monkeypatch.setenv("PATH", "/nowhere")
    try:
        assert server_user()["user"] != 0
    finally:
        subprocess.run(["/usr/sbin/userdel", name], check=True)


@as_root
@pytest.mark.parametrize("name", ["onerow-test-nobody", "-not a name-"])
def test_no_user_and_no_useradd(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(programs, "SERVER_USER", name)
    if name.startswith("onerow"):
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(programs, "SYSTEM_PROGRAMS", "/nowhere")
    with pytest.raises(EmbeddedServerError, match="DATABASE_URL") as error:
        server_user()
    assert str(error.value).isprintable()


# What the directory is called


ODD = [
    *("a,b", ",", 'say "hi"', "$HOME `id` $(id)", " two  blanks ", "back\\slash", "it's", "100%s"),
    *("#;&|<>*?[]{}~!=", "tab\tbell\a", "-D", "Zoë", os.fsdecode(b"latin\xe9"), "x" * 200),
]


def test_odd_names(data_dir: Path, folder: Path) -> None:
    for name in ODD:
        data_dir = data_dir.rename(folder / name)
        with embedded_server(data_dir) as url, embedded_server(data_dir) as same:
            assert sql(url, "SELECT 1") == sql(same, "SELECT 1"), name
        assert postmaster(data_dir) is None


def test_all_odd_names_at_once(folder: Path) -> None:
    name = "".join(ODD[:-1])
    with serving(DATA_DIR=str(folder / name), WORKERS="2") as service:
        assert service.post("/departments", name="Research").status_code == 201
        assert service.stop() == 0
    assert [path.name for path in folder.iterdir()] == [name]
    assert postmaster(folder / name) is None


def test_a_line_break_in_its_name(folder: Path) -> None:
    assert "line break" in refused(folder / "a\nb" / "data")
    assert list(folder.iterdir()) == []


def test_a_path_longer_than_postgresql_takes(folder: Path) -> None:
    assert starts(folder.joinpath(*["x" * 200] * 4))
    assert "longer than" in refused(folder.joinpath(*["y" * 200] * 5))
    assert [path.name[0] for path in folder.iterdir()] == ["x"]


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that is closed to other users."""
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def test_a_long_path_beside_temporary_files_that_are_private(
    made: Path, folder: Path, temporary: Path
) -> None:
    data_dir = folder / ("x" * (90 - len(str(folder)) - 1))
    copy(made, data_dir)
    assert len(str(data_dir)) == 90
    assert starts(data_dir)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 90, "a,b", "missing/folder"])
def test_a_long_path_and_no_place_for_a_short_one(
    made: Path, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = folder / ("x" * 90)
    copy(made, data_dir)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / name))
    if "/" not in name:
        (folder / name).mkdir(exist_ok=True)
    assert "set TMPDIR to" in refused(data_dir)


# What is in the directory


def test_the_data_of_another_major_version(data_dir: Path) -> None:
    before = sorted(data_dir.iterdir())
    for version in ("17", "19", "", "18\n18", "thesis"):
        (data_dir / "PG_VERSION").write_text(f"{version}\n")
        said = refused(data_dir)
        assert "pg_upgrade" in said
        assert "thesis" not in said
    assert sorted(data_dir.iterdir()) == before, "it was not even tried"


def test_a_setting_that_cannot_be_is_told_at_once(data_dir: Path) -> None:
    with (data_dir / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = many\n")
    assert "contains errors" in refused(data_dir)
    # There was one attempt, for what cannot change is not tried again.
    assert (data_dir / "log").read_text().count("FATAL") == 1


def test_a_file_that_is_missing(data_dir: Path) -> None:
    (data_dir / "global" / "pg_control").unlink()
    refused(data_dir)


def test_the_log_is_not_for_clients_to_fill(data_dir: Path) -> None:
    with serving(DATA_DIR=str(data_dir)) as service:
        log = data_dir / "log"
        service.await_ready()
        before = log.read_text()
        for body in ({"name": "x"}, {"name": "x"}, {}, {"name": "x" * 5000}, {"name": "\0"}):
            service.post("/departments", **body)
        assert service.post("/employees", department_id=404, name="x").status_code == 422
        assert service.post("/employees", department_id=1, name="x").status_code == 201
        with embedded_server(data_dir) as url, psycopg.connect(url, autocommit=True) as client:
            for wrong in (
                "SELECT 1/0",
                "nonsense",
                "COMMIT",
                "DO $$BEGIN RAISE WARNING 'w'; END$$",
            ):
                with suppress(psycopg.Error):
                    client.execute(wrong)
            client.execute("CHECKPOINT")
        assert log.read_text() == before


def test_the_log_does_not_grow_with_each_start(data_dir: Path) -> None:
    sizes = []
    for _ in range(4):
        assert starts(data_dir)
        sizes.append(sum(path.stat().st_size for path in data_dir.glob("log*")))
    assert sizes[3] < 1.5 * sizes[1], "the last two starts are there, and no more"


def test_a_log_that_is_a_link_is_neither_written_nor_told(folder: Path, data_dir: Path) -> None:
    secret = folder / "secret"
    secret.write_text("FATAL: hunter2\n")
    (data_dir / "log").unlink()
    (data_dir / "log").symlink_to(secret)
    with (data_dir / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = many\n")
    assert "hunter2" not in refused(data_dir)
    assert secret.read_text() == "FATAL: hunter2\n"


def test_a_log_that_is_a_directory(data_dir: Path) -> None:
    """Another server's logging collector makes a directory log, which a start moves to log.old."""
    for name in ("log", "log.old"):
        (data_dir / name).unlink(missing_ok=True)
        (data_dir / name).mkdir()
        (data_dir / name / "monday.log").write_text(name)
    for _ in range(2):
        assert starts(data_dir)
        assert (data_dir / "log").is_file()
    assert (data_dir / "log.old").is_file()
    kept = [(data_dir / f"log.{number}" / "monday.log").read_text() for number in (1, 2)]
    assert kept == ["log", "log.old"]


@pytest.mark.parametrize("name", ["postgresql.conf", "postgresql.auto.conf"])
def test_a_configuration_that_logs_elsewhere(data_dir: Path, name: str) -> None:
    with (data_dir / name).open("a") as file:
        file.write("logging_collector = on\nlog_destination = 'syslog'\n")
    with embedded_server(data_dir) as url:
        assert sql(url, "SHOW logging_collector") == [("off",)]
        assert "ready to accept connections" in (data_dir / "log").read_text()


def test_the_server_has_nothing_of_our_environment(data_dir: Path) -> None:
    secret = "hunter2hunter2"
    with serving(DATA_DIR=str(data_dir), API_TOKEN=secret, PGPASSWORD=secret):
        server = postmaster(data_dir)
        told = Path(f"/proc/{server}/environ").read_bytes()
        names = {word.split(b"=")[0] for word in told.split(b"\0") if word}
    assert secret.encode() not in told
    # pg_ctl and the shell that it starts set some of these.
    assert {name for name in names if not name.startswith(b"PG")} <= {
        *(b"PATH", b"PWD", b"OLDPWD", b"SHLVL", b"_")
    }


def test_it_remembers_thousands_of_serializable_transactions(data_dir: Path) -> None:
    with embedded_server(data_dir) as url:
        ((prepared,),) = sql(url, "SELECT current_setting('max_prepared_transactions')::integer")
    assert prepared * 10 >= 10_000


def test_an_initdb_that_outlives_who_began_it_is_waited_for(folder: Path) -> None:
    data_dir = folder / "data"
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment(DATA_DIR=str(data_dir), PORT="0"),
        stdout=subprocess.DEVNULL,
    )
    with process:
        until(lambda: (data_dir / ".initdb" / "PG_VERSION").exists() or process.poll() is not None)
        process.kill()
    assert starts(data_dir)
    assert not list(data_dir.glob(".initdb*"))


def test_files_that_were_being_moved_are_moved_on(folder: Path, made: Path) -> None:
    data_dir = folder / "data"
    copy(made, data_dir)
    finished = data_dir / ".initdb-finished"
    finished.mkdir()
    for name in ("PG_VERSION", "global", "pg_hba.conf"):
        (data_dir / name).rename(finished / name)
    assert starts(data_dir)
    assert not finished.exists()
