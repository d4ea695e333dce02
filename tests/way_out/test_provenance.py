"""What was merged into a row is listed over HTTP, across chains, and leads back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import legacy
from tests.support.adopting import adopt
from tests.support.service import Service, serving, sql

TABLES = """
CREATE TABLE customers (
    id bigint PRIMARY KEY, email text NOT NULL, secret tsvector, kept integer, credit numeric(5,2),
    created_at timestamptz NOT NULL DEFAULT '2026-01-01');
CREATE TABLE tags (id text PRIMARY KEY, name text NOT NULL);
"""


@pytest.fixture
def merged(new_database: Callable[[], str], tmp_path: Path) -> tuple[str, str]:
    """A database and a folder, in which 12 went into 9, 9 and 8 into 7, and 91 into 90."""
    database, folder = new_database(), str(tmp_path)
    sql(database, TABLES)
    for words in (("customers", "--key", "lower(email)"), ("tags", "--key", "name")):
        status, said = adopt(database, tmp_path, *words)
        assert status == 0, said
    for rows in (
        "(12, 'a', 'x', 3, 1.50), (9, 'A', NULL, NULL, NULL)",
        "(8, 'a', NULL, NULL, NULL), (7, 'a', NULL, NULL, NULL), (20, 'b', NULL, NULL, NULL)",
        "(90, 'c', NULL, NULL, NULL), (91, 'c', NULL, NULL, NULL)",
    ):
        sql(database, f"INSERT INTO customers (id, email, secret, kept, credit) VALUES {rows}")
        assert legacy.run(database, "merge", "--apply", RESOURCES=folder)[0] == 0
    sql(database, "INSERT INTO tags VALUES ('a', 'x'), ('b/c', 'x'), ('a/merged', 'y')")
    # Tags with the ids of customers: 8 goes into 20, and 91 into 9.
    sql(database, "INSERT INTO tags VALUES ('20', 'w'), ('8', 'w'), ('9', 'v'), ('91', 'v')")
    assert legacy.run(database, "merge", "--apply", RESOURCES=folder)[0] == 0
    return database, folder


def listed(service: Service, path: str) -> list[dict[str, Any]]:
    answer = service.http.get(path)
    assert answer.status_code == 200, answer.text
    items = answer.json()["items"]
    assert isinstance(items, list)
    return items


def test_all_that_went_into_a_row_is_listed(merged: tuple[str, str]) -> None:
    database, folder = merged
    with serving(DATABASE_URL=database, RESOURCES=folder) as service:
        items = listed(service, "/customers/7/merged")
        went = [(item["row"]["id"], item["kept"]) for item in items]
        # What one statement moves has no order of its own.
        assert (went[0], sorted(went[1:])) == ((12, 9), [(8, 7), (9, 7)])
        # It is what GET has answered before, without the column that it does not answer.
        assert items[0]["row"] == {
            "id": 12,
            "email": "a",
            "kept": 3,
            "credit": "1.50",
            "created_at": "2026-01-01T00:00:00Z",
        }
        assert items[0]["merged_at"] < items[1]["merged_at"]

        first = service.http.get("/customers/7/merged?limit=2").json()
        assert first["items"] == items[:2]
        assert first["next"].startswith("/customers/7/merged?limit=2&after=")
        assert service.http.get(first["next"]).json() == {"items": items[2:], "next": None}

        for path, location in (
            ("/customers/9/merged", "/customers/7/merged"),
            ("/customers/12/merged", "/customers/7/merged"),
            ("/customers/12", "/customers/7"),
        ):
            answer = service.http.get(path)
            assert (answer.status_code, answer.headers["Location"]) == (308, location)
        assert listed(service, "/customers/20/merged") == []
        assert service.http.get("/customers/21/merged").status_code == 404
        for query in ("limit=0", "limit=1001", "after=-1", "after=x", "before=1"):
            assert service.http.get(f"/customers/7/merged?{query}").status_code == 422
        allowed = service.http.post("/customers/7/merged").headers["Allow"]
        assert sorted(allowed.split(", ")) == ["GET", "HEAD"]

        service.http.delete("/customers/7")
        assert listed(service, "/customers/7/merged") == items


def test_an_id_that_is_a_text_may_end_so_itself(merged: tuple[str, str]) -> None:
    database, folder = merged
    with serving(DATABASE_URL=database, RESOURCES=folder, API_TOKEN="token") as service:
        path = "/tags/a%2Fmerged"
        assert service.http.get(path).status_code == 401
        service.http.headers["Authorization"] = "Bearer token"
        assert service.http.get(path).json() == {"id": "a/merged", "name": "y"}
        answer = service.http.get("/tags/b%2Fc/merged")
        assert (answer.status_code, answer.headers["Location"]) == (308, "/tags/a/merged")
        assert service.http.delete(path).status_code == 204
        assert [item["row"]["id"] for item in listed(service, "/tags/a/merged")] == ["b/c"]


def test_a_column_that_is_narrower_now_does_not_hide_what_went(merged: tuple[str, str]) -> None:
    database, folder = merged
    sql(database, "ALTER TABLE customers ALTER credit TYPE numeric(3,2)")
    sql(database, "UPDATE merged SET content = content || '{\"credit\": 812.25}' WHERE id = '12'")
    with serving(DATABASE_URL=database, RESOURCES=folder) as service:
        (first, *_) = listed(service, "/customers/7/merged")
        assert first["row"]["credit"] == "812.25"


def test_without_its_file_there_is_no_such_path(merged: tuple[str, str]) -> None:
    database, folder = merged
    file = Path(folder) / "tags" / "merged.sql"
    file.write_text(file.read_text().replace("step bigint", "step text"))
    status, _, errors = legacy.run(database, "doctor", RESOURCES=folder)
    assert (status, "merged.sql:1: must return what get.sql returns" in errors) == (1, True)
    file.unlink()
    with serving(DATABASE_URL=database, RESOURCES=folder) as service:
        assert service.http.get("/tags/b/merged").status_code == 404
        assert "/tags/{id}/merged" not in service.http.get("/openapi.json").json()["paths"]
        assert "/customers/{id}/merged" in service.http.get("/openapi.json").json()["paths"]
