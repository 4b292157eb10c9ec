"""Upstreams behind TLS: verified by name and authority, asked by name, and ended like the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.upstream.forward import Upstreams
from gateway.upstream.outcome import AnswerBroken, Forwarded, UpstreamFailure
from gateway.upstream.tls import TlsFilesError
from policies.schema import Health, Timeouts, Upstream, UpstreamTls
from tests.support.calls import Call, asked, until
from tests.support.gateways import Forwarding, listening
from tests.support.rawclient import RawClient
from tests.support.tls import Authority
from tests.support.upstreams import Visit, saying, scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

GET = b"GET /x HTTP/1.1\r\nHost: gw\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_an_upstream_behind_tls_is_asked_by_its_name(authority: Authority) -> None:
    async with scripted_upstream(saying(OK), tls=authority.server()) as upstream:
        port = upstream.address[1]
        app = Forwarding(Upstream(targets=(f"https://localhost:{port}",), tls=authority.trusted()))
        async with listening(app) as address, await RawClient.connect(address) as client:
            for _ in range(3):
                assert (await client.ask(GET)).body == b"ok"
        assert dict(upstream.visits[0].headers)["host"] == f"localhost:{port}"
    assert authority.asked_names == ["localhost"]  # one handshake for all of them


async def test_an_upstream_that_nobody_vouches_for_is_never_sent_the_request(authority: Authority) -> None:
    async with scripted_upstream(saying(OK), tls=authority.server()) as upstream:
        app = Forwarding(Upstream(targets=(f"https://localhost:{upstream.address[1]}",)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(GET)
        assert all(visit.received == b"" for visit in upstream.visits)
    assert (answer.status, answer.one("x-gateway-reason")) == (502, "upstream_unreachable")
    assert b"certificate" not in answer.body.lower()
    outcome = await app.outcome()
    assert isinstance(outcome, UpstreamFailure)
    assert "certificate" in outcome.cause.lower()


async def test_a_certificate_for_another_name_is_not_enough(authority: Authority) -> None:
    async with scripted_upstream(saying(OK), tls=authority.server()) as upstream:
        app = Forwarding(Upstream(targets=(f"https://127.0.0.1:{upstream.address[1]}",), tls=authority.trusted()))
        async with listening(app) as address, await RawClient.connect(address) as client:
            assert (await client.ask(GET)).status == 502
        assert all(visit.received == b"" for visit in upstream.visits)


async def test_a_handshake_that_never_ends_is_a_504(authority: Authority) -> None:
    async with scripted_upstream(saying(b"")) as silent:
        target = f"https://localhost:{silent.address[1]}"
        app = Forwarding(Upstream(targets=(target,), timeouts=Timeouts(connect=0.3), tls=authority.trusted()))
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(GET)
            assert (answer.status, answer.one("x-gateway-reason")) == (504, "upstream_timeout")
            await asyncio.wait_for((await silent.visit()).closed.wait(), 20)


@pytest.mark.parametrize("size", [200_000, 5_000_000])
async def test_large_bodies_pass_both_ways_through_tls(authority: Authority, size: int) -> None:
    body = bytes(range(256)) * (size // 256)

    async def echo(visit: Visit) -> None:
        head = await visit.head()
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + visit.received[len(head) :])

    async with scripted_upstream(echo, tls=authority.server()) as upstream:
        target = f"https://localhost:{upstream.address[1]}"
        app = Forwarding(Upstream(targets=(target,), tls=authority.trusted()))
        async with listening(app) as address, await RawClient.connect(address) as client:
            head = b"POST /x HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n" % len(body)
            sending = asyncio.create_task(client.send(head + body))
            assert (await client.answer()).body == body
            await sending


async def test_an_upstream_behind_tls_that_dies_within_the_body_ends_as_a_broken_connection(
    authority: Authority,
) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        visit.writer.close()

    async with scripted_upstream(script, tls=authority.server()) as upstream:
        target = f"https://localhost:{upstream.address[1]}"
        app = Forwarding(Upstream(targets=(target,), tls=authority.trusted()))
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(GET)
        assert (answer.body, answer.whole) == (b"half", False)
        assert isinstance(await app.outcome(), AnswerBroken)


async def test_a_kept_tls_connection_is_used_again_and_one_with_bytes_behind_the_answer_is_not(
    authority: Authority,
) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(OK if len(upstream.visits) < 5 else OK + b"HTTP/1.1 200 OK\r\n\r\npoison")

    async with scripted_upstream(script, tls=authority.server()) as upstream:
        target = f"https://localhost:{upstream.address[1]}"
        upstreams = Upstreams({"api": Upstream(targets=(target,), tls=authority.trusted())})
        for _ in range(6):
            assert await asked(upstreams) == (200, b"ok")
        assert [visit.connection for visit in upstream.visits] == [1] * 5 + [2]
        await upstreams.aclose()
        await asyncio.wait_for(upstream.visits[0].closed.wait(), 20)


@pytest.mark.parametrize("shows", [True, False])
async def test_an_upstream_that_asks_for_a_certificate_is_shown_ours_and_answers_nobody_else(
    authority: Authority, shows: bool
) -> None:
    certificate = str(authority.file) if shows else None
    async with scripted_upstream(saying(OK), tls=authority.server(asks_for_certificate=True)) as upstream:
        target = f"https://localhost:{upstream.address[1]}"
        upstreams = Upstreams({"api": Upstream(targets=(target,), tls=authority.trusted(certificate=certificate))})
        outcome = await Call(upstreams).end()
        assert isinstance(outcome, Forwarded if shows else UpstreamFailure)
        await upstreams.aclose()


async def test_the_name_to_expect_can_be_another_than_the_one_to_connect_to(authority: Authority) -> None:
    async with scripted_upstream(saying(OK), tls=authority.server()) as upstream:
        settings = Upstream(
            targets=(f"https://127.0.0.1:{upstream.address[1]}",),
            tls=authority.trusted(server_name="localhost"),
            health=Health(path="/healthz", interval=0.1),
        )
        upstreams = Upstreams({"api": settings})
        assert await asked(upstreams) == (200, b"ok")
        upstreams.start()
        await until(lambda: any(b"/healthz" in visit.received for visit in upstream.visits))
        await upstreams.aclose()
        assert set(authority.asked_names) == {"localhost"}
        assert {dict(visit.headers)["host"] for visit in upstream.visits} == {f"127.0.0.1:{upstream.address[1]}"}


async def test_without_verification_anybody_is_believed(authority: Authority) -> None:
    async with scripted_upstream(saying(OK), tls=authority.server()) as upstream:
        target = f"https://127.0.0.1:{upstream.address[1]}"
        upstreams = Upstreams({"api": Upstream(targets=(target,), tls=UpstreamTls(verify=False))})
        assert await asked(upstreams) == (200, b"ok")
        await upstreams.aclose()


@pytest.mark.parametrize("key", ["ca", "certificate"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense"], ids=["missing", "empty", "nonsense"])
def test_a_file_that_can_not_be_used_is_said_at_the_start_and_named(
    tmp_path: Path, key: str, content: bytes | None
) -> None:
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TlsFilesError, match=r"file\.pem"):
        Upstreams({"api": Upstream(targets=("https://localhost",), tls=UpstreamTls.model_validate({key: str(file)}))})


def test_a_key_that_needs_a_password_is_an_error_and_asks_nobody_for_it(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    encrypted = serialization.BestAvailableEncryption(b"secret")
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted)
    )
    files = UpstreamTls(certificate=str(Authority(tmp_path).file), key=str(tmp_path / "key.pem"))
    with pytest.raises(TlsFilesError, match=r"key\.pem"):
        Upstreams({"api": Upstream(targets=("https://localhost",), tls=files)})


def test_a_reload_reads_the_files_of_certificates_anew(authority: Authority) -> None:
    settings = {"api": Upstream(targets=("https://localhost",), tls=authority.trusted())}
    old = Upstreams(settings)
    new = Upstreams(settings, predecessor=old)
    assert new._ready["api"] is not old._ready["api"]
