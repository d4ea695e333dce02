"""A short `make cluster`, with several machines, one of them cut off, and a failover."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.faults.cluster.network import UNSHARE
from tests.faults.cluster.trials import TRIALS
from tests.support.haproxy import HAPROXY
from tests.support.service import LIMIT, ROOT, environment, temporary_data_dir


def missing() -> str:
    """Return why it cannot run here, or ""."""
    if "CLUSTER" not in os.environ:
        return "it takes half a minute: `make cluster` does all of it, CLUSTER=1 this"
    if os.geteuid() != 0 or subprocess.run([*UNSHARE, "true"]).returncode != 0:
        return "only root may make network namespaces"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    return "" if HAPROXY else "HAProxy is not installed"


def test_nothing_is_lost_and_nothing_doubled_between_machines() -> None:
    if reason := missing():
        pytest.skip(reason)
    # The folder takes what is left of a run that is killed at its limit.
    with temporary_data_dir() as folder:
        folder.mkdir()
        folder.parent.chmod(0o711)
        folder.chmod(0o711)
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.cluster", "--short"],
            cwd=ROOT,
            env=environment(TMPDIR=str(folder)),
            capture_output=True,
            text=True,
            timeout=5 * LIMIT,
        )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if "| 0 | 0 |" in line]) == len(TRIALS)
