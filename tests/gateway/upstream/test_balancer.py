"""Whose turn it is among the targets, who is left out, and for how long. No sockets, no clock, loaded dice."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest

from gateway.upstream.balancer import (
    FAILURES_IN_A_ROW,
    FIRST_EJECTION_SECONDS,
    LONGEST_EJECTION_SECONDS,
    Balancer,
    Standing,
)


@dataclass(eq=False)
class One:
    name: str
    pending: int = 0
    most: int = 10_000
    last_turn: int = 0
    standing: Standing = field(default_factory=Standing)

    @property
    def has_room(self) -> bool:
        return self.pending < self.most


def some(count: int) -> list[One]:
    return [One(f"t{number}") for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_equals_all_get_their_turn(count: int) -> None:
    ones = some(count)
    balancer = Balancer(ones, dice=random.Random(1).random)
    assert {balancer.choose(0.0) for _ in range(200)} == set(ones)


def test_two_equals_take_turns_exactly() -> None:
    balancer = Balancer(some(2), dice=random.Random(1).random)
    chosen = [balancer.choose(0.0) for _ in range(10)]
    assert all(one is not other for one, other in itertools.pairwise(chosen))


def test_of_two_the_one_with_fewer_requests_under_way_is_taken() -> None:
    busy, idle = ones = some(2)
    busy.pending = 1
    balancer = Balancer(ones, dice=random.Random(1).random)
    assert {balancer.choose(0.0) for _ in range(20)} == {idle}


def test_the_busiest_of_many_is_never_taken_and_the_load_evens_out() -> None:
    ones = some(5)
    ones[2].pending = 400
    balancer = Balancer(ones, dice=random.Random(1).random)
    for _ in range(1000):
        chosen = balancer.choose(0.0)
        assert chosen is not None
        chosen.pending += 1
    loads = [one.pending for one in ones if one is not ones[2]]
    assert max(loads) - min(loads) < 10
    assert ones[2].pending == 400


@pytest.mark.parametrize("roll", [0.0, 0.999_999_999])
def test_whatever_the_dice_say_a_target_is_chosen(roll: float) -> None:
    ones = some(3)
    assert Balancer(ones, dice=lambda: roll).choose(0.0) in ones


def test_a_target_without_room_is_passed_over_and_where_none_has_room_nobody_is_chosen() -> None:
    full, free = ones = some(2)
    full.most = 0
    balancer = Balancer(ones, dice=random.Random(1).random)
    assert {balancer.choose(0.0) for _ in range(20)} == {free}
    free.most = 0
    assert balancer.choose(0.0) is None
    assert Balancer([full]).choose(0.0) is None


def test_a_target_that_was_tried_is_not_chosen_again_for_the_same_request() -> None:
    one, other = ones = some(2)
    balancer = Balancer(ones, dice=random.Random(1).random)
    assert balancer.choose(0.0, [one]) is other
    assert balancer.choose(0.0, ones) is None


def test_a_target_that_can_not_be_connected_is_left_out_each_time_for_longer_and_never_for_more_than_a_minute() -> None:
    standing = Standing()
    now, waits = 100.0, []
    for _ in range(12):
        standing.failed(now, at_connecting=True)
        began = now
        while not standing.admits(now):
            now += 0.5
        waits.append(now - began)
    assert waits[0] == FIRST_EJECTION_SECONDS
    assert waits[1:4] == [2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_EJECTION_SECONDS


def test_a_target_that_takes_connections_is_left_out_after_three_failures_in_a_row_and_not_before() -> None:
    standing = Standing()
    for _ in range(FAILURES_IN_A_ROW - 1):
        standing.failed(0.0, at_connecting=False)
    assert standing.admits(0.0)
    standing.succeeded()
    for _ in range(FAILURES_IN_A_ROW - 1):
        standing.failed(0.0, at_connecting=False)
    assert standing.admits(0.0)
    standing.failed(0.0, at_connecting=False)
    assert not standing.admits(0.0)
    assert standing.admits(FIRST_EJECTION_SECONDS)


def test_requests_that_were_under_way_when_a_target_was_left_out_do_not_keep_it_out_for_longer() -> None:
    standing = Standing()
    for _ in range(100):
        standing.failed(0.0, at_connecting=True)
    assert standing.admits(FIRST_EJECTION_SECONDS)


def test_a_whole_answer_clears_what_was_before() -> None:
    standing = Standing()
    standing.failed(0.0, at_connecting=True)
    standing.succeeded()
    assert standing.admits(0.0)
    standing.failed(0.0, at_connecting=True)
    assert standing.admits(FIRST_EJECTION_SECONDS)


def test_a_target_that_is_left_out_gets_nothing_while_another_is_fit_and_its_turn_when_none_is() -> None:
    out, fit = ones = some(2)
    out.standing.failed(0.0, at_connecting=True)
    balancer = Balancer(ones, dice=random.Random(1).random)
    assert {balancer.choose(0.0) for _ in range(20)} == {fit}
    fit.standing.healthy = False
    assert {balancer.choose(0.0) for _ in range(20)} == set(ones)


def test_a_request_waits_for_a_fit_target_that_is_full_and_is_not_sent_to_one_that_is_left_out() -> None:
    out, fit = ones = some(2)
    out.standing.failed(0.0, at_connecting=True)
    fit.most = 0
    assert Balancer(ones).choose(0.0) is None
