"""What web.openapi describes an operation with: its answers, their headers, content, examples."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from db.inspection import ROW_LIMIT
from web.problem import RETRY_AFTER, problem
from web.validation import wrong

Json = dict[str, Any]

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
HTML = {"text/html": {"schema": TEXT}}
CSV = {"text/csv": {"schema": TEXT}}

# Of each status: when, and the detail of an example.
PROBLEMS = {
    400: ("Not JSON, or not UTF-8", "The body is not JSON in UTF-8."),
    401: ("The token is missing or wrong", "A valid token is needed."),
    403: (
        "A page of another origin asks for a change",
        "A page of another origin may change nothing here.",
    ),
    404: ("There is none", "There is no row with this id."),
    405: ("Another method than those in Allow", "Method Not Allowed"),
    408: ("The body came too slowly", "The body did not arrive in time."),
    409: (
        "It cannot be deleted",
        "Rows of another table refer to this one, or a trigger protects it.",
    ),
    412: ("Duplicates, and handling=strict: nothing was changed", "2 rows have this key."),
    413: ("The body is larger than MAX_BODY", "The body is over 16384 bytes."),
    415: ("The body has another media type", "The body must be application/json."),
    421: (
        "The Host is no name of this machine, nor in ALLOWED_HOSTS",
        "The name in Host is not this service's: see ALLOWED_HOSTS.",
    ),
    422: ("What was sent does not fit", "The request does not fit: see errors."),
    431: ("The request line and the headers are too large", "Over 16384 bytes or 100 headers."),
    501: (
        "This server cannot answer the question",
        'This server cannot answer the question: relation "pg_stat_statements" does not exist.',
    ),
    503: (
        "The database cannot serve now; nothing is known to be lost: send it again",
        "No attempt succeeded before the deadline.",
    ),
}

# The headers that each status has on any path.
ALWAYS = {
    401: ["WWW-Authenticate"],
    405: ["Allow"],
    412: ["Location", "Duplicates"],
    503: ["Retry-After"],
}

# Those that it may have: by what is wrong.
SOMETIMES = {415: ["Accept", "Accept-Encoding"]}

# Of each header: what it tells, its schema, an example.
HEADERS: dict[str, tuple[str, Json, str | int]] = {
    "Accept": ("What the body must be", TEXT, "application/json"),
    "Accept-Encoding": ("How the body may be compressed: not at all", TEXT, "identity"),
    "Allow": ("What the path takes", TEXT, "GET, HEAD, POST"),
    "Cut-After": ("How many rows these are, of more", WHOLE, ROW_LIMIT),
    "Duplicates": ("How many rows have this key", {**WHOLE, "minimum": 2}, 2),
    "Location": (
        "The path of the row, or where to go",
        {**TEXT, "format": "uri-reference"},
        "/customers/7",
    ),
    "Retry-After": ("Seconds", {**WHOLE, "minimum": 0}, RETRY_AFTER),
    "Server-Timing": (
        "Milliseconds for the database, and the number of attempts",
        {**TEXT, "pattern": r'^db;dur=[0-9]+\.[0-9];desc="attempts=[0-9]+"$'},
        'db;dur=3.8;desc="attempts=1"',
    ),
    "WWW-Authenticate": ("How to give a token", TEXT, 'Bearer realm="onerow"'),
    "X-Request-Id": ("The one that was sent, or one made for this request", TEXT, "a1b2c3d4-7"),
}


def problem_schemas() -> dict[str, Json]:
    """Return the schemas that the problems refer to."""
    entry = object_of(pointer=TEXT, detail=TEXT)
    errors = {"type": "array", "minItems": 1, "items": entry}
    return {
        "Problem": {
            "description": "Problem details, RFC 9457",
            **object_of(type=TEXT, title=TEXT, status=WHOLE, detail=TEXT),
        },
        "Invalid": {"allOf": [ref("Problem"), object_of(errors=errors)]},
    }


def ref(schema: str) -> Json:
    """Refer to a schema of the document."""
    return {"$ref": f"#/components/schemas/{schema}"}


def object_of(**properties: Json) -> Json:
    """Return the schema of an object that has all of these, and may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def json(schema: Json, example: object = None) -> Json:
    """Return JSON content."""
    of = {"schema": schema} if example is None else {"schema": schema, "example": example}
    return {"application/json": of}


def response(
    status: int,
    description: str,
    content: Json | None = None,
    *,
    headers: Collection[str] = (),
    optional: Collection[str] = (),
    links: Mapping[str, Json] | None = None,
) -> dict[str, Json]:
    """Return one of an operation's responses, with the headers it always and sometimes has."""
    headers = {*headers, "X-Request-Id"}
    described: Json = {
        "description": description,
        "headers": {
            name: {"description": text, "required": name in headers, "schema": schema, "example": e}
            for name, (text, schema, e) in HEADERS.items()
            if name in (*headers, *optional)
        },
    }
    if content:
        described["content"] = content
    if links:
        described["links"] = links
    return {str(status): described}


def problems(*statuses: int, headers: Sequence[str] = ()) -> dict[str, Json]:
    """Return the responses of these statuses; `headers` are what this operation adds to each."""
    described: dict[str, Json] = {}
    for status in statuses:
        when, detail = PROBLEMS[status]
        example = msgspec.json.decode(problem(status, detail).body)
        schema = ref("Problem")
        if status == 422:
            example["errors"] = [wrong("id", "must be an integer")]
            schema = ref("Invalid")
        content = {"application/problem+json": {"schema": schema, "example": example}}
        described |= response(
            status,
            when,
            content,
            headers=[*ALWAYS.get(status, ()), *headers],
            optional=SOMETIMES.get(status, ()),
        )
    return described


def operation(
    tag: str, name: str, summary: str, *responses: Json, parameters: Sequence[Json] = ()
) -> Json:
    """Return one method of a path; `name` is unlike that of any other."""
    answers = {status: answer for each in responses for status, answer in each.items()}
    about = {"tags": [tag], "operationId": name, "summary": summary}
    return {**about, "parameters": list(parameters), "responses": answers}


def head(get: Json) -> Json:
    """Return the HEAD to a GET: what it answers, without content."""
    responses = {
        status: {part: of for part, of in answer.items() if part not in ("content", "links")}
        for status, answer in get["responses"].items()
    }
    return {**get, "operationId": f"{get['operationId']}Head", "responses": responses}
