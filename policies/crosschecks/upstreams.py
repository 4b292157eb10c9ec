"""The APIs behind the gateway: where they are and what is sent to them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from policies.addresses import Endpoint, HttpUrl, parse_http_url, parse_listen
from policies.diagnostics import listed, quoted

if TYPE_CHECKING:
    from policies.diagnostics import Findings
    from policies.draft import Draft

UPSTREAM_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
"""RFC 9110, section 5.6.2."""

_FIELD_VALUE: Final = re.compile(r"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?")
"""RFC 9110, section 5.5."""

FRAMING: Final = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer",
    "upgrade", "expect", "http2-settings", "proxy-authenticate", "proxy-authorization",
})  # fmt: skip
"""They belong to one connection (RFC 9110, section 7.6.1) or delimit the message: set by hand they smuggle requests."""

GATEWAY_OWN: Final = frozenset({"x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"})

LONGEST_CONNECT_SECONDS: Final = 600.0
LONGEST_KEEPALIVE_SECONDS: Final = 60.0
SHORTEST_HEALTH_SECONDS: Final = 0.1
_SERVER_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", re.ASCII)
_PATH: Final = re.compile(r"/[\x21\x22\x24-\x7e]*", re.ASCII)
"""Visible, and without a fragment."""


def check(draft: Draft, findings: Findings) -> None:
    """`upstreams`, and whether anything is sent to each."""
    config = draft.config
    if not draft.is_whole("upstreams"):
        return
    for name in config.upstreams:
        if not UPSTREAM_NAME.fullmatch(name):
            findings.error(
                "bad-name",
                draft.positions.key("upstreams", name),
                f"{quoted(name)} can't name an upstream; begin with a letter or digit and use only letters, digits, '_', '.' and '-'",
            )
        _targets(draft, name, findings)
        _timeouts(draft, name, findings)
        _headers(draft, name, findings)
        _pooling(draft, name, findings)
        _tls(draft, name, findings)
        _health(draft, name, findings)
    _unused(draft, findings)


def _unused(draft: Draft, findings: Findings) -> None:
    names = list(draft.config.upstreams)
    if len(names) < 2 or not draft.is_whole("routes"):
        return
    used = {route.upstream for route in draft.config.routes}
    for name in names:
        if name not in used and draft.is_whole("routes", "upstream") and draft.is_whole("upstreams", name):
            findings.warning(
                "unused-upstream",
                draft.positions.key("upstreams", name),
                f"no route sends anything to the upstream {quoted(name)}",
            )


def _targets(draft: Draft, name: str, findings: Findings) -> None:
    seen: dict[tuple[str, str, int], int] = {}
    for index, text in enumerate(draft.config.upstreams[name].targets):
        location = ("upstreams", name, "targets", index)
        mark, shown = draft.positions.value(*location), draft.shown(*location)
        url = parse_http_url(text)
        if not isinstance(url, HttpUrl):
            hint = (
                f"; write http://{text}"
                if url.startswith("is not an absolute") and draft.is_literal(*location) and "://" not in text
                else ""
            )
            findings.error(
                "bad-target", mark, f"the target {shown if '@' not in text else ''} {url}{hint}".replace("  ", " ")
            )
            continue
        extra = [
            word
            for word, is_there in (
                ("a user or password; put an Authorization into 'headers'", url.has_userinfo),
                ("a path; the caller's path is forwarded as it came", bool(url.path)),
                ("a query", url.has_query),
                ("a fragment", url.has_fragment),
            )
            if is_there
        ]
        if extra:
            # A password in a URL is one even where nothing says secret.
            what = "the target" if url.has_userinfo else f"the target {shown}"
            findings.error("bad-target", mark, f"{what} has {extra[0]}")
            continue
        key = (url.scheme, url.host.lower(), url.port)
        if key in seen:
            findings.error("duplicate-target", mark, f"the target {shown} is listed twice")
        seen[key] = index
        _loop(draft, url, f"the target {shown}", location, findings)


def _loop(draft: Draft, url: HttpUrl, what: str, location: tuple[str | int, ...], findings: Findings) -> None:
    for listener in ("listen", "operator"):
        end = parse_listen(getattr(draft.config.server, listener))
        if not isinstance(end, Endpoint) or end.port != url.port or not draft.is_whole("server", listener):
            continue
        is_here = Endpoint(url.host, url.port).is_loopback and (end.is_loopback or end.is_wildcard)
        if is_here or url.host == end.host:
            findings.error(
                "target-is-gateway",
                draft.positions.value(*location),
                f"{what} is the gateway's own 'server.{listener}'; requests would go round in circles",
            )


def _timeouts(draft: Draft, name: str, findings: Findings) -> None:
    timeouts = draft.config.upstreams[name].timeouts
    for key, seconds in (("connect", timeouts.connect), ("response", timeouts.response), ("idle", timeouts.idle)):
        mark = draft.positions.value("upstreams", name, "timeouts", key)
        if seconds <= 0:
            findings.error("out-of-range", mark, f"'{key}' must be longer than nothing: every request would time out")
        elif key == "connect" and seconds > LONGEST_CONNECT_SECONDS:
            findings.error("out-of-range", mark, "'connect' is longer than ten minutes, and callers wait for it")


def _headers(draft: Draft, name: str, findings: Findings) -> None:
    seen: dict[str, str] = {}
    for header, secret in draft.config.upstreams[name].headers.items():
        key_mark = draft.positions.key("upstreams", name, "headers", header)
        lower = header.lower()
        if not TOKEN.fullmatch(header):
            findings.error("bad-header", key_mark, f"{quoted(header)} is not a header name")
        elif lower.replace("_", "-").startswith("x-gateway-") or lower in GATEWAY_OWN:
            findings.error("reserved-header", key_mark, f"{quoted(header)} is set by the gateway itself")
        elif lower in FRAMING:
            instead = "; see 'host: target' and 'host: caller'" if lower == "host" else ""
            findings.error(
                "reserved-header", key_mark, f"{quoted(header)} belongs to the connection and can't be set{instead}"
            )
        elif lower in seen:
            findings.error("duplicate-key", key_mark, f"{quoted(header)} is the same header as {quoted(seen[lower])}")
        seen.setdefault(lower, header)
        value = secret.get_secret_value()
        if value and not _FIELD_VALUE.fullmatch(value):
            what = [
                word
                for character, word in (("\r", "a line break"), ("\n", "a line break"), ("\0", "a NUL"))
                if character in value
            ]
            reason = what[0] if what else "a blank at its end, or a character that no header can carry"
            findings.error(
                "bad-header",
                draft.positions.value("upstreams", name, "headers", header),
                f"the value of {quoted(header)} has {reason}",
            )


def _pooling(draft: Draft, name: str, findings: Findings) -> None:
    upstream = draft.config.upstreams[name]
    if not 0 <= upstream.keepalive <= LONGEST_KEEPALIVE_SECONDS:
        findings.error(
            "out-of-range",
            draft.positions.value("upstreams", name, "keepalive"),
            "'keepalive' must be between 0s and 1m, and shorter than the upstream's own limit",
        )


def _tls(draft: Draft, name: str, findings: Findings) -> None:
    upstream = draft.config.upstreams[name]
    tls, where = upstream.tls, ("upstreams", name, "tls")
    if tls.key is not None and tls.certificate is None and not draft.is_lost(*where, "certificate"):
        findings.error(
            "missing-key", draft.positions.key(*where, "key"), "a 'key' without a 'certificate' proves nothing"
        )
    for key in ("ca", "certificate", "key"):
        if getattr(tls, key) == "":
            findings.error(
                "missing-value", draft.positions.value(*where, key), f"'{key}' must name a file, or be left out"
            )
    if tls.server_name is not None and not _SERVER_NAME.fullmatch(tls.server_name):
        findings.error(
            "bad-name",
            draft.positions.value(*where, "server_name"),
            f"{quoted(tls.server_name)} is not the name of a server",
        )
    if not tls.verify:
        findings.warning(
            "tls-not-verified",
            draft.positions.value(*where, "verify"),
            "with 'verify: false' anybody between here and the upstream can answer in its place and read every token",
        )
        if tls.ca is not None:
            findings.error(
                "contradiction",
                draft.positions.key(*where, "ca"),
                "'ca' has no effect with 'verify: false'; remove one",
            )
    is_https = any(target.lower().startswith("https:") for target in upstream.targets)
    if tls != type(tls)() and not is_https and draft.is_whole("upstreams", name, "targets"):
        findings.warning(
            "no-effect", draft.positions.key(*where), f"'tls' has no effect: no target of {quoted(name)} is https"
        )


def _health(draft: Draft, name: str, findings: Findings) -> None:
    health, where = draft.config.upstreams[name].health, ("upstreams", name, "health")
    if health.path and not _PATH.fullmatch(health.path):
        findings.error(
            "bad-path",
            draft.positions.value(*where, "path"),
            f"{quoted(health.path)} is not a path; it begins with '/' and holds no blanks",
        )
    elif not health.path and draft.is_given(*where, "interval") and not draft.is_lost(*where, "path"):
        findings.warning(
            "no-effect", draft.positions.key(*where, "interval"), "'interval' has no effect without a 'path' to ask for"
        )
    if health.interval < SHORTEST_HEALTH_SECONDS:
        findings.error("out-of-range", draft.positions.value(*where, "interval"), "'interval' must be at least 100ms")


def upstream_names(draft: Draft) -> str:
    """The upstreams there are, for a message."""
    return listed(map(quoted, draft.config.upstreams), "and")
