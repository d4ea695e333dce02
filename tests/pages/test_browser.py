"""The pages of /inspect in a real browser, on the real service with two workers."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    Request,
    WebError,
    expect,
)

from tests.support import legacy
from tests.support.browser import CHROMIUM, chromium
from tests.support.service import LIMIT, ROOT, Service, serving, sql, until

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]

# In a page that did not escape it, this ends an attribute and then is an element.
SCRIPT = """"'><script>alert(1)</script>"""

PICTURE = "/inspect/traffic"
PLAN = "/inspect/employees_plan"
PLAN_ASKED = f"{PLAN}?department_id=1&name=employee+0"

NARROW: dict[str, Any] = {"viewport": {"width": 360, "height": 740}}  # a phone's

# WCAG 2.2: of text (1.4.3), and of what is not text, such as the mark of the focus (1.4.11).
CONTRAST = 4.5
CONTRAST_OF_MARKS = 3

# The name of another site, which leads to this machine: to the browser the service is that site's.
REBOUND = "evil.example"

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

# What the console says of a page that is itself an error, as regular expressions.
NO_STATEMENTS = r"with a status of 501 .* at \S+/inspect/statements$"
WRONG_VALUE = r"with a status of 422 .* at \S+/inspect/employees_plan\?\S+$"

expect.set_options(timeout=LIMIT * 1000)


