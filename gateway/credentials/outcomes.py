"""What authenticating a request can come to, as values.

It decides how an outcome is shown to the other parts. It must never hold the token or any part of it (P9): details
are sentences of ours, made of our words and of gateway.yaml's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from policies.caller import Caller
from policies.reasons import Reason


@dataclass(frozen=True, slots=True)
class Source:
    """Where in the request the token was: the proxy strips it there, and a cookie needs an allowed Origin.

    `key` is a header of its own for API keys; no token is looked for there.
    """

    kind: Literal["header", "cookie", "query", "key"]
    name: str


class Awaited(Protocol):
    """Keys that are being fetched at this moment."""

    async def landed(self, timeout_seconds: float) -> None:
        """Return when the fetch under way has ended, or when the time is up."""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The token is good, and this is whose it is."""

    caller: Caller
    source: Source


@dataclass(frozen=True, slots=True)
class Unauthenticated:
    """Nobody known is calling. `awaited` is set when a fetch under way may change that: see `Authenticator.settle`."""

    reason: Reason
    detail: str
    awaited: Awaited | None = field(default=None, repr=False, compare=False)

    @property
    def error(self) -> str | None:
        """The error code of RFC 6750, section 3.1; none where the request held no token."""
        match self.reason:
            case Reason.TOKEN_INVALID | Reason.TOKEN_EXPIRED:
                return "invalid_token"
            case Reason.BAD_REQUEST:
                return "invalid_request"
            case _:
                return None


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a key, a document or a setting, as a clause that follows its name: "is not JSON"."""

    clause: str


def invalid(detail: str) -> Unauthenticated:
    """The token can't be believed, whatever the time and the keys."""
    return Unauthenticated(Reason.TOKEN_INVALID, detail)
