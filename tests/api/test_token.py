"""Everything but the probes wants the API_TOKEN, and nothing tells what it is."""

import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from tests.support.service import LIMIT, ROOT, Service, environment, serving
from web.token import RequireToken

OLD, NEW = "old-token.12345-6", "new~token/2-345678=="


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Service]:
    with serving(DATABASE_URL=new_database(), API_TOKEN=f"{OLD},{NEW}") as service:
        yield service


def basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


PATHS = [
    ("POST", "/departments"),
    ("GET", "/departments"),
    ("DELETE", "/departments/1"),
    ("GET", "/"),
    ("GET", "/inspect"),
    ("GET", "/inspect/departments_duplicates"),
    ("GET", "/inspect/traffic.json"),
    ("GET", "/no/such/path"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        f"Bearer {OLD},{NEW}",
        f"Bearer {OLD[:-1]}",
        f"Bearer {OLD}x",
        f"Bearer {OLD.upper()}",
        f"Token {OLD}",
        OLD,
        "Basic",
        "Basic !",
        basic("any", "wrong"),
        basic(OLD, ""),
        "Bearer \xe9",
    ],
)
def test_without_a_token_it_is_401(
    method: str, path: str, given: str | None, service: Service
) -> None:
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    answer = service.http.request(method, path, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert 'Bearer realm="onerow"' in answer.headers["www-authenticate"]
    for_browsers = path == "/" or path.startswith("/inspect")
    assert ("Basic" in answer.headers["www-authenticate"]) == for_browsers
    assert OLD not in answer.text


@pytest.mark.parametrize("token", [OLD, NEW])
def test_each_token_opens_everything(token: str, service: Service) -> None:
    for scheme in ("Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} {token}"}
        assert service.http.get("/departments", headers=headers).status_code == 200
        assert service.http.get("/inspect", headers=headers).status_code == 200
        assert service.http.get("/", headers=headers).status_code == 200


def test_a_browser_may_give_it_as_a_password_and_only_to_the_pages(service: Service) -> None:
    headers = {"Authorization": basic("anyone", NEW), "Accept": "text/html"}
    assert service.http.get("/", headers=headers).headers["location"] == "/inspect"
    assert service.http.get("/inspect/departments_duplicates", headers=headers).status_code == 200
    assert service.http.get("/departments", headers=headers).status_code == 401
    assert service.http.get("/inspections", headers=headers).status_code == 401


def test_probes_need_no_token(service: Service) -> None:
    assert service.http.get("/live").status_code == 200
    service.await_ready()


@pytest.mark.parametrize("why", [{"API_TOKEN": OLD}, {"ALLOW_ANONYMOUS": "1"}], ids=str)
def test_other_hosts_may_be_let_in(why: dict[str, str], new_database: Callable[[], str]) -> None:
    # The address is no loopback, and not this machine's, so that the start fails after the check.
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment(DATABASE_URL=new_database(), HOST="192.0.2.1", **why),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert "HOST=" not in done.stderr
    assert "cannot assign requested address" in done.stderr.lower()


def test_every_token_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append(known)
        return given == known

    monkeypatch.setattr("web.token.hmac.compare_digest", compare)
    guard = RequireToken(Starlette(), [OLD, NEW])
    for token in (OLD, NEW, "neither"):
        headers = [(b"authorization", f"Bearer {token}".encode())]
        scope = {"type": "http", "path": "/departments", "headers": headers}
        assert guard._allows(Request(scope)) == (token != "neither")
    assert compared == [OLD.encode(), NEW.encode()] * 3
