"""The listeners, whom they believe, and where the state is kept."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from policies.addresses import Endpoint, HttpUrl, is_loopback, parse_http_url, parse_listen
from policies.diagnostics import listed, nearest

if TYPE_CHECKING:
    from policies.diagnostics import Findings
    from policies.draft import Draft

SHORTEST_SIGNING_KEY_BYTES: Final = 32
SHORTEST_OPERATOR_TOKEN: Final = 16
LONGEST_DRAIN_SECONDS: Final = 3600.0

_REDIS_DATABASE: Final = re.compile(r"(/[0-9]*)?", re.ASCII)
_ANYTHING: Final = re.compile(".*", re.DOTALL)
_REDIS_OPTIONS: Final = {
    "db": re.compile("[0-9]+", re.ASCII),
    "protocol": re.compile("[23]"),
    "client_name": _ANYTHING,
    "username": _ANYTHING,
    "password": _ANYTHING,
    "ssl_ca_certs": _ANYTHING,
    "ssl_certfile": _ANYTHING,
    "ssl_keyfile": _ANYTHING,
    "ssl_cert_reqs": re.compile("none|optional|required"),
}
"""What may stand after '?', and how it looks. Others would be an error of the client's, or undo its short timeouts."""


def check(draft: Draft, findings: Findings) -> None:
    """`server`, `database`, `redis` and `cache`."""
    _listeners(draft, findings)
    _public_url(draft, findings)
    _trusted_proxies(draft, findings)
    _cors_origins(draft, findings)
    _secrets(draft, findings)
    _workers(draft, findings)
    _database(draft, findings)
    _redis(draft, findings)
    _durations(draft, findings)


def _listeners(draft: Draft, findings: Findings) -> None:
    ends: dict[str, Endpoint] = {}
    for name in ("listen", "operator"):
        end = parse_listen(getattr(draft.config.server, name))
        if isinstance(end, Endpoint):
            ends[name] = end
        else:
            shown = draft.shown("server", name)
            findings.error(
                "bad-address", draft.positions.value("server", name), f"'{name}', which reads {shown}, {end}"
            )
    if len(ends) < 2 or not draft.is_whole("server", "listen") or not draft.is_whole("server", "operator"):
        return
    listen, operator = ends["listen"], ends["operator"]
    collide = listen.host == operator.host or listen.is_wildcard or operator.is_wildcard
    if listen.port and listen.port == operator.port and collide:
        where = "operator" if draft.is_given("server", "operator") else "listen"
        findings.error(
            "same-address",
            draft.positions.value("server", where),
            f"'listen' and 'operator' both take port {listen.port}; the operator's pages need a port of their own",
        )


def _public_url(draft: Draft, findings: Findings) -> None:
    url = parse_http_url(draft.config.server.public_url)
    if isinstance(url, HttpUrl):
        problem = _beyond_origin(
            url, example=url.origin if draft.is_literal("server", "public_url") else "https://api.example.com"
        )
        if problem is None:
            _public_port(draft, findings, url)
            return
    else:
        problem = url
    shown = draft.shown("server", "public_url")
    findings.error(
        "bad-url", draft.positions.value("server", "public_url"), f"'public_url', which reads {shown}, {problem}"
    )


def _public_port(draft: Draft, findings: Findings, url: HttpUrl) -> None:
    """A gateway moved to another port of this machine, whose links still lead to the old one."""
    listen = parse_listen(draft.config.server.listen)
    if isinstance(listen, str) or not is_loopback(url.host) or not listen.is_loopback or listen.port == url.port:
        return
    findings.warning(
        "public-url-port",
        draft.positions.value("server", "public_url"),
        f"links in answers lead to port {url.port}, and 'server.listen' is port {listen.port}: "
        f"set PUBLIC_URL, such as http://localhost:{listen.port}, unless something forwards the one to the other",
    )


def _beyond_origin(url: HttpUrl, example: str) -> str | None:
    """What `url` holds besides scheme, host and port."""
    extra = [
        name
        for name, is_there in (
            ("a user or password", url.has_userinfo),
            ("a path", bool(url.path)),
            ("a query", url.has_query),
            ("a fragment", url.has_fragment),
        )
        if is_there
    ]
    return f"has {extra[0]}; write scheme, host and port only, such as {example}" if extra else None


def _trusted_proxies(draft: Draft, findings: Findings) -> None:
    for index, text in enumerate(draft.config.server.trusted_proxies):
        location = ("server", "trusted_proxies", index)
        mark, shown = draft.positions.value(*location), draft.shown(*location)
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            findings.error(
                "bad-cidr", mark, f"{shown} is not an address range; write one such as 10.0.0.0/8 or fd00::/8"
            )
            continue
        if network.prefixlen == 0:
            findings.warning(
                "trusts-everyone",
                mark,
                f"{shown} believes the X-Forwarded-For of every caller, so any of them can name any address",
            )
        elif "/" in text and text.partition("/")[0] not in {
            str(network.network_address),
            network.network_address.exploded,
        }:
            findings.error(
                "bad-cidr",
                mark,
                f"{shown} has bits beyond its prefix{f'; write {network}' if draft.is_literal(*location) else ''}",
            )


def _cors_origins(draft: Draft, findings: Findings) -> None:
    for index, text in enumerate(draft.config.server.cors_origins):
        location = ("server", "cors_origins", index)
        mark, shown = draft.positions.value(*location), draft.shown(*location)
        if text == "*":
            findings.error("bad-origin", mark, "'*' would let every page act with a caller's cookie; list the origins")
            continue
        url = parse_http_url(text)
        if not isinstance(url, HttpUrl):
            findings.error("bad-origin", mark, f"{shown} {url}; write an origin such as https://app.example.com")
        elif text != url.origin:
            # Browsers compare origins letter by letter, so nothing would ever match.
            meant = f"; write {url.origin}" if draft.is_literal(*location) else ""
            findings.error("bad-origin", mark, f"{shown} is not how a browser spells an origin{meant}")


