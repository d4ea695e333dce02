"""/metrics says what clients counted, whichever worker served them and whichever is asked."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.documents import blocks, section
from tests.support.service import Service, collide, connection_to, serving, until
from web import metrics
from web.metrics import Metrics
from web.traffic import Traffic

pytestmark = pytest.mark.alone

REQUESTS = 10_000
CLIENTS = 32

# So many requests ask for one name. Clients ask at the same time, so that they conflict.
TIMES = 20


def samples(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the value of each sample, by its name and its labels."""
    text = service.http.get("/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(service: Service, name: str, **labels: str) -> float:
    """Return the sum of the samples of this name that have these labels."""
    return sum(
        number
        for (sample, found), number in samples(service).items()
        if sample == name and labels.items() <= dict(found).items()
    )


def attempts(answer: httpx.Response) -> int:
    found = re.search(r"attempts=(\d+)", answer.headers["server-timing"])
    assert found is not None
    return int(found[1])


async def post_all(service: Service, counted: Counter[str]) -> None:
    numbers = iter(range(REQUESTS))

    async def client() -> None:
        async with connection_to(service) as http:
            for number in numbers:
                if number % 100 == 99:
                    answer = await http.get(f"/departments/{number}")
                else:
                    name = f"name {number // TIMES}"
                    answer = await http.post("/departments", json={"name": name})
                    counted["attempts"] += attempts(answer)
                counted[f"{answer.request.method} {answer.status_code}"] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())


def test_counts_are_what_clients_counted_over_ten_thousand_requests(database: str) -> None:
    counted: Counter[str] = Counter()
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        asyncio.run(post_all(service, counted))
        for answer in collide(service, "twice"):
            counted["attempts"] += attempts(answer)
            counted[f"POST {answer.status_code}"] += 1
        posts = counted["POST 200"] + counted["POST 201"]
        assert posts + counted["GET 404"] + counted["GET 200"] == REQUESTS + 2
        assert counted["attempts"] > posts

        for what in ("POST 200", "POST 201"):
            method, status = what.split()
            labels = {"method": method, "route": "/departments", "status": status}
            answered = value(service, "onerow_http_request_duration_seconds_count", **labels)
            assert answered == counted[what]
        of_ids = {"method": "GET", "route": "/departments/{id}"}
        gets = counted["GET 200"] + counted["GET 404"]
        assert value(service, "onerow_http_request_duration_seconds_count", **of_ids) == gets
        created = value(service, "onerow_rows_total", resource="departments", outcome="created")
        assert created == counted["POST 201"]
        existing = value(service, "onerow_rows_total", resource="departments", outcome="existing")
        assert existing == counted["POST 200"]
        creates = {"method": "POST", "resource": "departments"}
        assert value(service, "onerow_transaction_attempts_count", **creates) == posts
        assert value(service, "onerow_transaction_attempts_sum", **creates) == counted["attempts"]
        # On a busy machine an insert that came too late is one of them.
        retries = value(service, "onerow_transaction_retries_total")
        assert retries == counted["attempts"] - posts
        assert value(service, "onerow_pool_size") == 16


# A client may send any of these methods, which the parser knows, and paths that have no route.
METHODS = (
    "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH"
    " UNLOCK BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE"
    " UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK QUERY SOURCE"
)
PATHS = "/ /departments /employees/1 /live /metrics /openapi.json /inspect/traffic.csv /a/b"


def test_a_client_chooses_no_labels(database: str) -> None:
    with serving(DATABASE_URL=database) as service:
        asyncio.run(send_all(service))
        found = [dict(labels) for name, labels in samples(service) if name.endswith("_count")]
        methods = {labels["method"] for labels in found if "method" in labels}
        assert methods <= {"GET", "HEAD", "POST", "DELETE", "other", ""}
        # The labels have four methods and "other", on four kinds of path.
        assert len(service.http.get("/metrics").content) < 100_000
        other = {"method": "other", "route": "/departments"}
        # These are PUT, PATCH, OPTIONS and TRACE. The connection refuses methods that HTTP has not.
        assert value(service, "onerow_http_request_duration_seconds_count", **other) == 4
        refused = {"method": "", "route": "", "status": "501"}
        assert value(service, "onerow_http_request_duration_seconds_count", **refused) > 5


