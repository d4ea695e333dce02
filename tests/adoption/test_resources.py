"""A wrong header stops the start, with one line that names the file and the line."""

import os
import sys
from pathlib import Path

import pytest

from db.header import Field, File, HeaderError
from db.resources import parents, read_resources
from tests.support.folders import Part, write
from tests.support.service import run

KEY = [Part("account_id", "bigint", notes=", or NULL"), Part("name", "text")]
PLAN = Part("plan", "mood", notes=", one of 'free', 'pro', or NULL")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "tags", KEY, attributes=[PLAN])
    return tmp_path / "tags"


def message(root: Path) -> str:
    with pytest.raises(HeaderError) as caught:
        read_resources(root)
    return str(caught.value).replace(str(root), "")


def test_what_a_folder_says(folder: Path) -> None:
    (resource,) = read_resources(folder.parent).values()
    labels = ("free", "pro")
    assert resource.key == (Field("account_id", "bigint", optional=True), Field("name", "text"))
    assert resource.fields == (*resource.key, Field("plan", "mood", optional=True, labels=labels))
    assert resource.id == Field("id", "bigint")
    assert [each.name for each in resource.columns] == ["id", "account_id", "name", "plan"]
    assert [each.name for each in resource.filters] == ["account_id", "name", "plan"]
    assert resource.table == '"tags"'


# For each fault the file, what is replaced in it, by what, and the message.
WRONG = [
    (
        "get",
        "-- The row",
        "The row",
        ":1: must be `-- What it returns: id bigint, name text.`, the columns behind a colon",
    ),
    ("get", ": id bigint", " id bigint", ":1: must be `-- What it returns: "),
    ("get", " mood.", " mood", ":1: must be `-- What it returns: "),
    ("get", "id bigint,", "id,", ":1: must be `-- What it returns: "),
    ("get", '"name" text', "Name text", ":1: must be `-- What it returns: "),
    ("get", '"name" text', '"account_id" text', ":1: has a second account_id"),
    ("get", '"name" text', '"name" jsonb', ":1: name is jsonb, a type that no request takes"),
    ("get", '"name" text', '"name" text[]', ":1: name is text[], a type that no request takes"),
    ("get", '-- $1 "id"', '-- $1 "name"', ":1: must take $1 id and nothing else"),
    ("get", '-- $1 "id" bigint', '-- $1 "id" bigint, or NULL', ":1: must take $1 id and nothing"),
    ("get", '-- $1 "id" bigint', '-- $1 "id" uuid', ":1: must return id uuid, for that is what $1"),
    ("get", '-- $1 "id" bigint\n', "", ":1: $1 must be in the statement and have a line"),
    ("get", "$1::bigint", "7", ":1: $1 must be in the statement and have a line that tells it"),
    ("get", "$1::bigint", "$1::bigint + $2", ":1: $2 must be in the statement and have a line"),
    ("get", '"account_id" bigint', '"account_id" uuid', "select.sql:1: must return what get.sql"),
    ("select", "-- $2", "-- $3", ":3: must be about $2, the next one"),
    ("select", "-- $2", "--$2", ":3: must be `-- $1 name type`, and after it at most"),
    ("select", " text\nWITH", "\nWITH", ":3: must be `-- $1 name type`"),
    ("select", " text\nWITH", " text, or null\nWITH", ":3: must be `-- $1 name type`"),
    ("select", " text\nWITH", " text, one of free\nWITH", ":3: must be `-- $1 name type`"),
    ("select", '$2 "name"', '$2 "account_id"', ":3: has a second account_id"),
    ("select", '$2 "name"', '$2 "a""b"', ':3: no field of a request can be called a"b'),
    ("select", '$2 "name"', '$2 "a\\b"', ":3: no field of a request can be called a\\b"),
    ("select", ' "name" text\nW', ' "name" jsonb\nW', ":3: name is jsonb, a type that no request"),
    ("select", ' "name" text\nW', ' "name" txet\nW', ":3: name is txet, a type that no request"),
    ("select", ' text\nW', ' text, or NULL, needs account_id\nW', ":3: only a filter of list.sql"),
    ("select", "copies bigint", "copies integer", ":1: must return what get.sql returns and cop"),
    ("select", ', "plan" mood', "", ":1: must return what get.sql returns and copies bigint beh"),
    ("insert", "bigint, or NULL", "bigint", ":1: must take what select.sql takes, in its order"),
    ("insert", '-- $2 "name" text', '-- $2 "name" citext', ":1: must take what select.sql takes"),
    ("insert", ', "plan" mood', "", ":1: must return what get.sql returns"),
    ("list", '"after" bigint', '"behind" bigint', ":1: must take $1 after bigint, or NULL, th"),
    ("list", ", or NULL for the start", "", ":1: must take $1 after bigint, or NULL, then"),
    ("list", '-- $1 "after" bigint', '-- $1 "after" integer', ":1: must take $1 after bigint"),
    ("list", "-- $2 limit bigint", "-- $2 limit bigint, or NULL", ":1: must take $1 after bigint"),
    ("list", '"name" text, or NULL for any', '"name" text', ":5: name must be `or NULL`, as any"),
    ("list", "text, or NULL for any", "text, or NULL, needs age", ":5: needs age, which is"),
    ("list", "text, or NULL for any", "text, or NULL, needs name", ":5: needs name, which is no"),
    ("list", '-- $4 "name"', '-- $4 "after"', ":5: has a second after"),
    ("delete", "id bigint.", "id bigint, name text.", ":1: must return id bigint and nothing else"),
    ("delete", '"id" bigint\n', '"id" integer\n', ":1: must take $1 id bigint, as get.sql does"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "said"), WRONG)
