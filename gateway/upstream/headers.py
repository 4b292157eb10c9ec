"""The single guaranteed sanitisation point: which headers cross the gateway, in either direction.

Pure, one pass over the headers. It decides what is dropped, what is set and in what order. It must never

- let an inbound `x-gateway-*` through, in any spelling (`X_Gateway_Tier` is the same name to WSGI, CGI and PHP, `X.Gateway.Tier` to lighttpd;
  CVE-2025-64484, CVE-2026-52845);
- let a `Connection` field take away what the gateway sets or what frames the body: what is set is set after what is
  named is gone (CVE-2024-45410, CVE-2025-48865, golang/go#50580);
- let one through that tells frameworks to take another method, path or peer for the real one.

Names come in lower case from the listener, and as the upstream wrote them from the upstream.
"""

from __future__ import annotations

import ipaddress
import re
import string
import urllib.parse
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.schema import Upstream

    Header = tuple[bytes, bytes]

_OURS: Final = b"x-gateway-"
_NO_ALPHANUMERIC: Final = re.compile(rb"[^A-Za-z0-9]")
_HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"})
"""RFC 9110, section 7.6.1. Fields that begin with `Proxy-` go the same way."""

_NEVER_FORWARDED: Final = _HOP_BY_HOP | {
    b"expect",  # answered by the listener; an upstream that waits for a second one would wait for ever
    b"http2-settings",
    b"x-request-id",  # set anew
    b"x-original-url",  # IIS, Symfony: another path than the one that was judged
    b"x-rewrite-url",
    b"x-override-url",
    b"x-http-path-override",
    b"x-original-uri",  # ingress-nginx and Envoy tell the path and method they judged in these
    b"x-original-method",
    b"x-original-host",
    b"x-envoy-original-path",
    b"x-envoy-original-host",
    b"x-http-method-override",  # another method than the one that was judged
    b"x-http-method",
    b"x-method-override",
    b"x-middleware-subrequest",  # Next.js leaves out its own checks (CVE-2025-29927)
    b"proxy",  # CGI programs send their own requests there (httpoxy, CVE-2016-5385)
}
_PEER_CLAIMS: Final = frozenset(
    {b"forwarded", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip", b"cf-connecting-ip"}
)
_FRAMING: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})
"""What no `Connection` field may name away: it would change where the message ends, or whose it is."""

