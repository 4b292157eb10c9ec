"""What an HTTP/2 upstream may send, spoilt: frames cut, doubled, joined, moved to other streams, with wrong lengths and flags.

Whatever comes, the connection must never raise, a stream ends by a whole answer or a problem once its connection has ended, what is
said to be whole was said by the frames, and every stream's place is given back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection

from gateway.upstream.http2_connection import Http2Connection
from gateway.upstream.request_head import request_head
from tests.fuzz.mutations import pieces

if TYPE_CHECKING:
    import random

_LENGTH_BYTES: Final = 3
_HEADER_BYTES: Final = 9


class Deaf(asyncio.Transport):
    """Takes whatever is written, and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._is_closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def abort(self) -> None:
        self._is_closing = True


def _frames(dice: random.Random, streams: int) -> list[bytes]:
    """What a server says that answers all of these, frame by frame."""
    client, server = H2Connection(), H2Connection(H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()
    for number in range(streams):
        client.send_headers(
            2 * number + 1,
            [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")],
            end_stream=True,
        )
    server.receive_data(client.data_to_send())
    for number in dice.sample(range(streams), streams):
        length = dice.choice([None, 5, 5, 4])
        fields = [(":status", dice.choice(["200", "204", "304", "404"])), ("x-a", "b" * dice.choice([1, 300]))]
        server.send_headers(2 * number + 1, fields + ([] if length is None else [("content-length", str(length))]))
        server.send_data(2 * number + 1, b"hello", end_stream=dice.random() < 0.8)
    if dice.random() < 0.3:
        server.ping(b"12345678")
    if dice.random() < 0.3:
        server.close_connection(last_stream_id=dice.randrange(2 * streams))
    data = server.data_to_send()
    found = []
    while data:
        end = _HEADER_BYTES + int.from_bytes(data[:_LENGTH_BYTES])
        found.append(data[:end])
        data = data[end:]
    return found


def _spoilt(frames: list[bytes], dice: random.Random) -> bytes:
    for _ in range(dice.randrange(4)):
        at = dice.randrange(len(frames))
        frame = bytearray(frames[at])
        match dice.randrange(7):
            case 0:
                del frames[at]
            case 1:
                frames.insert(at, frames[dice.randrange(len(frames))])
            case 2:
                frames[at], frames[-1] = frames[-1], frames[at]
            case 3:
                frame[dice.randrange(len(frame))] = dice.randrange(256)
                frames[at] = bytes(frame)
            case 4:
                frame[3:5] = dice.randbytes(2)  # its type and flags
                frames[at] = bytes(frame)
            case 5:
                frame[5:9] = dice.choice([0, 1, 2, 3, 99]).to_bytes(4)
                frames[at] = bytes(frame)
            case _:
                frames.insert(at, dice.randbytes(dice.randrange(1, 40)))
        if not frames:
            return b""
    return b"".join(frames)


def _read(parts: list[bytes], count: int, loop: asyncio.AbstractEventLoop) -> list[tuple[object, bytes, bool]]:
    """What these bytes come to: head, body and whether it is whole, for each stream."""
    connection = Http2Connection(loop, lambda _: None)
    connection.connection_made(Deaf())
    streams = [connection.hold_stream() for _ in range(count)]
    head = request_head("GET", b"/", [])
    for stream in streams:
        stream.begin(head, b"a")
    bodies = [b""] * count
    for part in parts:
        connection.data_received(part)
        bodies = [body + stream.take_body() for body, stream in zip(bodies, streams, strict=True)]
    connection.eof_received()
    connection.connection_lost(None)
    for stream in streams:
        assert stream.complete is (stream.problem is None)
        assert not stream.complete or stream.head is not None
        stream.abort()
    assert connection.streams == 0
    connection.ready.exception()  # which is somebody else's to hear
    return [(stream.head, body, stream.complete) for stream, body in zip(streams, bodies, strict=True)]


async def one_http2_conversation(dice: random.Random) -> int:
    """Some requests on one connection, and whatever comes back, whole and in pieces; how many of them were answered."""
    loop = asyncio.get_running_loop()
    count = dice.randrange(1, 5)
    data = _spoilt(_frames(dice, count), dice)
    whole, cut = _read([data], count, loop), _read(pieces(data, dice), count, loop)
    for one, other in zip(whole, cut, strict=True):
        # Of a broken one, how much of it was seen may differ, and h2 keeps to itself what came in one piece with what broke it.
        if one[2] and other[2]:
            assert one == other, data
    return sum(complete for _, _, complete in whole)
