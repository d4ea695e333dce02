"""/inspect: the questions of db.questions and a picture of the traffic, as pages, JSON and CSV."""

import base64
import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.answers import SIZE_LIMIT, TOO_WIDE, Answer, CannotAnswer, JsonText, ValueRefused, answer_to
from db.headlines import headlines
from db.questions import Question, questions, read_question
from db.texts import inert
from db.transaction import Unavailable
from web.errors import on_unavailable
from web.problem import RETRY_AFTER, problem
from web.traffic import KINDS, WINDOW
from web.validation import Invalid, query_texts, wrong

# The most bytes of a page. The table fills what the rest of the page leaves. A page that is too
# large even without a table has only its title, and the links to JSON and CSV.
PAGE = 20_000

# Characters that a page shows of a cell, of a title or another line, and of an SQL file.
CELL = 500
TITLE = 200
SQL = 4_000

# The most characters of a parameter's value. Other writers may have made names of more than 255
# characters, but an entry of an index has at most 2,700 bytes.
VALUE = 700

# The height of the picture, in units of which a second is one wide.
HEIGHT = 100

TRAFFIC = "Created, existing and retried per second"

_folder = Path(__file__).parent
_templates = Environment(loader=FileSystemLoader(_folder), autoescape=True, trim_blocks=True)
_templates.filters["line"] = lambda text: _short(text, TITLE)
_css = (_folder / "inspection.css").read_text(encoding="utf-8")
_js = (_folder / "inspection.js").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


