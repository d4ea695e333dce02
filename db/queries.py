"""The SQL files by name, the plans of their statements, and the statements on one line."""

import re
from pathlib import Path

from db.engine import ENGINES
from db.resources import RESOURCES, ROOT, SAMPLE
from db.samples import sample

# The questions of db.answers, which come and go while the service runs.
INSPECT = ROOT / "sql" / "inspect"

# Files that are scripts of several statements, and so no queries.
ROLES = ROOT / "sql" / "roles.sql"
SCRIPTS = (ROLES, *(engine.schema for engine in ENGINES.values()))

# What flat() tells apart: blanks and comments, literals with or without escapes, and what it keeps.
_PIECE = re.compile(
    r"(?P<blank>\s*(?:--[^\r\n]*\s*)+|\s*[\r\n]\s*)"
    r"|(?<![\w&])[eE]'(?P<escaped>(?:[^'\\]|\\.|'')*)'"
    r"|(?<![\w&])'(?P<plain>(?:[^']|'')*)'"
    r"""|'[^']*'|"[^"]*"|/\*.*?\*/|(?P<tag>\$\w*\$).*?(?P=tag)""",
    re.DOTALL,
)

# The bytes of each file, which PostgreSQL gets as they are, by a name such as "customers/select".
# First come the files that the service needs for itself, and then those of the resources.
QUERIES = {
    path.relative_to(ROOT / "sql").with_suffix("").as_posix(): path.read_bytes()
    for path in sorted((ROOT / "sql").rglob("*.sql"))
    if path not in SCRIPTS and not {INSPECT, *SAMPLE} & {*path.parents}
}
for _resource in RESOURCES.values():
    for _name, _file in _resource.files.items():
        QUERIES[f"{_resource.name}/{_name}"] = _file.text.encode()


def shown(path: Path) -> str:
    """Return the path of a file as one sees it from the checkout."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def explained(resource: str, file: str, form: bytes = b"") -> tuple[bytes, list[str]]:
    """Return the statement that asks for a file's plan, and values of its parameters' types.

    For a plan PostgreSQL checks tables, columns, types and rights, and runs nothing.
    """
    values = [sample(each) for each in RESOURCES[resource].files[file].parameters]
    return b"EXPLAIN " + form + b"\n" + QUERIES[f"{resource}/{file}"], values


def one_line(sql: bytes) -> str:
    """Return an SQL file's statement on one line and without its comments, to paste."""
    return flat(sql.decode())


def flat(sql: str) -> str:
    """Return a statement, or a part of one, on one line and without its comments."""
    return _PIECE.sub(_flat, sql).strip()


def _flat(piece: re.Match[str]) -> str:
    if piece["blank"]:
        return " "
    text = piece["escaped"]
    if piece["plain"] is not None:
        text = piece["plain"].replace("\\", r"\\")
    if text is None or not re.search(r"[\r\n]", text):
        return piece[0]
    # A backslash stays with what it escapes, unless that is a line break, which needs none.
    breaks = {"\r": r"\r", "\n": r"\n"}
    return "E'{}'".format(
        re.sub(r"\\[^\r\n]|\\?([\r\n])", lambda each: breaks.get(each[1], each[0]), text)
    )
