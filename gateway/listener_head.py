"""What the head of a request must be before anybody looks at it, and how much of anything a caller may send.

Pure: bytes in, a refusal or None out. It judges what stock uvicorn with httptools lets through (no Host, two of them,
`Host: x/pro?a=`, `Transfer-Encoding: ,chunked` or in HTTP/1.0, HTTP/0.9 and 2.0, absolute-form targets). It must never
judge a path beyond its form: that is `policies.paths`, on the very bytes that are forwarded.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from policies.reasons import ANSWERS, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    Headers = list[tuple[bytes, bytes]]
    RenderRefusal = Callable[[Reason, str], bytes]


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """How much and how slowly a caller may send. Precedents: nginx (8 KiB target, 60 s body), Node (16 KiB head), Pomerium."""

    target_bytes: int = 8 * 1024
    head_bytes: int = 64 * 1024
    header_count: int = 100
    head_seconds: float = 10.0
    """From the first byte of a head to its last; also from the connection to its first byte."""
    body_silence_seconds: float = 60.0
    """How long the app waits for more of a body; and how long an answer waits for its reader."""
    drain_bytes: int = 1024 * 1024
    """How much of a body that nobody wants any more is read away to keep the connection, or to let the answer be read."""
    drain_seconds: float = 5.0
    first_word_seconds: float = 1.0
    """Where the server goes down: of who has just connected, and whose request may be on its way."""
    last_word_seconds: float = 0.1
    """The same of who has been answered before; he has to reckon with the end of a connection that is kept (RFC 9112, section 9.5)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the listener answers by itself."""

    reason: Reason
    detail: str


# RFC 9110, section 7.2, less what no client sends: no userinfo, no percent-encoding, never empty. CVE-2026-48710 was a
# Host that held a path. Nor an empty label, as nginx has it: who cuts off more dots than one would come to another host.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_PROTOCOLS: Final = (b"HTTP/", b"RTSP/", b"ICE/")
_FRAMING: Final = frozenset({b"host", b"transfer-encoding", b"content-length"})


def head_refusal(method: bytes, target: bytes, version: str, headers: Headers) -> Refusal | None:
    """What is wrong with this head, or None. Names are in lower case; values without whitespace around them."""
    if version not in {"1.1", "1.0"}:
        return Refusal(Reason.BAD_REQUEST, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    # Only origin-form: with an absolute-form target two parties can read two different hosts and paths (RFC 9112, 3.2).
    if target[:1] != b"/" or method == b"CONNECT":
        return Refusal(Reason.BAD_PATH, "The request target must be a path that begins with '/'.")
    if method == b"TRACE":  # it would echo what the gateway adds, secrets included, to the caller
        return Refusal(Reason.BAD_REQUEST, "TRACE is not served here.")
    host: bytes | None = None
    chunked = False
    length = False
    for name, value in headers:
        if name not in _FRAMING:
            continue
        if name == b"host":
            if host is not None:
                return Refusal(Reason.BAD_REQUEST, "There is more than one Host.")
            host = value
        elif name == b"content-length":
            length = True
        elif chunked or version == "1.0" or value.lower() != b"chunked":
            return Refusal(Reason.BAD_REQUEST, "The only Transfer-Encoding understood is 'chunked', once, in HTTP/1.1.")
        else:
            chunked = True
    if chunked and length:
        return Refusal(Reason.BAD_REQUEST, "Content-Length and Transfer-Encoding exclude each other.")
    if host is None:
        return None if version == "1.0" else Refusal(Reason.BAD_REQUEST, "There is no Host.")
    return None if _HOST.fullmatch(host) else Refusal(Reason.BAD_REQUEST, "The Host is not a valid one.")


def has_body(headers: Headers) -> bool:
    """Whether a head that was not refused announces a body."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0") != b"")
        for name, value in headers
    )


def has_plain_line(read: bytes, method: bytes, target: bytes, *, at_its_beginning: bool) -> bool:
    """Whether the request line in what was `read` is one of HTTP/1.1 or HTTP/1.0, single spaces and all.

    llhttp also takes RTSP/1.0 and ICE/1.0 for HTTP, several spaces for one, and none before a missing version. Nor does it
    say where a request begins. Behind another one, or a body, whatever looks like a line of this method and target must be
    plain: a field or body that repeats it plainly doesn't vouch for the line itself.
    """
    line = b"%b %b HTTP/1." % (method, target)
    if at_its_beginning:  # but for empty lines (RFC 9112, section 2.2)
        return read.startswith(line) or read.lstrip(b"\r\n").startswith(line)
    alike = plain = 0
    for each in read.split(b"\r\n")[:-1]:  # behind the last one stands half a line, or nothing
        words = each.split()
        for word, after, version in zip(words, words[1:], words[2:], strict=False):
            alike += after == target and word.endswith(method) and version.startswith(_PROTOCOLS)
        plain += each.count(line)
    return plain == alike > 0


def offers_websocket(method: bytes, version: str, headers: Headers) -> bool:
    """Whether a head with `Connection: upgrade` asks for a WebSocket, and no body comes with it."""
    offered = [value.lower() for name, value in headers if name == b"upgrade"]
    return offered == [b"websocket"] and method == b"GET" and version == "1.1" and not has_body(headers)


def without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The same head as if no upgrade had been offered, which a server is free to assume (RFC 9110, section 7.8).

    llhttp takes everything after a head with `Upgrade` for the other protocol, so that the body of each POST of the
    stock Java client is lost (Kludex/uvicorn#2722, MagicStack/httptools#124). Read again without it, it is found.
    """
    lines = [b"%b %b HTTP/%b\r\n" % (method, target, version.encode())]
    lines += [b"%b: %b\r\n" % (name, value) for name, value in headers if name != b"upgrade"]
    return b"".join([*lines, b"\r\n"])


def problem_renderer(make_request_id: Callable[[], str] = lambda: uuid.uuid4().hex) -> RenderRefusal:
    """A plain rendering of refusals in the shape of the gateway's own answers: a whole response that ends the connection."""

    def render(reason: Reason, detail: str) -> bytes:
        answer = ANSWERS[reason]
        request_id = make_request_id()
        body = json.dumps(
            {
                "title": answer.title,
                "status": answer.status,
                "reason": reason,
                "detail": detail,
                "request_id": request_id,
            }
        ).encode()
        retry_after = "" if answer.retry_after_seconds is None else f"Retry-After: {answer.retry_after_seconds}\r\n"
        head = (
            f"HTTP/1.1 {answer.status} {answer.title}\r\n"
            "Content-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"X-Gateway-Reason: {reason}\r\n"
            f"X-Request-Id: {request_id}\r\n"
            "Cache-Control: no-store\r\n"
            "Vary: Authorization, Accept\r\n"
            f"{retry_after}"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + body

    return render
