"""With RELOAD=1 the running service takes up what changes under RESOURCES."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, rmtree

import httpx
import pytest

from tests.support.folders import Part, write
from tests.support.service import Service, serving, sql, until

NAME = Part("name", "text")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that is served. Resources are written beside it and moved in whole."""
    write(tmp_path / "served", "tags", [NAME])
    return tmp_path / "served"


@pytest.fixture
def service(database: str, root: Path) -> Iterator[Service]:
    for name in ("tags", "labels"):
        sql(
            database,
            f"CREATE TABLE {name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text,"
            " colour text DEFAULT 'red')",
        )
    with serving(DATABASE_URL=database, RESOURCES=str(root), RELOAD="1") as service:
        yield service


def ask(service: Service, path: str, **body: str) -> httpx.Response:
    """POST the body or GET; send it again where the worker was replaced meanwhile."""
    while True:
        try:
            return service.post(path, **body) if body else service.http.get(path)
        except httpx.RemoteProtocolError:
            continue


@pytest.mark.long
def test_changes_are_served(service: Service, root: Path, tmp_path: Path) -> None:
    assert ask(service, "/tags", name="old").status_code == 201
    write(tmp_path / "next", "labels", [NAME])
    copytree(tmp_path / "next" / "labels", root / "labels")
    until(lambda: ask(service, "/labels").status_code == 200)
    until(lambda: ask(service, "/labels", name="Ada").status_code == 200)
    # The resource that is served gets another column and attribute.
    write(tmp_path / "next", "tags", [NAME], attributes=[Part("colour", "text", notes=", or NULL")])
    copytree(tmp_path / "next" / "tags", root / "tags", dirs_exist_ok=True)
    until(lambda: "colour" in ask(service, "/tags").text)
    until(lambda: ask(service, "/tags", name="new", colour="blue").status_code == 200)
    # With a wrong header the log names file and line, and the service goes on as before.
    get = root / "tags" / "get.sql"
    right = get.read_bytes()
    get.write_bytes(right.replace(b'"colour" text', b'"colour" text[]'))
    until(lambda: f"the changed files are not served: {get}:1: colour is text[]" in log(service))
    assert ask(service, "/tags").json()["items"][0]["name"] == "old"
    get.write_bytes(right)
    rmtree(root / "labels")
    until(lambda: ask(service, "/labels").status_code == 404)
    assert ask(service, "/tags").status_code == 200
    assert service.stop() == 0


def log(service: Service) -> str:
    return service.log.read_text()
