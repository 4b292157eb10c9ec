"""P9 for whoever asks why: no credential, nor a part of one, comes back out of `gateway explain` or `/api/explain`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.gateway.test_cli_policy import AUDIENCE, ISSUER, gateway, written
from tests.support.house import house, token_for
from tests.support.tokens import sign

PLACES = "api_keys: {enabled: true}\n  token_from: [header, cookie:session, query:access_token]"


def config_in(directory: Path) -> Path:
    path = written(directory)
    path.write_text(path.read_text(encoding="utf-8").replace("auth:\n", f"auth:\n  {PLACES}\n"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return config_in(tmp_path_factory.mktemp("explain"))


@pytest.fixture(scope="module")
def api_key(config: Path) -> str:
    made = gateway("keys", "create", "alice", "--config", config)
    return made.stdout.strip().split()[-1]


def token(**claims: object) -> str:
    now = int(time.time())
    return sign({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now + 600, **claims})


CREDENTIALS = ("good", "expired", "forged", "key", "wrong key", "no token at all")
WAYS = ("--token", "stdin", "authorization", "cookie", "query", "x-api-key")


def credential(kind: str, api_key: str) -> str:
    match kind:
        case "good":
            return token()
        case "expired":
            return token(exp=1_000_000_000)
        case "forged":
            return token()[:-6] + "AAAAAA"
        case "key":
            return api_key
        case "wrong key":
            return api_key[:-1] + ("x" if api_key[-1] != "x" else "y")
        case _:
            return "hunter2-hunter2-hunter2"


def asked(config: Path, way: str, secret: str, output: str, path: str = "/v1/x") -> str:
    words: list[str] = []
    stdin = ""
    match way:
        case "--token":
            words = ["--token", secret]
        case "stdin":
            words, stdin = ["--token", "-"], f"{secret}\n"
        case "authorization":
            words = ["--header", f"Authorization: Bearer {secret}"]
        case "cookie":
            words = ["--header", f"Cookie: a=b; session={secret}; c=d"]
        case "query":
            path += f"?a=b&access_token={secret}"
        case _:
            words = ["--header", f"X-API-Key: {secret}"]
    command = ["explain", "GET", path, *words, "--config", str(config), "--format", output]
    result = CliRunner().invoke(app, command, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def is_closed(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream.closed


@contextmanager
def everything_logged() -> Iterator[list[str]]:
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.getMessage()} {record.__dict__}")

    # The only one: a handler that an earlier verb has left behind writes to a stream that is closed by now, and a database's
    # thread that outlives its loop by a moment would trip over it.
    root, kept = logging.getLogger(), Kept(logging.DEBUG)
    level, handlers = root.level, root.handlers
    root.handlers = [kept]
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.setLevel(level)
        root.handlers = [handler for handler in handlers if not is_closed(handler)]


def parts_of(secret: str) -> list[str]:
    """What may not be seen of it: the whole, and each part long enough to be known by."""
    return [secret, *(part for part in secret.split(".") if len(part) > 12)]


@pytest.mark.parametrize(("output", "path"), [("text", "/v1/x"), ("json", "/v1/x"), ("text", "/v1/reports/7")])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CREDENTIALS)
def test_no_credential_comes_back_out(config: Path, api_key: str, kind: str, way: str, output: str, path: str) -> None:
    secret = credential(kind, api_key)
    with everything_logged() as lines:
        told = asked(config, way, secret, output, path)
    assert told
    for part in parts_of(secret):
        assert part not in told
        assert not [line for line in lines if part in line]


def test_what_is_forwarded_is_shown_but_for_its_credentials(config: Path) -> None:
    told = asked(config, "--token", token(), "text")
    assert "sent to the upstream api" in told
    assert "authorization: ********" in told
    cookie = asked(config, "cookie", token(), "text")
    assert "cookie: a=b; c=d" in cookie
    query = asked(config, "query", token(), "text")
    assert "GET /v1/x?a=b HTTP/1.1" in query
    assert "?a=b&access_token=********" in query


def test_the_headers_that_the_gateway_sets_upstream_are_not_shown(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "gateway.yaml"
    other.write_text(
        config.read_text(encoding="utf-8").replace(
            '"http://127.0.0.1:9"]',
            '"http://127.0.0.1:9"], headers: {X-Key: "upstream-secret", Authorization: "Bearer another"}',
        ),
        encoding="utf-8",
    )
    told = asked(other, "--token", token(), "json")
    assert "x-key" in told
    for secret in ("upstream-secret", "another"):
        assert secret not in told


async def test_the_operators_api_takes_a_token_in_a_body_and_shows_none(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False) as at:
        good, bad = token_for(), token_for()[:-6] + "AAAAAA"
        for secret, path, outcome in (
            (good, "/mine", "forward"),
            (good, "/pro/x", "402 tier_required"),
            (bad, "/mine", "401 token_invalid"),
            ("hunter2-hunter2", "/mine?x=hunter2-hunter2", "401 token_invalid"),
        ):
            told = await at.operate("POST", "/api/explain", json={"path": path, "token": secret})
            by_header = await at.operate(
                "POST", "/api/explain", json={"path": path, "headers": {"Authorization": f"Bearer {secret}"}}
            )
            assert told.status_code == 200, told.text
            assert told.json()["outcome"] == outcome
            assert by_header.json()["outcome"] == outcome
            for part in parts_of(secret):
                assert part not in told.text + by_header.text + str(at.log())
        too_long = await at.operate("POST", "/api/explain", json={"path": "/mine", "token": "hunter2" * 10000})
        both = await at.operate("POST", "/api/explain", json={"path": "/mine", "token": good, "customer": "alice"})
        for refused in (too_long, both):
            assert refused.status_code == 422
            assert "hunter2" not in refused.text
            assert good not in refused.text
