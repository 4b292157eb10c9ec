"""docs/example.gateway.yaml does what it says: it starts while its identity provider is out of reach."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import jwt
from pydantic import SecretStr

from gateway.bootstrap import running
from gateway.loading import Unreadable, load_file
from gateway.serving import CannotStart
from tests.support.stack import free_port

EXAMPLE = Path(__file__).parents[2] / "docs" / "example.gateway.yaml"


async def test_the_example_starts_without_its_keys_and_answers_503_where_a_token_is_needed(tmp_path: Path) -> None:
    loaded = load_file(EXAMPLE, {})
    assert not isinstance(loaded, Unreadable)
    assert loaded.ready is not None, loaded.diagnostics
    config, routes = loaded.ready
    # Its own target is where `make run` has httpbin: nothing may listen there.
    nobody = {"targets": (f"http://127.0.0.1:{free_port()}",)}
    upstreams = {name: upstream.model_copy(update=nobody) for name, upstream in config.upstreams.items()}
    ledger = SecretStr(f"sqlite:///{tmp_path}/gateway.db")
    config = config.model_copy(update={"database": ledger, "upstreams": upstreams})
    token = jwt.encode({"iss": "https://login.example.com/", "aud": "my-api", "exp": 2**31, "sub": "a"}, "k" * 32)
    async with running(config, routes, time.time) as process:
        assert not isinstance(process, CannotStart)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(process.gateway, raise_app_exceptions=False), base_url="http://api.test"
        ) as client:
            refused = await client.get("/v1/models", headers={"authorization": f"Bearer {token}"})
            missing = await client.get("/v1/models")
            unrouted = await client.get("/nowhere")
            public = await client.get("/status")
    assert (refused.status_code, refused.json()["reason"]) == (503, "keys_unavailable")
    assert refused.headers["retry-after"]
    assert (missing.status_code, missing.json()["reason"]) == (401, "token_missing")
    assert (unrouted.status_code, unrouted.json()["reason"]) == (404, "no_route")
    # Nothing listens behind it here: the route is forwarded, and that is all it shows.
    assert (public.status_code, public.json()["reason"]) == (502, "upstream_unreachable")
