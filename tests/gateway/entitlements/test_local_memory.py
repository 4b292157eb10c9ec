from __future__ import annotations

import math

import pytest

from gateway.entitlements.local import Entry, Memory
from tests.support.ledger_stub import granted


def entry(customer: str, version: int = 1) -> Entry[str]:
    return Entry(
        facts=granted(customer, version),
        entitlement=customer,
        generation=0,
        edge=math.inf,
        fresh_until=1.0,
        confirmed_at=0.0,
        read_at=0.0,
        retry_at=-math.inf,
    )


@pytest.mark.parametrize("bound", [1, 2, 3, 10, 1000])
def test_it_never_holds_more_than_its_bound_and_always_holds_that_many(bound: int) -> None:
    memory: Memory[str] = Memory(bound)
    for number in range(5 * bound):
        memory.put(f"cus_{number}", entry(f"cus_{number}"))
        memory.get(f"cus_{number // 2}")
        assert len(memory) == min(number + 1, bound)


def test_as_many_as_fit_are_all_still_there_on_a_second_and_third_pass() -> None:
    memory: Memory[str] = Memory(100)
    names = [f"cus_{number}" for number in range(100)]
    for name in names:
        memory.put(name, entry(name))
    for _ in range(3):
        assert [name for name in names if memory.get(name) is None] == []


def test_those_in_use_stay_while_strangers_pass_through_but_for_one_at_each_turn_of_generations() -> None:
    memory: Memory[str] = Memory(100)
    dropped = 0
    for number in range(5000):
        for regular in range(5):
            if memory.get(f"regular_{regular}") is None:
                dropped += number > 0
                memory.put(f"regular_{regular}", entry(f"regular_{regular}"))
        memory.put(f"stranger_{number}", entry(f"stranger_{number}"))
    assert dropped <= 5000 / 90


def test_what_is_put_twice_is_held_once_and_as_it_was_put_last() -> None:
    memory: Memory[str] = Memory(3)
    for version in range(1, 50):
        memory.put(f"other_{version}", entry("other"))
        memory.put("cus_1", entry("cus_1", version))
        held = memory.get("cus_1")
        assert held is not None
        assert held.facts.version == version
        assert len(memory) <= 3
    memory.forget("cus_1")
    assert memory.get("cus_1") is None


def test_what_is_forgotten_is_gone_whichever_generation_held_it() -> None:
    memory: Memory[str] = Memory(4)
    for number in range(6):
        memory.put(f"cus_{number}", entry(f"cus_{number}"))
    for number in range(6):
        memory.forget(f"cus_{number}")
        assert memory.get(f"cus_{number}") is None
    assert len(memory) == 0
    memory.forget("never_there")
    memory.put("cus_9", entry("cus_9"))
    assert memory.get("cus_9") is not None
