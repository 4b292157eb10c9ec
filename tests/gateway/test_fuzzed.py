"""A bounded part of `make fuzz`: bytes that are nearly HTTP, to the reader of answers and to the listener."""

from __future__ import annotations

import math

from tests.fuzz.run import fuzz_answers, fuzz_listener

SEEDS = 1500


def test_nearly_an_answer_means_one_thing_however_it_is_cut() -> None:
    assert fuzz_answers(range(SEEDS), math.inf) == SEEDS


async def test_nearly_a_request_is_answered_or_refused_and_never_a_defect() -> None:
    assert await fuzz_listener(range(600), math.inf) == 600
