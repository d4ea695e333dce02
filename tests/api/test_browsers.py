"""A page of another site cannot make a browser change or read a service that has no token."""

import socket
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.support.service import LIMIT, Service, serving

OURS = "example.org"
NAME = "x" * 40


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Service]:
    allowed = f"{OURS},10.1.2.3,[2001:db8:0::7]"
    with serving(DATABASE_URL=new_database(), ALLOWED_HOSTS=allowed) as service:
        yield service


def send(service: Service, host: str, method: str, path: str, **headers: str) -> httpx.Response:
    """Send a request with this Host header and a body that would make a row; return the answer."""
    given = {"Host": host, "Content-Type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    content = b'{"name": "%b"}' % NAME.encode() if method == "POST" else b""
    return service.http.request(method, path, headers=given, content=content)


FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1.evil.example:{port}",
    "localhost.evil.example",
    "notlocalhost",
    "evil.example@localhost",
    "localhost, evil.example",
    "xexample.org",
    "example.org.evil.example",
    "192.168.0.1",
    "10.1.2.4",
    "128.0.0.1",
    "0.0.0.0:{port}",
    "[::]",
    "[::2]:{port}",
    "[2001:db8::8]",
    "[::1",
    "::1",
    "localhost:port",
    "2130706434",
    ".",
    "..",
    "localhost:99999",
    "localhost:65536",
    "[127.0.0.1]",
    "[1::2::3]",
    "[:]",
    "[::ffff:10.1.2.4]",
]

