"""The known vulnerabilities of pinned requirements: `python tests/tools/audit.py FILE...`.

The exit status is 1 for a vulnerability, and 0, with a message, where the data cannot be reached.
pip-audit itself has one exit status for both, and calls packages clean of which it knows nothing.
"""

import json
import subprocess
import sys
from typing import Any


def main(files: list[str]) -> int:
    """Audit each file by itself, for two may pin two versions; return the exit status."""
    options = ["--disable-pip", "--require-hashes", "--format=json", "--progress-spinner=off"]
    pinned = {}
    for file in files:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *options, "--requirement", file],
            capture_output=True,
            text=True,
        )
        if not done.stdout.strip():
            print(done.stderr)
            print("Not audited: see above.")
            return 0 if "ConnectionError" in done.stderr or "ServiceError" in done.stderr else 1
        for package in json.loads(done.stdout)["dependencies"]:
            pinned[package["name"], package.get("version")] = package
    packages = list(pinned.values())
    vulnerable = found(packages)
    print("\n".join([*vulnerable, summary(packages)]))
    return 1 if vulnerable else 0


def found(packages: list[dict[str, Any]]) -> list[str]:
    """Return a line for each vulnerability that pip-audit lists."""
    return [
        f"{package['name']} {package['version']}: {each['id']}, fixed in"
        f" {', '.join(each['fix_versions']) or 'no version yet'}"
        for package in packages
        for each in package.get("vulns", [])
    ]


def summary(packages: list[dict[str, Any]]) -> str:
    """Return the line that says on how many packages pip-audit had data."""
    audited = sum("vulns" in package for package in packages)
    if audited == 0:
        return "Not audited: the data on vulnerabilities cannot be reached from here."
    return f"{audited} of {len(packages)} packages audited."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
