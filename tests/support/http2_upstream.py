"""An upstream that speaks HTTP/2, frame by frame: h2 on the server's side, and a script for each stream."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import Settings
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from h2.events import Event
    from h2.settings import SettingCodes

    Script = Callable[["Stream"], Awaitable[None]]


class Stream:
    """One request. `number` counts the connections, so that streams of one number came through the same one."""

    def __init__(self, peer: Peer, identity: int, fields: Sequence[tuple[bytes, bytes]]) -> None:
        self.peer = peer
        self.number = peer.number
        self.identity = identity
        self.fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
        self.body = b""
        self.uncredited = 0
        self.whole = asyncio.Event()
        self.over = asyncio.Event()
        self.reset_with: int | None = None
        self.news = asyncio.Event()

    def one(self, name: str) -> str:
        (value,) = (value for key, value in self.fields if key == name)
        return value

    async def request(self) -> bytes:
        """The whole body."""
        await asyncio.wait_for(self.whole.wait(), 30)
        return self.body

    async def body_of(self, length: int) -> bytes:
        """As soon as so much of the body has come."""
        async with asyncio.timeout(30):
            while len(self.body) < length:
                self.news.clear()
                await self.news.wait()
        return self.body

    def say_head(self, status: int = 200, *headers: tuple[str, str], end: bool = False) -> None:
        self.peer.h2.send_headers(self.identity, [(":status", str(status)), *headers], end_stream=end)
        self.peer.flush()

    async def say(self, body: bytes, *, end: bool = False) -> None:
        """As the windows allow. Raises ConnectionResetError once the stream is over."""
        while body:
            if self.over.is_set():
                raise ConnectionResetError
            room = min(self.peer.h2.local_flow_control_window(self.identity), self.peer.h2.max_outbound_frame_size)
            if room <= 0:
                self.news.clear()
                await self.news.wait()
                continue
            self.peer.h2.send_data(self.identity, body[:room])
            body = body[room:]
            self.peer.flush()
            await self.peer.writer.drain()
        if end:
            self.peer.h2.end_stream(self.identity)
            self.peer.flush()

    async def answer(self, body: bytes = b"ok", status: int = 200, *headers: tuple[str, str]) -> None:
        self.say_head(status, *headers)
        await self.say(body, end=True)

    def raw_head(self, *fields: tuple[str, str], end: bool = False) -> None:
        """A head that h2 would refuse to send."""
        block = self.peer.h2.encoder.encode([(name.encode(), value.encode("latin-1")) for name, value in fields])
        self.peer.raw(HeadersFrame(self.identity, block, flags=["END_HEADERS", *(["END_STREAM"] if end else [])]))

    def raw_data(self, data: bytes, *, end: bool = False) -> None:
        """A body that h2 would refuse to send."""
        self.peer.raw(DataFrame(self.identity, data, flags=["END_STREAM"] if end else []))

    def reset(self, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        self.peer.h2.reset_stream(self.identity, code)
        self.peer.flush()


class Peer:
    """One connection."""

    def __init__(self, server: Http2Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        self.number = server.connections
        self.server = server
        self.reader = reader
        self.writer = writer
        self.h2 = H2Connection(
            H2Configuration(client_side=False, header_encoding=None, normalize_inbound_headers=False)
        )
        self.h2.local_settings = Settings(client=False, initial_values=dict(server.settings))
        self.h2.initiate_connection()
        self.streams: dict[int, Stream] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.closed = asyncio.Event()
        self.told_goodbye = asyncio.Event()
        self.answered_ping = asyncio.Event()
        self.takes_bodies = server.takes_bodies

    def flush(self) -> None:
        if not self.writer.transport.is_closing():
            self.writer.write(self.h2.data_to_send())

    def raw(self, frame: HeadersFrame | DataFrame | GoAwayFrame) -> None:
        self.flush()
        self.writer.write(frame.serialize())

    def goaway(self, last: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Announce the end, and go on with what is under way."""
        self.raw(GoAwayFrame(0, last_stream_id=last, error_code=code))

    def take_bodies(self) -> None:
        """Give back the windows that were kept."""
        self.takes_bodies = True
        for stream in self.streams.values():
            self._credit(stream)

    async def serve(self) -> None:
        self.flush()
        try:
            while data := await self.reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._on(event)
                self.flush()
        except (ConnectionResetError, BrokenPipeError):
            pass
        except ProtocolError as error:
            self.server.faults.append(error)
            self.flush()
        finally:
            self.closed.set()
            for stream in self.streams.values():
                stream.over.set()
                stream.news.set()
            self.writer.close()

    def _on(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            stream = self.streams[event.stream_id] = Stream(self, event.stream_id, event.headers)
            self.tasks.append(asyncio.create_task(self._run(stream)))
        elif isinstance(event, DataReceived):
            stream = self.streams[event.stream_id]
            stream.body += event.data
            stream.uncredited += event.flow_controlled_length
            self._credit(stream)
            stream.news.set()
        elif isinstance(event, StreamEnded):
            self.streams[event.stream_id].whole.set()
        elif isinstance(event, StreamReset):
            stream = self.streams[event.stream_id]
            stream.reset_with = event.error_code
            stream.over.set()
            stream.news.set()
        elif isinstance(event, WindowUpdated):
            for stream in self.streams.values():
                stream.news.set()
        elif isinstance(event, PingAckReceived):
            self.answered_ping.set()
        elif isinstance(event, ConnectionTerminated):
            self.told_goodbye.set()

    def _credit(self, stream: Stream) -> None:
        if self.takes_bodies and stream.uncredited and not stream.over.is_set():
            with contextlib.suppress(ProtocolError):  # the stream may be closed
                self.h2.acknowledge_received_data(stream.uncredited, stream.identity)
            stream.uncredited = 0
            self.flush()

    async def _run(self, stream: Stream) -> None:
        self.server.arrived(stream)
        try:
            await self.server.script(stream)
        except (ConnectionResetError, BrokenPipeError):
            return
        except ProtocolError:
            if not stream.over.is_set():
                raise


class Http2Upstream:
    """Runs the script for each stream."""

    def __init__(self, script: Script, settings: Mapping[SettingCodes, int]) -> None:
        self.script = script
        self.settings = settings
        self.takes_bodies = True
        self.connections = 0
        self.peers: list[Peer] = []
        self.streams: list[Stream] = []
        self.faults: list[ProtocolError] = []
        self.url = ""
        self.port = 0
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def arrived(self, stream: Stream) -> None:
        self.streams.append(stream)
        self._news.set()

    async def stream(self, number: int = 0) -> Stream:
        """The stream of this number, once it is there."""
        async with asyncio.timeout(30):
            while len(self.streams) <= number:
                self._news.clear()
                await self._news.wait()
        return self.streams[number]

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(self, reader, writer)
        self.peers.append(peer)
        self._tasks.append(asyncio.create_task(peer.serve()))

    async def end(self) -> None:
        """Drop every connection; what a script raised is raised here, and what broke the protocol, too."""
        for peer in self.peers:
            peer.writer.transport.abort()
            for task in peer.tasks:
                task.cancel()
            self._tasks += peer.tasks
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        assert not self.faults, self.faults


@contextlib.asynccontextmanager
async def http2_upstream(
    script: Script, *, tls: ssl.SSLContext | None = None, settings: Mapping[SettingCodes, int] | None = None
) -> AsyncIterator[Http2Upstream]:
    """On a free port for the length of the block; with TLS it agrees to `h2` only."""
    upstream = Http2Upstream(script, settings or {})
    if tls is not None:
        tls.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(upstream.connected, "127.0.0.1", 0, ssl=tls, backlog=1024)
    upstream.port = server.sockets[0].getsockname()[1]
    upstream.url = f"http://127.0.0.1:{upstream.port}" if tls is None else f"https://localhost:{upstream.port}"
    try:
        yield upstream
    finally:
        server.close()
        await upstream.end()


async def answering(stream: Stream) -> None:
    """Reads the whole request, then says `ok`."""
    await stream.request()
    await stream.answer()
