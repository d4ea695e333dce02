"""Takes README and the other documents apart into sections, commands with answers, and links."""

import re
from pathlib import Path

from tests.support.service import ROOT

DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for folder, files in ((".", "README.md"), ("docs", "*.md"), ("tests", "**/README.md"))
    for path in sorted((ROOT / folder).glob(files))
    if ".venv" not in path.parts
}

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fenced(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a text, each with its language, or "" if it names none."""
    return _FENCED.findall(text)


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [block for name, block in fenced(text) if name == language]


def sections(text: str) -> dict[str, str]:
    """Return the text below each heading, up to the next, by the heading's anchor."""
    # A # at the start of a line in a block begins a comment and no heading.
    masked = _FENCED.sub(lambda block: re.sub("^#", "\0", block[0], flags=re.MULTILINE), text)
    _, *parts = re.split(r"^#{1,6} (.*)\n", masked, flags=re.MULTILINE)
    found: dict[str, str] = {}
    for heading, body in zip(parts[::2], parts[1::2], strict=True):
        # GitHub makes anchors so: without punctuation, and with a - for each blank.
        anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        assert anchor not in found, f"two headings have the anchor {anchor}"
        found[anchor] = body.replace("\0", "#")
    return found


def section(place: str) -> str:
    """Return the section that a link such as "docs/http.md#errors" leads to."""
    document, _, anchor = place.partition("#")
    return sections(DOCUMENTS[document])[anchor]


def turns(text: str) -> list[tuple[str, str]]:
    """Return the commands of a text's sessions, each with the answer that is printed below it."""
    session = "".join(blocks(text, "console"))
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE)


def links(text: str) -> list[str]:
    """Return where the links and the pictures of a text lead."""
    prose = re.sub(r"`[^`\n]*`", "", _FENCED.sub("", text))
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def target(document: str, link: str) -> tuple[Path, str]:
    """Return the file and the anchor that a relative link of a document leads to.

    A link to a folder leads to its README, if it has one.
    """
    path, _, anchor = link.partition("#")
    here = ROOT / document
    there = (here.parent / path).resolve() if path else here
    readme = there / "README.md"
    return (readme if readme.exists() else there), anchor
