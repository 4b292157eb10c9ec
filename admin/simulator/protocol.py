"""The manners of Stripe's API: keys, versions, request ids, idempotency, `expand`, and errors.

It decides who is let in and what a repeated request gets. It must never run an endpoint twice for one idempotency key,
and never answer 500 but where that was asked for as a fault.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from admin.simulator.objects import API_VERSION, ITEMS_SHOWN, listing
from admin.simulator.objects_billing import line_item_json
from admin.simulator.older import in_version, version_asked
from admin.simulator.wire import ApiError, Params, parse_form, parse_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from admin.simulator.billing import Billing
    from admin.simulator.checkout import Checkout
    from admin.simulator.faults import Faults
    from admin.simulator.journal import Journal
    from admin.simulator.schedule import Schedule
    from admin.simulator.store import Store
    from admin.simulator.wire import Json, Tree

LARGEST_BODY: Final = 1 << 20
KEY_KEPT_SECONDS: Final = 24 * 3600
MOST_STALE: Final = 1000
EXPAND_DEPTH: Final = 4
_PORTAL_PRODUCTS: Final = ["features", "subscription_update", "products"]


@dataclass(frozen=True, slots=True)
class World:
    """Everything that an endpoint may need."""

    account: str
    store: Store
    journal: Journal
    billing: Billing
    checkout: Checkout
    schedule: Schedule
    faults: Faults
    advance: Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read: the world, its parameters, and the ids in its path."""

    world: World
    params: Params
    path: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and a path of Stripe's, and what it does. It runs without a pause, so nobody sees it half done."""

    method: str
    path: str
    act: Callable[[Call], Json]


@dataclass(frozen=True, slots=True)
class _Remembered:
    fingerprint: bytes
    at: float
    status: int
    body: bytes


