"""P1's property: tables of paid and open routes, random respellings of their paths, and who was asked for too little."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, unquote

from policies.literal_slashes import read_literally
from policies.paths import BadTarget, Target, read_target
from policies.routes import CompiledRoute, Matched, MethodNotAllowed, RouteTable
from tests.support.route_tables import route, table_of

REFUSED = 99

PAID = (
    route("/pro/**", tier="pro"),
    route("/v1/reports/{id}", tier="pro"),
    route("/v1/reports/all", tier="enterprise"),
    route("/v1/{thing}/sign", features=("sso",)),
    route("/v1/Export", tier="pro", methods=("GET",)),
    route("/v1/models", access="authenticated"),
    route("/admin/**", access="authenticated"),
)
NARROWED = (
    route("/pro/**", tier="pro", scopes=("pro:read",)),
    route("/v1/reports/{id}", access="authenticated", scopes=("reports:read",)),
    route("/v1/reports/all", tier="pro", claims={"org_role": ("admin",)}),
    route("/v1/{thing}/sign", access="authenticated", scopes=("sign",)),
    route("/v1/Export", tier="pro", methods=("GET",), scopes=("export",)),
    route("/v1/models", access="authenticated"),
    route("/admin/**", tier="enterprise", claims={"org_role": ("owner",)}),
    route("/admin/{x}", tier="free", claims={"org_role": ("admin", "owner")}),
)
LITERAL: Final[dict[str, Any]] = {"encoded_slash": "literal", "double_slash": "literal"}
TABLES: dict[str, RouteTable] = {
    "default deny": table_of(*PAID),
    "default authenticated": table_of(*PAID, default="authenticated"),
    "default public": table_of(*PAID, default="public"),
    "default tier": table_of(*PAID, default="free"),
    "open /**": table_of(*PAID, route("/**")),
    "open /** and /{x}/**": table_of(*PAID, route("/**", access="authenticated"), route("/{x}/{y}/**")),
    "observed /**": table_of(*PAID, route("/**", tier="enterprise", enforce="observe")),
    "shares of /{x}/**": table_of(*PAID, route("/{x}/{y}/**", tier="enterprise", enforce="50%")),
    "open parameters": table_of(*PAID, route("/{a}"), route("/{a}/{b}"), route("/{a}/{b}/{c}"), default="public"),
    "literal /**": table_of(*PAID, route("/**", **LITERAL)),
    "literal parameters": table_of(
        *PAID,
        *(route("/{a}", **LITERAL), route("/{a}/{b}", **LITERAL), route("/{a}/{b}/{c}", encoded_slash="literal")),
        route("/v1/**", access="authenticated", **LITERAL),
        route("/{a}/{b}/{c}/{d}/**", tier="enterprise", double_slash="literal"),
        default="authenticated",
    ),
    "scopes": table_of(*NARROWED, default="public"),
    "scopes on /**": table_of(*NARROWED, route("/**", access="authenticated", scopes=("other",)), route("/{x}/{y}/**")),
    "scopes, literal": table_of(
        *(one.model_copy(update=LITERAL) for one in NARROWED),
        route("/**", access="authenticated", scopes=("other",), **LITERAL),
        route("/{a}/{b}", tier="pro", **LITERAL),
    ),
    "shares, literal": table_of(
        *(one.model_copy(update=LITERAL) for one in PAID),
        route("/{x}/**", tier="enterprise", enforce="50%", **LITERAL),
        route("/{x}/{y}/{z}", tier="pro", on_unavailable="allow", **LITERAL),
    ),
    "shares of what is paid": table_of(
        *(one.model_copy(update={"enforce": "30%"}) if one.tier else one for one in PAID),
        route("/{x}/{y}/**", access="authenticated"),
        default="pro",
    ),
    "literal, also what is paid": table_of(*(one.model_copy(update=LITERAL) for one in PAID), route("/**", **LITERAL)),
}

PIECES = (
    *("pro", "v1", "reports", "all", "sign", "Export", "models", "admin", "free", "7", "x"),
    *("/", "/", "/", "/", ".", "..", ";", ";x=1", "\\", "%", " ", "+", ":", "~"),
    *("%2e", "%2E", "%2f", "%5c", "%00", "%3b", "%3B", "%25", "%2525", "%20", "%3f", "%23", "%09"),
    *("%252e", "%252f", "%255c", "%2500", "%253b", "%2520", "%253f", "%25252e", "%c0%ae", "%ff"),
    *("%ef%bc%8e", "%ef%bc%8f", "%ef%bc%9b", "%e2%80%8b", "%cc%81", "%c2%a0", "%e2%80%a4", "%e2%84%85"),
)

CASES = ("as it is", "upper", "swap", "one escaped", "one escaped twice", "fullwidth", "accent", "long s")


def disguised(word: str, case: str) -> str:
    """The word as somebody would write it who hopes that two readers differ on it."""
    match case:
        case "upper":
            return word.upper()
        case "swap":
            return word.swapcase()
        case "one escaped":
            return f"%{ord(word[0]):02x}{word[1:]}"
        case "one escaped twice":
            return f"{word[:-1]}%25{ord(word[-1]):02X}"
        case "fullwidth":
            return quote(chr(ord(word[0]) + 0xFEE0)) + word[1:]
        case "accent":
            return word + "%cc%81"
        case "long s":
            return word.replace("s", "%c5%bf")
        case _:
            return word


WORDS = ("pro", "v1", "reports", "all", "sign", "Export", "models", "admin", "free", "7")
SUFFIXES = ("", "", "", ";", ";x=1", "%3bx", "%253Bx", ".", "%20", "%20.", "%3fx", "%23", "%e2%80%8b")
SLASHES = ("/", "//", "%2f", "%2F", "%2F/")
ENDS = ("", "", "/", "/.", "//", "/..", "/%2e", "/;")


def random_target(chance: random.Random) -> str:
    """A respelling of one of the tables' paths, or, one time in three, pieces without order; slashes are as good as any."""
    slash = chance.choice(SLASHES) if chance.randrange(3) == 0 else "/"
    if chance.randrange(3) == 0:
        return "/" + "".join(chance.choices(PIECES, k=chance.randrange(13)))
    segments = (
        disguised(chance.choice(WORDS), chance.choice(CASES)) + chance.choice(SUFFIXES)
        for _ in range(chance.randrange(1, 5))
    )
    return "/" + slash.join(segments) + chance.choice(ENDS)


