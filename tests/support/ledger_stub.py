"""A scripted SQL source: it holds facts by customer, and can be slow, gone, or held between reading and answering."""

from __future__ import annotations

import asyncio

from policies.facts import CustomerFacts, GrantFact


class LedgerIsGoneError(Exception):
    """What a driver would raise."""


class ScriptedLedger:
    """Reads take their value when they begin, as a database snapshot does, and answer when `gate` is open."""

    def __init__(self) -> None:
        self.facts: dict[str, CustomerFacts] = {}
        self.reads: list[str] = []
        self.is_gone = False
        self.gate = asyncio.Event()
        self.gate.set()

    def commit(self, facts: CustomerFacts) -> CustomerFacts:
        self.facts[facts.customer] = facts
        return facts

    async def read(self, customer: str) -> CustomerFacts:
        self.reads.append(customer)
        if self.is_gone:
            raise LedgerIsGoneError
        facts = self.facts.get(customer, CustomerFacts(customer, 0))
        await self.gate.wait()
        return facts


class Clock:
    """A time that moves when told to."""

    def __init__(self, start: float) -> None:
        self.time = start

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


def granted(customer: str, version: int, *, tier: str = "pro", until: int | None = None) -> CustomerFacts:
    return CustomerFacts(customer, version, grants=(GrantFact(1, tier, until, "test", "test"),))


def nothing(customer: str, version: int) -> CustomerFacts:
    return CustomerFacts(customer, version)