class Protocol:
    """Wraps endpoints into what is spoken over HTTP."""

    def __init__(self, world: World, *, api_key: str, now: Callable[[], float]) -> None:
        self._world = world
        self._api_key = api_key
        self._now = now
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._last_answers: OrderedDict[str, bytes] = OrderedDict()

    def handler(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint as Starlette calls it."""

        async def handle(request: Request) -> Response:
            return await self._answer(endpoint, request)

        return handle

    async def unknown(self, request: Request) -> Response:
        """What Stripe says of a URL that it does not know; here also of those that the simulator lacks."""
        error = ApiError(
            404,
            f"Unrecognized request URL ({request.method}: {request.url.path[:200]}). "
            "The simulator knows a part of Stripe's API only: see /docs for its controls and the documentation for its endpoints.",
        )
        return self._send(404, _encode(error.body()), request, self._world.store.new_id("req"))

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        request_id = self._world.store.new_id("req")
        headers: dict[str, str] = {}
        try:
            self._authenticate(request)
            version = version_asked(request.headers.get("stripe-version"))
            params = Params(await read_params(request))
            status, body = await self._perform(endpoint, request, params, request_id, version, headers)
        except ApiError as error:
            status, body = error.status, _encode(error.body())
        return self._send(status, body, request, request_id, headers)

    async def _perform(
        self,
        endpoint: Endpoint,
        request: Request,
        params: Params,
        request_id: str,
        version: str,
        headers: dict[str, str],
    ) -> tuple[int, bytes]:
        world = self._world
        world.schedule.catch_up()
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        fingerprint = _fingerprint(request, params)
        if key is not None:
            replayed = self._replay(key, fingerprint)
            if replayed is not None:
                headers["Idempotent-Replayed"] = "true"
                return replayed.status, replayed.body
        fault = world.faults.take_api(params, dict(request.path_params), world.store)
        if fault is not None and fault.kind == "hang":
            await world.faults.hang(fault.seconds)
            # While this request hung, another may have used its key.
            replayed = self._replay(key, fingerprint) if key is not None else None
            if replayed is not None:
                headers["Idempotent-Replayed"] = "true"
                return replayed.status, replayed.body
        target = f"{request.method} {request.url.path}?{request.url.query} {version}"
        if fault is not None and fault.kind == "stale" and target in self._last_answers:
            return 200, self._last_answers[target]
        try:
            if fault is not None:
                fault.refuse()
            world.journal.request, world.journal.idempotency_key = request_id, key
            answer = endpoint.act(Call(world, params, request.path_params))
            # What the change made due at this very second happens before anybody can look.
            world.schedule.catch_up()
            shown = self._expanded(self._refreshed(answer), params.texts("expand"))
            status, body = 200, _encode(in_version(shown, version, world.store))
            if request.method == "GET":
                self._last_answers[target] = body
                self._last_answers.move_to_end(target)
                if len(self._last_answers) > MOST_STALE:
                    self._last_answers.popitem(last=False)
            if fault is not None and fault.kind == "lost_answer":
                raise ApiError(500, "The request was carried out; its answer was lost, as asked for.", kind="api_error")
        except ApiError as error:
            status, body = error.status, _encode(error.body())
        finally:
            world.journal.request = world.journal.idempotency_key = None
        # As Stripe: what failed before anything was done can be sent again with the same key, a 500 can not.
        if key is not None and (status < 300 or status == 402 or status >= 500):
            self._remembered[key] = _Remembered(fingerprint, self._now(), status, body)
        return status, body

    def _authenticate(self, request: Request) -> None:
        scheme, _, credential = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                credential = base64.b64decode(credential, validate=True).decode().partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                credential = ""
        elif scheme.lower() != "bearer":
            credential = ""
        if not credential:
            raise ApiError(
                401, "You did not provide an API key. Provide it in the Authorization header, as a Bearer token."
            )
        if credential.strip() != self._api_key:
            raise ApiError(401, f"Invalid API Key provided: {credential[:8]}***", code="api_key_invalid")

    def _replay(self, key: str, fingerprint: bytes) -> _Remembered | None:
        if len(key) > 255:
            raise ApiError(400, "An idempotency key is at most 255 characters long.", kind="idempotency_error")
        while self._remembered:
            oldest = next(iter(self._remembered))
            if self._remembered[oldest].at >= self._now() - KEY_KEPT_SECONDS:
                break
            del self._remembered[oldest]
        before = self._remembered.get(key)
        if before is not None and before.fingerprint != fingerprint:
            raise ApiError(
                400,
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request.",
                kind="idempotency_error",
            )
        return before

    def _refreshed(self, answer: Json) -> Json:
        """The object as it is after everything that was due at once."""
        entity = self._world.store.find(answer["id"]) if isinstance(answer.get("id"), str) else None
        return self._world.journal.render(entity) if entity is not None else answer

    def _expanded(self, answer: Json, paths: list[str]) -> Json:
        if not paths:
            return answer
        answer = json.loads(json.dumps(answer))
        for path in paths[:100]:
            self._expand(answer, path.split(".")[: EXPAND_DEPTH + 1])
        return answer

    def _expand(self, node: object, steps: list[str]) -> None:
        if isinstance(node, list):
            for one in node:
                self._expand(one, steps)
        if not isinstance(node, dict) or not steps:
            return
        step = steps[0]
        if node.get("object") == "checkout.session" and step == "line_items":
            node[step] = self._line_items(str(node["id"]))
        elif node.get("object") == "billing_portal.configuration" and steps == _PORTAL_PRODUCTS:
            configuration = self._world.store.portal_configurations[str(node["id"])]
            node["features"]["subscription_update"]["products"] = configuration.products
            return
        value = node.get(step)
        if isinstance(value, str) and step != "id":
            entity = self._world.store.find(value)
            if entity is not None:
                node[step] = self._world.journal.render(entity)
        self._expand(node.get(step), steps[1:])

    def _line_items(self, identifier: str) -> Json:
        store = self._world.store
        lines = [line_item_json(line, store) for line in store.sessions[identifier].line_items]
        url = f"/v1/checkout/sessions/{identifier}/line_items"
        return listing(lines[:ITEMS_SHOWN], url, has_more=len(lines) > ITEMS_SHOWN)

    def _send(
        self, status: int, body: bytes, request: Request, request_id: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        sent = {
            "Request-Id": request_id,
            "Stripe-Version": request.headers.get("stripe-version", API_VERSION),
            "Cache-Control": "no-cache, no-store",
            **(headers or {}),
        }
        if "idempotency-key" in request.headers:
            sent["Idempotency-Key"] = request.headers["idempotency-key"]
        return Response(body, status, sent, media_type="application/json")


async def read_params(request: Request) -> Tree:
    """Query and body together; a body is JSON if it says so, else a form. Raises ApiError on what can't be read."""
    tree = parse_form(request.url.query)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_BODY:
                raise ApiError(413, f"The body is larger than {LARGEST_BODY} bytes.")
    except ClientDisconnect as error:
        raise ApiError(400, "The body was cut off.") from error
    if not body:
        return tree
    if "json" in request.headers.get("content-type", ""):
        return {**tree, **parse_json(bytes(body))}
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ApiError(400, "The body is not valid UTF-8.") from error
    return {**tree, **parse_form(text)}


def _fingerprint(request: Request, params: Params) -> bytes:
    text = json.dumps([request.method, request.url.path, params.tree], sort_keys=True)
    return hashlib.sha256(text.encode()).digest()


def _encode(body: Json) -> bytes:
    return json.dumps(body, indent=2).encode()
