"""A WebSocket under another ASGI server than the gateway's listener: refused, since there its bytes can't be handed on as they are.

It must never be accepted, nor reach an upstream. Nothing is decided about the caller, so that nothing is told about him.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.answers import Answers, Asked
from gateway.walk import new_request_id
from policies.reasons import Reason

if TYPE_CHECKING:
    from gateway.upstream.outcome import Receive, Scope, Send

_POLICY_VIOLATION: Final = 1008
_DETAIL: Final = "This server hands on no WebSockets: the gateway must listen by itself (gateway run)."


async def refuse_elsewhere(scope: Scope, receive: Receive, send: Send, answers: Answers) -> None:
    """Answer before the handshake: with a problem where the server can, else with its own 403."""
    await receive()
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": _DETAIL})
        return
    asked = Asked(method="GET", path=scope["path"], request_id=new_request_id(), accept=b"", origin=b"")
    refusal = answers.refuse(Reason.BAD_REQUEST, _DETAIL, asked)
    await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": refusal.headers})
    await send({"type": "websocket.http.response.body", "body": refusal.body})
