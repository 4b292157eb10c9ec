"""The opening of a WebSocket (RFC 6455, section 4): what must be asked, what must be answered, and then the tunnel.

It decides whether a request offers what can be handed on, and whether the upstream has agreed to exactly that. The key,
the subprotocols and the extensions are between the two ends: the gateway passes them on and repeats none of its own.
It must never open a tunnel for less than a valid 101 (Envoy, CVE-2024-23326), nor hand on a byte of what the caller
sends behind his request before there is one (Pingora, CVE-2026-2833).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any, Final

from gateway.upstream.answer import AnswerHead, AnswerReader
from gateway.upstream.outcome import Tunnelled
from gateway.upstream.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.upstream.outcome import Tunnel

    Headers = list[tuple[bytes, bytes]]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16
OFFER: Final = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"))


class OpeningReader(AnswerReader):
    """Reads the answer to an opening: a 101 that agrees to it, with the first bytes behind it, or any other answer as it is."""

    __slots__ = ("_accept",)

    def __init__(self, accept: bytes) -> None:
        super().__init__(to_head=False)
        self._accept = accept

    def renew(self) -> bool:
        """Never: what follows on the connection is no answer to an opening, and a 101 among it agrees to nothing."""
        return False

    def feed(self, data: bytes) -> None:
        """The upstream sent these bytes."""
        if self.complete and self.head is not None and self.head.status == 101:
            self._keep(data)
        else:
            super().feed(data)

    def on_headers_complete(self) -> None:
        """A head is whole."""
        if self._parser.get_status_code() != 101:
            super().on_headers_complete()
            return
        problem = _agreement_problem(self._headers, self._parser.get_http_version(), self._accept)
        if problem is not None:
            self._fail(problem)
        self._progressed = True
        self.head = AnswerHead(101, [header for header in self._headers if header[0].lower() != b"content-length"])

    def _switched(self, rest: bytes) -> None:
        if self.head is None:
            super()._switched(rest)
            return
        self.complete = True
        if rest:
            self._keep(rest)

    def _keep(self, data: bytes) -> None:
        self._body.append(data)
        self.body_bytes += len(data)


class Opening:
    """One offer. `on_open` is told, once it is open, how to end it: by a code and a reason. Then it `was_open`."""

    __slots__ = ("_tunnel", "accept", "on_open", "was_open")

    def __init__(self, tunnel: Tunnel, key: bytes) -> None:
        self._tunnel = tunnel
        self.accept = accept_of(key)
        self.on_open: Callable[[Callable[[int, str], None]], None] | None = None
        self.was_open = False

    async def converse(self, connection: Any, reader: Any, headers: Headers, idle_seconds: float) -> Tunnelled | None:
        """Open it and stay until it is over. None where one of the two has gone meanwhile."""
        extended = any(name.lower() == b"sec-websocket-extensions" for name, _ in headers)
        relay = Relay(asyncio.get_running_loop(), extended=extended, idle_seconds=idle_seconds)
        upstream = connection.hand_over(relay.upstream)
        if upstream is None:
            return None
        switched = self._tunnel.switch(headers, relay.caller, relay.stop)
        if switched is None:
            upstream.abort()
            return None
        relay.upstream.transport = upstream
        relay.caller.transport, early = switched
        try:
            self.was_open = True
            if self.on_open is not None:
                self.on_open(relay.close)
            relay.join(early, reader.take_body())
            await relay.over
        finally:
            relay.abort()
            self._tunnel.over()
        return Tunnelled(relay.caller.bytes_taken, relay.upstream.bytes_taken, relay.how_it_ended)


def opening_of(headers: Headers, tunnel: Tunnel) -> Opening | str:
    """The offer that these headers, as they go to the upstream, make; or what is wrong with it."""
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    if versions != [b"13"]:
        return "Sec-WebSocket-Version must be 13, once."
    try:
        valid = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES
    except binascii.Error:
        valid = False
    return Opening(tunnel, keys[0]) if valid else "Sec-WebSocket-Key must be 16 bytes in Base64, once."


def accept_of(key: bytes) -> bytes:
    """What answers this key (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _agreement_problem(headers: Headers, version: str, accept: bytes) -> str | None:
    named: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        named.setdefault(name.lower(), []).append(value)
    if version != "1.1" or b"transfer-encoding" in named or named.get(b"content-length", [b"0"]) != [b"0"]:
        return "the upstream's 101 is not one"
    if [value.lower() for value in named.get(b"upgrade", ())] != [b"websocket"]:
        return "the upstream switched to another protocol than WebSocket"
    tokens = {token.strip().lower() for value in named.get(b"connection", ()) for token in value.split(b",")}
    if b"upgrade" not in tokens:
        return "the upstream's 101 is not about this connection"
    if named.get(b"sec-websocket-accept") != [accept]:
        return "the upstream's 101 doesn't answer the key"
    return None
