"""A bad value stops the start, and the message names the variable."""

import subprocess
import sys

import pytest

from tests.service import LIMIT, ROOT, environment


def start(**settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


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
        ("API_TOKEN", "hunter2 with a blank"),
        ("API_TOKEN", "hunter2,"),
        ("ALLOW_ANONYMOUS", "perhaps"),
        ("HOST", "0.0.0.0"),
        ("HOST", "::"),
        ("HOST", "example.org"),
    ],
)
def test_a_bad_value_stops_the_start(variable: str, value: str) -> None:
    done = start(**{variable: value})
    assert done.returncode != 0
    assert variable in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stdout == ""
