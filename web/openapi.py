"""GET /openapi.json: the contract in OpenAPI 3.1, made from the types that decode the requests.

The operations of resources come from their types, and all other paths are in `_other_paths()`.
"""

from collections.abc import Iterable, Sequence
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.header import Field
from db.questions import NAME
from db.resources import Resource
from web import provenance, root
from web.endpoint import Endpoint
from web.fields import example_of, schema_of, type_of
from web.operations import (
    CSV,
    HTML,
    LINES,
    TEXT,
    WHOLE,
    Json,
    head,
    json,
    object_of,
    operation,
    problem_schemas,
    problems,
    ref,
    response,
)
from web.pages import VALUE
from web.token import OPEN, is_page
from web.traffic import KINDS
from web.validation import MOST_ITEMS, as_sent

DESCRIPTION = """\
Get or create a row: one row for each key, under any concurrency.

The service answers 404 to a path that is not here, 405 with `Allow` or 501 to another method, 400
to what is not HTTP/1.1, 417 to an `Expect` other than 100-continue, 431 to headers that are too
large, and 503 to a connection too many. Each of these is a problem. In a row a date or a time that
is not of the years 1 to 9999, such as infinity, is null."""

PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "RFC 7240: with handling=strict duplicates are answered by 412.",
    "schema": TEXT,
    "examples": {"strict": {"value": "handling=strict"}, "lenient": {"value": "handling=lenient"}},
}


def route(endpoints: Sequence[Endpoint], *, token: bool, guessable: bool) -> Route:
    """Return the route of the document. The document is made once, here."""
    body = msgspec.json.encode(document(endpoints, token=token, guessable=guessable))

    async def openapi(_request: Request) -> Response:
        return Response(body, media_type="application/json")

    return Route("/openapi.json", openapi)


def document(endpoints: Sequence[Endpoint], *, token: bool, guessable: bool) -> Json:
    """Return the document. `token`: API_TOKEN is set; `guessable`: it is unset or short."""
    schemas = _schemas(endpoints)
    paths: dict[str, Json] = {}
    for each in endpoints:
        paths |= _resource_paths(each, endpoints, schemas)
    paths |= _other_paths([f"/{each.name}" for each in endpoints])
    for path, item in paths.items():
        for method, each in item.items():
            each["responses"] |= problems(431)
            if guessable:
                # 421 is listed although a service that listens beyond loopback may take any Host,
                # because the document does not know where the service listens.
                each["responses"] |= problems(421) if method == "get" else problems(403, 421)
            if token and path not in OPEN:
                each["responses"] |= problems(401)
                each["security"] = [{"token": []}]
                if is_page(path):
                    each["security"].append({"password": []})
        if "get" in item:
            item["head"] = head(item["get"])
    components: Json = {"schemas": schemas}
    if token:
        components["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "password": {
                "type": "http",
                "scheme": "basic",
                "description": "For browsers: the token is the password, whatever the user name.",
            },
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "onerow", "version": "1", "description": DESCRIPTION},
        "paths": paths,
        "components": components,
    }


def _schemas(endpoints: Iterable[Endpoint]) -> dict[str, Json]:
    types = [type_ for each in endpoints for type_ in (each.types.body, each.types.filter)]
    types.append(provenance.Page)
    template = ref("{name}")["$ref"]
    _, schemas = msgspec.json.schema_components(types, schema_hook=schema_of, ref_template=template)
    for schema in schemas.values():
        for field in schema["properties"].values():
            for part in (field, *field.get("anyOf", ())):
                if "pattern" in part:
                    # Few languages take surrogates in a regular expression. The description names
                    # them.
                    part["pattern"] = part["pattern"].replace(r"\ud800-\udfff", "")
    for each in endpoints:
        schemas[f"{each.resource.name}.row"] = _row(each.resource)
    return {**schemas, **problem_schemas()}


