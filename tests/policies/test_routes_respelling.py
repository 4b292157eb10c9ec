"""P1: whatever a server behind the gateway makes of a path, the gateway asked for at least as much.

Each model below is what one kind of server does to a path before it looks for the handler. For every path that is let
through, what the model makes of it must not be a path that needs more than was asked for.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.paths import Target, read_target
from policies.routes import CompiledRoute, Matched, MethodNotAllowed, RouteTable
from tests.support.route_tables import route, table_of

Model = Callable[[str], str]
REFUSED = 99


def identity(path: str) -> str:
    """h11, httptools: what stands in the request line."""
    return path


def rfc3986_unreserved(path: str) -> str:
    """RFC 3986, 6.2.2.1 and 6.2.2.2: hex in capitals, unreserved characters decoded."""

    def plain(escape: re.Match[str]) -> str:
        character = chr(int(escape[0][1:], 16))
        return character if re.fullmatch(r"[A-Za-z0-9._~-]", character) else escape[0].upper()

    return re.sub(r"%[0-9A-Fa-f]{2}", plain, path)


def rfc3986_dots(path: str) -> str:
    """RFC 3986, 5.2.4 remove_dot_segments, after 6.2.2.2."""
    source, output = rfc3986_unreserved(path), ""
    while source:
        if source.startswith("/./"):
            source = source[2:]
        elif source == "/.":
            source = "/"
        elif source.startswith("/../"):
            source, output = source[3:], output.rpartition("/")[0]
        elif source == "/..":
            source, output = "/", output.rpartition("/")[0]
        else:
            end = source.find("/", 1)
            end = len(source) if end < 0 else end
            output, source = output + source[:end], source[end:]
    return output


def merged_slashes(path: str) -> str:
    """nginx `merge_slashes on`, its default, on the decoded path."""
    return encoded(re.sub("//+", "/", unquote(path)))


def go_path_clean(path: str) -> str:
    """Go net/http ServeMux cleanPath on the decoded path, which keeps a trailing slash."""
    decoded = unquote(path)
    clean = posixpath.normpath("/" + decoded.lstrip("/"))
    return encoded(clean + ("/" if decoded.endswith("/") and clean != "/" else ""))


def whatwg(path: str) -> str:
    """WHATWG URL, path state of a special scheme: `\\` is `/`, tab and newlines vanish, `%2e` is a dot."""
    source = re.sub(r"[\t\r\n]", "", path).replace("\\", "/")
    return rfc3986_dots(re.sub("%2e", ".", source, flags=re.IGNORECASE))


def tomcat(path: str) -> str:
    """Tomcat CoyoteAdapter: parameters cut, decoded, `\\` and `//` normalised, dots removed."""
    decoded = unquote(re.sub(";[^/]*", "", path)).replace("\\", "/")
    return rfc3986_dots(encoded(re.sub("//+", "/", decoded)))


def spring(path: str) -> str:
    """Spring's UrlPathHelper: decoded first, then cut at `;`, slashes merged."""
    return encoded(re.sub("//+", "/", re.sub(";[^/]*", "", unquote(path))))


def iis(path: str) -> str:
    """IIS and HTTP.SYS: decoded, `\\` is `/`, dots removed, without case, no dots or spaces at a name's end (Win32)."""
    names = unquote(path).replace("\\", "/").split("/")
    return rfc3986_dots(encoded("/".join(name if set(name) <= {"."} else name.rstrip(". ") for name in names))).lower()


def double_decode(path: str) -> str:
    """IIS with allowDoubleEscaping, or two decoding hops."""
    return encoded(unquote(unquote(path)))


def triple_decode(path: str) -> str:
    """Three decoding hops."""
    return encoded(unquote(unquote(unquote(path))))


def casefold(path: str) -> str:
    """Django's iexact, NTFS and macOS file names: compared without case."""
    return encoded(unquote(path).casefold())


def compatibility(path: str) -> str:
    """NFKC, as in Python identifiers, IDNA and Spark; then without case (Spotify's account takeover of 2013)."""
    return encoded(unicodedata.normalize("NFKC", unquote(path)).casefold())


def ascii_only(path: str) -> str:
    """The slugify idiom: NFKD, what is not ASCII dropped."""
    return encoded(unicodedata.normalize("NFKD", unquote(path)).encode("ascii", "ignore").decode())


def decode_before_query(path: str) -> str:
    """A server that decodes the target before it looks for `?` and `#`."""
    return encoded(re.split("[?#]", unquote(path), maxsplit=1)[0])


