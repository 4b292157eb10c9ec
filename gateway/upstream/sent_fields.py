"""The header fields that go upstream, kept for requests which have the same ones, or the same but for a few values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.upstream.headers import stands_for_itself
from gateway.upstream.request_head import IDEMPOTENT, RequestHead

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Headers = Sequence[tuple[bytes, bytes]]


class SentFields:
    """What a request that came with `inbound` was sent on with, for those that differ in line, `X-Request-Id` and a few values.

    `outbound` must have made a `request_head`, which looks for what would split it. `of` is what else it follows from, compared by identity.
    """

    __slots__ = ("_id_at", "_inbound", "_lines", "_names_host", "_outbound", "_places", "of")

    def __init__(self, inbound: Headers, outbound: Headers, of: tuple[object, ...]) -> None:
        self.of = of
        self._inbound = inbound
        self._outbound = outbound
        self._lines: list[bytes] = []  # made when they are first asked for: many fields come once and never again
        self._places: list[int | None] = []
        self._id_at = 0
        self._names_host = False

    def head(self, method: str, target: bytes, request_id: str, length: int) -> RequestHead:
        """The head of one of these requests; its `headers`, which only HTTP/2 reads, are left out.

        `target` was read by `policies.paths`, which lets no space, line break or NUL pass.
        """
        lines = self._lines or self._learn()
        lines[self._id_at] = b"x-request-id: %b\r\n" % request_id.encode("ascii")
        return RequestHead(
            method,
            target,
            (),
            b"%b %b HTTP/1.1\r\n" % (method.encode("ascii"), target),
            b"".join(lines),
            self._names_host,
            length,
            method == "HEAD",
            length == 0 and method in IDEMPOTENT,
        )

    def varied(self, inbound: Headers, changed: Iterable[int]) -> SentFields | None:
        """The same for these fields, which have new values where they are `changed`, of visible ASCII; None where more would change."""
        lines = (self._lines or self._learn()).copy()
        for at in changed:
            name, value = inbound[at]
            if not stands_for_itself(name):
                return None
            place = self._places[at]
            if place is not None:
                lines[place] = b"%b: %b\r\n" % (name, value)
        other = SentFields((), (), self.of)
        other._lines, other._places, other._id_at, other._names_host = (
            lines,
            self._places,
            self._id_at,
            self._names_host,
        )
        return other

    def _learn(self) -> list[bytes]:
        outbound = self._outbound
        self._names_host = any(name == b"host" for name, _ in outbound)
        self._id_at = next(at for at, (name, _) in enumerate(outbound) if name == b"x-request-id")
        # What is sent on as it came is the very same header.
        places = {id(header): at for at, header in enumerate(outbound)}
        self._places = [places.get(id(header)) for header in self._inbound]
        self._lines = [*(b"%b: %b\r\n" % header for header in outbound), b"\r\n"]
        self._inbound = self._outbound = ()
        return self._lines