async def send_all(service: Service) -> None:
    async with connection_to(service) as http:
        for number, method in enumerate(METHODS.split()):
            for path in PATHS.split():
                await http.request(
                    method,
                    f"{path}?{number}",
                    content=b"{}",
                    headers={
                        "Content-Type": f"text/{number}",
                        "User-Agent": f"client {number}",
                        "X-Request-Id": f"id-{number}",
                    },
                )


def test_a_worker_that_was_killed_leaves_its_counts_and_not_its_pool(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        until(lambda: value(service, "onerow_pool_size") == 16)
        service.post("/departments", name="Ada")
        (killed, *_) = map(int, re.findall(r"worker (\d+) begins", service.log.read_text()))
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(re.findall("worker (\\d+) begins", service.log.read_text())) == 3)
        until(lambda: value(service, "onerow_pool_size") == 16)
        assert value(service, "onerow_rows_total", outcome="created") == 1


def test_requests_that_are_given_up_are_counted_and_told_to_the_log(database: str) -> None:
    with serving(DATABASE_URL=database) as service:
        service.sql("ALTER TABLE departments RENAME TO elsewhere")
        headers = {"X-Request-Id": "given-1"}
        answer = service.http.post("/departments", json={"name": "Ada"}, headers=headers)
        assert answer.status_code == 503
        assert answer.headers["x-request-id"] == "given-1"
        assert value(service, "onerow_unavailable_total", reason="schema_missing") == 1
        (line,) = [line for line in service.log.read_text().splitlines() if "given up" in line]
        assert "POST /departments, id given-1" in line
        assert "42P01" in line


def test_what_the_connection_refuses_is_counted_and_has_an_id(database: str) -> None:
    with serving(DATABASE_URL=database) as service:
        for _ in range(2):
            answer = service.http.get("/live", headers={"X": "x" * 40_000})
            assert answer.status_code == 431
            assert answer.headers["x-request-id"]
        labels = {"method": "", "route": "", "status": "431"}
        assert value(service, "onerow_http_request_duration_seconds_count", **labels) == 2


def test_a_full_folder_costs_the_sum_and_not_the_service(database: str) -> None:
    with serving(DATABASE_URL=database, WORKERS_FOLDER="/dev/full") as service:
        assert service.post("/departments", name="Ada").status_code == 201
        assert value(service, "onerow_rows_total", outcome="created") == 1
        assert "each worker has only its own metrics" in service.log.read_text()


def test_a_post_that_meets_a_defect_is_counted(database: str) -> None:
    with serving(DATABASE_URL=database) as service:
        assert value(service, "onerow_defects_total") == 0
        service.sql(
            # No answer has a form for this type.
            "ALTER TABLE departments ALTER created_at DROP DEFAULT,"
            " ALTER created_at TYPE inet USING '127.0.0.1'::inet,"
            " ALTER created_at SET DEFAULT '127.0.0.1'::inet"
        )
        # A client of its own, for the service closes the connection behind a 500.
        failed = httpx.post(f"{service.url}/departments", json={"name": "Ada"})
        assert failed.status_code == 500
        assert value(service, "onerow_defects_total") == 1
        failed = httpx.post(f"{service.url}/departments", json=[{"name": "Ada"}])
        assert failed.status_code == 500
        assert value(service, "onerow_defects_total") == 2
        assert value(service, "onerow_rows_total") == 0
        assert value(service, "onerow_transaction_attempts_count", method="POST") == 2


def test_waits_for_a_connection_in_vain_are_counted(database: str) -> None:
    settings = {"POOL_SIZE": "1", "RETRY_DEADLINE": "0.5"}
    with serving(DATABASE_URL=database, **settings) as service, ThreadPoolExecutor(6) as threads:
        with psycopg.connect(database) as blocker:
            blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
            posts = [threads.submit(service.post, "/departments", name="Ada") for _ in range(6)]
            assert {post.result().status_code for post in posts} == {503}
        until(lambda: value(service, "onerow_pool_timeouts_total") >= 1)


def test_a_wait_in_vain_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "POOL_INTERVAL", 0)
    counts = Metrics(tmp_path, Traffic(tmp_path))
    pool: Any = SimpleNamespace(timeouts=1, size=4, missing=0, idle=4, waiting=0)

    async def many_looks() -> None:
        async with counts.watching(pool):
            for _ in range(10):
                await asyncio.sleep(0)

    asyncio.run(many_looks())
    assert b"\nonerow_pool_timeouts_total 1.0\n" in counts.text()