class Visitor:
    """Opens pages, each in a context of its own, and keeps what went wrong in any of them."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._pages: list[Page] = []
        self._complaints: list[str] = []
        self.expected: list[str] = []  # regular expressions: each complaint of one, and none idle

    def open(self, url: str, **options: Any) -> Page:
        context = self._browser.new_context(base_url=url, **options)
        context.set_default_timeout(LIMIT * 1000)
        host = urlsplit(url).netloc

        def on_request(request: Request) -> None:
            parts = urlsplit(request.url)
            if parts.scheme != "data" and parts.netloc != host:
                self._complaints.append(f"request to {request.url}")

        context.on("request", on_request)
        context.on("requestfailed", self._on_failure)
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)
        context.on("dialog", self._on_dialog)
        page = context.new_page()
        self._pages.append(page)
        page.goto(url)
        return page

    def _on_failure(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # left behind by the page itself
            self._complaints.append(f"{request.failure}: {request.url}")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            where = message.location["url"]
            self._complaints.append(f"{message.type}: {message.text} at {where}")

    def _on_error(self, error: WebError) -> None:
        self._complaints.append(str(error.error))

    def _on_dialog(self, dialog: Dialog) -> None:
        self._complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def check(self) -> None:
        """Close the pages and fail if they complained of anything not expected, or did not."""
        for page in self._pages:
            page.locator("html").wait_for()  # an answer after all that it has said
        complaints = self._complaints.copy()  # closing makes more of them
        for page in self._pages:
            page.context.close()
        for complaint in complaints:
            assert any(re.search(each, complaint) for each in self.expected), complaint
        for each in self.expected:
            assert any(re.search(each, complaint) for complaint in complaints), each


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1") as browser:
        yield browser


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Service]:
    """A service whose database has duplicates, one of them a script, and merged rows."""
    database = new_database()
    legacy.fill(database, employees=200, departments=20)
    legacy.run(database, "merge", "--apply", "--limit", "2")
    department = "INSERT INTO departments (name) SELECT %s FROM generate_series(1, 3)"
    sql(database, department, SCRIPT)
    employee = "INSERT INTO employees (department_id, name) SELECT 1, %s FROM generate_series(1, 4)"
    sql(database, employee, SCRIPT)
    with serving(DATABASE_URL=database, WORKERS="2") as service:
        yield service


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    visitor = Visitor(browser)
    yield visitor
    visitor.check()


# Questions and forms


def test_the_index_lists_every_question_and_each_opens(visitor: Visitor, service: Service) -> None:
    visitor.expected = [NO_STATEMENTS]
    page = visitor.open(f"{service.url}/inspect")
    links = page.get_by_role("listitem").get_by_role("link").all()
    titles = {each.get_attribute("href"): each.inner_text() for each in links}
    opened = {}
    for path, title in titles.items():
        response = page.goto(str(path))
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        opened[page.locator(".sql code").inner_text()] = response and response.status
        expect(page.get_by_role("table").or_(page.get_by_role("alert"))).to_be_visible()
    files = [
        *ROOT.glob("sql/inspect/*.sql"),
        *ROOT.glob("sql/*/select.sql"),
        *ROOT.glob("sql/*/differences.sql"),
        *ROOT.glob("sql/*/duplicates.sql"),
    ]
    refused = {"sql/inspect/statements.sql": 501}  # pg_stat_statements is not there
    assert opened == {str(path.relative_to(ROOT)): 200 for path in files} | refused
    page.get_by_role("link", name="All questions").click()
    page.get_by_role("link", name="Created, existing and retried").click()
    expect(page.locator("figure")).to_have_count(3)


def test_a_form_asks_and_keeps_what_was_typed(visitor: Visitor, service: Service) -> None:
    page = visitor.open(service.url + PLAN)
    page.get_by_label("department_id").fill("1")
    page.get_by_label("name").fill("employee 0")
    page.get_by_role("button", name="Ask").click()
    answer = page.get_by_role("table")
    expect(answer).to_contain_text("Index Cond: (hash_record_extended(ROW(department_id, name)")
    expect(answer).to_contain_text("'employee 0'")
    expect(page.get_by_label("department_id")).to_have_value("1")
    expect(page.get_by_label("name")).to_have_value("employee 0")

    page.goto(f"{service.url}/inspect/merged")
    expect(page.get_by_role("table")).to_contain_text("employees")
    page.get_by_label("resource").fill("departments")
    page.get_by_label("resource").press("Enter")
    expect(page.get_by_role("table")).not_to_contain_text("employees")
    assert page.locator("tbody tr").count() == 2
    expect(page.get_by_label("resource")).to_have_value("departments")


def test_json_and_csv_have_the_same_question(visitor: Visitor, service: Service) -> None:
    typed = "a&b=c #d+e%20"
    page = visitor.open(service.url + PLAN)
    page.get_by_label("department_id").fill("1")
    page.get_by_label("name").fill(typed)
    page.get_by_label("name").press("Enter")
    expect(page.get_by_role("table")).to_contain_text(typed)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert typed in download.value.path().read_text()
    with page.expect_navigation() as navigation:
        page.get_by_role("button", name="JSON").click()
    assert navigation.value.json()["parameters"] == {"department_id": "1", "name": typed}


def test_a_wrong_value_is_told_in_the_page(visitor: Visitor, service: Service) -> None:
    visitor.expected = [WRONG_VALUE]
    page = visitor.open(service.url + PLAN)
    page.get_by_label("department_id").fill("x")
    with page.expect_navigation() as navigation:
        page.get_by_role("button", name="Ask").click()
    assert navigation.value.status == 422
    expect(page.get_by_role("alert")).to_contain_text("The question has a value")
    expect(page.get_by_label("department_id")).to_have_value("x")
    expect(page.get_by_role("table")).to_have_count(0)


# The picture


def paths(page: Page) -> dict[str, str]:
    """The areas of the picture, by what they count."""
    pairs = page.locator("figure").evaluate_all(
        "all => all.map(each => [each.className, each.querySelector('.area').getAttribute('d')])"
    )
    return dict(pairs)


def test_the_picture_moves_under_load(visitor: Visitor, service: Service) -> None:
    page = visitor.open(service.url + PICTURE)
    page.evaluate("document.body.dataset.loaded = 'once'")
    before = paths(page)
    department = service.post("/departments", name="Research").json()["id"]
    for name in ("Ada", "Grace", "Ada", "Ada"):
        service.post("/employees", name=name, department_id=department)
    # Not wait_for_function, which the policy of these pages refuses: it calls eval().
    expect(page.locator(".created")).to_contain_text("in all 3")
    expect(page.locator(".existing")).to_contain_text("in all 2")
    after = paths(page)
    assert {kind for kind in after if after[kind] != before[kind]} == {"created", "existing"}
    expect(page.locator("body[data-loaded=once]")).to_be_visible()


def test_the_picture_moves_without_a_script_and_gets_old_without_an_answer(
    visitor: Visitor, service: Service
) -> None:
    # In one test, as both take their time.
    plain = visitor.open(service.url + PICTURE, java_script_enabled=False)
    waiting = visitor.open(service.url + PICTURE)
    waiting.route("**", lambda _: None)  # neither answered nor refused
    at = plain.locator(".ends span").last
    loaded = at.inner_text()
    expect(waiting.locator("#picture")).to_have_class("stale")
    waiting.unroute("**")
    expect(waiting.locator("#picture")).not_to_have_class("stale")
    expect(at).not_to_have_text(loaded)  # again, by itself


def test_the_picture_gets_old_when_the_service_stops(
    visitor: Visitor, new_database: Callable[[], str]
) -> None:
    visitor.expected = ["net::ERR_"]
    with serving(DATABASE_URL=new_database()) as service:
        page = visitor.open(service.url + PICTURE)
        service.stop()
        expect(page.locator("#picture")).to_have_class("stale")
        expect(page.locator("figure")).to_have_count(3)


# Without a script, by keyboard, in both schemes, on a phone


def test_all_is_there_without_javascript(visitor: Visitor, service: Service) -> None:
    page = visitor.open(f"{service.url}/inspect", java_script_enabled=False)
    page.get_by_role("link", name="Plan of sql/employees/select.sql").click()
    page.get_by_label("department_id").fill("1")
    page.get_by_label("name").fill("employee 0")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("table")).to_contain_text("'employee 0'")
    page.get_by_role("link", name="All questions").click()
    page.get_by_role("link", name="Created, existing and retried").click()
    for kind in ("created", "existing", "retried"):
        numbers = re.compile(rf"\d+ {kind} per second \(most \d+,\s+in all \d+\)")
        expect(page.locator(f".{kind}")).to_contain_text(numbers)
        expect(page.get_by_role("img", name=kind)).to_be_visible()


# How the element that has the focus is marked.
MARK = """() => {
    const mark = getComputedStyle(document.activeElement);
    return [mark.outlineStyle, mark.outlineWidth, mark.outlineColor];
}"""


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the target has the focus, which must be seen wherever it goes."""
    target.wait_for()
    for _ in range(20):
        page.keyboard.press("Tab")
        style, width, *_ = page.evaluate(MARK)
        assert (style, width) == ("solid", "3px")
        if target.evaluate("element => element === document.activeElement"):
            return
    pytest.fail(f"no way to {target}")


