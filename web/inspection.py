"""/inspect: the questions of sql/inspect and a picture of the traffic, as pages, JSON and CSV."""

import base64
import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.inspection import ROW_LIMIT, Answer, Parameter, Question, ValueRefused, ask, questions
from db.transaction import Unavailable
from web.problem import RETRY_AFTER
from web.traffic import KINDS, WINDOW
from web.validation import Invalid, query_texts, wrong

# Bytes of a page, the table filling what the rest leaves: 20 KB, and some digits of the count.
PAGE = 19_990

# Characters shown of one cell, and of one SQL file: the whole is in JSON and CSV, and in the file.
CELL = 500
SQL = 4_000

# Characters of a value in a form. Legacy names may be longer than 255, but not by much: an index
# takes 2,700 bytes.
VALUE = 700

# Of the picture, in its own units, one a second in width.
HEIGHT = 100

TRAFFIC = Question("traffic", "Created, existing and retried per second", "", [], Path())

_folder = Path(__file__).parent
_templates = Environment(loader=FileSystemLoader(_folder), autoescape=True, trim_blocks=True)
_css = (_folder / "inspection.css").read_text()
_js = (_folder / "inspection.js").read_text()
_json = msgspec.json.Encoder(enc_hook=str, decimal_format="number")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


HEADERS = {
    # Nothing but this style and this script, which talks to nobody else.
    "Content-Security-Policy": f"default-src 'none'; style-src {_hash(_css)}; "
    f"script-src {_hash(_js)}; connect-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


async def index(_request: Request) -> Response:
    """List the questions."""
    return _html(title="Looking inside", index=questions().values(), traffic=TRAFFIC.title)


async def inspect(request: Request) -> Response:
    """Answer one question in the form that the path's suffix names."""
    question, suffix = _find(request.path_params["name"])
    texts = query_texts(request)
    if suffix:
        answer = await _answer(request, question, texts)
        return _as_json(question, texts, answer) if suffix == "json" else _as_csv(answer)
    try:
        answer = await _answer(request, question, texts)
    except Invalid as error:
        details = [f"{each['pointer'].lstrip('#/')} {each['detail']}" for each in error.errors]
        return _page(question, texts, None, wrong="; ".join(details).strip(), status=422)
    except Unavailable as error:
        response = _page(question, texts, None, wrong=str(error), status=503)
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response
    return _page(question, texts, answer)


def _find(name: str) -> tuple[Question, str]:
    """Return the question of a path, and its suffix. Raises HTTPException 404."""
    known = {**questions(), TRAFFIC.name: TRAFFIC}
    stem, _, suffix = name.rpartition(".")
    if suffix in ("json", "csv") and stem in known:
        return known[stem], suffix
    if name not in known:
        raise HTTPException(404, "There is no question of this name.")
    return known[name], ""


async def _answer(request: Request, question: Question, texts: dict[str, str]) -> Answer:
    if errors := list(_errors(question.parameters, texts)):
        raise Invalid(errors)
    if question is TRAFFIC:
        started = perf_counter()
        rows = request.state.traffic.seconds()
        milliseconds = (perf_counter() - started) * 1000
        return Answer(["second", *KINDS], rows, False, datetime.now(UTC), milliseconds)
    values = [texts.get(parameter.name) or None for parameter in question.parameters]
    try:
        return await ask(request.state.inspection_pool, question, values)
    except ValueRefused:
        types = ", ".join(f"{name} is {type_}" for name, type_ in question.parameters)
        raise Invalid([wrong("", f"has a value that does not fit its type: {types}")]) from None


def _errors(parameters: Sequence[Parameter], texts: dict[str, str]) -> Iterator[dict[str, str]]:
    names = [parameter.name for parameter in parameters]
    if not texts.keys() <= set(names):
        yield wrong("", f"takes only {', '.join(names)}" if names else "takes no parameters")
    for name in names:
        if len(texts.get(name, "")) > VALUE:
            yield wrong(name, f"must be at most {VALUE} characters")


def _as_json(question: Question, texts: dict[str, str], answer: Answer) -> Response:
    content = {
        "name": question.name,
        "title": question.title,
        "sql": question.sql,
        "parameters": {name: texts.get(name) or None for name, _ in question.parameters},
        "at": answer.at,
        "milliseconds": round(answer.milliseconds, 1),
        "cut": answer.cut,
        "rows": [dict(zip(answer.columns, row, strict=True)) for row in answer.rows],
    }
    return Response(_json.encode(content), 200, HEADERS, "application/json")


def _as_csv(answer: Answer) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(answer.columns)
    writer.writerows([_text(cell) for cell in row] for row in answer.rows)
    cut = {"Cut-After": str(ROW_LIMIT)} if answer.cut else {}
    return Response(text.getvalue(), 200, {**HEADERS, **cut}, "text/csv; header=present")


def _text(cell: Any) -> str:
    """Return a cell as text: NULL as nothing, what is not text itself as JSON."""
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else _json.encode(cell).decode()


def _page(
    question: Question,
    texts: dict[str, str],
    answer: Answer | None,
    *,
    wrong: str = "",
    status: int = 200,
) -> Response:
    query = urlencode({name: text for name, text in texts.items() if text})
    path = f"/inspect/{quote(question.name)}"
    context: dict[str, Any] = {
        "title": question.title,
        "parameters": question.parameters,
        "texts": {name: text[:VALUE] for name, text in texts.items()},
        "wrong": wrong,
        "file": question.file,
        "sql": _short(question.sql, SQL),
    }
    if answer is not None:
        context["at"] = f"{answer.at:%Y-%m-%d %H:%M:%S} UTC"
        context["milliseconds"] = answer.milliseconds
        context["links"] = {
            suffix.upper(): f"{path}.{suffix}{query and '?'}{query}" for suffix in ("json", "csv")
        }
    if answer is not None and question is TRAFFIC:
        context |= _picture(answer.rows)
    elif answer is not None:
        context["columns"] = answer.columns
        context["count"] = _count(0, answer)
        rows = _table_rows(answer, PAGE - len(_html(**context).body))
        context["rows"] = Markup("".join(rows))
        context["count"] = _count(len(rows), answer)
    return _html(status, **context)


def _table_rows(answer: Answer, size: int) -> list[str]:
    """Return as many rows, in HTML, as fit in `size` bytes."""
    rows = []
    for row in answer.rows:
        html = f"<tr>{''.join(map(_cell, row))}</tr>\n"
        size -= len(html.encode())
        if size < 0:
            break
        rows.append(html)
    return rows


def _cell(cell: Any) -> str:
    if cell is None:
        return '<td class="null">NULL</td>'
    numeric = isinstance(cell, int | float | Decimal) and not isinstance(cell, bool)
    return f"<td{' class=n' if numeric else ''}>{escape(_short(_text(cell), CELL))}</td>"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _count(shown: int, answer: Answer) -> str:
    number = len(answer.rows)
    whole = f"more than {ROW_LIMIT:,}" if answer.cut else f"{number:,}"
    rows = "row" if whole == "1" else "rows"
    if shown == number and not answer.cut:
        return f"{whole} {rows}"
    return f"the first {shown:,} of {whole} {rows} (JSON and CSV have {number:,})"


def _picture(seconds: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Return what the template draws: an area for each kind, each on its own scale."""
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


def _html(status: int = 200, **context: Any) -> Response:
    page = _templates.get_template("inspection.html")
    html = page.render(css=Markup(_css), js=Markup(_js), **context)
    return Response(html, status, HEADERS, "text/html")


ROUTES = [Route("/inspect", index), Route("/inspect/{name}", inspect)]