def test_a_connection_is_in_use_while_its_request_waits(database: str) -> None:
    settings = {"POOL_SIZE": "4", "RETRY_DEADLINE": "60"}
    with serving(DATABASE_URL=database, **settings) as service, ThreadPoolExecutor(1) as thread:
        until(lambda: value(service, "onerow_pool_size") == 4)
        assert value(service, "onerow_pool_in_use") == 0
        with psycopg.connect(database) as blocker:
            blocker.execute("LOCK TABLE departments IN ACCESS EXCLUSIVE MODE")
            post = thread.submit(service.post, "/departments", name="Ada")
            until(lambda: value(service, "onerow_pool_in_use") == 1)
        assert post.result().status_code == 201


def test_each_row_of_an_array_and_of_lines_is_counted(database: str) -> None:
    with serving(DATABASE_URL=database) as service:
        service.http.post("/departments", json=[{"name": "Ada"}, {"name": "Grace"}])
        assert value(service, "onerow_rows_total", outcome="created") == 2
        lines = b'{"name": "Linus"}\n{"name": "Rob"}\n'
        headers = {"Content-Type": "application/x-ndjson"}
        service.http.post("/departments", content=lines, headers=headers)
        assert value(service, "onerow_rows_total", outcome="created") == 4
        service.sql("INSERT INTO departments (name) VALUES ('Ada')")
        strict = {"Prefer": "handling=strict"}
        answer = service.http.post("/departments", json=[{"name": "Ada"}], headers=strict)
        assert answer.json()[0]["status"] == 412
        assert value(service, "onerow_rows_total") == 4


def test_probes_are_not_given_up_and_the_log_has_a_line_for_each_change(database: str) -> None:
    with serving(DATABASE_URL=database) as service:
        # The service's own first look at the database must be over.
        until(lambda: " begins" in service.log.read_text())
        service.sql("ALTER TABLE departments RENAME TO elsewhere")
        assert [service.http.get("/ready").status_code for _ in range(3)] == [503] * 3
        service.sql("ALTER TABLE elsewhere RENAME TO departments")
        assert [service.http.get("/ready").status_code for _ in range(3)] == [200] * 3
        lines = [line.split(": ", 1)[1] for line in service.log.read_text().splitlines()]
        assert [line for line in lines if "ready" in line] == [
            "not ready: The tables, or rights on them, are missing: run `python -m db init`."
            " It is about departments.",
            "ready again",
        ]
        assert value(service, "onerow_unavailable_total") == 0


def test_a_request_id_that_could_do_harm_is_replaced(shared_service: Service) -> None:
    for given in ("", "a b", "x" * 129, "<script>"):
        answer = shared_service.http.get("/live", headers={"X-Request-Id": given})
        assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", answer.headers["x-request-id"])


def test_paths_without_a_route_are_one_label(shared_service: Service) -> None:
    for path in ("/nope", "/departmentss", "/inspect/a/b/c"):
        shared_service.http.get(path)
    routes = {dict(labels).get("route") for _, labels in samples(shared_service)}
    assert "" in routes
    assert not any("nope" in str(route) for route in routes)


def test_a_line_for_each_request_only_when_asked_for(database: str) -> None:
    for asked in ("0", "1"):
        with serving(DATABASE_URL=database, LOG_REQUESTS=asked) as service:
            service.http.post("/departments?secret=x", json={"name": "Ada"})
            service.http.get("/a%20200,%200.1%20ms,%20id%20forged")
            service.stop()
            lines = [line for line in service.log.read_text().splitlines() if "access" in line]
        assert len(lines) == 2 * int(asked)
        assert not any("secret" in line or "Ada" in line for line in lines)
        assert not any("id forged" in line for line in lines), "a path has no space"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)")
def test_promtool_finds_nothing_to_say(shared_service: Service) -> None:
    shared_service.post("/departments", name="promtool")
    text = shared_service.http.get("/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)")
def test_the_alerts_are_about_metrics_that_are_there(
    shared_service: Service, tmp_path: Path
) -> None:
    (rules,) = blocks(section("docs/operating.md#alerts"), "yaml")
    file = tmp_path / "rules.yml"
    file.write_text(rules)
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    shared_service.post("/departments", name="rules")
    help_lines = shared_service.http.get("/metrics").text
    for metric in set(re.findall(r"onerow_\w+", rules)) - {"onerow_transaction_retries_total"}:
        assert re.search(rf"^{metric}\b", help_lines, re.MULTILINE), metric
