"""OpenAI's own SDK through a gateway: it streams, is refused, is let go and hears of errors as without one (P4, P5, P7)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.support.completions import BUSY, Completions, running_completions
from tests.support.stack import Gateway, running_gateway, token_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKED: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def completions() -> Iterator[Completions]:
    with running_completions() as completions:
        yield completions


@pytest.fixture(scope="module")
def gateway(completions: Completions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("openai"), upstream=completions.url) as gateway:
        yield gateway


@contextmanager
def sdk(gateway: Gateway, customer: str) -> Iterator[openai.OpenAI]:
    """What a caller writes: the gateway's address for OpenAI's, and his token for the key."""
    with openai.OpenAI(api_key=token_for(customer), base_url=f"{gateway.base}/pro/v1", max_retries=0) as client:
        yield client


def _granted(gateway: Gateway, customer: str) -> str:
    gateway.grant_only(customer)
    gateway.until("/ent/x", customer, 402)  # known, and admitted on the routes of pro by what was just granted
    return customer


def test_a_completion_comes_back_whole(gateway: Gateway, completions: Completions) -> None:
    with sdk(gateway, _granted(gateway, "whole")) as client:
        answer = client.chat.completions.create(model="talks", messages=ASKED)
    assert answer.choices[0].message.content == "Hello there."
    assert completions.asked[-1]["messages"] == ASKED


def test_each_piece_of_a_stream_arrives_before_the_next_is_sent(gateway: Gateway, completions: Completions) -> None:
    with sdk(gateway, _granted(gateway, "stream")) as client:
        stream = client.chat.completions.create(model="talks", messages=ASKED, stream=True)
        pieces = []
        for chunk in stream:
            pieces.append(chunk.choices[0].delta.content)
            completions.release.release()
            if chunk.choices[0].finish_reason == "stop":
                completions.release.release()  # the mark of the end is no chunk
    assert pieces == ["Hello", " there", ".", None]


def test_an_error_of_the_apis_own_is_the_sdks_own_error(gateway: Gateway) -> None:
    with sdk(gateway, _granted(gateway, "busy")) as client, pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="busy", messages=ASKED, stream=True)
    assert caught.value.body == BUSY["error"]
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "7"
    assert "x-gateway-reason" not in caught.value.response.headers


def test_a_caller_who_stops_listening_ends_the_work_of_the_api(gateway: Gateway, completions: Completions) -> None:
    completions.left.clear()
    with sdk(gateway, _granted(gateway, "leaves")) as client:
        with client.chat.completions.create(model="waits", messages=ASKED, stream=True) as stream:
            assert next(stream).choices[0].delta.content == "Hello"
        assert completions.left.wait(10)


async def test_a_cancelled_task_ends_the_work_of_the_api(gateway: Gateway, completions: Completions) -> None:
    completions.left.clear()
    token = token_for(_granted(gateway, "cancels"))
    async with openai.AsyncOpenAI(api_key=token, base_url=f"{gateway.base}/pro/v1", max_retries=0) as client:
        stream = await client.chat.completions.create(model="waits", messages=ASKED, stream=True)
        async for chunk in stream:
            assert chunk.choices[0].delta.content == "Hello"
            break
        await stream.close()
        assert completions.left.wait(10)


def test_whoever_has_not_paid_gets_the_problem_as_the_sdks_status_error(
    gateway: Gateway, completions: Completions
) -> None:
    asked_before = len(completions.asked)
    with sdk(gateway, "unpaid") as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="talks", messages=ASKED, stream=True)
    problem: Any = caught.value.body
    assert caught.value.status_code == 402
    assert (problem["status"], problem["reason"], problem["required"]["tier"]) == (402, "tier_required", "pro")
    assert problem["request_id"] == caught.value.request_id
    assert len(completions.asked) == asked_before


def test_whoever_is_unknown_gets_the_sdks_authentication_error(gateway: Gateway) -> None:
    with (
        openai.OpenAI(api_key="nonsense", base_url=f"{gateway.base}/pro/v1", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="talks", messages=ASKED)
    problem: Any = caught.value.body
    assert problem["reason"] == "token_invalid"


def test_whoever_loses_access_within_a_stream_gets_the_problem_as_its_last_piece(
    gateway: Gateway, completions: Completions
) -> None:
    completions.left.clear()
    with sdk(gateway, _granted(gateway, "revoked")) as client:
        stream = client.chat.completions.create(model="waits", messages=ASKED, stream=True)
        assert next(stream).choices[0].delta.content == "Hello"
        assert gateway.operator_post("/api/revoke/revoked", {"reason": "over"}).status_code == 200
        [last] = list(stream)
    assert last.model_extra is not None
    assert (last.model_extra["status"], last.model_extra["reason"]) == (402, "tier_required")
    assert completions.left.wait(10)
