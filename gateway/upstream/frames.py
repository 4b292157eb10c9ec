"""Where WebSocket frames begin and end in one direction of a tunnel (RFC 6455, section 5): bytes in, what may go on out.

Pure, incremental, and nothing is decoded but a Close. What goes on is what came, byte for byte, so that compression,
fragments and pings are between the two ends. It decides

- whether the framing holds: masked or not as the direction asks, no reserved opcode or bit, control frames whole and
  short, lengths in their shortest form, fragments in order. What doesn't hold is never handed on, nor anything behind it;
- where a frame of the gateway's own may go in: `left` is 0 there;
- that nothing follows a Close.

A header is held back until it is whole, and so is a Close: at most 138 bytes.
"""

from __future__ import annotations

import os
from typing import Final

_CLOSE: Final = 0x8
_CONTINUATION: Final = 0x0
_OPCODES: Final = frozenset({0x0, 0x1, 0x2, 0x8, 0x9, 0xA})
_LONGEST_CONTROL: Final = 125
NO_CODE: Final = 1005
"""What a Close without a code is called (RFC 6455, section 7.4.1); never sent."""


class FrameTracker:
    """One direction. `masked`: it comes from a client. `extended`: an extension was agreed on, so that RSV bits may mean something."""

    __slots__ = ("_held", "_in_message", "_masked", "_reserved", "close_code", "left", "problem")

    def __init__(self, *, masked: bool, extended: bool) -> None:
        self._masked = masked
        self._reserved = 0 if extended else 0x70
        self._held = b""
        self._in_message = False
        self.left = 0
        """How much of the frame that has begun to go on is still to come."""
        self.close_code: int | None = None
        """Once a Close has gone on, its code."""
        self.problem: str | None = None
        """Why nothing more goes on."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more goes on: a Close did, or what came doesn't hold."""
        return self.close_code is not None or self.problem is not None

    def feed(self, data: bytes) -> bytes:
        """What of this, and of what was held back, may go on."""
        if self.is_over:
            return b""
        if self._held:
            data = self._held + data
            self._held = b""
        size = len(data)
        position = self.left
        while position < size:
            following = self._frame(data, position, size)
            if following is None:
                self.left = 0
                return data[:position]
            position = following
            if self.close_code is not None:
                self.left = 0
                return data[:position]
        self.left = position - size
        return data

    def _frame(self, data: bytes, start: int, size: int) -> int | None:
        """Where the frame that starts here ends; None where that can't be told yet, or it must not go on."""
        if size < start + 2:
            return self._held_back(data[start:])
        first, second = data[start], data[start + 1]
        opcode, length, body = first & 0x0F, second & 0x7F, start + 2
        if opcode not in _OPCODES:
            return self._failed("a reserved opcode")
        if first & self._reserved:
            return self._failed("a reserved bit without an extension")
        if (second >= 0x80) is not self._masked:
            return self._failed("a frame that is not masked" if self._masked else "a masked frame")
        if opcode >= _CLOSE:
            if first < 0x80 or length > _LONGEST_CONTROL:
                return self._failed("a control frame that is fragmented or too long")
            if opcode == _CLOSE and length == 1:
                return self._failed("half a close code")
        else:
            if (opcode == _CONTINUATION) is not self._in_message:
                return self._failed("a fragment out of order")
            if length >= 126:
                body += 2 if length == 126 else 8
                if size < body:
                    return self._held_back(data[start:])
                shortest = 126 if length == 126 else 1 << 16
                length = int.from_bytes(data[start + 2 : body])
                if not shortest <= length < 1 << 63:
                    return self._failed("a length that is not in its shortest form")
        if self._masked:
            body += 4
        if size < body or (opcode == _CLOSE and size < body + length):
            return self._held_back(data[start:])
        if opcode < _CLOSE:
            self._in_message = first < 0x80
        elif opcode == _CLOSE:
            self.close_code = self._code(data, body) if length else NO_CODE
        return body + length

    def _code(self, data: bytes, body: int) -> int:
        code = int.from_bytes(data[body : body + 2])
        return code ^ int.from_bytes(data[body - 4 : body - 2]) if self._masked else code

    def _held_back(self, unfinished: bytes) -> int | None:
        self._held = unfinished
        return None

    def _failed(self, problem: str) -> int | None:
        self.problem = problem
        return None


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """A Close of the gateway's own; `reason` is at most 123 bytes long."""
    payload = code.to_bytes(2) + reason.encode()
    if len(payload) > _LONGEST_CONTROL:
        raise ValueError("the reason of a Close is too long")
    if not masked:
        return bytes((0x80 | _CLOSE, len(payload))) + payload
    mask = os.urandom(4)
    covered = bytes(octet ^ mask[index % 4] for index, octet in enumerate(payload))
    return bytes((0x80 | _CLOSE, 0x80 | len(payload))) + mask + covered