def test_a_header_that_is_wrong(folder: Path, name: str, old: str, new: str, said: str) -> None:
    file = folder / f"{name}.sql"
    text = file.read_text()
    assert text.count(old)
    file.write_text(text.replace(old, new, 1))
    begin = "/tags/" if ".sql:" in said else f"/tags/{name}.sql"
    assert message(folder.parent).startswith(f"{begin}{said}")


def test_a_key_has_a_part(folder: Path) -> None:
    file = folder / "select.sql"
    file.write_text(file.read_text().splitlines()[0] + "\nSELECT;\n")
    assert message(folder.parent) == "/tags/select.sql:1: has no parameter, and so no key"


@pytest.mark.parametrize("name", ["select", "insert", "get", "list", "delete"])
def test_a_file_is_missing(folder: Path, name: str) -> None:
    (folder / f"{name}.sql").unlink()
    assert message(folder.parent) == f"/tags: has no {name}.sql"


def test_an_empty_file(folder: Path) -> None:
    (folder / "get.sql").write_bytes(b"")
    assert message(folder.parent).startswith("/tags/get.sql:1: must be `-- What it returns")


def test_a_file_that_is_not_utf_8(folder: Path) -> None:
    with (folder / "lookup.sql").open("ab") as file:
        file.write(b"-- Stra\xdfe\n")
    assert message(folder.parent) == "/tags/lookup.sql:5: is not UTF-8"


@pytest.mark.parametrize(
    "name",
    [
        *("inspect", "live", "ready", "metrics", "way_out", "distributed"),
        *("1st", "_x", "a b", "a.b", "a%2Fb", "tägs", "a" * 46, "a\nb"),
    ],
)
def test_a_name_that_no_resource_can_have(folder: Path, name: str) -> None:
    folder.rename(folder.with_name(name))
    said = message(folder.parent)
    assert said.startswith("/" + name.replace("\n", "\\n").replace("\ufffd", "") + ": no resource")
    assert "\n" not in said


def test_a_folder_without_a_resource(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").touch()
    assert message(tmp_path) == (
        "RESOURCES=: has no folder with select.sql, insert.sql, get.sql, list.sql, delete.sql"
    )


@pytest.mark.parametrize("command", [["app.py"], ["-m", "db", "doctor"]])
def test_the_start_ends_in_one_line(folder: Path, command: list[str]) -> None:
    (folder / "get.sql").write_bytes(b"SELECT 1;")
    done = run(sys.executable, *command, RESOURCES=str(folder.parent), DATABASE_URL="postgresql://")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{folder}/get.sql:1: must be `-- What it returns")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    ("name", "why"), [("nowhere", "No such file or directory"), ("file", "Not a directory")]
)
@pytest.mark.parametrize("command", [["app.py"], ["-m", "db", "doctor"]])
def test_resources_is_no_folder(tmp_path: Path, name: str, why: str, command: list[str]) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / name
    done = run(sys.executable, *command, RESOURCES=str(folder), DATABASE_URL="postgresql://")
    assert (done.returncode, done.stderr) == (1, f"RESOURCES={folder}: {why}\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    assert message(tmp_path) == "RESOURCES=: Permission denied"


def test_parents_come_first(tmp_path: Path) -> None:
    """A parent goes by the name that SQL means, quoted or not; a table may be its own parent."""
    key = [Part("Order", "bigint"), Part("parent", "bigint", notes=", or NULL")]
    write(tmp_path, "a_lines", key, referred=["a_lines.parent"])
    name, referred = [Part("name", "text")], ['"a_lines"."Order"']
    write(tmp_path, "orders", name, table='shop."Orders"', referred=referred)
    found = read_resources(tmp_path)
    assert list(found) == ["orders", "a_lines"]
    assert parents(found, "a_lines") == {"Order": "orders", "parent": "a_lines"}
    assert parents(found, "orders") == {}


def test_a_header_of_many_columns_is_read_at_once() -> None:
    columns = ", ".join(f"c{number} timestamp with time zone" for number in range(200))
    with pytest.raises(HeaderError):
        _ = File(Path("get.sql"), f"-- All: {columns}").columns  # the full stop is missing
    assert len(File(Path("get.sql"), f"-- All: {columns}.").columns) == 200
