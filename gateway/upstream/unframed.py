"""A request whose headers don't say whether a body follows, as HTTP/2 callers of another ASGI server may send it.

With HTTP/1.x the framing stands in the headers, and without it there is no body. HTTP/2 and HTTP/3 end a body by their
frames, so that only the first message tells. It must never let a body be dropped on the way, nor run into the next request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.upstream.outcome import Message, Receive, Scope

    Headers = list[tuple[bytes, bytes]]

_FRAMED_ELSEWHERE: Final = frozenset({"2", "3"})
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


def is_unframed(scope: Scope, headers: Headers) -> bool:
    """Whether a body may follow all the same."""
    return scope.get("http_version") in _FRAMED_ELSEWHERE and not any(name in _FRAMING for name, _ in headers)


async def framed(headers: Headers, receive: Receive) -> tuple[Headers, Receive]:
    """Headers that say how the body goes on, and a `receive` from which nothing is missing."""
    first = await receive()
    if first["type"] == "http.request" and (first.get("body") or first.get("more_body")):
        headers = [*headers, (b"transfer-encoding", b"chunked")]
    kept: list[Message] = [first]

    async def receiving() -> Message:
        return kept.pop() if kept else await receive()

    return headers, receiving