def _secrets(draft: Draft, findings: Findings) -> None:
    signing_key = draft.config.server.signing_key.get_secret_value()
    if signing_key and len(signing_key.encode()) < SHORTEST_SIGNING_KEY_BYTES:
        findings.error(
            "weak-secret",
            draft.positions.value("server", "signing_key"),
            f"'signing_key' is shorter than {SHORTEST_SIGNING_KEY_BYTES} bytes; make one with: openssl rand -hex 32",
        )
    operator_token = draft.config.server.operator_token.get_secret_value()
    mark = draft.positions.value("server", "operator_token")
    if not operator_token.isascii() or not operator_token.isprintable() or " " in operator_token:
        findings.error(
            "bad-token", mark, "'operator_token' holds a blank or a character that no Authorization header can carry"
        )
    elif operator_token and len(operator_token) < SHORTEST_OPERATOR_TOKEN:
        findings.warning(
            "weak-secret",
            mark,
            f"'operator_token' is shorter than {SHORTEST_OPERATOR_TOKEN} characters; it can be guessed",
        )


def _workers(draft: Draft, findings: Findings) -> None:
    workers = draft.config.server.workers
    if workers > 1 and not draft.config.redis.get_secret_value() and draft.is_whole("redis"):
        findings.error(
            "workers-need-redis",
            draft.positions.value("server", "workers"),
            f"{workers} workers share what they know through Redis; set 'redis', or 'workers' to 1",
        )


def _database(draft: Draft, findings: Findings) -> None:
    url = draft.config.database.get_secret_value()
    mark = draft.positions.value("database")
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme:
        findings.error(
            "bad-url",
            mark,
            "'database' is not a URL; write sqlite:///gateway.db or postgresql://user:password@host/name",
        )
    elif scheme.startswith(("postgresql+", "postgres+", "sqlite+")):
        plain = "sqlite" if scheme.startswith("sqlite") else "postgresql"
        findings.error("bad-url", mark, f"'database' names a driver; write {plain}://, the gateway brings its own")
    elif scheme not in {"sqlite", "postgresql"}:
        findings.error(
            "bad-url",
            mark,
            f"'database' must begin with sqlite:/// or postgresql://{_near_scheme(scheme, ('sqlite', 'postgresql'))}",
        )
    elif scheme == "sqlite" and (rest in {"", "/", "/:memory:"} or "mode=memory" in rest):
        findings.error(
            "bad-url", mark, "'database' must be a file, which other processes can follow; write sqlite:///gateway.db"
        )
    elif scheme == "sqlite" and not rest.startswith("/"):
        findings.error(
            "bad-url",
            mark,
            "'database' has two slashes after sqlite:, which name a host; write three, as in sqlite:///gateway.db",
        )
    elif scheme == "postgresql" and not _is_readable(url):
        findings.error(
            "bad-url",
            mark,
            "'database' has no valid host or port; a '/', '#', '?' or '@' in a password is written as %2F, %23, %3F or %40",
        )


def _redis(draft: Draft, findings: Findings) -> None:
    url = draft.config.redis.get_secret_value()
    if not url:
        return
    mark = draft.positions.value("redis")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"redis", "rediss", "unix"}:
        near = _near_scheme(scheme, ("redis", "rediss", "unix")) if separator else ""
        findings.error("bad-url", mark, f"'redis' must begin with redis://, rediss:// or unix://{near}")
    elif scheme == "unix" and not rest.rpartition("@")[2].startswith("/"):
        findings.error("bad-url", mark, "'redis' names no socket; write unix:///run/redis/redis.sock")
    elif scheme != "unix" and not (_is_readable(url) and urlsplit(url).hostname):
        findings.error("bad-url", mark, "'redis' has no valid host or port; write redis://host:6379/0")
    elif not all(
        name in _REDIS_OPTIONS
        and _REDIS_OPTIONS[name].fullmatch(value)
        and (scheme == "rediss" or not name.startswith("ssl_"))
        for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True)
    ):
        known = listed(_REDIS_OPTIONS, "and")
        findings.error(
            "bad-url", mark, f"'redis' has an option that is none, or not with this value; there are {known}"
        )
    elif scheme != "unix" and not _REDIS_DATABASE.fullmatch(urlsplit(url).path):
        findings.error("bad-url", mark, "'redis' ends with the number of a database, as in redis://host:6379/0")


def _near_scheme(scheme: str, known: tuple[str, ...]) -> str:
    """A suggestion by name only: what stands before '://' of a slip may be part of a secret."""
    return nearest(scheme, known)


def _is_readable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # An '@' behind the host means that a password with a '/', '?' or '#' was cut in two.
        return parts.port != 0 and "@" not in parts.path + parts.fragment
    except ValueError:
        return False


def _durations(draft: Draft, findings: Findings) -> None:
    config = draft.config
    if config.server.drain > LONGEST_DRAIN_SECONDS:
        findings.error(
            "out-of-range",
            draft.positions.value("server", "drain"),
            "'drain' is longer than an hour: a stop would wait for it",
        )
    if config.cache.max_ttl <= 0:
        findings.error(
            "out-of-range", draft.positions.value("cache", "max_ttl"), "'max_ttl' must be longer than nothing"
        )
    if config.cache.negative_ttl > config.cache.max_ttl > 0 and draft.is_whole("cache", "max_ttl"):
        findings.warning(
            "out-of-range",
            draft.positions.value("cache", "negative_ttl"),
            "'negative_ttl' is longer than 'max_ttl', so somebody who has nothing is remembered longer than somebody who pays",
        )