def stripped_names(path: str) -> str:
    """A router that trims each segment."""
    return encoded("/".join(name.strip() for name in unquote(path).split("/")))


def slash_removed(path: str) -> str:
    """Express and Rails: one trailing slash makes no difference."""
    return path[:-1] if path.endswith("/") and path != "/" else path


def slash_added(path: str) -> str:
    """Django APPEND_SLASH."""
    return path if path.endswith("/") else path + "/"


def encoded(decoded: str) -> str:
    return quote(decoded, safe="/:@!$&'()*+,;=~._-")


MODELS: tuple[Model, ...] = (
    identity,
    rfc3986_unreserved,
    rfc3986_dots,
    merged_slashes,
    go_path_clean,
    whatwg,
    tomcat,
    spring,
    iis,
    double_decode,
    triple_decode,
    casefold,
    compatibility,
    ascii_only,
    decode_before_query,
    stripped_names,
    slash_removed,
    slash_added,
)

PAID = (
    route("/pro/**", tier="pro"),
    route("/v1/reports/{id}", tier="pro"),
    route("/v1/reports/all", tier="enterprise"),
    route("/v1/{thing}/sign", features=("sso",)),
    route("/v1/Export", tier="pro", methods=("GET",)),
    route("/v1/models", access="authenticated"),
    route("/admin/**", access="authenticated"),
)
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


words = st.builds(
    disguised,
    st.sampled_from(("pro", "v1", "reports", "all", "sign", "Export", "models", "admin", "free", "7")),
    st.sampled_from(CASES),
)
suffixes = st.sampled_from(("", "", "", ";", ";x=1", "%3bx", "%253Bx", ".", "%20", "%20.", "%3fx", "%23", "%e2%80%8b"))
respelled = st.builds(
    lambda segments, end: "/" + "/".join(word + suffix for word, suffix in segments) + end,
    st.lists(st.tuples(words, suffixes), min_size=1, max_size=4),
    st.sampled_from(("", "", "/", "/.", "//", "/..", "/%2e", "/;")),
)
wild = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "/" + "".join(pieces))


def asked(table: RouteTable, raw: str, method: str) -> tuple[int, CompiledRoute | None]:
    """How much the gateway asks for this path; a refusal is more than any tier."""
    target = read_target(raw.encode())
    if not isinstance(target, Target):
        return REFUSED, None
    outcome = table.match(method, "gw.test", target)
    return (outcome.route.assured, outcome.route) if isinstance(outcome, Matched) else (REFUSED, None)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@settings(max_examples=150, deadline=None)
@given(st.one_of(respelled, wild), st.sampled_from(("GET", "POST")))
@example("/V1/Reports/7", "GET")
@example("/v1;x=1/reports/7", "GET")
@example("/v1/reports/7/", "GET")
@example("/v1/reports/ALL", "GET")
@example("/v1/reports/al%256c", "GET")
@example("/%2570ro/x", "GET")
@example("/pro%20/x", "GET")
@example("/pro./x", "GET")
@example("/pro%3Fx/y", "GET")
@example("/V1/Models", "GET")
@example("/Admin/x", "GET")
@example("/v1/report%c5%bf/7", "GET")
@example("/v1/EXPORT", "POST")
@example("/pro", "GET")
def test_no_server_reads_what_was_let_through_as_a_path_that_needs_more(
    table: RouteTable, raw: str, method: str
) -> None:
    given_for, judge = asked(table, raw, method)
    if given_for == REFUSED:
        return
    for model in MODELS:
        needed, needy = asked(table, model(raw), method)
        if needy is None:
            # Nobody's to protect, unless it has a route for other methods: that was not to fall to the default.
            assert judge is None or judge.index >= 0 or not has_route(table, model(raw)), (model.__name__, raw)
            continue
        assert needed <= given_for or is_own_word(judge, needy, raw), (model.__name__, raw, model(raw), judge, needy)


def has_route(table: RouteTable, raw: str) -> bool:
    target = read_target(raw.encode())
    return isinstance(target, Target) and isinstance(table.match("DELETE", "gw.test", target), MethodNotAllowed)


def is_own_word(judge: CompiledRoute | None, needy: CompiledRoute, raw: str) -> bool:
    """Whether the operator wrote a route for exactly this spelling that is at least as specific as the other."""
    if judge is None or judge.index < 0 or judge.specificity > needy.specificity:
        return False
    segments = [unquote(piece) for piece in raw.split("/")[1:]]
    literals = [piece for piece in judge.pattern.split("/")[1:] if piece != "**"]
    return all(
        literal.startswith("{") or literal == segment for literal, segment in zip(literals, segments, strict=False)
    )