HEADERS = {
    # A page has only this style and this script, and the script asks only this service.
    "Content-Security-Policy": f"default-src 'none'; style-src {_hash(_css)}; "
    f"script-src {_hash(_js)}; connect-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


async def index(request: Request) -> Response:
    """List the questions, with the headlines that are cheap to know."""
    listed = questions()
    told = await headlines(request.state.inspection_pool, listed)
    return _html("Looking inside", index=listed, told=told, traffic=TRAFFIC)


async def traffic(request: Request) -> Response:
    """Draw or list the outcomes of POSTs in each second, in the form that the path asks for."""
    if query_texts(request):
        raise Invalid([wrong("", "takes no parameters")])
    started = perf_counter()
    rows = request.state.traffic.seconds()
    now = datetime.now(UTC)
    if request.url.path.endswith(".csv"):
        return _csv(["second", *KINDS], _csv_lines(rows))
    if request.url.path.endswith(".json"):
        listed = [dict(zip(("second", *KINDS), row, strict=True)) for row in rows]
        milliseconds = round((perf_counter() - started) * 1000, 1)
        return _json(name="traffic", title=TRAFFIC, at=now, milliseconds=milliseconds, rows=listed)
    return _html(TRAFFIC, path="/inspect/traffic", at=_moment(now), **_picture(rows))


async def inspect(suffix: str, request: Request) -> Response:
    """Answer one question in the form that the path asks for."""
    name = request.path_params["name"]
    question = read_question(name)
    if question is None:
        raise HTTPException(404, "There is no question of this name.")
    texts = query_texts(request)
    if not suffix:
        return await _page(request, question, texts)
    try:
        answer = await _answer(request, question, texts)
        encoded = _csv_lines(answer.rows) if suffix == ".csv" else _objects(answer)
        rows = list(_fitting(encoded, SIZE_LIMIT))
        if answer.rows and not rows:
            raise CannotAnswer(TOO_WIDE)
    except CannotAnswer as error:
        return problem(501, str(error))
    cut = answer.cut or len(rows) < len(answer.rows)
    if suffix == ".csv":
        return _csv(answer.columns, rows, {"Cut-After": str(len(rows))} if cut else {})
    return _json(
        name=name,
        title=question.title,
        sql=question.sql,
        parameters={each.name: texts.get(each.name) or None for each in question.parameters},
        at=answer.at,
        milliseconds=round(answer.milliseconds, 1),
        cut=cut,
        rows=[msgspec.Raw(row) for row in rows],
    )


async def _answer(request: Request, question: Question, texts: dict[str, str]) -> Answer:
    if errors := list(_errors(question, texts)):
        raise Invalid(errors)
    values = [texts.get(parameter.name) or None for parameter in question.parameters]
    try:
        return await answer_to(request.state.inspection_pool, question, values)
    except ValueRefused:
        types = ", ".join(f"{each.name} is {each.type}" for each in question.parameters)
        raise Invalid([wrong("", f"has a value that does not fit its type: {types}")]) from None


def _errors(question: Question, texts: dict[str, str]) -> Iterator[dict[str, str]]:
    names = [parameter.name for parameter in question.parameters]
    if not texts.keys() <= set(names):
        yield wrong("", f"takes only {', '.join(names)}" if names else "takes no parameters")
    for name in names:
        if len(texts.get(name, "")) > VALUE:
            yield wrong(name, f"must be at most {VALUE} characters")


async def _page(request: Request, question: Question, texts: dict[str, str]) -> Response:
    context: dict[str, Any] = {
        "path": f"/inspect/{question.name}",
        "about": question.about,
        "parameters": question.parameters,
        "texts": {name: text[:VALUE] for name, text in texts.items()},
        "file": question.file,
        "sql": _short(question.sql, SQL),
    }
    if question.lookup and not any(texts.values()):
        return _html(question.title, **context, wrong="Which key? The plan for NULL tells nothing.")
    try:
        answer = await _answer(request, question, texts)
    except Invalid as error:
        details = [
            f"{each['pointer'].lstrip('#/') or 'The question'} {each['detail']}"
            for each in error.errors
        ]
        return _html(question.title, 422, **context, wrong="; ".join(details))
    except CannotAnswer as error:
        return _html(question.title, 501, **context, wrong=_short(str(error), CELL))
    except Unavailable as error:
        await on_unavailable(request, error)  # for the log and the metrics
        response = _html(question.title, 503, **context, wrong=str(error))
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response
    context["columns"] = answer.columns
    context["at"] = _moment(answer.at)
    context["milliseconds"] = answer.milliseconds
    context["count"] = _count(len(answer.rows), 0, answer.cut)  # the longest it can be
    rows = list(_fitting(_html_rows(answer), PAGE - len(_html(question.title, **context).body)))
    context["rows"] = Markup(b"".join(rows).decode())
    context["count"] = _count(len(answer.rows), len(rows), answer.cut)
    return _html(question.title, **context)


def _fitting(encoded: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield rows as long as all of them together are smaller than `size` bytes."""
    for row in encoded:
        size -= len(row)
        if size <= 0:
            return
        yield row


def _objects(answer: Answer) -> Iterator[bytes]:
    for row in answer.rows:
        yield msgspec.json.encode(dict(zip(answer.columns, map(_value, row), strict=True)))


def _html_rows(answer: Answer) -> Iterator[bytes]:
    for row in answer.rows:
        yield f"<tr>{''.join(map(_cell, row))}</tr>\n".encode()


def _csv_lines(rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    for row in rows:
        line = io.StringIO()
        csv.writer(line).writerow(map(_inert, row))
        yield line.getvalue().encode()


def _cell(cell: str | None) -> str:
    if cell is None:
        return '<td class="null">NULL</td>'
    return f"<td{' class=n' if _is_number(cell) else ''}>{escape(_short(cell, CELL))}</td>"


def _inert(cell: object) -> object:
    return cell if not isinstance(cell, str) or _is_number(cell) else inert(cell)


def _is_number(cell: str) -> bool:
    return isinstance(cell, JsonText) and cell[0] in "-0123456789"


def _value(cell: str | None) -> str | msgspec.Raw | None:
    return msgspec.Raw(cell.encode()) if isinstance(cell, JsonText) else cell


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _count(number: int, shown: int, cut: bool) -> str:
    whole = f"more than {number:,}" if cut else f"{number:,}"
    rows = "row" if whole == "1" else "rows"
    if shown == number and not cut:
        return f"{whole} {rows}"
    return f"the first {shown:,} of {whole} {rows} (JSON and CSV have {number:,})"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _picture(seconds: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Return what the template draws: an area for each kind of answer, each on its own scale."""
    picture = []
    for position, kind in enumerate(KINDS, 1):
        counts = [second[position] for second in seconds]
        most = max(counts)
        path = "".join(
            f"V{HEIGHT - round(count / max(most, 1) * HEIGHT)}h{len(list(run))}"
            for count, run in groupby(counts)
        )
        picture.append(
            {
                "kind": kind,
                "last": counts[-1],
                "most": most,
                "sum": sum(counts),
                "path": f"M0 {HEIGHT}{path}V{HEIGHT}",
            }
        )
    grid = "".join(f"M{minute} 0v{HEIGHT}" for minute in range(60, WINDOW, 60))
    return {"picture": picture, "grid": grid, "width": WINDOW, "height": HEIGHT}


def _html(title: str, status: int = 200, **context: Any) -> Response:
    page = _templates.get_template("inspection.html")
    always = {"title": _short(title, TITLE), "css": Markup(_css), "js": Markup(_js)}
    html = page.render(always, **context)
    if len(html.encode()) > PAGE and "path" in context:
        bare = {key: context[key] for key in ("path", "parameters", "file") if key in context}
        html = page.render(always, **bare, wrong="This is too large for a page.")
    return Response(html, status, HEADERS, "text/html")


def _json(**content: Any) -> Response:
    return Response(msgspec.json.encode(content), 200, HEADERS, "application/json")


def _csv(
    columns: Sequence[str], lines: Iterable[bytes], headers: dict[str, str] | None = None
) -> Response:
    text = b"".join([*_csv_lines([columns]), *lines])
    return Response(text, 200, {**HEADERS, **(headers or {})}, "text/csv; header=present")


ROUTES = [
    Route("/inspect", index),
    *(Route(f"/inspect/traffic{suffix}", traffic) for suffix in ("", ".json", ".csv")),
    # The page comes last, because its path would match the others, too.
    *(
        Route(f"/inspect/{{name}}{suffix}", partial(inspect, suffix))
        for suffix in (".json", ".csv", "")
    ),
]