def test_the_keyboard_is_enough(visitor: Visitor, service: Service) -> None:
    page = visitor.open(f"{service.url}/inspect", **NARROW)
    tab_to(page, page.get_by_role("link", name="Plan of sql/employees/select.sql"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_label("department_id"))
    page.keyboard.type("1")
    tab_to(page, page.get_by_label("name"))
    page.keyboard.type("employee 0")
    page.keyboard.press("Enter")
    expect(page.get_by_role("table")).to_contain_text("'employee 0'")
    for name in ("Answer", "SQL"):
        region = page.get_by_role("region", name=name)
        expect(region).to_have_attribute("tabindex", "0")  # not all browsers do without
        tab_to(page, region)
        page.keyboard.press("ArrowRight")
        until(partial(region.evaluate, "element => element.scrollLeft > 0"))


def luminance(color: str) -> float:
    """The relative luminance of a computed colour, as WCAG has it."""
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", color)
    assert found, color
    shares = [int(part) / 255 for part in found.groups()]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The ratio of contrast of two colours, as WCAG has it."""
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


# Of each element with text of its own: which it is, its colour, and the one behind it.
TEXTS = """() => [...document.querySelectorAll("body *")]
    .filter(element => element.checkVisibility() && (element.matches("input") ||
        [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())))
    .map(element => {
        const opaque = each => getComputedStyle(each).backgroundColor !== "rgba(0, 0, 0, 0)";
        let behind = element;
        while (!opaque(behind)) behind = behind.parentElement;
        return [
            [element.localName, ...element.classList].join("."),
            getComputedStyle(element).color,
            getComputedStyle(behind).backgroundColor,
        ];
    })"""


# Pages that have, together with the index, a text of each kind.
COLOURFUL = ("employees_plan?department_id=x", "guard_and_constraint", "traffic")


def test_every_text_stands_out(visitor: Visitor, service: Service) -> None:
    visitor.expected = [WRONG_VALUE]
    seen = set()
    page = visitor.open(f"{service.url}/inspect")
    for url in (page.url, *(f"{page.url}/{each}" for each in COLOURFUL)):
        page.goto(url)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            for element, color, back in page.evaluate(TEXTS):
                assert contrast(color, back) >= CONTRAST, f"{scheme} {element} of {page.url}"
                seen.add(element)
    texts = "h1 a p p.soft p.wrong label input button th td td.null pre code b span.soft"
    assert seen >= set(texts.split())


def test_each_scheme_has_its_colours(visitor: Visitor, service: Service) -> None:
    page = visitor.open(f"{service.url}/inspect")
    page.keyboard.press("Tab")
    lighter = {}
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        text, back = page.locator("body").evaluate(
            "body => [getComputedStyle(body).color, getComputedStyle(body).backgroundColor]"
        )
        lighter[scheme] = "text" if luminance(text) > luminance(back) else "background"
        *_, mark = page.evaluate(MARK)
        assert contrast(mark, back) >= CONTRAST_OF_MARKS
    assert lighter == {"light": "background", "dark": "text"}


def test_nothing_is_wider_than_a_phone(visitor: Visitor, service: Service) -> None:
    visitor.expected = [NO_STATEMENTS, WRONG_VALUE]
    page = visitor.open(f"{service.url}/inspect", is_mobile=True, **NARROW)
    links = page.get_by_role("link").evaluate_all("all => all.map(each => each.href)")
    for url in (page.url, *links, service.url + PLAN_ASKED, f"{service.url}{PLAN}?department_id=x"):
        page.goto(url)
        # Not innerWidth, which grows with what is too wide for a phone.
        assert page.evaluate("document.documentElement.scrollWidth") == NARROW["viewport"]["width"]


def edges(found: Locator) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of an element, in pixels of the page."""
    left, top, right, bottom = found.evaluate(
        "e => { const box = e.getBoundingClientRect();"
        " return [box.left, box.top, box.right, box.bottom]; }"
    )
    return left, top, right, bottom


@pytest.mark.parametrize("width", [1200, 800])
def test_the_sql_takes_no_room_from_a_table(visitor: Visitor, service: Service, width: int) -> None:
    page = visitor.open(f"{service.url}/inspect", viewport={"width": width, "height": 800})
    for path in ("guard_and_constraint", "connections", "departments_duplicates", "sizes"):
        page.goto(f"{service.url}/inspect/{path}")
        region = page.get_by_role("region", name="Answer")
        left, _, right, bottom = edges(page.locator(".answer"))
        sql_left, sql_top, *_ = edges(page.locator(".sql"))
        assert sql_top >= bottom or sql_left >= right
        if region.evaluate("box => box.scrollWidth > box.clientWidth"):
            # It has the width of the page, and the rest of it can be scrolled to.
            main_left, _, main_right, _ = edges(page.locator("main"))
            assert (left, right) == (main_left, main_right)
            region.evaluate("box => box.scrollLeft = box.scrollWidth")
        assert edges(page.locator("thead th").last)[2] <= edges(region)[2]
        assert page.evaluate("document.documentElement.scrollWidth") == width


# Hostile values


def test_a_name_that_is_a_script_is_shown_as_text(visitor: Visitor, service: Service) -> None:
    for resource in ("departments", "employees"):
        page = visitor.open(f"{service.url}/inspect/{resource}_duplicates")
        keys = page.locator("td:nth-child(3)").all_inner_texts()
        assert json.loads(keys[0])["name"] == SCRIPT
        assert page.locator("script").count() == 0


@pytest.mark.parametrize("field", ["department_id", "name"])
def test_a_script_typed_into_a_form_comes_back_as_text(
    visitor: Visitor, service: Service, field: str
) -> None:
    visitor.expected = [WRONG_VALUE] if field == "department_id" else []
    page = visitor.open(f"{service.url}{PLAN}?department_id=1")
    page.get_by_label(field).fill(SCRIPT)
    with page.expect_navigation():
        page.get_by_label(field).press("Enter")
    expect(page.get_by_label(field)).to_have_value(SCRIPT)
    if field == "name":
        expect(page.get_by_role("table")).to_contain_text("<script>alert(1)</script>")
    assert page.locator("script").count() == 0


def test_the_policy_holds(visitor: Visitor, service: Service) -> None:
    visitor.expected = ["inline script violates", "connect-src", "Refused to connect"]
    page = visitor.open(f"{service.url}/inspect")
    ran = page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'It ran'";
            document.body.append(script);
            return document.title;
        }"""
    )
    assert ran == "Looking inside - onerow"
    # The same service, by another name: it would answer.
    elsewhere = f"http://localhost:{service.port}/live"
    answered = page.evaluate(
        "url => fetch(url, {mode: 'no-cors'}).then(() => true, () => false)", elsewhere
    )
    assert not answered


# Pages of other sites


class Site(BaseHTTPRequestHandler):
    """Another site on this machine, with an empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


