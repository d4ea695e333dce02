"""A bad value stops the start, with a message that names the variable."""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from db.settings import SettingsError, read_settings
from tests.support.service import LIMIT, ROOT, environment, serving


def start(**settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def refusal(**settings: str) -> str:
    """Return what a start prints that these settings stop."""
    with (
        patch.dict(os.environ, environment(**settings), clear=True),
        pytest.raises(SettingsError) as raised,
    ):
        read_settings()
    return str(raised.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://localhost/x"),
        ("DATABASE_URL", "hunter2 nonsense"),
        ("DATABASE_URL", "postgresql://user:not@hunter2@localhost/x"),
        ("DATABASE_URL", "postgresql://user:not/hunter2@localhost/x"),
        ("PORT", "http"),
        ("PORT", "70000"),
        ("WORKERS", "0"),
        ("WORKERS", "two"),
        ("POOL_SIZE", "0"),
        ("POOL_QUEUE", "-1"),
        ("RETRY_DEADLINE", "nan"),
        ("RETRY_DEADLINE", "0"),
        ("PIPELINE", "maybe"),
        ("MAX_BODY", "1e99"),
        ("DRAIN_SECONDS", "-1"),
        ("LOG_FORMAT", "logfmt"),
        ("API_TOKEN", "hunter2 with a blank"),
        ("API_TOKEN", "hunter2,"),
        ("ALLOW_ANONYMOUS", "perhaps"),
        ("ALLOWED_HOSTS", "example.org, hunter2"),
        ("ALLOWED_HOSTS", "example.org:8000"),
        ("ALLOWED_HOSTS", "http://example.org"),
        ("ALLOWED_HOSTS", "*"),
        ("ALLOWED_HOSTS", ","),
        ("ALLOWED_HOSTS", "."),
        ("ALLOWED_HOSTS", "example.org,"),
        ("ALLOWED_HOSTS", "example.org,."),
        ("ALLOWED_HOSTS", "example..org"),
        ("ALLOWED_HOSTS", ".example.org"),
        ("ALLOWED_HOSTS", "example.org.."),
        ("ALLOWED_HOSTS", "[127.0.0.1]"),
        ("ALLOWED_HOSTS", "example.org,[:]"),
        ("HOST", "0.0.0.0"),
        ("HOST", "::"),
        ("HOST", "example.org"),
    ],
)
def test_a_bad_value_is_refused(variable: str, value: str) -> None:
    told = refusal(**{variable: value})
    assert variable in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DATABASE_URL", "postgresql://user:not@hunter2@localhost/x"), ("HOST", "0.0.0.0")],
)
def test_a_bad_value_stops_the_start(variable: str, value: str) -> None:
    done = start(**{variable: value})
    assert done.returncode != 0
    assert done.stderr.rstrip() == refusal(**{variable: value})
    assert done.stdout == ""


def test_each_bad_value_has_a_line_that_says_what_the_variable_takes() -> None:
    done = start(
        DATABASE_URL="mysql://hunter2",
        ALLOWED_HOSTS="hunter2:80",
        PORT="hunter2",
        RETRY_DEADLINE="0",
        POOLER="hunter2",
        ENGINE="mysql",
        API_TOKEN="hunter2 ",
        LOG_FORMAT="hunter2",
        HOST="0.0.0.0",  # not alone: this is told when the others are right
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "DATABASE_URL: is neither a libpq URI nor key=value",
        "ALLOWED_HOSTS: must be names or addresses without ports and blanks, with commas between,"
        " or be unset",
        "PORT: must be a whole number from 0 to 65535, or be unset for 8000",
        "RETRY_DEADLINE: must be a number from 0.1 to 3600, or be unset for 5",
        "POOLER: must be 0 or 1, or be unset for 0",
        "ENGINE: must be cockroachdb or postgresql or yugabytedb, or be unset",
        "API_TOKEN: must be bearer tokens without blanks, with commas between, or be unset",
        "LOG_FORMAT: must be json or text, or be unset for text",
    ]


@pytest.mark.parametrize(
    "token", ["x", "hunter2", "x" + "=" * 30, f"{'x' * 40},hunter2", f"hunter2,{'x' * 40}"]
)
@pytest.mark.parametrize("more", [{}, {"ALLOW_ANONYMOUS": "1"}], ids=str)
def test_a_token_that_others_would_guess_stops_the_start(token: str, more: dict[str, str]) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        told = refusal(HOST=host, API_TOKEN=token, **more)
        assert "API_TOKEN" in told
        assert "hunter2" not in told


@pytest.mark.long
def test_on_this_machine_a_token_may_be_short(tmp_path: Path) -> None:
    url = f"postgresql://postgres@/postgres?host={tmp_path}"
    with serving(DATABASE_URL=url, API_TOKEN="x") as service:
        assert service.http.get("/departments").status_code == 401
