"""What holds for any bytes in the place of a request target."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.paths import BadTarget, Target, _read_carefully, read_target

TOKENS = st.sampled_from(
    [
        *(
            b"/",
            b"/",
            b"/",
            b"a",
            b"B",
            b"z9",
            b".",
            b"..",
            b";",
            b"~",
            b"*",
            b"@",
            b":",
            b"{",
            b"?",
            b"#",
            b" ",
            b"\\",
        ),
        *(
            b"%",
            b"25",
            b"%25",
            b"%2e",
            b"%2F",
            b"%41",
            b"%c3%a9",
            b"%00",
            b"%20",
            b"%3f",
            b"%23",
            b"\x00",
            b"\n",
            b"\xff",
        ),
    ]
)
TARGETS = st.one_of(
    st.binary(max_size=40),
    st.lists(TOKENS, max_size=14).map(lambda tokens: b"/" + b"".join(tokens)),
    st.text(max_size=20).map(lambda text: b"/" + text.encode("utf-8", "surrogatepass")),
)


@settings(max_examples=600, deadline=None)
@given(TARGETS)
@example(b"/.a/b..c/.d.e")
@example(b"/a./b")
@example(b"/?")
def test_the_shortcut_for_plain_paths_reads_what_the_careful_way_reads(raw: bytes) -> None:
    assert read_target(raw) == _read_carefully(raw)


@settings(max_examples=600, deadline=None)
@given(TARGETS)
def test_what_is_forwarded_is_what_was_sent_and_can_stand_in_a_request_line(raw: bytes) -> None:
    target = read_target(raw)
    if isinstance(target, BadTarget):
        return
    assert target.raw == raw
    assert raw.startswith(b"/")
    assert not set(raw) & {*range(0x21), 0x7F, ord("#")}
    assert not raw.startswith(b"//")


@settings(max_examples=600, deadline=None)
@given(TARGETS)
def test_no_segment_of_any_reading_is_empty_a_dot_segment_or_holds_a_separator(raw: bytes) -> None:
    target = read_target(raw)
    if isinstance(target, BadTarget):
        return
    for reading in (target.segments, target.folded, *target.further):
        for segment in reading:
            assert segment.strip(" .")
            assert not set(segment) & {"/", "\\", "\x00", "\n"}


@settings(max_examples=300, deadline=None)
@given(TARGETS, st.lists(st.booleans(), min_size=80, max_size=80))
def test_encoding_what_needs_no_encoding_changes_no_reading(raw: bytes, choices: list[bool]) -> None:
    target = read_target(raw)
    if isinstance(target, BadTarget):
        return
    path, mark, query = raw.partition(b"?")
    is_safe = [bytes([byte]).isalnum() and byte < 0x80 for byte in path]
    if b"%" in path:
        return
    disguised = b"".join(
        b"%%%02x" % byte if safe and chosen else bytes([byte])
        for byte, safe, chosen in zip(path, is_safe, choices * (len(path) // 80 + 1), strict=False)
    )
    again = read_target(disguised + mark + query)
    assert isinstance(again, Target)
    assert (again.segments, again.has_trailing_slash, again.folded, again.further) == (
        target.segments,
        target.has_trailing_slash,
        target.folded,
        target.further,
    )
