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


def test_below_what_redis_was_known_to_hold_it_is_not_believed_whoever_answers_now() -> None:
    floors = Floors(10, 3600)
    floors.lift("cus_1", 5)
    assert not floors.admits("cus_1", 4)
    assert floors.admits("cus_1", 5)
    floors.lift("cus_1", 4)
    assert not floors.admits("cus_1", 4)


def test_what_was_changed_before_a_process_began_counts_published_or_not() -> None:
    floors = Floors(10, 3600)
    floors.start_from([("cus_1", 6)], [("cus_1", 5), ("cus_2", 7)], at=0)
    assert not floors.admits("cus_1", 5)
    assert not floors.admits("cus_2", 6)
    assert floors.admits("cus_1", 6)
    assert floors.admits("cus_2", 7)
    assert len(floors) == 1


def test_too_many_floors_become_distrust_of_redis_for_as_long_as_an_old_entry_could_live() -> None:
    floors = Floors(3, 3600)
    for number in range(4):
        floors.raise_to(f"cus_{number}", 5, at=100)
    assert len(floors) == 0
    assert floors.distrusted_until == 3700


def test_of_what_redis_holds_the_latest_are_remembered() -> None:
    floors = Floors(6, 3600)
    for number in range(1000):
        floors.lift(f"cus_{number}", 5)
        assert len(floors._held) + len(floors._held_before) <= 6
    for number in range(997, 1000):
        assert not floors.admits(f"cus_{number}", 4)
    assert len(floors) == 0
    assert floors.distrusted_until < 0


def test_reading_takes_no_room_from_what_changed() -> None:
    floors = Floors(4, 3600)
    floors.raise_to("cus_1", 5, at=0)
    floors.seen("cus_1", 4)
    assert len(floors) == 1
    floors.seen("cus_1", 5)
    assert len(floors) == 0
    for number in range(100):
        floors.seen(f"other_{number}", 1)
    assert not floors.admits("cus_1", 4)


def test_who_is_in_use_stays_remembered_in_the_version_that_was_highest() -> None:
    floors = Floors(4, 3600)
    floors.lift("cus_1", 5)
    for number in range(100):
        floors.lift("cus_1", 3)
        floors.lift(f"other_{number}", 1)
    assert not floors.admits("cus_1", 4)


def test_there_is_room_for_one_even_where_hardly_any_is_given() -> None:
    floors = Floors(1, 3600)
    floors.lift("cus_1", 5)
    assert not floors.admits("cus_1", 4)
