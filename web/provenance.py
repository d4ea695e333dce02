"""GET /NAME/{id}/merged: the rows that merge moved into a row, and into those in turn."""

from functools import partial
from time import monotonic
from typing import Annotated
from urllib.parse import urlencode

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.pipeline import Row
from db.rows import Retired, look_up, read
from db.transaction import Attempts, transact
from web.endpoint import Endpoint, route
from web.fields import DEFAULT_LIMIT, LIMIT
from web.operations import TEXT, Json, json, object_of, operation, problems, ref, response
from web.problem import no_row
from web.response import answer, moved, path_of
from web.validation import as_sent, as_text, from_path, from_query

STEP = "must be an integer from 0 to 9223372036854775807"


class Page(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of a request for a page."""

    after: Annotated[int, Meta(ge=0, le=2**63 - 1, description=STEP)] | UnsetType = UNSET
    limit: LIMIT = DEFAULT_LIMIT


def routes(endpoint: Endpoint, seconds: float) -> list[Route]:
    """Return the route, or none where the resource has no file for it.

    `seconds` bounds the queries of a request together.
    """
    if "merged" not in endpoint.resource.files:
        return []
    handler = partial(merged, seconds=seconds)
    return [route(f"/{endpoint.name}/{endpoint.id_in_path}/merged", endpoint, GET=handler)]


async def merged(
    endpoint: Endpoint, request: Request, _attempts: Attempts, *, seconds: float
) -> Response:
    """Return one page of the rows, in the order in which they were moved."""
    deadline = monotonic() + seconds
    pool, name = request.state.pool, endpoint.name
    id_ = as_sent(from_path(request, "id", endpoint.types.id))
    page = from_query(request, Page)
    if endpoint.resource.id.kind == "text":  # such an id may itself end in /merged
        row = await look_up(pool, name, f"{id_}/merged", deadline - monotonic())
        if isinstance(row, dict):
            return answer(row)
    there = await look_up(pool, name, id_, deadline - monotonic())
    if isinstance(there, Retired):
        return moved(f"{path_of(name, there.kept)}/merged")
    query = partial(read, query=f"{name}/merged", values=[id_, *as_text(page)], prepared=False)
    rows = await transact(pool, query, seconds=deadline - monotonic())
    if there is None and not rows:
        return no_row()
    following = None
    if rows[page.limit :]:
        step, _, _ = list(rows[page.limit - 1].values())[-3:]
        following = f"{path_of(name, id_)}/merged?{urlencode({'limit': page.limit, 'after': step})}"
    return answer({"items": [_told(row) for row in rows[: page.limit]], "next": following})


def _told(row: Row) -> Row:
    """Return an item of the answer. A row of merged.sql ends with the step, `kept` and the time."""
    *columns, _step, kept, merged_at = row.items()
    return {"row": dict(columns), "kept": kept[1], "merged_at": merged_at[1]}


def described(
    name: str, id_: list[Json], example: Json, schemas: dict[str, Json], moved: Json
) -> Json:
    """Return the operation for /openapi.json; `moved` is its redirect."""
    id_schema = schemas[f"{name}.row"]["properties"]["id"]
    at = {**TEXT, "format": "date-time"}
    item = object_of(row=ref(f"{name}.row"), kept={"type": id_schema["type"]}, merged_at=at)
    page = object_of(
        items={"type": "array", "items": item},
        next={"type": ["string", "null"], "format": "uri-reference"},
    )
    told = {"row": example, "kept": example["id"], "merged_at": "2026-11-25T18:00:27Z"}
    return operation(
        name,
        f"merged_{name}",
        "List the rows that a merge moved into a row, and into those in turn, the first one first",
        response(200, "A page", json(page, {"items": [told], "next": None})),
        moved,
        problems(400, 404, 422, 503),
        parameters=[
            *id_,
            *(
                {"name": field, "in": "query", "schema": schema}
                for field, schema in schemas["Page"]["properties"].items()
            ),
        ],
    )