# What a page may try: the status of each answer, 0 if the page may not see it, or null if the
# browser did not send the request or kept all of the answer from the page.
ATTACK = """async url => {
    const tried = (path, options) => fetch(url + path, options).then(a => a.status, () => null);
    const body = JSON.stringify({name: "made by a page"});
    const json = {"Content-Type": "application/json"};
    return [
        await tried("/departments", {method: "POST", mode: "no-cors", body}),
        await tried("/departments", {method: "POST", body}),
        await tried("/departments", {method: "POST", headers: json, body}),
        await tried("/departments/1", {method: "DELETE"}),
        await tried("/departments/1"),
    ];
}"""


def assert_nothing_was_changed(service: Service) -> None:
    assert service.sql("SELECT FROM departments WHERE name = 'made by a page'") == []
    assert service.http.get("/departments/1").status_code == 200


def test_a_page_of_another_origin_reads_and_writes_nothing(
    browser: Browser, service: Service
) -> None:
    with HTTPServer(("127.0.0.1", 0), Site) as site:
        Thread(target=site.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{site.server_port}/")
        assert page.evaluate(ATTACK, service.url) == [0, None, None, None, None]
        page.context.close()
        site.shutdown()
    assert_nothing_was_changed(service)
    refused = 'method="POST",route="",status="403"'
    assert refused in service.http.get("/metrics").text


def test_a_page_whose_name_was_rebound_reads_and_writes_nothing(
    browser: Browser, service: Service
) -> None:
    page = browser.new_page()
    url = f"http://{REBOUND}:{service.port}"
    page.goto(f"{url}/inspect/departments_duplicates")
    assert page.evaluate(ATTACK, url) == [421] * 5
    page.context.close()
    assert_nothing_was_changed(service)