@pytest.mark.parametrize(
    "raw",
    [
        "/free/../pro/x", "/free/%2e%2e/pro/x", "/free/.%2e/pro", "/free/%252e%252e/pro", "/free/..;/pro",
        "/free/..%2fpro", "/free/%2e%2e%2fpro", "/free\\..\\pro", "/free%5c..%5cpro", "//pro/x", "/./pro/x",
        "/free//../pro", "/%2fpro", "/pro%00", "/pro%2f", "/PRO/x", "/pro;a=b", "/pro/", "/pro%20", "/%70ro/x",
        "/free/%c0%ae%c0%ae/pro", "/PRO", "/pRo/X", "/pro;", "/pro;/x", "/%50RO/x", "/p%2572o/x", "/pro.", "/pro%20.",
        "/pro%c2%a0/x", "/%ef%bd%90ro/x", "/pr%c3%b3/x", "/pro%e2%80%8b/x", "/pro%3f", "/pro%23/x", "/pro%253b/x",
        "http://gw.test/pro/x", "/pro/x#/free",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "beside",
    [{"default": "public"}, {"default": "authenticated"}, {"default": "free"}, {}],
    ids=["default public", "default authenticated", "default free", "open routes"],
)
def test_every_spelling_of_a_paid_path_is_refused_or_judged_as_paid(raw: str, beside: dict[str, Any]) -> None:
    open_routes = (route("/free/**"), route("/{x}"), route("/{x}/**")) if not beside else (route("/free/**"),)
    table = table_of(*open_routes, route("/pro/**", tier="pro"), **beside)
    given_for, judge = asked(table, raw, "GET")
    assert given_for == REFUSED or (judge is not None and judge.pattern == "/pro/**")


@pytest.mark.parametrize("raw", ["/Free/x", "/free;x/y", "/free%20/x", "/x/pro", "/products", "/pro-x", "/free/pro"])
def test_what_is_no_spelling_of_a_paid_path_stays_open(raw: str) -> None:
    table = table_of(route("/free/**"), route("/pro/**", tier="pro"), default="public")
    assert asked(table, raw, "GET")[0] == 0


def test_a_respelling_of_a_path_that_needs_a_token_is_not_public_and_opens_nothing() -> None:
    routes = (route("/v1/models", access="authenticated"), route("/v1/status"))
    for open_table in (table_of(*routes, default="public"), table_of(*routes, route("/**"))):
        for raw in ("/V1/Models", "/v1/models/", "/v1/models;x", "/v1/models%20", "/v1/model%2573"):
            assert asked(open_table, raw, "GET")[0] == 1
        assert asked(open_table, "/V1/Status", "GET")[0] == 0
    closed = table_of(*routes)
    for raw in ("/V1/Models", "/v1/models/", "/v1/models%20"):
        assert asked(closed, raw, "GET")[0] == REFUSED, "an open route compares exactly"


def test_spelling_exact_is_the_operators_word_for_it() -> None:
    routes = (route("/v1/Reports", tier="pro", spelling="exact"), route("/**"))
    assert asked(table_of(*routes), "/v1/Reports", "GET")[0] == 3
    for raw in ("/v1/reports", "/v1/Reports/", "/v1/Reports;x", "/v1/Reports%20"):
        assert asked(table_of(*routes), raw, "GET")[0] == 0


def test_a_stricter_literal_is_found_past_a_laxer_parameter_in_any_spelling() -> None:
    table = table_of(
        route("/v1/reports/{id}", tier="pro"), route("/v1/reports/all", tier="enterprise"), route("/v1/{x}/{y}")
    )
    for raw in ("/v1/reports/all", "/v1/reports/ALL/", "/V1/reports/all;x", "/v1/reports/all.", "/v1/reports/al%256C"):
        assert asked(table, raw, "GET")[0] == 4
    assert asked(table, "/v1/REPORTS/8", "GET")[0] == 3
    assert asked(table, "/v1/other/all", "GET")[0] == 0


def test_the_guard_never_takes_a_path_from_an_open_route_written_for_it() -> None:
    table = table_of(
        route("/v1/reports/sample"),
        route("/v1/reports/{id}", tier="pro"),
    )
    assert asked(table, "/v1/reports/sample", "GET")[0] == 0
    assert asked(table, "/v1/reports/Sample", "GET")[0] == 3
    assert asked(table, "/v1/reports/sample/", "GET")[0] == 3
