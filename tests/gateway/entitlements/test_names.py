"""Redis by name: one lookup at a time, however long the resolver takes, and TLS with whoever the name says."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.entitlements.names import Names
from gateway.entitlements.redis import open_redis
from tests.support.tls import Authority


class Resolver:
    """The system's, for one name: silent until `answer`, and then with `addresses`, or without any."""

    def __init__(self) -> None:
        self.asked = 0
        self.addresses: list[str] = []
        self.answer = threading.Event()
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "redis.example.com":
            return self._real(host, port, *rest, **more)
        self.asked += 1
        assert self.answer.wait(10)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses for _ in range(2)
        ]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    found = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", found)
    yield found
    found.answer.set()


@asynccontextmanager
async def speaking(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of something that takes a connection and answers each command with an error."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(4096):
            writer.write(b"-ERR there is no Redis here\r\n" * chunk.count(b"*"))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def redis_of_sorts() -> AsyncIterator[int]:
    async with speaking() as port:
        yield port


async def test_a_name_that_nobody_answers_is_looked_up_once_however_often_redis_is_tried(resolver: Resolver) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    client = open_redis("redis://redis.example.com:6379/0", timeout=0.02)
    for _ in range(20):
        with pytest.raises(RedisTimeoutError):
            await client.get("x")
    assert resolver.asked == 1
    resolver.answer.set()
    names = Names()
    with pytest.raises(socket.gaierror):
        await names.addresses("redis.example.com", 6379)
    with pytest.raises(socket.gaierror):
        await names.addresses("redis.example.com", 6379)
    assert resolver.asked == 3, "what has failed is asked again"
    await client.aclose()
    assert complaints == []


async def test_an_address_where_nobody_listens_is_passed_over(resolver: Resolver, redis_of_sorts: int) -> None:
    resolver.addresses = ["127.0.0.2", "127.0.0.1"]
    resolver.answer.set()
    client = open_redis(f"redis://redis.example.com:{redis_of_sorts}/0", timeout=5)
    with pytest.raises(ResponseError, match="no Redis"):
        await client.get("x")
    await client.aclose()


async def test_over_tls_whoever_answers_must_be_the_one_that_is_named(resolver: Resolver, tmp_path: Path) -> None:
    resolver.addresses = ["127.0.0.1"]
    resolver.answer.set()
    authority = Authority(tmp_path)  # vouches for localhost
    async with speaking(authority.server()) as port:
        client = open_redis(f"rediss://localhost:{port}/0?ssl_ca_certs={authority.file}", timeout=5)
        with pytest.raises(ResponseError, match="no Redis"):
            await client.get("x")
        await client.aclose()
        impostor = open_redis(f"rediss://redis.example.com:{port}/0?ssl_ca_certs={authority.file}", timeout=5)
        with pytest.raises(RedisConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            await impostor.get("x")
        await impostor.aclose()
    assert authority.asked_names == ["localhost", "redis.example.com"]
