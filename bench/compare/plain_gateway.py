"""The usual way to write such a gateway: FastAPI, PyJWT, and one httpx.AsyncClient, copied from many a tutorial.

It does the same job with the same parts at hand: a verified token, a customer who is known in memory, identity headers,
a counter and a histogram, and a line of log per request (uvicorn's).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Annotated

import httpx
import jwt
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from prometheus_client import Counter, Histogram
from starlette.background import BackgroundTask

UPSTREAM = os.environ["UPSTREAM"]
PUBLIC_KEY = os.environ["PUBLIC_KEY"]
KNOWN = {"customer-0": ("pro", "active")}
HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"}

requests_total = Counter("requests_total", "Requests.", ("route", "method", "status"))
duration = Histogram("request_duration_seconds", "Durations.", ("route",))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=512)
    async with httpx.AsyncClient(base_url=UPSTREAM, timeout=60, limits=limits) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


def customer_of(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise HTTPException(401)
    try:
        claims = jwt.decode(
            token, PUBLIC_KEY, algorithms=["RS256"], audience="my-api", issuer="https://login.example.com/"
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401) from error
    subject: str = claims["sub"]
    return subject


async def proxy(request: Request, customer: Annotated[str, Depends(customer_of)]) -> StreamingResponse:
    started = perf_counter()
    if customer not in KNOWN:
        raise HTTPException(402)
    tier, status = KNOWN[customer]
    headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
    headers |= {"x-gateway-customer": customer, "x-gateway-tier": tier, "x-gateway-status": status}
    client: httpx.AsyncClient = request.app.state.client
    url = httpx.URL(path=request.url.path, query=request.url.query.encode())
    content = request.stream() if request.method == "POST" else None
    upstream = await client.send(
        client.build_request(request.method, url, headers=headers, content=content), stream=True
    )
    route = request.scope["route"].path
    requests_total.labels(route, request.method, upstream.status_code).inc()
    duration.labels(route).observe(perf_counter() - started)
    return StreamingResponse(
        upstream.aiter_raw(),
        status_code=upstream.status_code,
        headers={name: value for name, value in upstream.headers.items() if name not in HOP_BY_HOP},
        background=BackgroundTask(upstream.aclose),
    )


for number in range(100):
    app.add_api_route(f"/v1/r{number:03}/{{path:path}}", proxy, methods=["GET", "POST"])
