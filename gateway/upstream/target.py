"""One address of an upstream: where to connect, whom to expect there, and what `Host` to say."""

from __future__ import annotations

import ipaddress
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """`authority` is what `Host` names; `server_name` is asked for in the TLS handshake, and must be in the certificate."""

    url: str
    host: str
    port: int
    authority: bytes
    tls: ssl.SSLContext | None
    server_name: str | None


def parse_target(url: str, tls: ssl.SSLContext | None, server_name: str | None = None) -> Target:
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
    host = _host(parts.hostname)
    name = f"[{host}]" if ":" in host else host
    authority = name if port == default_port else f"{name}:{port}"
    secure = parts.scheme == "https"
    return Target(
        url=f"{parts.scheme}://{authority}",
        host=host,
        port=port,
        authority=authority.encode("ascii"),
        tls=tls if secure else None,
        server_name=(server_name or host) if secure else None,
    )


def _host(host: str) -> str:
    """As it is looked up. A label that no resolver takes is found here and not at each request."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.encode("idna").decode("ascii")
