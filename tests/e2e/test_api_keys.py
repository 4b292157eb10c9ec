"""API keys between real processes, with nothing but the ledger: what one of them ends, the others refuse (P7)."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.ledgers import fresh_postgres
from tests.support.stack import Gateway, bearer, eventually, prepared_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.recorder import Recorder

IN_FORCE_SECONDS = 8.0
"""Promised within one; a machine that is busy with other things is given more."""


def start(stack: ExitStack, directory: Path, **named: str) -> Gateway:
    gateway = stack.enter_context(prepared_gateway(directory, **named))
    file = gateway.directory / "gateway.yaml"
    file.write_text(file.read_text().replace("auth:\n", "auth:\n  api_keys: {enabled: true}\n"))
    return gateway.start()


@pytest.fixture(
    scope="module",
    params=["one gateway on SQLite", pytest.param("two gateways on PostgreSQL", marks=pytest.mark.postgres)],
)
def gateways(
    request: pytest.FixtureRequest, recorder: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Gateway]]:
    directory = tmp_path_factory.mktemp("keys")
    named: dict[str, str] = {"upstream": recorder.url}
    with ExitStack() as stack:
        if "PostgreSQL" in request.param:
            named["database"] = stack.enter_context(fresh_postgres())
        count = 2 if "two" in request.param else 1
        yield [start(stack, directory / str(number), **named) for number in range(count)]


def asked(gateway: Gateway, key: str, path: str = "/free/x") -> httpx.Response:
    return gateway.ask(path, headers={"X-API-Key": key})


def until(gateway: Gateway, key: str, status: int) -> None:
    eventually(
        lambda: asked(gateway, key).status_code == status,
        within=IN_FORCE_SECONDS,
        told=lambda: asked(gateway, key).text + gateway.running.said,
    )


def test_a_key_of_the_command_line_opens_every_gateway_until_another_process_ends_it(gateways: list[Gateway]) -> None:
    first, last = gateways[0], gateways[-1]
    key = first.verb("keys", "create", "anna", "--name", "ci", "--expires", "30d", "--scope", "a").strip()
    other = last.verb("keys", "create", "anna").strip()
    first.verb("grant", "anna", "pro", "--reason", "a test")
    for gateway in gateways:
        for one in (key, other):
            assert asked(gateway, one).status_code == 200
        gateway.until("/pro/x", "anna", 200, within=IN_FORCE_SECONDS)
        assert asked(gateway, key, "/pro/x").status_code == 200
        assert gateway.ask("/pro/x", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert asked(gateway, key, "/ent/x").status_code == 402
    assert last.verb("keys", "revoke", key) == f"{key[:15]} of anna is revoked.\n"
    for gateway in gateways:
        until(gateway, key, 401)
        assert asked(gateway, other).status_code == 200
    last.verb("keys", "revoke", "--customer", "anna")
    for gateway in gateways:
        until(gateway, other, 401)
        assert gateway.status("/free/x", "anna") == 200
    rows = [line.split("\t") for line in first.verb("keys", "list", "anna").splitlines()]
    assert {(row[0], row[1], row[2], row[6]) for row in rows} == {
        (key[:15], "ci", "revoked", "a"),
        (other[:15], "-", "revoked", "-"),
    }


def test_a_key_that_its_owner_rotates_in_one_gateway_is_followed_in_the_other(gateways: list[Gateway]) -> None:
    first, last = gateways[0], gateways[-1]

    def post(gateway: Gateway, path: str, **body: Any) -> dict[str, Any]:
        answer = gateway.http.post(f"{gateway.base}/_gateway/keys{path}", headers=bearer("bert"), json=body)
        assert answer.status_code in {200, 201}, answer.text
        made: dict[str, Any] = answer.json()
        return made

    old = post(first, "")
    assert asked(last, old["key"]).status_code == 200
    new = post(last, f"/{old['id']}/rotate", overlap="1h")
    for gateway in gateways:
        assert asked(gateway, old["key"]).status_code == 200
        assert asked(gateway, new["key"]).status_code == 200
    newest = post(first, f"/{new['id']}/rotate", overlap="0s")
    for gateway in gateways:
        until(gateway, new["key"], 401)
        assert asked(gateway, newest["key"]).status_code == 200
    post(first, f"/{old['id']}/revoke")
    for gateway in gateways:
        until(gateway, old["key"], 401)
    first.verb("block", "bert", "--reason", "a test")
    for gateway in gateways:
        until(gateway, newest["key"], 403)


def test_a_rotated_key_is_good_in_every_gateway_to_the_end_of_the_overlap_and_not_a_second_longer(
    gateways: list[Gateway],
) -> None:
    first = gateways[0]
    old = first.verb("keys", "create", "cleo").strip()
    for gateway in gateways:
        assert asked(gateway, old).status_code == 200
    before = time.time()
    new = first.verb("keys", "rotate", old, "--overlap", "2s").strip()
    # The verb's own clock was read between these; the end is kept in whole seconds.
    earliest, latest = int(before + 2), int(time.time() + 2)
    left = list(gateways)
    while left:
        for gateway in tuple(left):
            sent = time.time()
            answer = asked(gateway, old)
            if answer.status_code == 200:
                assert sent < latest, "good after its end"
            else:
                assert (answer.status_code, answer.headers["x-gateway-reason"]) == (401, "token_expired")
                assert time.time() >= earliest, "refused before its end"
                left.remove(gateway)
    for gateway in gateways:
        assert asked(gateway, new).status_code == 200


def test_last_use_is_written_when_a_gateway_stops_and_no_key_in_any_log(recorder: Recorder, tmp_path: Path) -> None:
    with ExitStack() as stack:
        gateway = start(stack, tmp_path / "one", upstream=recorder.url)
        key = gateway.verb("keys", "create", "carl").strip()
        assert asked(gateway, key).status_code == 200
        assert asked(gateway, key + "x").status_code == 401
        gateway.ask("/free/x", "carl", headers={"X-API-Key": key})
        assert gateway.running.stop() == 0
        (row,) = gateway.verb("keys", "list", "carl").splitlines()
        assert row.split("\t")[5] != "-"
        said = gateway.everything_said()
        assert "carl" in said
        assert key[16:48] not in said
        assert any(json.loads(line)["reason"] == "bad_request" for line in said.splitlines() if line.startswith("{"))
