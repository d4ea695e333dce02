"""A start that cannot be is refused in one line: the Python, the words, the port, the address."""

import ast
import errno
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import web.sockets
from db.settings import SettingsError
from tests.support.service import ROOT, run
from web.sockets import listening_socket

OLDEST = re.fullmatch(
    r">=(3\.\d+)",
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"],
)
assert OLDEST
NEEDED = f"onerow needs Python {OLDEST[1]} or later, and "


def assert_refused(done: subprocess.CompletedProcess[str], status: int, begins: str) -> None:
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(begins)
    assert done.stderr.count("\n") == 1, done.stderr


# An older Python


def test_an_older_python_can_read_the_script_that_refuses_it() -> None:
    ast.parse((ROOT / "app.py").read_text(), feature_version=(3, 7))


def test_an_older_python_is_refused_before_anything_is_imported_that_it_may_not_have() -> None:
    older = "import runpy, sys; sys.version_info = (3, 10, 14, 'final', 0)"
    code = f"{older}; runpy.run_path('app.py', run_name='__main__')"
    assert_refused(run(sys.executable, "-S", "-c", code), 1, f"{NEEDED}this is ")


@pytest.mark.parametrize("version", ["3.7", "3.8", "3.9", "3.10"])
def test_a_real_older_python_is_refused(version: str) -> None:
    python = shutil.which(f"python{version}")
    if python is None or run(python, "--version").returncode != 0:
        pytest.skip(f"no Python {version}")
    assert_refused(run(python, "app.py"), 1, f"{NEEDED}this is {version}.")


def python_that_says(version: str, folder: Path) -> Path:
    """A Python of this version, as far as make asks, and a checkout around it."""
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho '{version}'\n")
    python.chmod(0o755)
    return python


@pytest.mark.parametrize(
    "version", ["Python 2.7.18", "Python 3.9.2+", "Python 3.10.14", "Python 3.1.5", "nonsense"]
)
@pytest.mark.parametrize("target", ["run", "lock"])
def test_make_refuses_an_older_python(version: str, target: str, tmp_path: Path) -> None:
    python = python_that_says(version, tmp_path)
    done = run("make", "-C", tmp_path, "--no-print-directory", target, f"PYTHON={python}")
    makefile, _, said = done.stderr.partition(" *** ")
    assert re.fullmatch(r"Makefile:\d+:", makefile)
    assert f"PYTHON={python} says: {version}. Name another, as in: make {target} PYTHON=" in said
    done.stderr = said
    assert_refused(done, 2, NEEDED)
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("version", ["Python 3.11.0", "Python 3.14.0rc1", "Python 4.0.0"])
def test_make_takes_a_python_that_is_new_enough(version: str, tmp_path: Path) -> None:
    python = python_that_says(version, tmp_path)
    done = run("make", "-C", tmp_path, "--dry-run", "run", f"PYTHON={python}")
    assert f"{python} -m venv .venv\n" in done.stdout


# The words of the command


@pytest.mark.parametrize("word", ["--nonsense", "nonsense", "--che"])
def test_words_that_are_not_known_are_refused(word: str) -> None:
    done = run(sys.executable, "app.py", word, PORT="http")  # which is not the first to be told
    assert done.returncode == 2
    usage, said = done.stderr.splitlines()
    assert usage == "usage: python app.py [-h] [--check]"
    assert said == f"python app.py: error: unrecognized arguments: {word}"
    assert done.stdout == ""


# The port and the address


@pytest.mark.parametrize("settings", [{}, {"WORKERS": "2", "LOG_FORMAT": "json"}], ids=str)
def test_a_port_that_is_taken_is_named(settings: dict[str, str], tmp_path: Path) -> None:
    url = f"postgresql://postgres@/postgres?host={tmp_path}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(sys.executable, "app.py", PORT=port, DATABASE_URL=url, **settings)
    said = f"PORT: {port} is taken on 127.0.0.1: stop what listens there, or set PORT to another\n"
    assert_refused(done, 1, said)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "a..b"])
def test_an_address_of_another_machine_is_named(host: str, tmp_path: Path) -> None:
    url = f"postgresql://postgres@/postgres?host={tmp_path}"
    done = run(sys.executable, "app.py", HOST=host, ALLOW_ANONYMOUS="1", DATABASE_URL=url)
    assert_refused(done, 1, f"HOST: {host} cannot be listened on (")


def test_a_port_that_is_for_others_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket(socket.socket):
        def bind(self, _address: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")  # root is never told so

    monkeypatch.setattr(web.sockets, "socket", Socket)
    with pytest.raises(SettingsError, match=r"^PORT: 80 is not for this user: set PORT to"):
        listening_socket("127.0.0.1", 80, 1)
