"""Each file that is installed is known by its hash, and known vulnerabilities are named."""

import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest

from tests.support.documents import section
from tests.support.service import ROOT
from tests.tools.audit import found, summary

LISTS = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = {
    "requirements.txt": LISTS["project"]["dependencies"],
    "tests/requirements.txt": LISTS["dependency-groups"]["dev"],
    "tests/bench/requirements.txt": LISTS["dependency-groups"]["bench"],
    "tests/fuzz/requirements.txt": LISTS["dependency-groups"]["fuzz"],
    "tests/tools/requirements.txt": LISTS["dependency-groups"]["tools"],
}


@pytest.mark.parametrize("file", WANTED)
def test_all_that_is_wanted_is_pinned_with_hashes(file: str) -> None:
    text = (ROOT / file).read_text()
    pinned = re.findall(
        r"^([\w.-]+)==\S+.* \\\n(?:    --hash=sha256:[0-9a-f]{64}.*\n)+", text, re.M
    )
    assert len(pinned) == len(re.findall(r"^[^\s#]", text, re.M)), "and nothing else"
    wanted = {name_of(each) for each in WANTED[file]}
    assert wanted <= set(pinned)
    assert "://" not in text


def test_make_installs_and_audits_nothing_else() -> None:
    installs = re.findall(r"^.*/pip install .*$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert all(" --require-hashes -r " in line for line in installs)
    audit = subprocess.run(
        ["make", "--dry-run", "audit", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    audited = re.findall(r"tests/\S*requirements\.txt", audit.stdout.partition("audit.py")[2])
    # What serving needs is in that of the tests, too.
    assert sorted(audited) == sorted(set(WANTED) - {"requirements.txt"})


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=]", requirement)[0].lower()


def test_there_is_a_reason_for_each_package() -> None:
    table = section("docs/inside.md#what-it-stands-on")
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", table, re.M)[1:]
    given = [name for row in rows for name in row.lower().split(", ")]
    assert sorted(given) == sorted({name_of(each) for wanted in WANTED.values() for each in wanted})


# Packages in the form in which pip-audit lists them.
CLEAN: dict[str, Any] = {"name": "anyio", "version": "4.16.0", "vulns": []}
UNKNOWN: dict[str, Any] = {"name": "h11", "skip_reason": "Dependency not found on PyPI"}
VULNERABLE: dict[str, Any] = {
    "name": "tqdm",
    "version": "4.0",
    "vulns": [
        {"id": "PYSEC-1", "fix_versions": ["4.1", "5.0"], "aliases": [], "description": ""},
        {"id": "PYSEC-2", "fix_versions": [], "aliases": [], "description": ""},
    ],
}


def test_a_vulnerability_is_named() -> None:
    packages = [CLEAN, UNKNOWN, VULNERABLE, CLEAN]
    assert found(packages) == [
        "tqdm 4.0: PYSEC-1, fixed in 4.1, 5.0",
        "tqdm 4.0: PYSEC-2, fixed in no version yet",
    ]
    assert summary(packages) == "3 of 4 packages audited."


def test_what_is_not_known_is_not_called_clean() -> None:
    assert found([UNKNOWN, UNKNOWN]) == []
    assert summary([UNKNOWN, UNKNOWN]).startswith("Not audited: ")
    assert found([CLEAN, UNKNOWN]) == []
