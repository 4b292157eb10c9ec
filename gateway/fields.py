"""The header fields of a request, and what was found out about them.

A caller who keeps his connection sends the same fields again and again: the same credential, the same `Host`, the same
`User-Agent`. The listener knows them again by all their bytes, and then hands on the same `Fields`; what follows from
nothing but these bytes, this connection and one configuration is found out once. It must never be shared by two
connections, and nothing in it may outlive what it was found out from: whoever remembers something here says for what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.credentials.authenticator import Sought
    from gateway.upstream.request_head import SentFields

Headers = list[tuple[bytes, bytes]]


class Fields:
    """`headers` have their names in lower case, and nobody changes them.

    `sought` and `sent` are the short way's to remember, each with what it holds for.
    """

    __slots__ = ("headers", "host", "request_id", "sent", "sought")

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.host: str | None = None
        self.request_id: str | None = None
        self.sought: Sought | None = None
        self.sent: SentFields | None = None
