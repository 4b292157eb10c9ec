"""Where frames begin and end, beside a reader of RFC 6455 that takes its time; and the framing that is refused, each way."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.frames import NO_CODE, FrameTracker, close_frame

MASK: Final = b"\1\2\3\4"
CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN: Final = 0x80


def frame(first: int, payload: bytes, *, masked: bool, length: bytes | None = None, mask: bytes = MASK) -> bytes:
    """One frame; `length` in place of the shortest one, with the mask's bit left to this."""
    size = len(payload)
    if length is None:
        if size < 126:
            length = bytes((size,))
        else:
            length = b"\x7e" + size.to_bytes(2) if size < 1 << 16 else b"\x7f" + size.to_bytes(8)
    if not masked:
        return bytes((first,)) + length + payload
    covered = bytes(octet ^ mask[index % 4] for index, octet in enumerate(payload))
    return bytes((first, length[0] | 0x80)) + length[1:] + mask + covered


@dataclass(frozen=True, slots=True)
class Read:
    """What may go on, where in it a frame ends, the Close's code, and whether something didn't hold."""

    passed: bytes
    ends: tuple[int, ...]
    code: int | None
    broken: bool


def read_slowly(data: bytes, *, masked: bool, extended: bool) -> Read:
    """All at once, frame by frame, each rule of sections 5.2 to 5.5 by itself. What isn't whole goes on once its header is."""
    at, ends, in_message = 0, [0], False

    def done(passed: int, *, code: int | None = None, broken: bool = False) -> Read:
        return Read(data[:passed], tuple(ends), code, broken)

    while at + 2 <= len(data):
        bits = f"{data[at]:08b}{data[at + 1]:08b}"
        fin, reserved, opcode = bits[0] == "1", bits[1:4], int(bits[4:8], 2)
        has_mask, size = bits[8] == "1", int(bits[9:], 2)
        is_control = opcode in {CLOSE, PING, PONG}
        if not is_control and opcode not in {CONTINUED, TEXT, BINARY}:
            return done(at, broken=True)
        if (reserved != "000" and not extended) or has_mask != masked:
            return done(at, broken=True)
        if is_control and (not fin or size > 125 or (opcode == CLOSE and size == 1)):
            return done(at, broken=True)
        if not is_control and (opcode == CONTINUED) != in_message:
            return done(at, broken=True)
        wide = {126: 2, 127: 8}.get(size, 0)
        header = 2 + wide + (4 if masked else 0)
        if len(data) < at + 2 + wide:
            return done(at)
        if wide:
            size = int(data[at + 2 : at + 2 + wide].hex(), 16)
            if size >= 2**63 or (size <= 125 if wide == 2 else size <= 65535):
                return done(at, broken=True)
        if len(data) < at + header:
            return done(at)
        end = at + header + size
        if opcode == CLOSE:
            if len(data) < end:
                return done(at)
            body = data[at + header : end]
            if masked:
                key = data[at + header - 4 : at + header]
                body = bytes(octet ^ key[index % 4] for index, octet in enumerate(body))
            ends.append(end)
            return done(end, code=int(body[:2].hex(), 16) if body else NO_CODE)
        if not is_control:
            in_message = not fin
        if end > len(data):
            return done(len(data))
        at = end
        ends.append(at)
    return done(at)


def fed(pieces: list[bytes], *, masked: bool, extended: bool) -> Read:
    """What a tracker makes of it, piece by piece."""
    tracker = FrameTracker(masked=masked, extended=extended)
    passed, ends = b"", {0}
    for piece in pieces:
        passed += tracker.feed(piece)
        assert tracker.left >= 0
        if tracker.left == 0:
            ends.add(len(passed))
    return Read(passed, tuple(sorted(ends)), tracker.close_code, tracker.problem is not None)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


PAYLOADS: Final = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([125, 126, 127, 128, 65535, 65536]).map(lambda size: b"p" * size),
)


@st.composite
def conversations(draw: st.DrawFn, *, masked: bool) -> bytes:
    """Mostly frames that hold; now and then one that doesn't, or the beginning of one."""
    said, in_message = b"", False
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["data", "data", "data", "control", "close", "any", "flipped"]))
        mask = draw(st.binary(min_size=4, max_size=4))
        if kind == "data":
            fin = draw(st.booleans())
            opcode = CONTINUED if in_message else draw(st.sampled_from([TEXT, BINARY]))
            said += frame(opcode | (FIN if fin else 0), draw(PAYLOADS), masked=masked, mask=mask)
            in_message = not fin
        elif kind == "control":
            opcode = draw(st.sampled_from([PING, PONG]))
            said += frame(FIN | opcode, draw(st.binary(max_size=125)), masked=masked, mask=mask)
        elif kind == "close":
            code = draw(st.sampled_from([b"", b"\x03", b"\x03\xe8", b"\x0f\xa0bye"]))
            said += frame(FIN | CLOSE, code, masked=masked, mask=mask)
        elif kind == "any":
            said += draw(st.binary(max_size=14))
        else:
            said += frame(draw(st.integers(0, 255)), draw(PAYLOADS), masked=draw(st.booleans()), mask=mask)
    return said[: len(said) - draw(st.integers(0, 3))]


