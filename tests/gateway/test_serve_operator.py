"""The operator's listener as it is served: a stranger who reaches its port is bounded like one at the public listener."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from gateway.listener_head import ListenerLimits
from gateway.loading import LoadedFile, load_file
from gateway.reloading import Candidate
from gateway.serve import serving_gateway
from gateway.serving import CannotStart, Stop
from tests.support.rawclient import RawClient
from tests.support.stack import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[tuple[str, int]]:
    """Where the operator's listener of a gateway without Stripe is."""
    port = free_port()
    path = tmp_path / "gateway.yaml"
    path.write_text(
        f"""
version: 1
server: {{listen: "127.0.0.1:{free_port()}", operator: "127.0.0.1:{port}", operator_token: {"t" * 32}}}
database: sqlite:///{tmp_path}/ledger.db
upstreams: {{api: {{targets: ["http://127.0.0.1:1"]}}}}
tiers: [{{name: free}}]
routes: [{{path: /x, access: public}}]
""",
        encoding="utf-8",
    )
    loaded = load_file(path, {})
    assert isinstance(loaded, LoadedFile)
    assert loaded.ready is not None, loaded.diagnostics
    async with serving_gateway(Candidate(*loaded.ready, loaded.source), time.time, Stop()) as process:
        assert not isinstance(process, CannotStart), process
        yield "127.0.0.1", port


async def test_a_head_without_end_is_refused(operator: tuple[str, int]) -> None:
    async with await RawClient.connect(operator) as client:
        await client.send(b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2 * ListenerLimits().head_bytes)
        assert (await client.answer()).status == 431


async def test_trailers_never_become_a_token(operator: tuple[str, int]) -> None:
    async with await RawClient.connect(operator) as client:
        await client.send(
            b"POST /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\nAuthorization: Bearer " + b"t" * 32 + b"\r\n\r\n"
        )
        assert (await client.answer()).status == 401
