"""Addresses as gateway.yaml writes them: ``host:port`` to listen on, and the parts of an http(s) URL.

Problems are predicates without the text itself ("has no host"): a URL may hold a password.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_HOST_NAME: Final = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?", re.ASCII
)
_LISTEN: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]*)):([0-9]{1,5})", re.ASCII)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host, without brackets, and a port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Only this machine reaches it."""
        return is_loopback(self.host)

    @property
    def is_wildcard(self) -> bool:
        """Every interface."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """An absolute http or https URL in parts. `path` is empty where only a slash stands."""

    scheme: str
    host: str
    port: int
    has_userinfo: bool
    path: str
    has_query: bool
    has_fragment: bool

    @property
    def origin(self) -> str:
        """As a browser spells it in ``Origin``: lower case, the default port left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by its very name; nothing is resolved."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost")


def is_host(host: str) -> bool:
    """Whether `host` is an address or could be a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return len(host) <= 253 and _HOST_NAME.fullmatch(host) is not None and not _looks_numeric(host)
    return True


def parse_listen(text: str) -> Endpoint | str:
    """The endpoint in ``127.0.0.1:8080``, ``localhost:8080`` or ``[::1]:8080``, or what is wrong with it."""
    match = _LISTEN.fullmatch(text)
    if match is None:
        return "is not host:port; write 0.0.0.0:8080, 127.0.0.1:8080 or [::1]:8080"
    host = match[1] if match[1] is not None else match[2]
    if not host:
        return f"has no host; write 0.0.0.0:{match[3]} for every interface or 127.0.0.1:{match[3]} for this machine"
    if not is_host(host) or (match[1] is not None and ":" not in host):
        return "has no valid host; write 0.0.0.0:8080, 127.0.0.1:8080 or [::1]:8080"
    port = int(match[3])
    return Endpoint(host, port) if port <= 65535 else "has a port above 65535"


def parse_http_url(text: str) -> HttpUrl | str:
    """The parts of an absolute http(s) URL, or what is wrong with it."""
    if not text:
        return "is empty; write an absolute URL, such as https://api.example.com"
    # urlsplit drops tabs and newlines without a word (WHATWG), and a blank is never meant.
    if any(character <= " " or character in '\x7f\\"<>^`{|}' for character in text):
        return "holds a blank or another character that a URL can't hold"
    scheme = text.partition(":")[0].lower()
    if scheme not in _DEFAULT_PORTS or not text[len(scheme) :].startswith("://"):
        return "is not an absolute http or https URL"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "has no valid host and port; a port is a number from 1 to 65535"
    host = parts.hostname or ""
    if not host:
        return "has no host"
    if port == 0 or parts.netloc.endswith(":"):
        return "has no valid port; it is a number from 1 to 65535"
    if not is_host(host):
        return "has no valid host; it is a name, an address, or an IPv6 address in brackets"
    return HttpUrl(
        scheme=scheme,
        host=host,
        port=port or _DEFAULT_PORTS[scheme],
        has_userinfo="@" in parts.netloc,
        path="" if parts.path == "/" else parts.path,
        has_query="?" in text.partition("#")[0],
        has_fragment="#" in text,
    )


def _looks_numeric(host: str) -> bool:
    """``10.0.0`` or ``256.1.1.1``: meant as an address, and not one."""
    return host.rstrip(".").rpartition(".")[2].isdigit()
