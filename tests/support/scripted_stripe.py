"""A Stripe that answers with the objects a test puts there: for endpoints that the simulator has no life behind.

It speaks as much of Stripe's protocol as reading needs: single objects by path, lists newest first in pages, filtered by
the fields that are asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from tests.support.simulator import free_socket, serving

NOT_ALLOWED = (
    "The provided key 'rk_test_***abcd' does not have the required permissions for this endpoint on account 'acct_1'. "
    "Having the 'rak_invoice_read' permission would allow this request to continue."
)
_PAGING = frozenset({"limit", "starting_after", "status"})


@dataclass(slots=True)
class ScriptedStripe:
    """`objects` by path, `lists` by path; `missing` paths are answered 403, as a restricted key's are."""

    base: str = ""
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        self.calls[path] += 1
        status, answer = self._answer(path, dict(parse_qsl(scope["query_string"].decode())))
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def _answer(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if path in self.forbidden:
            return 403, {"error": {"type": "invalid_request_error", "message": NOT_ALLOWED}}
        if path in self.objects:
            return 200, self.objects[path]
        if path not in self.lists:
            return 404, {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such"}}
        wanted = {key: value for key, value in query.items() if key not in _PAGING}
        found = [one for one in self.lists[path] if all(one.get(key) == value for key, value in wanted.items())]
        if query.get("status", "all") != "all":
            found = [one for one in found if one["status"] == query["status"]]
        ids = [one["id"] for one in found]
        start = ids.index(query["starting_after"]) + 1 if "starting_after" in query else 0
        shown = found[start : start + int(query.get("limit", 10))]
        has_more = start + len(shown) < len(found)
        return 200, {"object": "list", "url": path, "data": shown, "has_more": has_more}


@asynccontextmanager
async def scripted_stripe() -> AsyncIterator[ScriptedStripe]:
    """One that answers, from this event loop."""
    scripted = ScriptedStripe()
    async with serving(scripted, free_socket(), lifespan="off") as base:
        scripted.base = base
        yield scripted
