"""RELOAD=1: what changes under RESOURCES is taken up by the running service."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, rmtree

import pytest

from tests.folders import Part, write
from tests.service import Service, serving, sql, until

NAME = Part("name", "text")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that is served; others are written beside it and put in whole."""
    write(tmp_path / "served", "tags", [NAME])
    return tmp_path / "served"


@pytest.fixture(params=["1", "2"])
def service(request: pytest.FixtureRequest, database: str, root: Path) -> Iterator[Service]:
    for name in ("tags", "labels"):
        sql(
            database,
            f"CREATE TABLE {name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text,"
            " colour text DEFAULT 'red')",
        )
    settings = {"DATABASE_URL": database, "RESOURCES": str(root), "WORKERS": request.param}
    with serving(**settings, RELOAD="1") as service:
        yield service


def status(service: Service, path: str) -> int:
    return service.http.get(path).status_code


def test_changes_are_served(service: Service, root: Path, tmp_path: Path) -> None:
    # Every worker answers so: with a connection for each request, by turns.
    assert service.post("/tags", name="old").status_code == 201
    write(tmp_path / "next", "labels", [NAME])
    copytree(tmp_path / "next" / "labels", root / "labels")
    until(lambda: status(service, "/labels") == 200)
    assert service.post("/labels", name="Ada").status_code == 201
    # Another column and attribute, in place of what is served.
    write(tmp_path / "next", "tags", [NAME], attributes=[Part("colour", "text", notes=", or NULL")])
    copytree(tmp_path / "next" / "tags", root / "tags", dirs_exist_ok=True)
    until(lambda: "colour" in service.http.get("/tags").text)
    until(lambda: service.post("/tags", name="new", colour="blue").status_code in (200, 201))
    # A header that is wrong: the file and the line are in the log, and all goes on as before.
    get = root / "tags" / "get.sql"
    right = get.read_bytes()
    get.write_bytes(right.replace(b'"colour" text', b'"colour" txt[]'))
    until(lambda: f"what is served stays as it was: {get}:1: colour is txt[]" in logged(service))
    assert service.http.get("/tags").json()["items"][0]["name"] == "old"
    get.write_bytes(right)
    rmtree(root / "labels")
    until(lambda: status(service, "/labels") == 404)
    assert status(service, "/tags") == 200
    assert service.stop() == 0


def logged(service: Service) -> str:
    return service.log.read_text()