PATHS = [
    ("GET", "/departments"),
    ("POST", "/departments"),
    ("DELETE", "/departments/1"),
    ("GET", "/inspect/departments_duplicates.json"),
    ("GET", "/openapi.json"),
    ("GET", "/metrics"),
    ("GET", "/live"),
    ("GET", "/no/such/path"),
    ("PUT", "/departments"),
    ("OPTIONS", "/departments"),
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_page_whose_name_was_rebound_reads_and_writes_nothing(
    service: Service, host: str
) -> None:
    name = host.format(port=service.port)
    # The page's own name now leads to the service, so that for the browser it is the same origin.
    origin = f"http://{name}"
    for method, path in PATHS:
        answer = send(service, name, method, path, Origin=origin, Sec_Fetch_Site="same-origin")
        assert answer.status_code in (400, 421), (method, path)
        assert answer.headers["content-type"] == "application/problem+json"
        assert "evil" not in answer.text
    assert service.http.get("/departments").json()["items"] == []


OWN_HOSTS = [
    "localhost",
    "LocalHost:{port}",
    "localhost.:{port}",
    "onerow.localhost:{port}",
    "127.0.0.1",
    "127.0.0.1:9",
    "127.8.9.1:{port}",
    "[::1]",
    "[::1]:{port}",
    "example.org",
    "EXAMPLE.org.:443",
    "10.1.2.3:{port}",
    "[2001:DB8::7]:{port}",
    "[2001:0db8:0:0:0:0:0.0.0.7]",
    "[0:0:0:0:0:0:0:1]:{port}",
    "localhost:",
    "localhost:65535",
    "[::ffff:127.0.0.1]:{port}",
    "[::ffff:7f08:901]",
]


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_names_of_this_machine_and_those_allowed_are_served(service: Service, host: str) -> None:
    name = host.format(port=service.port)
    assert send(service, name, "GET", "/ready").status_code == 200
    # The service's own page may also be behind a proxy that speaks HTTPS with the browser.
    for scheme in ("http", "https"):
        answer = send(service, name, "DELETE", "/departments/1", Origin=f"{scheme}://{name}")
        assert answer.status_code == 404


def test_a_caller_of_http_1_0_needs_no_name(service: Service) -> None:
    # HAProxy's health check is such a request by default. No browser has sent one for decades.
    with socket.create_connection(("127.0.0.1", service.port), LIMIT) as caller:
        caller.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
        assert caller.recv(4096).startswith(b"HTTP/1.1 200 ")


FOREIGN_PAGES = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost"},
    {"Origin": "http://localhost:1"},
    {"Origin": "http://127.0.0.1:{port}"},
    {"Origin": "http://localhost:{port}.evil.example"},
    {"Origin": "http://example.org"},
    {"Origin": "file://localhost:{port}"},
    {"Origin": "chrome-extension://localhost:{port}"},
    {"Origin": "http://localhost:{port}/"},
    {"Origin": "http://localhost:{port}", "Sec_Fetch_Site": "cross-site"},
    {"Origin": "http://evil.example", "Sec_Fetch_Site": "same-origin"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
]


@pytest.mark.parametrize("page", FOREIGN_PAGES, ids=str)
def test_a_page_of_another_origin_changes_nothing(service: Service, page: dict[str, str]) -> None:
    given = {name: value.format(port=service.port) for name, value in page.items()}
    host = f"localhost:{service.port}"
    for method, path in PATHS:
        answer = send(service, host, method, path, **given)
        if method == "GET":  # is answered, for the browser keeps the answer from the page
            assert answer.status_code == (404 if path == "/no/such/path" else 200)
        else:
            assert answer.status_code == 403, (method, path)
            assert answer.headers["content-type"] == "application/problem+json"
        assert "access-control-allow-origin" not in answer.headers
    assert service.http.get("/departments").json()["items"] == []


SAME = [
    ("localhost:80", "http://localhost"),
    ("localhost", "http://localhost:80"),
    ("localhost:443", "https://localhost"),
    ("localhost", "https://localhost:443"),
    ("localhost:", "http://LOCALHOST"),
    ("[0::1]:80", "http://[::1]"),
]
OTHER = [
    ("localhost:443", "http://localhost"),
    ("localhost:80", "https://localhost"),
    ("localhost", "http://localhost:443"),
    ("localhost", "https://localhost:80"),
    ("localhost", "http://localhost:8000"),
    ("localhost:8000", "http://localhost"),
    ("localhost", "http://localhost:99999"),
]


@pytest.mark.parametrize(("host", "origin"), SAME + OTHER)
def test_the_port_of_a_scheme_may_be_left_out(service: Service, host: str, origin: str) -> None:
    status = 404 if (host, origin) in SAME else 403
    answer = send(service, host, "DELETE", "/departments/1", Origin=origin)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("name", "own", "foreign"),
    [
        ("Origin", "http://localhost", "http://evil.example"),
        ("Origin", "http://localhost", "null"),
        ("Sec-Fetch-Site", "same-origin", "cross-site"),
        ("Sec-Fetch-Site", "none", "same-site"),
    ],
)
def test_of_two_headers_one_that_is_foreign_is_enough(
    service: Service, name: str, own: str, foreign: str
) -> None:
    for values, status in (
        ((own, foreign), 403),
        ((foreign, own), 403),
        ((foreign, foreign), 403),
        ((own, own), 404),
    ):
        headers = [("Host", "localhost"), *((name, value) for value in values)]
        assert service.http.delete("/departments/1", headers=headers).status_code == status


def test_requests_of_the_user_and_of_no_browser_pass(service: Service) -> None:
    host = f"localhost:{service.port}"
    own: dict[str, str]
    for own in ({}, {"Sec_Fetch_Site": "none"}, {"Sec_Fetch_Site": "same-origin"}):
        assert send(service, host, "DELETE", "/departments/1", **own).status_code == 404


def test_refusals_are_counted_and_have_an_id(service: Service) -> None:
    answer = send(service, "evil.example", "GET", "/departments", X_Request_Id="mine")
    assert answer.headers["x-request-id"] == "mine"
    assert 'status="421"' in service.http.get("/metrics").text


