"""The header fields of a request, and what was found out about them.

A caller who keeps his connection sends the same fields again and again: the same credential, the same `Host`, the same
`User-Agent`. `gateway.known_fields` knows them again, and then hands on the same `Fields`, or some that differ in a few
values; what follows from nothing but these fields, this connection and one configuration is found out once. It must
never be shared by two connections, and nothing in it may outlive what it was found out from: whoever remembers something
here says for what, and whether it still holds where the value of another field has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.credentials.authenticator import Sought
    from gateway.upstream.sent_fields import SentFields

Headers = list[tuple[bytes, bytes]]


class Fields:
    """`headers` have their names in lower case, and nobody changes them once a request has them.

    `length` is that of the body behind them where they were known again. `sought` and `sent` are the short way's to remember, each with what
    it holds for; `request_id` and `host` are the caller's own, and both unknown while `host` is None.
    """

    __slots__ = ("headers", "host", "length", "request_id", "sent", "sought")

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.length = 0
        self.host: str | None = None
        self.request_id: str | None = None
        self.sought: Sought | None = None
        self.sent: SentFields | None = None

    def varied(self, changed: Sequence[tuple[int, bytes]]) -> Fields:
        """The same but for these values: each with the place of its field, which is not the `Host`."""
        other = Fields(self.headers.copy())
        other.length = self.length
        other.host, other.request_id, other.sought = self.host, self.request_id, self.sought
        for at, value in changed:
            name = self.headers[at][0]
            other.headers[at] = name, value
            if name == b"content-length":
                other.length = int(value)
            elif name == b"x-request-id":
                other.host = None
            elif other.sought is not None and other.sought.by.reads(name):
                other.sought = None
        other.sent = None if self.sent is None else self.sent.varied(other.headers, [at for at, _ in changed])
        return other