_READ_FOR_OTHERS: Final = frozenset(
    {b"host", b"connection", b"transfer-encoding", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"}
)
"""What `outbound_request_headers` makes other fields of, or takes others away for."""

_NOT_TO_BE_SET: Final = _HOP_BY_HOP | {b"content-length"}

_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close"})
_VERBATIM: Final = "".join(set(string.printable) - set(string.whitespace) - {"%"})
_CHUNKED: Final = (b"transfer-encoding", b"chunked")


class TrustedProxies:
    """Whose `X-Forwarded-*` are believed: the networks of `server.trusted_proxies`. None by default."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(ipaddress.ip_network(network, strict=False) for network in networks)
        self._looked_up = lru_cache(maxsize=4096)(self._look_up)

    def trusts(self, peer: str) -> bool:
        """Whether the connection from this address is one of theirs."""
        return bool(self._networks) and self._looked_up(peer)

    def _look_up(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:  # a Unix socket's peer has no address, so nothing can vouch for it
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


@dataclass(frozen=True, slots=True)
class HeaderRules:
    """What one upstream of the configuration asks for, made ready once."""

    keeps_host: bool
    keeps_token: bool
    dropped: frozenset[bytes]
    set_last: tuple[Header, ...]

    @classmethod
    def of(cls, upstream: Upstream) -> HeaderRules:
        """Raises ValueError for a header that can't be sent."""
        set_last = tuple(
            (name.lower().encode("ascii"), value.get_secret_value().encode("latin-1"))
            for name, value in upstream.headers.items()
        )
        for name, value in set_last:
            if not name or name.strip(_TOKEN) or any(octet < 32 and octet != 9 for octet in value):
                raise ValueError(f"the header {name.decode()!r} can't be sent")
            if name in _NOT_TO_BE_SET or _folded(name).startswith(_OURS):
                raise ValueError(f"the header {name.decode()!r} is the gateway's own to set")
        keeps_host = upstream.host == "caller"
        dropped = {_folded(name) for name, _ in set_last} | (set() if keeps_host else {b"host"})
        if not upstream.forward_token:
            dropped.add(b"authorization")
        return cls(
            keeps_host=keeps_host,
            keeps_token=upstream.forward_token,
            dropped=_NEVER_FORWARDED | dropped,
            set_last=set_last,
        )


_TOKEN: Final = (string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode()


def outbound_request_headers(
    inbound: Iterable[Header],
    *,
    rules: HeaderRules,
    peer: str,
    trusted: bool,
    scheme: str,
    request_id: str,
    identity: Sequence[Header] = (),
) -> list[Header]:
    """The headers of the upstream's request, all but a `Host` that names the target: `forward` knows which target.

    `peer` is the address that connected, `trusted` whether it is one of `server.trusted_proxies`; `identity` comes from
    `identity_headers`, and nothing follows it.
    """
    dropped = rules.dropped
    kept: list[Header] = []
    named: list[bytes] = []
    host = forwarded_for = forwarded_proto = forwarded_host = b""
    for header in inbound:
        name, value = header
        if not name.replace(b"-", b"").isalnum():
            # Judged by what frameworks make of it, forwarded as it came; an alias of a framing field is never honest.
            name = _folded(name)
            if name in _FRAMING or name in dropped:
                continue
        if name in dropped:
            if name == b"host":
                host = value
            elif name == b"connection":
                named.append(value)
            elif name == b"transfer-encoding":
                kept.append(_CHUNKED)
            continue
        if name.startswith((b"x-", b"proxy-", b"forwarded", b"true-", b"cf-")):
            if name.startswith((_OURS, b"proxy-")):
                continue
            if name.startswith(b"x-forwarded-") or name in _PEER_CLAIMS:
                if not trusted:
                    continue
                if name == b"x-forwarded-for":
                    forwarded_for += value + b", "
                    continue
                if name == b"x-forwarded-proto":
                    forwarded_proto = value
                    continue
                if name == b"x-forwarded-host":
                    forwarded_host = value
                    continue
        elif name == b"host":
            host = value
        kept.append(header)
    if named:
        kept = _without_named(kept, named)
    kept += (
        (b"x-forwarded-for", forwarded_for + (peer or "unknown").encode("ascii", "replace")),
        (b"x-forwarded-proto", forwarded_proto or scheme.encode("ascii")),
    )
    if forwarded_host or host:
        kept.append((b"x-forwarded-host", forwarded_host or host))
    kept.append((b"x-request-id", request_id.encode("latin-1")))
    kept += rules.set_last
    kept += identity
    return kept


def stands_for_itself(name: bytes) -> bool:
    """Whether the value of an inbound field of this name, of letters, digits and hyphens, changes nothing outbound but that field.

    It is then dropped whatever its value, or goes on as it came.
    """
    return name not in _READ_FOR_OTHERS


def inbound_response_headers(raw: Iterable[Header]) -> list[Header]:
    """The headers of the caller's answer: order, duplicates and spelling as the upstream sent them."""
    kept: list[Header] = []
    named: list[bytes] = []
    for header in raw:
        name = header[0].lower()
        if name in _HOP_BY_HOP:
            if name == b"connection":
                named.append(header[1])
            continue
        if name.startswith((b"x", b"proxy-")) and _folded(name).startswith((_OURS, b"proxy-")):
            continue
        kept.append(header)
    return _without_named(kept, named) if named else kept


def identity_headers(
    customer: str, *, tier: str | None, features: Iterable[str], status: str | None, quantity: int | None = None
) -> list[Header]:
    """Who the caller is, for the upstream. What isn't known is left out (docs/design.md, section 7).

    Header values are Latin-1 at best, and a customer's name may hold any printable character: everything but visible
    ASCII, and `%` itself, goes percent-encoded as UTF-8 (as in RFC 8187), so that decoding once gives the name back.
    """
    headers = [(b"x-gateway-customer", _percent_encoded(customer))]
    if tier is not None:
        headers.append((b"x-gateway-tier", _percent_encoded(tier)))
        headers.append((b"x-gateway-features", b",".join(_percent_encoded(f).replace(b",", b"%2C") for f in features)))
    if status is not None:
        headers.append((b"x-gateway-status", _percent_encoded(status)))
    if quantity is not None:
        headers.append((b"x-gateway-quantity", b"%d" % quantity))
    return headers


def _folded(name: bytes) -> bytes:
    """What WSGI, CGI and PHP make of a name: there `_` and `-` are one; to lighttpd's CGI so are `.`, `+`, `~` and the rest."""
    return _NO_ALPHANUMERIC.sub(b"-", name)


@lru_cache(maxsize=8192)
def _percent_encoded(text: str) -> bytes:
    return urllib.parse.quote(text, safe=_VERBATIM).encode("ascii")


def _without_named(headers: list[Header], connection_values: list[bytes]) -> list[Header]:
    """Less those that a Connection field names as meant for this hop only."""
    named = {token.strip().lower() for value in connection_values for token in value.split(b",")}
    named -= _FRAMING | _PLAIN_CONNECTION
    return [header for header in headers if header[0].lower() not in named] if named else headers