def _row(resource: Resource) -> Json:
    """Return the schema of a row, with types and formats alone.

    Rows of other writers need not keep to the bounds that a request must keep to.
    """
    fields = {}
    for column in resource.columns:
        # A column of a type without a kind comes back as text.
        schema = msgspec.json.schema(type_of(column) if column.kind else str, schema_hook=schema_of)
        types = [schema["type"]] if column.name == "id" else [schema["type"], "null"]
        fields[column.name] = {"type": types, "examples": [example_of(column)]}
        if "format" in schema:
            fields[column.name]["format"] = schema["format"]
    return object_of(**fields)


def _example(fields: Iterable[Field]) -> Json:
    return {field.name: example_of(field) for field in fields}


def _resource_paths(
    endpoint: Endpoint, endpoints: Iterable[Endpoint], schemas: dict[str, Json]
) -> dict[str, Json]:
    resource = endpoint.resource
    name = resource.name
    example = _example(resource.columns)
    row = json(ref(f"{name}.row"), example)

    link_to = {f"get_{name}": "id", f"delete_{name}": "id"}
    for other in endpoints:
        for field, parent in other.parents.items():
            if parent == name and field in (each.name for each in other.resource.filters):
                link_to[f"list_{other.resource.name}"] = field
    links = {
        operation_id: {"operationId": operation_id, "parameters": {to: "$response.body#/id"}}
        for operation_id, to in link_to.items()
    }
    timed = ["Location", "Server-Timing"]
    body, found = ref(f"{name}.body"), ref(f"{name}.row")
    if endpoint.takes_many:
        body = {"oneOf": [body, {"type": "array", "items": body, "maxItems": MOST_ITEMS}]}
        outcome = object_of(status={"enum": [200, 201, 412]}, row=found, duplicates=WHOLE)
        found = {"oneOf": [found, {"type": "array", "items": outcome}]}
    create = operation(
        name,
        f"create_{name}",
        "Get or create the row of a key, or of each in an array; may be sent again at any time",
        response(201, "Created", row, headers=timed, links=links),
        response(
            200,
            "Existing, or all items of an array",
            json(found, example),
            optional=["Location", "Duplicates", "Server-Timing"],
        ),
        problems(408, 413),  # without Server-Timing, because no transaction was begun
        problems(400, 412, 415, 422, 503, headers=["Server-Timing"]),
        parameters=[PREFER],
    )
    content = json(body, _example(resource.fields))
    if endpoint.takes_many:
        content |= LINES
        create["responses"]["200"]["content"] |= LINES
    create["requestBody"] = {"required": True, "content": content}

    moved = response(308, "A merge put another row in its place", headers=["Location"])
    filters: list[Json] = [
        {"name": field, "in": "query", "schema": schema}
        for field, schema in schemas[f"{name}.filter"]["properties"].items()
    ]
    needs = {field.name: field.needs for field in resource.filters if field.needs}
    for each in filters:
        if each["name"] in needs:
            each["description"] = f"Needs {', '.join(needs[each['name']])}"
    page = object_of(
        items={"type": "array", "items": ref(f"{name}.row")},
        next={"type": ["string", "null"], "format": "uri-reference"},
    )
    following = f"/{name}?{urlencode({'limit': 1, 'after': as_sent(example['id'])})}"
    list_ = operation(
        name,
        f"list_{name}",
        "List rows by id",
        response(200, "A page", json(page, {"items": [example], "next": following})),
        moved if endpoint.parents else {},
        problems(400, 422, 503),
        parameters=filters,
    )

    id_schema = msgspec.json.schema(endpoint.types.id, schema_hook=schema_of)
    id_ = [{"name": "id", "in": "path", "required": True, "schema": id_schema}]
    get = operation(
        name,
        f"get_{name}",
        "Get a row",
        response(200, "The row", row),
        moved,
        problems(404, 422, 503),
        parameters=id_,
    )
    delete = operation(
        name,
        f"delete_{name}",
        "Delete a row, and the rows that refer to it by ON DELETE CASCADE",
        response(204, "The row is deleted", headers=["Server-Timing"]),
        problems(404, 409, 422, 503, headers=["Server-Timing"]),
        parameters=id_,
    )
    paths = {
        f"/{name}": {"get": list_, "post": create},
        f"/{name}/{{id}}": {"get": get, "delete": delete},
    }
    if "merged" in resource.files:
        paths[f"/{name}/{{id}}/merged"] = {
            "get": provenance.described(name, id_, example, schemas, moved)
        }
    return paths


