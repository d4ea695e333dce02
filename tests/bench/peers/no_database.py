"""The same JSON in and out, through the same framework, and no database."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

CREATED_AT = datetime.now(UTC)


class Key(msgspec.Struct):
    department_id: Annotated[int, msgspec.Meta(ge=1)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


decode = msgspec.json.Decoder(Key).decode
encode = msgspec.json.Encoder().encode


async def create(request: Request) -> Response:
    try:
        key = decode(await request.body())
    except msgspec.DecodeError as error:
        return Response(str(error), 422)
    row = {
        "id": 1,
        "department_id": key.department_id,
        "name": key.name,
        "created_at": CREATED_AT,
    }
    return Response(encode(row), media_type="application/json")


app = Starlette(routes=[Route("/employees", create, methods=["POST"])])
