"""What the pages ask: the files of sql/inspect, and files of each resource.

The comment lines of a file in sql/inspect say how it is listed and what it is given:

    -- Waiting: which session waits for a lock, and which one holds it
    -- group Locks and conflicts
    -- headline {rows} waits
    -- $1 name text

Only the first, the title, is needed. The headline is what the list says of the answer, and each
`{column}` in it is filled in by db.headlines.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from db.queries import INSPECT, shown
from db.resources import RESOURCES

# The names of pages. An editor's hidden file has none, nor has a name that a URL would escape.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

# The most bytes of a file. A thousand lines of SQL fit, and nobody writes a larger question.
FILE_SIZE = 64 * 1024

# What stands before a lookup to get its plan.
EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS)\n"
LOOKUP = "EXPLAIN of the file that the service runs"

# The pages of each resource, by the end of their names, and the files that they ask.
PAGES = {"plan": "select", "duplicates": "duplicates", "differences": "differences"}

# The group of a file that names none. It comes last by the alphabet, as the groups are listed.
UNGROUPED = "Your own"


class Parameter(NamedTuple):
    """A value that a question asks for, and PostgreSQL's name of its type."""

    number: int
    name: str
    type: str


@dataclass(frozen=True)
class Question:
    """One statement that a page asks."""

    name: str
    file: str  # as one sees it from the checkout
    sql: str
    title: str
    about: str  # one line, or ""
    parameters: list[Parameter]  # by number
    group: str
    headline: str = ""  # "" where the list says nothing of the answer
    lookup: bool = False  # the answer is the plan of a lookup


def questions() -> list[Question]:
    """Read all questions by group and title, each time anew: a new file needs no restart."""
    names = {path.stem for path in INSPECT.glob("*.sql")}
    names |= {f"{resource}_{page}" for resource in RESOURCES for page in PAGES}
    found = (read_question(name) for name in names)
    return sorted((each for each in found if each), key=lambda each: (each.group, each.title))


def read_question(name: str) -> Question | None:
    """Read one question; return None if there is none of this name."""
    resource, _, page = name.rpartition("_")
    if resource in RESOURCES and PAGES.get(page) in RESOURCES[resource].files:
        return _of_resource(name, resource, page)
    path = INSPECT / f"{name}.sql"
    # Read only a regular file, for reading a pipe may never end. A file may go away meanwhile.
    with suppress(OSError):
        if NAME.fullmatch(name) and path.is_file() and path.stat().st_size <= FILE_SIZE:
            return _of_file(name, path.read_text(encoding="utf-8-sig", errors="replace"))
    return None


def _of_file(name: str, text: str) -> Question:
    title, _, about = _first_line(text).partition(": ")
    said = dict(re.findall(r"^-- (group|headline) (.*\S)", text, re.MULTILINE))
    numbered = re.findall(r"^-- \$(\d{1,5}) (\w+) ([^\s,]+)", text, re.MULTILINE)
    return Question(
        name=name,
        file=f"sql/inspect/{name}.sql",
        sql=text,
        title=title or name,
        about=about[:1].upper() + about[1:],
        parameters=sorted(Parameter(int(number), *rest) for number, *rest in numbered),
        group=said.get("group", UNGROUPED),
        headline=said.get("headline", ""),
    )


def _of_resource(name: str, resource: str, page: str) -> Question:
    # These are PostgreSQL's files; those of another engine are in a folder of its own.
    file = RESOURCES[resource].files[PAGES[page]]
    lookup = page == "plan"
    path = shown(file.path)
    return Question(
        name=name,
        file=path,
        sql=EXPLAIN + file.text if lookup else file.text,
        title=f"Plan of {path}" if lookup else f"{page.capitalize()} of {resource}",
        # In the first line of a resource's file, the columns follow the colon.
        about=LOOKUP if lookup else _first_line(file.text).partition(":")[0],
        parameters=[
            Parameter(at, each.name, each.type) for at, each in enumerate(file.parameters, 1)
        ],
        group="Plans and statements" if lookup else "Duplicates and the constraint",
        headline="keys: {rows}" if page == "duplicates" else "",
        lookup=lookup,
    )


def _first_line(text: str) -> str:
    """Return what the comment in the first line says, or ""."""
    said = re.match(r"--[ \t]*(\S.*)", text)
    return said[1].rstrip() if said else ""
