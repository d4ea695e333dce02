"""The record of what adopt wrote into a folder. It tells which files were edited.

adopted.sha256 has the command on its first line, and then the checksum of each file that the
command wrote. A file with another checksum was edited, and is not written again.
"""

import argparse
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from db.adopt.arguments import command_line, given_by
from db.texts import say

# The file that has the command and the checksums, in the form of sha256sum.
RECORD = "adopted.sha256"

# A new file has this ending until it takes its place, so that nothing reads it before.
NEW = ".new"


def commands(folder: Path) -> dict[str, argparse.Namespace]:
    """Return the command that made each folder in this one, by resource."""
    found = {}
    for path in sorted(folder.glob(f"*/{RECORD}")):
        line = path.read_text(encoding="utf-8").partition("\n")[0]
        with suppress(ValueError):  # the line was edited, and is no command any more
            found[path.parent.name] = given_by(line.removeprefix("# "))
    return found


def sums(folder: Path) -> dict[str, str]:
    """Return the checksum of each file as adopt wrote it."""
    record = folder / RECORD
    lines = record.read_text(encoding="utf-8").splitlines()[1:] if record.exists() else []
    return {path: sum_ for sum_, _, path in (line.partition("  ") for line in lines)}


def edited_files(folder: Path, files: dict[str, str]) -> list[str]:
    """Return the files that were edited: neither as they were written nor as they would be."""
    before = sums(folder)
    found = []
    for path in sorted({*files, *before}):
        there = _content(folder / path)
        new = files[path].encode() if path in files else None
        if there is not None and there != new and _sum(there) != before.get(path):
            found.append(path)
    return found


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def write_files(
    folder: Path, files: dict[str, str], edited: list[str], given: argparse.Namespace
) -> None:
    """Write the files, except for those that were edited. Raises OSError."""
    gone = [path for path in sums(folder) if path not in files and path not in edited]
    texts = {path: files[path] for path in sorted(files) if path not in edited}
    changed = [path for path, text in texts.items() if _content(folder / path) != text.encode()]
    lines = [f"{_sum(text.encode())}  {path}" for path, text in texts.items()]
    texts[RECORD] = "\n".join([f"# {command_line(given)}", *lines]) + "\n"
    # All files are written beside their places first, so that a full disk leaves the old ones.
    new = {folder / path: folder / f"{path}{NEW}" for path in (*changed, RECORD)}
    try:
        for path, beside in zip((*changed, RECORD), new.values(), strict=True):
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(texts[path].encode())
        for file, beside in new.items():
            beside.replace(file)
    finally:
        for beside in new.values():
            beside.unlink(missing_ok=True)
    for path in gone:
        (folder / path).unlink(missing_ok=True)
    say(f"{folder}: {len(changed)} files written, {len(lines) - len(changed)} as they were.")
    if edited:
        say(f"Left as they are, for they were edited (--force writes them): {', '.join(edited)}")


def _sum(content: bytes) -> str:
    return sha256(content).hexdigest()
