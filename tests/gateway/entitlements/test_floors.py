from __future__ import annotations

from gateway.entitlements.floors import Floors


def test_an_entry_below_the_floor_is_not_believed_and_one_at_or_above_it_is() -> None:
    floors = Floors(10, 3600)
    floors.raise_to("cus_1", 5, at=0)
    assert not floors.admits("cus_1", 4)
    assert floors.admits("cus_1", 5)
    assert floors.admits("cus_1", 6)
    assert floors.admits("cus_2", 0)


def test_a_floor_never_sinks() -> None:
    floors = Floors(10, 3600)
    floors.raise_to("cus_1", 5, at=0)
    floors.raise_to("cus_1", 3, at=0)
    assert not floors.admits("cus_1", 4)


def test_a_floor_is_lifted_by_its_own_version_or_a_newer_one_only() -> None:
    floors = Floors(10, 3600)
    floors.raise_to("cus_1", 5, at=0)
    floors.lift("cus_1", 4)
    assert not floors.admits("cus_1", 4)
    floors.lift("cus_1", 5)
    assert len(floors) == 0


def test_a_change_that_redis_was_heard_to_hold_already_leaves_no_floor() -> None:
    floors = Floors(10, 3600)
    floors.lift("cus_1", 5)
    floors.raise_to("cus_1", 5, at=0)
    assert len(floors) == 0
    floors.raise_to("cus_1", 6, at=0)
    assert not floors.admits("cus_1", 5)


def test_after_redis_may_have_lost_writes_nothing_is_known_to_be_held() -> None:
    floors = Floors(10, 3600)
    floors.lift("cus_1", 5)
    floors.doubt_redis()
    floors.raise_to("cus_1", 5, at=0)
    assert not floors.admits("cus_1", 4)


def test_too_many_floors_become_distrust_of_redis_for_as_long_as_an_old_entry_could_live() -> None:
    floors = Floors(3, 3600)
    for number in range(4):
        floors.raise_to(f"cus_{number}", 5, at=100)
    assert len(floors) == 0
    assert floors.distrusted_until == 3700


def test_the_memory_of_what_redis_holds_is_bounded_too() -> None:
    floors = Floors(3, 3600)
    for number in range(1000):
        floors.lift(f"cus_{number}", 5)
    assert len(floors._held) <= 3
