"""Which of an upstream's targets gets the next request: the one with the fewest under way, in turn among equals.

Pure. It must never leave out a target for good: one that fails is tried again with the next request, since nothing here
knows why it failed.
"""

from __future__ import annotations

import ssl
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True, eq=False)
class Target:
    """One address of an upstream. `authority` is what `Host` names; `pending` counts the exchanges under way."""

    host: str
    port: int
    authority: bytes
    tls: ssl.SSLContext | None
    pending: int = field(default=0)


def parse_target(url: str, tls: ssl.SSLContext | None) -> Target:
    """`http://host[:port]` or `https://…`; raises ValueError for anything else. `tls` is used for https only."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{url!r} is neither http:// nor https://")
    if not parts.hostname or parts.username is not None or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is not of the form scheme://host[:port]")
    if parts.scheme == "https" and tls is None:
        raise ValueError(f"{url!r} needs TLS settings")
    default_port = _DEFAULT_PORTS[parts.scheme]
    port = parts.port or default_port
    host = parts.hostname.encode("idna").decode("ascii") if not parts.hostname.isascii() else parts.hostname
    name = f"[{host}]" if ":" in host else host
    authority = name if port == default_port else f"{name}:{port}"
    return Target(host, port, authority.encode("ascii"), tls if parts.scheme == "https" else None)


class Balancer:
    """Orders the targets for one request after another."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = tuple(targets)
        self._turn = 0

    def order(self) -> Sequence[Target]:
        """The targets to try, best first."""
        targets = self._targets
        if len(targets) == 1:
            return targets
        self._turn = (self._turn + 1) % len(targets)
        rotated = targets[self._turn :] + targets[: self._turn]
        return sorted(rotated, key=lambda target: target.pending)