def test_with_a_token_any_name_is_served(new_database: Callable[[], str]) -> None:
    # No page can send the token, and clients reach a service behind a proxy by the proxy's name.
    with serving(DATABASE_URL=new_database(), API_TOKEN="s" * 16) as service:
        token = {"Authorization": f"Bearer {'s' * 16}", "Origin": "https://front.example"}
        answer = send(service, "public.example", "POST", "/departments", **token)
        assert answer.status_code == 201
        assert send(service, "public.example", "GET", "/departments").status_code == 401


@pytest.mark.parametrize("tokens", ["secret", f"{'s' * 16},secret", f"secret{'=' * 20}"])
def test_with_a_token_that_a_page_could_guess_only_names_of_this_machine_are_served(
    new_database: Callable[[], str], tokens: str
) -> None:
    with serving(DATABASE_URL=new_database(), API_TOKEN=tokens, ALLOWED_HOSTS=OURS) as service:
        token = {"Authorization": f"Bearer {tokens.rpartition(',')[2]}"}
        for path in ("/departments", "/live"):
            assert send(service, "evil.example", "GET", path, **token).status_code == 421
        origin = {"Origin": "http://evil.example"}
        assert send(service, OURS, "POST", "/departments", **token, **origin).status_code == 403
        assert send(service, OURS, "POST", "/departments", **token).status_code == 201
        assert send(service, "localhost", "GET", "/departments").status_code == 401


def test_where_anyone_may_come_any_name_is_served_but_no_foreign_page(
    new_database: Callable[[], str],
) -> None:
    everywhere = {"HOST": "0.0.0.0", "ALLOW_ANONYMOUS": "1"}
    with serving(DATABASE_URL=new_database(), **everywhere) as service:
        assert send(service, "intranet.example", "GET", "/departments").status_code == 200
        assert send(service, "intranet.example", "POST", "/departments").status_code == 201
        page = {"Origin": "http://evil.example"}
        answer = send(service, "intranet.example", "POST", "/departments", **page)
        assert answer.status_code == 403
    with serving(DATABASE_URL=new_database(), ALLOWED_HOSTS=OURS, **everywhere) as service:
        assert send(service, OURS, "GET", "/departments").status_code == 200
        assert send(service, "evil.example", "GET", "/departments").status_code == 421


ANSWERS = [
    ("GET", "/departments", 200),
    ("GET", "/employees/99", 308),
    ("GET", "/employees?department_id=99", 308),
    ("GET", "/departments/98", 404),
    ("POST", "/departments", 201),
    ("POST", "/departments", 200),
    ("POST", "/employees", 422),
    ("DELETE", "/departments/98", 404),
    ("PUT", "/departments", 405),
    ("GET", "/no/such/path", 404),
    ("GET", "/", 200),
    ("GET", "/live", 200),
    ("GET", "/ready", 200),
    ("GET", "/metrics", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/inspect", 200),
    ("GET", "/inspect/departments_duplicates.csv", 200),
    ("GET", "/inspect/traffic.json", 200),
    ("GET", "/inspect/unknown", 404),
]


def test_no_answer_is_kept_or_taken_for_something_else(new_database: Callable[[], str]) -> None:
    with serving(DATABASE_URL=new_database()) as service:
        service.sql(
            "INSERT INTO merged (resource, id, kept, content, pointed) VALUES"
            " ('departments', 99, 1, '{}', '{}'), ('employees', 99, 1, '{}', '{}')"
        )
        host = f"localhost:{service.port}"
        answers = [(send(service, host, method, path), status) for method, path, status in ANSWERS]
        answers.append((send(service, "evil.example", "GET", "/departments"), 421))
        answers.append((send(service, host, "POST", "/departments", Origin="null"), 403))
        answers.append((send(service, host, "GET", "/", X="x" * 40_000), 431))
        for answer, status in answers:
            assert answer.status_code == status, answer.url
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"], answer.url
            assert answer.headers.get_list("cache-control") == ["no-store"], answer.url
