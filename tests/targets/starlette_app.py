"""An app of Starlette's that tells what its routes are matched against, and what an app finds in `request.url.path`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def told(request: Request) -> Response:
    scope_path = request.scope["path"].encode("utf-8", "surrogateescape")
    return Response(scope_path + b"\n" + request.url.path.encode("utf-8", "surrogateescape"))


app = Starlette(routes=[Route("/{path:path}", told)])
