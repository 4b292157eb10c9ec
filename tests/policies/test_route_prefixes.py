"""`strip_prefix` and `add_prefix`: the cut goes where the prefix was matched literally, or nowhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.load import load
from policies.paths import BadTarget, Target, read_target
from policies.rewriting import read_prefix, rewrite_of
from tests.support.route_tables import compiled, route, target_of


def forwarded(target: str, strip: str = "", add: str = "") -> bytes | None:
    cut, put = (read_prefix(one) if one else () for one in (strip, add))
    assert not isinstance(cut, str)
    assert not isinstance(put, str)
    rewrite = rewrite_of(cut, put)
    assert rewrite is not None
    path = rewrite.path(target_of(target))
    return None if isinstance(path, BadTarget) else path


@pytest.mark.parametrize(
    ("target", "strip", "add", "path"),
    [
        ("/v1/x", "/v1", "", b"/x"),
        ("/v1", "/v1", "", b"/"),
        ("/v1/", "/v1", "", b"/"),
        ("/v1?a=/v1", "/v1", "", b"/"),
        ("/v1/v1/x", "/v1", "", b"/v1/x"),
        ("/a/b/c/d", "/a/b", "", b"/c/d"),
        ("/v1/x", "/v1", "/api/v2", b"/api/v2/x"),
        ("/v1", "/v1", "/api", b"/api"),
        ("/v1/", "/v1", "/api", b"/api/"),
        ("/x", "", "/api", b"/api/x"),
        ("/", "", "/api", b"/api/"),
        ("/v1/%41;b=%3b/~", "/v1", "", b"/%41;b=%3b/~"),
        ("/%761/x", "/v1", "", b"/x"),
        ("/%C3%A4/%c3%a4", "/ä", "/ö b", b"/%C3%B6%20b/%c3%a4"),
        ("/a%20b/x", "/a b", "", b"/x"),
        ("/V1/x", "/v1", "", None),
        ("/v1;a/x", "/v1", "", None),
        ("/v1%20/x", "/v1", "", None),
        ("/v1%3Fx/y", "/v1", "", None),
        ("/v10/x", "/v1", "", None),
        ("/a", "/a/b", "", None),
    ],
)
def test_the_cut_is_where_the_prefix_stands_and_the_rest_is_as_it_came(
    target: str, strip: str, add: str, path: bytes | None
) -> None:
    assert forwarded(target, strip, add) == path


SEGMENTS = st.lists(
    st.sampled_from(["v1", "%761", "V1", "a", "%61", "b;c=%2b", "~", "a%20", "%C3%A4", "..."]), max_size=5
)


@given(
    SEGMENTS, st.booleans(), st.sampled_from(["", "?", "?/v1/../x", "?a=%2f"]), st.sampled_from(["/v1", "/v1/a", "/a"])
)
def test_what_is_forwarded_is_always_a_whole_readable_end_of_what_came(
    segments: list[str], slash: bool, query: str, strip: str
) -> None:
    raw = ("/" + "/".join(segments) + ("/" if slash and segments else "") + query).encode()
    target = read_target(raw)
    if not isinstance(target, Target):
        return
    path = forwarded(raw.decode(), strip)
    if path is None:
        return
    count = strip.count("/")
    assert (raw.partition(b"?")[0].endswith(path)) or path == b"/"
    read = read_target(path)
    assert isinstance(read, Target)
    assert ("/" + "/".join(target.segments[:count]), read.segments) == (strip, target.segments[count:])


@pytest.mark.parametrize(
    ("prefix", "problem"),
    [
        ("v1", "does not begin"), ("/", "every path begins"), ("/v1/", "ends in '/'"), ("/{x}", "literal segments only"),
        ("/v1/**", "literal segments only"), ("/a//b", "empty segment"), ("/..", "no request can"), ("/a%2fb", "escape"),
        ("/a?b", "query"), ("", "does not begin"), ("/_gateway/x", "own"),
    ],
)  # fmt: skip
def test_what_is_no_prefix_is_said_so(prefix: str, problem: str) -> None:
    found = read_prefix(prefix)
    assert isinstance(found, str)
    assert problem in found


@pytest.mark.parametrize("path", ["/v1x/a", "/{v1}/a", "/**", "/a/v1", "/V1/a", "/v1x"])
def test_no_table_comes_of_a_prefix_that_is_not_the_literal_beginning_of_the_path(path: str) -> None:
    outcome = compiled(route(path).model_copy(update={"strip_prefix": "/v1"}))

    assert outcome.table is None
    assert [problem.code for problem in outcome.problems] == ["bad-prefix"]
    assert compiled(route("/v1/**").model_copy(update={"strip_prefix": "/v1"})).table is not None


def test_a_slip_in_a_prefix_is_told_where_it_stands() -> None:
    text = (
        "version: 1\nupstreams: {api: {targets: ['http://127.0.0.1:9000']}}\nroutes:\n"
        "  - paths: [/v1/a, /v2/a]\n    access: public\n    strip_prefix: /v1\n    add_prefix: v9\n"
    )
    loaded = load(text, file="gateway.yaml", environ={}, read_file=lambda _: "")
    assert [str(found) for found in loaded.diagnostics] == [
        "gateway.yaml:6:19: error[bad-prefix]: '/v1' can't be cut off the path '/v2/a', which doesn't begin with it, segment by segment and literally",
        "gateway.yaml:7:17: error[bad-prefix]: the prefix 'v9' does not begin with '/'",
    ]
