"""The parts of an operation in /openapi.json: its answers, with their headers and content."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from web.problem import problem
from web.validation import wrong

Json = dict[str, Any]

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
HTML = {"text/html": {"schema": TEXT}}
CSV = {"text/csv": {"schema": TEXT}}
LINES = {"application/x-ndjson": {"schema": TEXT}}  # OpenAPI 3.1 cannot describe a line

# When each status is answered.
PROBLEMS = {
    400: "The request is not JSON, or not UTF-8",
    401: "The token is missing or wrong",
    403: "A page of another origin asks for a change",
    404: "There is no row with this id, or no such question",
    408: "The body came too slowly",
    409: "Rows of another table refer to this one, or a trigger protects it",
    412: "Several rows have this key, and handling=strict: nothing was changed",
    413: "The body is larger than MAX_BODY, or an array than MAX_ARRAY_BODY",
    415: "The body is not JSON, or it is compressed",
    421: "The Host is no name of this machine, and not in ALLOWED_HOSTS",
    422: "The request does not fit: see errors",
    431: "The request line and the headers are too large",
    501: "This server cannot answer the question",
    503: "The database cannot serve now; nothing is known to be lost: send it again",
}

# The headers that a status always has, whatever the path.
ALWAYS = {401: ["WWW-Authenticate"], 412: ["Location", "Duplicates"], 503: ["Retry-After"]}

# The headers that a status may have, which depend on what is wrong.
SOMETIMES = {415: ["Accept", "Accept-Encoding"]}

# The meaning and the schema of each header.
HEADERS: dict[str, tuple[str, Json]] = {
    "Accept": ("The media type that the body must have", TEXT),
    "Accept-Encoding": ("identity, because the body must not be compressed", TEXT),
    "Cut-After": ("How many rows are here, if there are more", WHOLE),
    "Duplicates": ("How many rows have this key", {**WHOLE, "minimum": 2}),
    "Location": ("The path of the row, or where to go", {**TEXT, "format": "uri-reference"}),
    "Retry-After": ("Seconds", {**WHOLE, "minimum": 0}),
    "Server-Timing": (
        "Milliseconds for the database, and the number of attempts",
        {**TEXT, "pattern": r'^db;dur=[0-9]+\.[0-9];desc="attempts=[0-9]+"$'},
    ),
    "WWW-Authenticate": ("How to give a token", TEXT),
    "X-Request-Id": ("The caller's id, or one made for this request", TEXT),
}


def problem_schemas() -> dict[str, Json]:
    """Return the schemas to which the problems refer."""
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
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{schema}"}


def object_of(**properties: Json) -> Json:
    """Return the schema of an object that has all of these properties, and may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def json(schema: Json, example: object = None) -> Json:
    """Return content of the type application/json."""
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
    """Return one response of an operation: `headers` are always there, `optional` ones may be."""
    headers = {*headers, "X-Request-Id"}
    described: Json = {
        "description": description,
        "headers": {
            name: {"description": text, "required": name in headers, "schema": schema}
            for name, (text, schema) in HEADERS.items()
            if name in (*headers, *optional)
        },
    }
    if content:
        described["content"] = content
    if links:
        described["links"] = links
    return {str(status): described}


def problems(*statuses: int, headers: Sequence[str] = ()) -> dict[str, Json]:
    """Return the responses of these statuses; `headers` are those that the operation adds."""
    described: dict[str, Json] = {}
    for status in statuses:
        when = PROBLEMS[status]
        example = msgspec.json.decode(problem(status, f"{when}.").body)
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
    """Return one method of a path; `name` is unique in the document."""
    answers = {status: answer for each in responses for status, answer in each.items()}
    about = {"tags": [tag], "operationId": name, "summary": summary}
    return {**about, "parameters": list(parameters), "responses": answers}


def head(get: Json) -> Json:
    """Return the HEAD of a GET: the same answers, without content."""
    responses = {
        status: {part: of for part, of in answer.items() if part not in ("content", "links")}
        for status, answer in get["responses"].items()
    }
    return {**get, "operationId": f"{get['operationId']}Head", "responses": responses}
