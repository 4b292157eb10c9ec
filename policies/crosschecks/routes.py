"""What each route says of itself: a path that can match, one answer to "who may", and names that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.addresses import is_host
from policies.crosschecks.tiers import tiers_there_are
from policies.crosschecks.upstreams import LONGEST_CONNECT_SECONDS, TOKEN, upstream_names
from policies.diagnostics import nearest, nearest_word, quoted
from policies.patterns import parse_pattern
from policies.rewriting import begins_with, read_prefix
from policies.schema import Route, RouteTimeouts
from policies.scopes import SCOPE_TOKEN

if TYPE_CHECKING:
    from policies.diagnostics import Findings
    from policies.draft import Draft

_UNROUTABLE: Final = {
    "CONNECT": "it asks for a tunnel, which a reverse proxy never is",
    "TRACE": "it echoes a request's credentials (RFC 9110, section 9.3.8)",
}
DEFAULTS: Final = ("deny", "public", "authenticated")


def check(draft: Draft, findings: Findings) -> None:
    """`routes` and `default`."""
    for index, route in enumerate(draft.config.routes):
        at = ("routes", index)
        if not (draft.is_given(*at, "path") or draft.is_given(*at, "paths")):
            findings.error("missing-key", draft.positions.value(*at), "a route lacks 'path'")
            continue
        _paths(draft, index, route, findings)
        _host(draft, index, route, findings)
        _methods(draft, index, route, findings)
        _who_may(draft, index, route, findings)
        _names(draft, index, route, findings)
        _holds(draft, index, route, findings)
        _prefixes(draft, index, route, findings)
        _slashes(draft, index, route, findings)
        _timeouts(draft, index, route, findings)
        _fails_open(draft, index, route, findings)
        _enforced(draft, index, route, findings)
        _outlives(draft, index, route, findings)
    _default(draft, findings)
    _needs_issuers(draft, findings)
    if (
        not draft.config.routes
        and draft.config.default == "deny"
        and draft.is_whole("routes")
        and draft.is_whole("default")
    ):
        findings.warning(
            "no-routes",
            draft.positions.value("routes"),
            "there are no routes and 'default' is deny, so every request is refused",
        )


def _paths(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    at = ("routes", index)
    if draft.is_given(*at, "path") and draft.is_given(*at, "paths"):
        findings.error(
            "path-and-paths",
            draft.positions.key(*at, "paths"),
            "a route has a 'path' or several 'paths'; leave one out",
        )
    elif draft.is_given(*at, "paths") and not (
        route.paths or draft.is_lost(*at, "paths") or draft.has_losses(*at, "paths")
    ):
        findings.error("empty", draft.positions.value(*at, "paths"), "'paths' is empty; it needs at least one entry")
    if route.path is not None:
        _path(draft, (*at, "path"), route.path, findings)
    for position, path in enumerate(route.paths):
        if path in route.paths[:position]:
            shown = draft.shown(*at, "paths", position)
            findings.error("duplicate-entry", draft.positions.value(*at, "paths", position), f"{shown} is listed twice")
        else:
            _path(draft, (*at, "paths", position), path, findings)


def _path(draft: Draft, at: tuple[str | int, ...], path: str, findings: Findings) -> None:
    problem = parse_pattern(path)
    if isinstance(problem, str):
        if not draft.is_literal(*at):
            problem = "gives no pattern: literal segments, {name} for one segment, and a final '/**'"
        findings.error("bad-path", draft.positions.value(*at), f"the path {draft.shown(*at)} {problem}")


def _shown_path(draft: Draft, index: int) -> str:
    """What a message calls the route."""
    has_several = draft.is_given("routes", index, "paths") and not draft.is_given("routes", index, "path")
    return draft.shown("routes", index, *(("paths", 0) if has_several else ("path",)))


def _host(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    if route.host is None:
        return
    is_bracketed = route.host.startswith("[") and route.host.endswith("]")
    if not (is_host(route.host[1:-1]) if is_bracketed else is_host(route.host) and ":" not in route.host):
        findings.error(
            "bad-host",
            draft.positions.value("routes", index, "host"),
            f"{draft.shown('routes', index, 'host')} is not a host; write a name alone, such as api.example.com, without scheme and port",
        )


def _methods(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    at = ("routes", index, "methods")
    if draft.is_given(*at) and not (route.methods or draft.is_lost(*at) or draft.has_losses(*at)):
        findings.error("empty", draft.positions.value(*at), "'methods' is empty; leave it out for all methods")
    seen: set[str] = set()
    for position, method in enumerate(route.methods):
        mark, shown = draft.positions.value(*at, position), draft.shown(*at, position)
        if not TOKEN.fullmatch(method):
            findings.error("bad-method", mark, f"{shown} is not a method")
        elif method.upper() in _UNROUTABLE:
            findings.error("bad-method", mark, f"{shown} can't be routed: {_UNROUTABLE[method.upper()]}")
        elif method != method.upper():
            meant = f"; did you mean {quoted(method.upper())}?" if draft.is_literal(*at, position) else ""
            findings.error(
                "bad-method",
                mark,
                f"methods are written in capitals; {shown} would match no request{meant}",
            )
        elif method in seen:
            findings.error("duplicate-entry", mark, f"{shown} is listed twice")
        seen.add(method)


def _who_may(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    at = ("routes", index)
    asks_features = bool(route.features) or draft.is_lost(*at, "features") or draft.has_losses(*at, "features")
    asks = (["tier"] if draft.is_given(*at, "tier") else []) + (["features"] if asks_features else [])
    # 'tire: pro' is reported as unknown already, and is the answer that would be missed here.
    misspelt = {near for key in draft.lost_keys(*at) if (near := nearest_word(key, Route.model_fields)) is not None}
    if draft.is_given(*at, "access"):
        if asks:
            findings.error(
                "access-and-tier",
                draft.positions.key(*at, asks[0]),
                f"a route with 'access' asks for no {asks[0]}; leave one of the two out (a tier implies a valid token)",
            )
    elif not asks and not misspelt & {"access", "tier", "features"}:
        findings.error(
            "who-may",
            draft.positions.value(*at),
            f"the route {_shown_path(draft, index)} doesn't say who may use it; add 'tier', 'features', or 'access: public' or 'access: authenticated'",
        )


def _holds(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    """`scopes` and `claims`: what the credential itself must hold."""
    at = ("routes", index)
    for key, given in (("scopes", route.scopes), ("claims", route.claims)):
        if not draft.is_given(*at, key):
            continue
        if route.access == "public":
            findings.error(
                "public-and-scopes",
                draft.positions.key(*at, key),
                f"a public route looks at no token, so it can't ask for {key}; write 'access: authenticated', or a tier",
            )
        elif not (given or draft.is_lost(*at, key) or draft.has_losses(*at, key)):
            findings.error(
                "empty", draft.positions.value(*at, key), f"{quoted(key)} is empty; leave it out to ask for none"
            )
    seen: set[str] = set()
    for position, scope in enumerate(route.scopes):
        mark, shown = draft.positions.value(*at, "scopes", position), draft.shown(*at, "scopes", position)
        if not SCOPE_TOKEN.fullmatch(scope):
            findings.error("bad-scope", mark, f"{shown} is not a scope; one is a word without spaces, quotes and '\\'")
        elif scope in seen:
            findings.error("duplicate-entry", mark, f"{shown} is listed twice")
        seen.add(scope)
    for name, values in route.claims.items():
        mark = draft.positions.value(*at, "claims", name)
        if not name:
            findings.error("bad-claim", mark, "a claim's name is empty")
        elif not values and not draft.has_losses(*at, "claims", name):
            findings.error("empty", mark, f"the claim {quoted(name)} has no value that would do; list at least one")


def _prefixes(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    """`strip_prefix` and `add_prefix`."""
    at = ("routes", index)
    for key, written in (("strip_prefix", route.strip_prefix), ("add_prefix", route.add_prefix)):
        if written is None:
            continue
        mark, shown = draft.positions.value(*at, key), draft.shown(*at, key)
        prefix = read_prefix(written)
        if isinstance(prefix, str):
            problem = (
                prefix if draft.is_literal(*at, key) else "is no prefix; it holds literal segments only, such as /v1"
            )
            findings.error("bad-prefix", mark, f"the prefix {shown} {problem}")
        elif key == "strip_prefix":
            for path in route.each_path:
                pattern = parse_pattern(path)
                if not isinstance(pattern, str) and not begins_with(pattern, prefix):
                    findings.error(
                        "bad-prefix",
                        mark,
                        f"{shown} can't be cut off the path {quoted(path)}, which doesn't begin with it, segment by segment and literally",
                    )


def _slashes(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    """`encoded_slash` and `double_slash`: no literal holds a slash, so only what a pattern leaves open can."""
    patterns = [parse_pattern(path) for path in route.each_path]
    if any(isinstance(pattern, str) or pattern.has_below or None in pattern.segments for pattern in patterns):
        return
    for key, said in (("encoded_slash", route.encoded_slash), ("double_slash", route.double_slash)):
        if said == "literal":
            findings.warning(
                "no-effect",
                draft.positions.key("routes", index, key),
                f"'{key}' has no effect here: the path holds neither {{name}} nor '/**', where a slash could stand",
            )


def _fails_open(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    at = ("routes", index)
    if route.on_unavailable == "allow" and route.access is not None:
        findings.warning(
            "no-effect",
            draft.positions.key(*at, "on_unavailable"),
            "'on_unavailable' has no effect here: a route with 'access' never depends on what a customer pays",
        )


def _enforced(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    at = ("routes", index, "enforce")
    if not draft.is_given(*at) or route.enforce == "on":
        return
    if route.access == "public":
        message = "'enforce' has no effect here: a public route refuses nobody"
    elif route.enforce.endswith("%") and route.access == "authenticated" and not (route.scopes or route.claims):
        message = (
            "a percentage has no effect here: it is one of customers, and this route only refuses whom nobody knows, "
            "who are in no share; write observe, or on"
        )
    else:
        return
    findings.warning("no-effect", draft.positions.key(*at), message)


def _outlives(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    if route.outlive_token and (route.access == "public" or route.enforce != "on"):
        message = "'outlive_token' has no effect here: nobody is refused on this route for the end of a token"
        findings.warning("no-effect", draft.positions.key("routes", index, "outlive_token"), message)


def _timeouts(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    for key in RouteTimeouts.model_fields:
        seconds, mark = getattr(route.timeouts, key), draft.positions.value("routes", index, "timeouts", key)
        if seconds is not None and seconds <= 0:
            findings.error("out-of-range", mark, f"'{key}' must be longer than nothing: every request would time out")
        elif key == "connect" and seconds is not None and seconds > LONGEST_CONNECT_SECONDS:
            findings.error("out-of-range", mark, "'connect' is longer than ten minutes, and callers wait for it")


def _names(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    config = draft.config
    at = ("routes", index)
    if route.tier is not None and draft.is_whole("tiers"):
        _tier(draft, route.tier, (*at, "tier"), findings)
    known = {feature for tier in config.tiers for feature in tier.features}
    seen: set[str] = set()
    for position, feature in enumerate(route.features):
        mark, shown = draft.positions.value(*at, "features", position), draft.shown(*at, "features", position)
        if feature in seen:
            findings.error("duplicate-feature", mark, f"the feature {shown} is listed twice")
        elif (
            feature not in known
            and draft.is_whole("tiers")
            and draft.is_whole("tiers", "features")
            and config.billing.features_from == "tiers"
        ):
            near = nearest(feature, known) if draft.is_literal(*at, "features", position) else ""
            findings.error(
                "unknown-feature", mark, f"no tier has the feature {shown}, so nobody could ever be let in{near}"
            )
        seen.add(feature)
    if not draft.is_whole("upstreams"):
        return
    if route.upstream is not None:
        if route.upstream not in config.upstreams and draft.is_whole("upstreams", route.upstream):
            shown = draft.shown(*at, "upstream")
            near = nearest(route.upstream, config.upstreams) if draft.is_literal(*at, "upstream") else ""
            there_are = f"; there {'is' if len(config.upstreams) == 1 else 'are'} {upstream_names(draft)}"
            findings.error(
                "unknown-upstream",
                draft.positions.value(*at, "upstream"),
                f"there is no upstream {shown}{near or there_are}",
            )
    elif len(config.upstreams) > 1 and not draft.is_given(*at, "upstream"):
        findings.error(
            "which-upstream",
            draft.positions.value(*at),
            f"the route {_shown_path(draft, index)} must name its 'upstream': there are {upstream_names(draft)}",
        )


def _tier(
    draft: Draft, name: str, location: tuple[str | int, ...], findings: Findings, also: tuple[str, ...] = ()
) -> None:
    names = [tier.name for tier in draft.config.tiers]
    if name in names:
        return
    shown = draft.shown(*location)
    near = nearest(name, (*names, *also)) if draft.is_literal(*location) else ""
    what = (
        f"'default' is {' or '.join((', '.join(also), 'the name of a tier'))}, and there is no tier {shown}"
        if also
        else f"there is no tier {shown}"
    )
    findings.error("unknown-tier", draft.positions.value(*location), f"{what}{near or tiers_there_are(draft)}")


def _default(draft: Draft, findings: Findings) -> None:
    default = draft.config.default
    if default not in DEFAULTS and draft.is_whole("tiers"):
        _tier(draft, default, ("default",), findings, also=DEFAULTS)
    if (
        default != "deny"
        and len(draft.config.upstreams) > 1
        and draft.is_whole("upstreams")
        and draft.is_whole("default")
    ):
        findings.error(
            "which-upstream",
            draft.positions.value("default"),
            f"'default' lets requests through that no route names, and there are {upstream_names(draft)} to send them to; "
            "write deny, and a route with path /** for each",
        )


def _needs_issuers(draft: Draft, findings: Findings) -> None:
    if draft.config.auth.issuers or not draft.is_whole("auth", "issuers"):
        return
    if draft.config.auth.api_keys.enabled or not draft.is_whole("auth", "api_keys", "enabled"):
        return  # the operator makes the keys
    for index in range(len(draft.config.routes)):
        route = draft.config.routes[index]
        if route.access == "authenticated" or route.tier is not None or route.features:
            where = draft.positions.value("routes", index)
            what = f"the route {_shown_path(draft, index)} needs"
            break
    else:
        if draft.config.default in {"deny", "public"} or not draft.is_whole("default"):
            return
        where, what = draft.positions.value("default"), "'default' needs"
    findings.error("no-issuers", where, f"{what} a token, and 'auth.issuers' names nobody who could sign one")
