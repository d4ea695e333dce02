"""The unit, the image, the roles and the way back work as docs/operating.md prints them."""

import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from db.programs import BIN
from tests.support import legacy
from tests.support.documents import blocks, section, turns
from tests.support.haproxy import HAPROXY
from tests.support.roles import OWNER, SERVICE, make_roles
from tests.support.service import LIMIT, ROOT, environment, serving, sql
from web.serving import CLOSING

PSQL = [str(BIN / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]


def test_it_is_installed_as_make_does() -> None:
    commands = [command for command, _ in turns(section("docs/operating.md#install"))]
    make = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--always-make", "run"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    # make adds options for a person at a terminal: it is quiet, and looks for files that change.
    more = r" --quiet| --disable-pip-version-check|^(RELOAD=1 )?exec "
    made = re.sub(more, "", make.stdout, flags=re.MULTILINE)
    steps = [line for line in made.splitlines() if not line.startswith("touch ")]
    assert steps == [commands[0], commands[1], commands[5]]
    assert commands[2].startswith("export DATABASE_URL=postgresql://")
    asked = [command.removeprefix(".venv/bin/python -m db ") for command in commands[3:5]]
    assert asked == ["init", "doctor"]


def run_psql(database: str, script: str) -> None:
    subprocess.run(
        [*PSQL, database], input=script, text=True, env=environment(), check=True, timeout=LIMIT
    )


def settings_of_the_unit() -> dict[str, str]:
    (file,) = blocks(section("docs/operating.md#a-systemd-unit"), "sh")
    return dict(line.split("=", 1) for line in file.splitlines())


def test_the_unit_starts_the_service(database: str) -> None:
    (text,) = blocks(section("docs/operating.md#a-systemd-unit"), "ini")
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    python, *words = shlex.split(unit["Service"]["ExecStart"])
    assert python == f"{unit['Service']['WorkingDirectory']}/.venv/bin/python"
    settings = settings_of_the_unit()
    # The settings are the document's, but for the test's database, folder and address.
    settings |= {"DATABASE_URL": database, "RESOURCES": str(ROOT / "sql"), "HOST": "127.0.0.1"}
    # 5 is RETRY_DEADLINE's default.
    most = float(settings["DRAIN_SECONDS"]) + 2 * 5 + 1 + CLOSING
    assert float(unit["Service"]["TimeoutStopSec"]) > most
    with serving(sys.executable, *words, **settings, PORT="0") as service:
        service.http.headers["Authorization"] = f"Bearer {settings['API_TOKEN']}"
        assert service.post("/departments", name="Research").status_code == 201


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    (text,) = blocks(section("docs/operating.md#a-systemd-unit"), "ini")
    file = tmp_path / "onerow.service"
    file.write_text(text.replace("/opt/onerow/.venv/bin/python", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=LIMIT
    )
    assert "onerow" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_the_image_has_what_serving_needs(database: str, tmp_path: Path) -> None:
    (text,) = blocks(section("docs/operating.md#a-container"), "dockerfile")
    for line in re.findall(r"^COPY (.*)", text, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            path = ROOT / source
            if path.is_dir():
                shutil.copytree(path, tmp_path / target)
            else:
                shutil.copy(path, tmp_path / target)
    assert "--require-hashes -r requirements.txt" in text
    command = re.search(r'^CMD \["python", "(.*)"\]', text, re.MULTILINE)
    assert command
    variables = dict(re.findall(r"^ENV (\w+)=(.*)", text, re.MULTILINE))
    refused = subprocess.run(
        [sys.executable, command[1]],
        cwd=tmp_path,
        env=environment(DATABASE_URL=database, **variables),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert "API_TOKEN" in refused.stderr
    script = tmp_path / command[1]
    with serving(sys.executable, str(script), DATABASE_URL=database, PORT="0") as service:
        assert service.post("/departments", name="Research").status_code == 201


@pytest.mark.skipif(not (ROOT / "db" / "roles.py").exists(), reason="there is no command roles yet")
def test_the_roles_are_made_as_printed(database: str) -> None:
    (script, _), (psql, typed) = turns(section("docs/operating.md#roles"))
    write, run = script.split(" | ")
    url = "postgresql://postgres@host/database"
    assert (run, psql) == (f"psql {url}", f"psql {url}")
    words = write.removeprefix(".venv/bin/python -m db ").split()
    status, output, errors = legacy.run(database, *words)
    assert (status, errors) == (0, "")
    run_psql(database, output)
    roles = re.findall(r"\\password (\w+)", typed)
    assert roles == [SERVICE, OWNER]
    for role in roles:
        assert sql(database, "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", role)
    with serving(DATABASE_URL=make_conninfo(database, user=SERVICE)) as service:
        assert service.post("/departments", name="Research").status_code == 201


@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed")
def test_haproxy_takes_the_file(tmp_path: Path) -> None:
    assert HAPROXY is not None
    (text,) = blocks(section("docs/operating.md#deploys"), "haproxy")
    file = tmp_path / "haproxy.cfg"
    file.write_text(text)
    done = subprocess.run([HAPROXY, "-c", "-f", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_what_is_left_is_the_tables(database: str) -> None:
    (guard_off, _), (psql, _) = turns(section("docs/operating.md#uninstall"))
    assert psql == ".venv/bin/python -m db psql"
    drops, roles = blocks(section("docs/operating.md#uninstall"), "sql")
    everything = (
        "SELECT relkind::text, relname::text FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') ORDER BY 2"
    )
    sql(database, "INSERT INTO departments (name) VALUES ('Research'), ('Research')")
    make_roles(database)
    legacy.run(database, "guard", "on")
    words = guard_off.removeprefix(".venv/bin/python -m db ").split()
    assert legacy.run(database, *words)[0] == 0
    run_psql(database, drops)
    assert sql(database, everything) == [
        ("r", "departments"),
        ("i", "departments_pkey"),
        ("r", "employees"),
        ("i", "employees_department"),
        ("i", "employees_pkey"),
    ]
    assert sql(database, "SELECT count(*) FROM departments") == [(2,)]
    assert (
        sql(database, "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        == []
    )
    # Other tests use the roles in their databases, so that this one cannot drop them.
    reassign, drop_owned, drop = roles.splitlines()
    assert drop == "DROP ROLE onerow_owner, onerow_service;"
    assert "TO postgres;" in reassign
    own = reassign.replace("TO postgres;", "TO CURRENT_USER;")
    run_psql(database, f"{own}\n{drop_owned}")
    assert sql(database, "SELECT has_table_privilege(%s, 'departments', 'SELECT')", SERVICE) == [
        (False,)
    ]
    assert sql(
        database, "SELECT tableowner = current_user FROM pg_tables WHERE tablename = 'departments'"
    ) == [(True,)]