@given(st.data(), st.booleans(), st.booleans(), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_however_it_is_cut_the_same_goes_on_and_frames_end_at_the_same_places(
    data: st.DataObject, masked: bool, extended: bool, places: list[int]
) -> None:
    said = data.draw(conversations(masked=masked))
    expected = read_slowly(said, masked=masked, extended=extended)
    got = fed(cut(said, places), masked=masked, extended=extended)
    assert (got.passed, got.code, got.broken) == (expected.passed, expected.code, expected.broken)
    assert set(got.ends) <= set(expected.ends)  # a frame that ended within a piece was passed by


@given(st.data(), st.booleans(), st.booleans())
def test_byte_by_byte_every_end_is_seen(data: st.DataObject, masked: bool, extended: bool) -> None:
    said = data.draw(conversations(masked=masked))[:2000]
    pieces = [said[at : at + 1] for at in range(len(said))]
    assert fed(pieces, masked=masked, extended=extended) == read_slowly(said, masked=masked, extended=extended)


REFUSED: Final = {
    **{
        f"opcode {opcode:#x}": (FIN | opcode, b"x", None)
        for opcode in (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
    },
    **{f"long control {opcode:#x}": (FIN | opcode, b"x" * 126, None) for opcode in (CLOSE, PING, PONG)},
    **{f"longer control {opcode:#x}": (FIN | opcode, b"x" * 65536, None) for opcode in (CLOSE, PING, PONG)},
    **{f"fragmented control {opcode:#x}": (opcode, b"xx", None) for opcode in (CLOSE, PING, PONG)},
    "half a close code": (FIN | CLOSE, b"x", None),
    "continuation of nothing": (FIN | CONTINUED, b"x", None),
    "0 in two bytes": (FIN | TEXT, b"", b"\x7e\0\0"),
    "125 in two bytes": (FIN | TEXT, b"x" * 125, b"\x7e\0\x7d"),
    "0 in eight bytes": (FIN | TEXT, b"", b"\x7f" + b"\0" * 8),
    "126 in eight bytes": (FIN | TEXT, b"x" * 126, b"\x7f" + b"\0" * 7 + b"\x7e"),
    "65535 in eight bytes": (FIN | BINARY, b"x" * 65535, b"\x7f" + b"\0" * 6 + b"\xff\xff"),
    "2^63": (FIN | BINARY, b"x", b"\x7f\x80" + b"\0" * 7),
    "2^64 - 1": (FIN | BINARY, b"x", b"\x7f" + b"\xff" * 8),
}


@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_framing_is_refused_whichever_way_it_goes(name: str, masked: bool, extended: bool) -> None:
    first, payload, length = REFUSED[name]
    good = frame(FIN | TEXT, b"good", masked=masked)
    bad = frame(first, payload, masked=masked, length=length)
    for pieces in ([good + bad + good], [good, *(bad[at : at + 1] for at in range(14)), bad[14:], good]):
        got = fed(pieces, masked=masked, extended=extended)
        assert (got.passed, got.broken, got.code) == (good, True, None)


@pytest.mark.parametrize("masked", [True, False])
def test_a_mask_is_for_whoever_must_and_for_nobody_else(masked: bool) -> None:
    bad = frame(FIN | TEXT, b"x", masked=not masked)
    assert fed([bad], masked=masked, extended=False) == Read(b"", (0,), None, True)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING])
@pytest.mark.parametrize("bit", [0x40, 0x20, 0x10])
def test_reserved_bits_are_the_extensions_alone(masked: bool, opcode: int, bit: int) -> None:
    one = frame(FIN | bit | opcode, b"x", masked=masked)
    assert fed([one], masked=masked, extended=False).broken
    assert fed([one], masked=masked, extended=True) == Read(one, (0, len(one)), None, False)


def test_a_message_within_a_message_is_refused_and_a_ping_within_one_is_not() -> None:
    begun = frame(TEXT, b"x", masked=False)
    ping = frame(FIN | PING, b"", masked=False)
    rest = frame(FIN | CONTINUED, b"y", masked=False)
    assert fed([begun + ping + rest], masked=False, extended=False).passed == begun + ping + rest
    assert fed([begun + frame(FIN | TEXT, b"y", masked=False)], masked=False, extended=False).passed == begun


@pytest.mark.parametrize("size", [1 << 16, (1 << 63) - 1])
def test_a_frame_of_any_length_goes_on_without_being_kept(size: int) -> None:
    tracker = FrameTracker(masked=False, extended=False)
    header = bytes((FIN | BINARY, 127)) + size.to_bytes(8)
    assert tracker.feed(header + b"xyz") == header + b"xyz"
    assert tracker.left == size - 3
    assert tracker.feed(b"\x83" * 1000) == b"\x83" * 1000  # no header is looked for within it
    assert (tracker.left, tracker.problem) == (size - 1003, None)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("reason", ["", "tier_required", "ü" * 61])
def test_a_close_of_our_own_is_one(masked: bool, reason: str) -> None:
    ours = close_frame(4402, reason, masked=masked)
    assert fed([ours], masked=masked, extended=False) == Read(ours, (0, len(ours)), 4402, False)
    assert read_slowly(ours, masked=masked, extended=False).code == 4402


def test_a_reason_that_is_too_long_is_a_defect_of_ours() -> None:
    with pytest.raises(ValueError, match="too long"):
        close_frame(1000, "x" * 124, masked=False)
