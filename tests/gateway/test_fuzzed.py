"""A bounded part of `make fuzz`: bytes that are nearly HTTP, to the readers of answers and to the listener."""

from __future__ import annotations

import math

from tests.fuzz.run import fuzz_answers, fuzz_http2, fuzz_listener

SEEDS = 1500


def test_nearly_an_answer_means_one_thing_however_it_is_cut() -> None:
    assert fuzz_answers(range(SEEDS), math.inf) == SEEDS


async def test_nearly_http_2_ends_each_stream_as_whole_or_broken_however_it_is_cut() -> None:
    assert await fuzz_http2(range(300), math.inf) == 300


async def test_nearly_a_request_is_answered_or_refused_and_never_a_defect() -> None:
    assert await fuzz_listener(range(600), math.inf) == 600
