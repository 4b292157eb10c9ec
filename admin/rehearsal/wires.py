"""The wire between the product and the simulated Stripe, without sockets: it can dress answers in the older shape, be cut,
and hold an answer back until the world has moved on.

It must never change what an answer means: the older shape says the same as the newer, in the places of before 2025-03-31.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import httpx

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_ENDED: Final = ("canceled", "incomplete_expired")
_NOT_ALLOWED: Final = {"error": {"type": "invalid_request_error", "message": "The key lacks a permission."}}
ODD: Final = "odd"
"""Under this key of its metadata a subscription's status stands that Stripe thought of only yesterday."""
_NOTED: Final = f'"{ODD}"'.encode()

Shape = Literal["period on the item", "period on the subscription", "both"]


@dataclass(slots=True)
class Wire(httpx.AsyncBaseTransport):
    """`cut` calls get no answer in time. `hold` answers are made and then kept back until `let_go`."""

    app: ASGIApp
    shape: Shape = "period on the item"
    cut: int = 0
    is_key_restricted: bool = False
    """The key may not list invoices."""
    hold: int = 0
    renamed_statuses: dict[str, str] = field(default_factory=dict)
    _held: list[asyncio.Event] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One call of the product's to Stripe."""
        if self.cut:
            self.cut -= 1
            raise httpx.ReadTimeout("cut", request=request)
        if self.is_key_restricted and request.method == "GET" and request.url.path == "/v1/invoices":
            return httpx.Response(403, json=_NOT_ALLOWED, request=request)
        answer = await httpx.ASGITransport(self.app).handle_async_request(request)
        content = await answer.aread()
        if self.shape != "period on the item" or _NOTED in content:
            content = json.dumps(dressed(json.loads(content), self.shape)).encode()
        for status, instead in self.renamed_statuses.items():
            content = content.replace(f'"status": "{status}"'.encode(), f'"status": "{instead}"'.encode())
        if self.hold and request.url.path == "/v1/subscriptions" and request.method == "GET":
            self.hold -= 1
            gate = asyncio.Event()
            self._held.append(gate)
            await gate.wait()
        headers = [(name, value) for name, value in answer.headers.raw if name.lower() != b"content-length"]
        return httpx.Response(answer.status_code, headers=headers, content=content, request=request)

    @property
    def held(self) -> int:
        """How many answers are kept back."""
        return len(self._held)

    def let_go(self) -> None:
        """Answers that were kept back arrive now, as old as they are."""
        self.hold = 0
        for gate in self._held:
            gate.set()
        self._held.clear()


def dressed(node: Any, shape: Shape) -> Any:
    """`node` and all subscriptions in it, in another shape that Stripe has had, or in a status that it never had."""
    if isinstance(node, list):
        return [dressed(one, shape) for one in node]
    if not isinstance(node, dict):
        return node
    node = {key: dressed(value, shape) if isinstance(value, dict | list) else value for key, value in node.items()}
    if node.get("object") == "subscription" and isinstance(node.get("items"), dict):
        odd = node["metadata"].get(ODD)
        if odd and node["status"] not in _ENDED:
            node["status"] = odd
        if shape != "period on the item":
            _redress(node, shape)
    return node


def _redress(subscription: dict[str, Any], shape: Shape) -> None:
    items = subscription["items"]["data"]
    ends = {(item["current_period_start"], item["current_period_end"]) for item in items}
    if len(ends) != 1:
        return  # items with periods of their own never existed in the older shape
    (subscription["current_period_start"], subscription["current_period_end"]) = ends.pop()
    if subscription.get("cancel_at_period_end") and subscription["cancel_at"] == subscription["current_period_end"]:
        subscription["cancel_at"] = None  # as before 2025-09-30: the flag alone
    if shape == "both":
        return
    for item in items:
        del item["current_period_start"], item["current_period_end"]
        del item["price"]
        subscription["plan"] = item["plan"] if len(items) == 1 else None