def _other_paths(resources: list[str]) -> dict[str, Json]:
    example = {"resources": resources, **root.PATHS}
    links = response(200, "The paths", json({"type": "object"}, example))
    pages = response(303, "To the pages, where HTML is accepted", headers=["Location"])
    live = response(200, "Yes", json(object_of(status=TEXT), {"status": "live"}))
    is_ready: Json = object_of(status=TEXT)
    is_ready["properties"]["warnings"] = {"type": "array", "items": TEXT}
    ready = response(
        200, "Yes, and what is wrong all the same", json(is_ready, {"status": "ready"})
    )
    this = response(200, "OpenAPI 3.1", json({"type": "object"}))
    counts = response(200, "Prometheus' text format", {"text/plain": {"schema": TEXT}})
    page = response(200, "A page", HTML)
    gets = {
        "/": operation("about", "root", "What is there", links, pages),
        "/live": operation("health", "live", "Does the process answer?", live),
        "/ready": operation("health", "ready", "Would a POST be served?", ready, problems(503)),
        "/metrics": operation("about", "metrics", "Counts, all workers together", counts),
        "/openapi.json": operation("about", "openapi", "This document", this),
        "/inspect": operation("inspect", "inspect", "List the questions", page),
    }
    counted = object_of(second=WHOLE, **dict.fromkeys(KINDS, WHOLE))
    asked: Json = {
        "sql": TEXT,
        "parameters": {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        "cut": {"type": "boolean"},
    }
    for suffix, content in {
        "": (HTML, HTML),
        ".json": (_answer(counted), _answer({"type": "object"}, **asked)),
        ".csv": (CSV, CSV),
    }.items():
        gets[f"/inspect/traffic{suffix}"] = operation(
            "inspect",
            f"traffic{suffix.replace('.', '').capitalize()}",
            "POSTs created, existing and retried, second by second",
            response(200, "The last five minutes", content[0]),
            problems(400, 422),
        )
        gets[f"/inspect/{{name}}{suffix}"] = _question(suffix, content[1])
    return {path: {"get": get} for path, get in gets.items()}


def _answer(row: Json, **more: Json) -> Json:
    """Return the content of an answer in JSON; `more` are properties that it may lack.

    /inspect/traffic.json lacks them, and fits the path of a question, too.
    """
    at = {**TEXT, "format": "date-time"}
    known = {"name": TEXT, "title": TEXT, "at": at, "milliseconds": {"type": "number"}}
    schema = object_of(**known, rows={"type": "array", "items": row})
    schema["properties"] |= more
    return json(schema)


def _question(suffix: str, content: Json) -> Json:
    name = {**TEXT, "pattern": f"^{NAME.pattern}$", "examples": ["waiting"]}
    values = {
        "name": "values",
        "in": "query",
        "description": "Values for the parameters in the question's lines `-- $1 name type`",
        "schema": {"type": "object", "additionalProperties": {**TEXT, "maxLength": VALUE}},
        "example": {},
    }
    cut = ["Cut-After"] if suffix == ".csv" else []
    answers = {
        **response(200, "The answer", content, optional=cut),
        **problems(400, 404, 422, 501, 503),
    }
    if not suffix:
        # The page itself shows which values are wrong, and why there is no answer.
        answers["422"]["content"] |= HTML
        answers["501"]["content"] = answers["503"]["content"] = HTML
    return operation(
        "inspect",
        f"question{suffix.replace('.', '').capitalize()}",
        "Ask a question about the database",
        answers,
        parameters=[{"name": "name", "in": "path", "required": True, "schema": name}, values],
    )
