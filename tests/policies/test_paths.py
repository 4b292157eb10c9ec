"""Targets by the attack they are: what is refused, and what honest targets are read as."""

from __future__ import annotations

import pytest

from policies.paths import BadTarget, Target, read_target

REFUSED = {
    "dot segment (Oathkeeper GHSA-p224-6x5r-fjpm)": b"/free/../pro/x",
    "dot segment at the end": b"/free/..",
    "dot segment at the start": b"/../pro",
    "single dot segment": b"/./pro/x",
    "single dot segment at the end": b"/pro/.",
    "encoded dot segment (Envoy CVE-2019-9901)": b"/free/%2e%2e/pro/x",
    "half encoded dot segment": b"/free/.%2e/pro",
    "encoded in capitals": b"/free/%2E./pro",
    "encoded single dot": b"/%2e/pro",
    "dot segment with a path parameter (Tomcat)": b"/free/..;/pro",
    "dot segment with a named parameter": b"/free/..;x=1/pro",
    "single dot with a parameter": b"/.;x/pro",
    "dot segment with an encoded parameter": b"/free/..%3bx/pro",
    "doubly encoded dot segment (IIS)": b"/free/%252e%252e/pro",
    "doubly encoded dot in capitals": b"/free/%252E%252E/pro",
    "doubly encoded dot in a name": b"/free/a%252eb",
    "percent and digits encoded apart": b"/free/%25%32%65%25%32%65/pro",
    "triply encoded dot segment": b"/free/%25252e%25252e/pro",
    "encoded without end": b"/free/%2525252525252541",
    "three dots (old Windows)": b"/free/.../pro",
    "dots and a space (Win32)": b"/free/..%20/pro",
    "nothing but a space": b"/%20/pro",
    "encoded slash (Envoy CVE-2021-29492)": b"/free/..%2fpro",
    "encoded slash alone": b"/free%2Fx",
    "encoded slash at the end": b"/pro%2f",
    "encoded slash at the start": b"/%2fpro",
    "doubly encoded slash": b"/free%252fpro",
    "backslash (IIS)": b"/free\\..\\pro",
    "backslash alone": b"/free\\x",
    "encoded backslash": b"/free%5c..%5cpro",
    "doubly encoded backslash": b"/free%255Cpro",
    "empty segment (APISIX CVE-2021-43557)": b"//pro/x",
    "authority in the path": b"//127.0.0.1:9/x",
    "empty segment inside": b"/free//pro",
    "two trailing slashes": b"/pro//",
    "nothing but slashes": b"//",
    "empty segment once parameters are cut (Tomcat)": b"/;x/pro",
    "empty segment once an encoded parameter is cut": b"/free/%3Bx/pro",
    "encoded NUL (Traefik CVE-2025-66490)": b"/pro%00",
    "encoded NUL before a suffix": b"/pro%00.txt",
    "doubly encoded NUL": b"/pro%2500",
    "encoded line feed": b"/pro%0a",
    "encoded CRLF": b"/pro%0d%0aX-User:%20admin",
    "encoded tab": b"/pro%09",
    "encoded DEL": b"/pro%7f",
    "encoded C1 control": b"/pro%C2%85",
    "overlong dot": b"/free/%c0%ae%c0%ae/pro",
    "overlong slash": b"/free%c0%afpro",
    "overlong NUL": b"/pro%c0%80",
    "overlong dot of three bytes": b"/free/%e0%80%ae%e0%80%ae/pro",
    "doubly encoded overlong dot": b"/free/%25c0%25ae%25c0%25ae/pro",
    "UTF-16 surrogate in UTF-8": b"/%ed%a0%80",
    "byte that is not UTF-8": b"/%ff",
    "cut-off UTF-8": b"/%e2%82",
    "IIS escape": b"/free/%u002e%u002e/pro",
    "bad escape": b"/%zz",
    "lone percent": b"/100%",
    "half an escape": b"/%2",
    "escape with a sign": b"/%+2e",
    "fullwidth dot segment": b"/free/%EF%BC%8E%EF%BC%8E/pro",
    "two dot leader": b"/free/%E2%80%A5/pro",
    "one dot leaders": b"/free/%E2%80%A4%E2%80%A4/pro",
    "fullwidth slash": b"/free%EF%BC%8Fpro",
    "fullwidth backslash": b"/free%EF%BC%BCpro",
    "fullwidth percent before digits": b"/free/%EF%BC%852e%EF%BC%852e/pro",
    "character that unfolds to a slash (U+2105 CARE OF)": b"/free%E2%84%85pro",
    "division slash (Windows best fit)": b"/free%E2%88%95pro",
    "fraction slash (Windows best fit)": b"/free%E2%81%84pro",
    "set minus (Windows best fit)": b"/free%E2%88%96pro",
    "zero width characters between dots": b"/free/.%E2%80%8B./pro",
    "dots before an encoded query": b"/free/..%3Fx",
    "dots before an encoded fragment": b"/free/..%23/pro",
    "fragment (oauth2-proxy GHSA-pxq7-h93f-9jrg)": b"/free#/../pro",
    "plain fragment": b"/free#x",
    "fragment after the query": b"/free?a#b",
    "absolute form (RFC 9112, 3.2.2)": b"http://evil/pro/x",
    "absolute form of ourselves": b"https://gw.test/pro",
    "authority form": b"h:1",
    "asterisk form": b"*",
    "no slash at the start": b"pro",
    "dots without a slash": b"../pro",
    "query alone": b"?x",
    "nothing": b"",
    "encoded slash at the very start": b"%2fpro",
    "raw NUL": b"/pro\x00",
    "raw space": b"/pro x",
    "raw tab": b"/pro\tx",
    "raw line feed at the end": b"/pro\n",
    "raw CR": b"/pro\rx",
    "raw DEL": b"/pro\x7f",
    "raw UTF-8": "/café".encode(),
    "raw Latin-1": b"/caf\xe9",
    "space in the query": b"/free?a b",
    "line feed in the query": b"/free?a\n",
    "NUL in the query": b"/free?a\x00",
    "DEL in the query": b"/free?\x7f",
    "line feed after the whole": b"/free?a\n",
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_a_target_that_can_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    outcome = read_target(raw)
    assert isinstance(outcome, BadTarget), outcome
    assert outcome.detail.endswith(".")


@pytest.mark.parametrize(
    "raw", [raw for raw in REFUSED.values() if raw.startswith(b"/") and b"?" not in raw and b"#" not in raw]
)
def test_it_is_refused_below_any_prefix_and_with_any_query(raw: bytes) -> None:
    assert isinstance(read_target(b"/a/b" + raw), BadTarget)
    assert isinstance(read_target(raw + b"?q=1"), BadTarget)


ADMITTED: dict[bytes, tuple[tuple[str, ...], bool]] = {
    b"/": ((), True),
    b"/a": (("a",), False),
    b"/a/": (("a",), True),
    b"/v1/reports/7": (("v1", "reports", "7"), False),
    b"/V1/Reports/7": (("V1", "Reports", "7"), False),
    b"/%70ro/x": (("pro", "x"), False),
    b"/%50ro": (("Pro",), False),
    b"/a%2Db%7Ec": (("a-b~c",), False),
    b"/caf%C3%A9": (("café",), False),
    b"/a%20b": (("a b",), False),
    b"/pro%20": (("pro ",), False),
    b"/pro.": (("pro.",), False),
    b"/.well-known/openid-configuration": ((".well-known", "openid-configuration"), False),
    b"/a..b/..a/b..": (("a..b", "..a", "b.."), False),
    b"/report.final.pdf": (("report.final.pdf",), False),
    b"/v1;x=1/reports;/7": (("v1;x=1", "reports;", "7"), False),
    b"/tags/c%23": (("tags", "c#"), False),
    b"/wiki/What%3F": (("wiki", "What?"), False),
    b"/wiki/%3F": (("wiki", "?"), False),
    b"/free%23/x": (("free#", "x"), False),
    b"/100%25": (("100%",), False),
    b"/100%25of": (("100%of",), False),
    b"/a%2541": (("a%41",), False),
    b"/Wait%E2%80%A6": (("Wait…",), False),
    b"/%C2%BD-cup": (("½-cup",), False),
    b"/a%EF%BC%8Eb": (("a\uff0eb",), False),
    b"/%F0%9F%91%A9%E2%80%8D%F0%9F%92%BB": (("👩\u200d💻",), False),
    b"/!$&'()*+,=:@-._~": (("!$&'()*+,=:@-._~",), False),
    b'/{a}|^`"<>[]': (('{a}|^`"<>[]',), False),
}


@pytest.mark.parametrize(("raw", "reading"), ADMITTED.items(), ids=map(repr, ADMITTED))
def test_an_honest_path_is_read_with_each_escape_decoded_once(
    raw: bytes, reading: tuple[tuple[str, ...], bool]
) -> None:
    target = read_target(raw)
    assert isinstance(target, Target), target
    assert (target.segments, target.has_trailing_slash) == reading
    assert target.raw == raw


@pytest.mark.parametrize(
    "query",
    [b"", b"/../pro", b"path=/status", b"%zz", b"%", b"%2e%2e/%00", b"a=1&a=2;b", b"//x\\y", b"?", b"\xc3\xa9", b"{}|"],
)
@pytest.mark.parametrize("path", [b"/free", b"/fr%65e", b"/"])
def test_the_query_is_carried_untouched_and_never_read(path: bytes, query: bytes) -> None:
    without, with_query = read_target(path), read_target(path + b"?" + query)
    assert isinstance(without, Target)
    assert isinstance(with_query, Target)
    assert with_query.raw == path + b"?" + query
    assert with_query.segments == without.segments
    assert with_query.further == without.further


def test_a_tier_compares_without_case_parameters_and_slash() -> None:
    for raw in (b"/v1/reports/a", b"/V1/Reports/A", b"/v1;x=1/reports;y/a;", b"/v1/reports/a/", b"/%561/reports/a"):
        target = read_target(raw)
        assert isinstance(target, Target)
        assert target.folded == ("v1", "reports", "a")
        assert target.further == ()


@pytest.mark.parametrize(
    ("raw", "further"),
    [
        (b"/pro%20", ("pro",)),
        (b"/%20pro", ("pro",)),
        (b"/pro.", ("pro",)),
        (b"/pro%20.%20", ("pro",)),
        (b"/%2570ro", ("pro",)),
        (b"/%252570ro", ("pro",)),
        (b"/%EF%BD%90ro", ("pro",)),
        (b"/pr%C3%B3", ("pro",)),
        (b"/pr%E2%80%8Bo", ("pro",)),
        (b"/%E2%84%AA", ("k",)),
        (b"/report%C5%BF", ("reports",)),
        (b"/pro%253Bx", ("pro",)),
        (b"/pro%EF%BC%9Bx", ("pro",)),
        (b"/pro/a%3Fb/c", ("pro", "a")),
        (b"/pro/%23/c", ("pro",)),
        (b"/pro/a%253Fb/c", ("pro", "a")),
    ],
)
def test_what_forgiving_servers_read_is_known(raw: bytes, further: tuple[str, ...]) -> None:
    target = read_target(raw)
    assert isinstance(target, Target)
    assert further in target.further


def test_a_huge_target_is_read_and_judged_whole() -> None:
    assert isinstance(read_target(b"/a" * 100_000), Target)
    assert isinstance(read_target(b"/" + b"%C3%A9" * 50_000), Target)
    assert isinstance(read_target(b"/a" * 100_000 + b"/.."), BadTarget)
    assert isinstance(read_target(b"/" + b"%25" * 50_000 + b"41"), Target)
    assert isinstance(read_target(b"/%" + b"25" * 50_000 + b"41"), BadTarget)
    assert isinstance(read_target(b"/" + b"." * 200_000), BadTarget)


def test_a_refusal_repeats_nothing_of_what_was_sent() -> None:
    details = {outcome.detail for raw in REFUSED.values() if isinstance(outcome := read_target(raw), BadTarget)}
    assert not any("free" in detail or "pro/" in detail or "evil" in detail for detail in details)


def test_a_path_is_shown_as_people_read_it() -> None:
    shown = {
        raw: target.path for raw in (b"/", b"/a/", b"/caf%C3%A9?x=1") if isinstance(target := read_target(raw), Target)
    }
    assert shown == {b"/": "/", b"/a/": "/a/", b"/caf%C3%A9?x=1": "/café"}