@lru_cache(maxsize=65_536)
def read(raw: str, *, literally: bool) -> Target | BadTarget:
    """`RouteTable.read`, once for all tables that read alike."""
    if not literally:
        return read_target(raw.encode())
    target = read(raw, literally=False)
    return read_literally(raw.encode(), target) if isinstance(target, BadTarget) else target


def asked(table: RouteTable, raw: str, method: str) -> tuple[int, CompiledRoute | None]:
    """How much the gateway asks for this path; a refusal is more than any tier."""
    target = read(raw, literally=table.reads_literally)
    if not isinstance(target, Target):
        return REFUSED, None
    outcome = table.match(method, "gw.test", target)
    return (outcome.route.assured, outcome.route) if isinstance(outcome, Matched) else (REFUSED, None)


def asks_too_little(table: RouteTable, raw: str, reading: str, method: str = "GET") -> str | None:
    """Why a server that makes `reading` of `raw` would hand out more than was asked for; None where it doesn't."""
    judge = asked(table, raw, method)[1]
    return None if judge is None else next(ask_too_little(table, raw, (reading,), method, judge), None)


def ask_too_little(
    table: RouteTable, raw: str, readings: Iterable[str], method: str, judge: CompiledRoute
) -> Iterator[str]:
    """`asks_too_little` for each reading of one path, which `judge` lets through."""
    if _asks_for_all(table, judge):
        return
    for reading in readings:
        if reading == raw:
            continue
        needy = asked(table, reading, method)[1]
        if needy is None:
            # Nobody's to protect, unless it has a route for other methods: that was not to fall to the default.
            if judge.index < 0 and has_route(table, reading):
                yield f"{method} {raw} fell to the default, and {reading} has a route"
        elif not judge.asks_as_much_as(needy) and not is_own_word(judge, needy, raw, reading):
            yield f"{method} {raw} was judged by {asking(judge)}, and {reading} is for {asking(needy)}"


def _asks_for_all(table: RouteTable, judge: CompiledRoute) -> bool:
    """Whether no route of the table could ask for more, and the judge is one of them."""
    return judge.index >= 0 and all(
        judge.asks_as_much_as(route) for route in (*table.routes, *((table.default,) if table.default else ()))
    )


def asking(route: CompiledRoute) -> str:
    return f"{route.label} ({route.requirement}, enforced {route.enforcement}, fails open: {route.fails_open})"


def has_route(table: RouteTable, raw: str) -> bool:
    target = read(raw, literally=table.reads_literally)
    return isinstance(target, Target) and isinstance(table.match("DELETE", "gw.test", target), MethodNotAllowed)


def is_own_word(judge: CompiledRoute, needy: CompiledRoute, raw: str, reading: str) -> bool:
    """Whether the operator wrote a route for exactly this spelling that is at least as specific as the other.

    Of paths with different numbers of segments none is more specific.
    """
    if judge.index < 0 or judge.specificity > needy.specificity or _length(raw) != _length(reading):
        return False
    segments = [unquote(piece) for piece in raw.split("/")[1:]]
    literals = [piece for piece in judge.pattern.split("/")[1:] if piece != "**"]
    return all(
        literal.startswith("{") or literal == segment for literal, segment in zip(literals, segments, strict=False)
    )


def _length(raw: str) -> int:
    return raw.removesuffix("/").count("/")
