"""What changes for whom between two gateway.yaml: each route and method, each tier, nobody included.

It decides which differences there are and which take access away. Every "before" and "after" is judged by the code that
judges requests. Whoever pays is followed by what they bought, not by the name of a tier: a tier that is renamed and keeps
its prices takes nothing from anybody who pays, and a price that moves to a lower tier does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from policies.access_cells import Cell, Found, cells
from policies.entitlement import Entitlement
from policies.explain import Rules
from policies.facts import CustomerFacts, GrantFact, SubscriptionFact
from policies.reasons import Reason
from policies.route_table import Matched, MethodNotAllowed
from policies.schema import Tier
from policies.supposed import item_of
from policies.units import format_duration
from policies.verdict import FORWARD, Caller, admit, narrowing, shown

NOBODY: Final = "nobody"
NOTHING_BOUGHT: Final = "any token"
_NOW: Final = 1_767_225_600
_LATER: Final = _NOW + 86_400


class Effect(StrEnum):
    """What a change does to somebody."""

    LOSES = "loses"
    GAINS = "gains"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Difference:
    """The same askers meet the same change. `who` are tiers, `nobody`, `any token`, or `pro (price_x)` for a part."""

    path: str
    host: str
    methods: tuple[str, ...]
    route_before: str | None
    route_after: str | None
    who: tuple[str, ...]
    before: str
    after: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting that decides how long somebody keeps access, as it is written."""

    name: str
    before: str
    after: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class Affected:
    """How many customers of a ledger gain or lose one route, and how many of those pay."""

    path: str
    host: str
    methods: tuple[str, ...]
    losing: int
    losing_paying: int
    gaining: int
    gaining_paying: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that differs."""

    differences: tuple[Difference, ...]
    settings: tuple[SettingChange, ...]
    cells: tuple[Cell, ...]

    @property
    def somebody_loses(self) -> bool:
        """Whether anybody may be refused tomorrow who is let through today."""
        return Effect.LOSES in {one.effect for one in self.differences} | {one.effect for one in self.settings}


@dataclass(frozen=True, slots=True)
class _Asker:
    label: str
    evidence: str
    facts: CustomerFacts | None


def compare(old: Rules, new: Rules) -> Comparison:
    """Exhaustively, from both tables."""
    askers = tuple(_askers(old.config.tiers, new.config.tiers))
    callers = [(_caller(old, asker), _caller(new, asker)) for asker in askers]
    met = tuple(cells((old.config, old.table), (new.config, new.table)))
    return Comparison(
        differences=tuple(one for cell in met for one in _differences(cell, old, new, askers, callers)),
        settings=tuple(_settings(old, new)),
        cells=met,
    )


def affected(
    comparison: Comparison, old: Rules, new: Rules, customers: Iterable[CustomerFacts], now: float
) -> tuple[Affected, ...]:
    """The customers of a ledger, at `now`: those routes only that somebody gains or loses."""
    alike: dict[tuple[int, int, bool, bool], tuple[int, Entitlement, Entitlement]] = {}
    for facts in customers:
        before, after = old.derive(facts), new.derive(facts)
        pays = _pays(facts, old, now) or _pays(facts, new, now)
        key = (before.at(now).rank, after.at(now).rank, facts.blocked is not None, pays)
        count, *_ = alike.get(key, (0, before, after))
        alike[key] = (count + 1, before, after)
    found: list[Affected] = []
    for cell in comparison.cells:
        losing, gaining = [0, 0], [0, 0]
        for (*_, pays), (count, before, after) in alike.items():
            was, is_now = _outcome(cell.before, old, before, now), _outcome(cell.after, new, after, now)
            counted = losing if was == FORWARD != is_now else gaining if is_now == FORWARD != was else None
            if counted is not None:
                counted[0] += count
                counted[1] += count if pays else 0
        if losing[0] or gaining[0]:
            found.append(Affected(cell.target.path, cell.host, cell.methods, *losing, *gaining))
    return tuple(found)


def _pays(facts: CustomerFacts, rules: Rules, now: float) -> bool:
    standing = rules.derive(replace(facts, grants=())).at(now)
    return standing.rank > rules.ladder.everybody_rank


def _askers(old: tuple[Tier, ...], new: tuple[Tier, ...]) -> Iterator[_Asker]:
    """Everybody who could ask: by nothing, by a token, by each thing that either file sells, by each grant."""
    yield _Asker(NOBODY, "", None)
    yield _Asker(NOTHING_BOUGHT, "", CustomerFacts("somebody", 1, fetched_at=_NOW))
    seen: set[str] = set()
    for tier in (*old, *new):
        sold = [
            *((price, item_of(price=price, until=_LATER)) for price in tier.prices),
            *((product, item_of(product=product, until=_LATER)) for product in tier.products),
            *((key, item_of(lookup_key=key, until=_LATER)) for key in tier.lookup_keys),
        ]
        for name, item in sold:
            if name not in seen:
                seen.add(name)
                bought = SubscriptionFact("sub_supposed", "active", (item,), created=_NOW)
                facts = CustomerFacts("somebody", 1, subscriptions=(bought,), fetched_at=_NOW)
                yield _Asker(tier.name, name, facts)
        if (granted := f"grant of {tier.name}") not in seen:
            seen.add(granted)
            grant = GrantFact(1, tier.name, None, "supposed", "supposed")
            yield _Asker(tier.name, "a grant", CustomerFacts("somebody", 1, grants=(grant,), fetched_at=_NOW))


def _caller(rules: Rules, asker: _Asker) -> Caller:
    return Reason.TOKEN_MISSING if asker.facts is None else rules.derive(asker.facts)


def _differences(
    cell: Cell, old: Rules, new: Rules, askers: tuple[_Asker, ...], callers: list[tuple[Caller, Caller]]
) -> Iterator[Difference]:
    """Askers with the same before and after in one."""
    grouped: dict[tuple[str, str], list[_Asker]] = {}
    for asker, (before, after) in zip(askers, callers, strict=True):
        was, is_now = _outcome(cell.before, old, before, _NOW), _outcome(cell.after, new, after, _NOW)
        if was == is_now == FORWARD and _upstream(cell.before) != _upstream(cell.after):
            was, is_now = f"{FORWARD} to {_upstream(cell.before)}", f"{FORWARD} to {_upstream(cell.after)}"
        if was != is_now or _is_narrowed_otherwise(cell, was):
            grouped.setdefault((was, is_now), []).append(asker)
    for (was, is_now), changed in grouped.items():
        effect = _effect(cell, was, is_now)
        narrowed = is_now.startswith(FORWARD) and _is_narrowed_otherwise(cell, was)
        yield Difference(
            path=cell.target.path,
            host=cell.host,
            methods=cell.methods,
            route_before=_label(cell.before),
            route_after=_label(cell.after),
            who=tuple(_named(changed, askers)),
            before=was + _with(cell.before) if narrowed else was,
            after=is_now + _with(cell.after) if narrowed else is_now,
            effect=effect,
        )


def _is_narrowed_otherwise(cell: Cell, was: str) -> bool:
    """Whether who is let through must hold other scopes or claims than before. Whoever asks here holds them all."""
    if not was.startswith(FORWARD) or not (isinstance(cell.before, Matched) and isinstance(cell.after, Matched)):
        return False
    before, after = cell.before.route.requirement, cell.after.route.requirement
    return not (before.narrows_as_much_as(after) and after.narrows_as_much_as(before))


def _effect(cell: Cell, was: str, is_now: str) -> Effect:
    if was.startswith(FORWARD) and is_now.startswith(FORWARD) and _is_narrowed_otherwise(cell, was):
        widened = (
            isinstance(cell.before, Matched)
            and isinstance(cell.after, Matched)
            and cell.before.route.requirement.narrows_as_much_as(cell.after.route.requirement)
        )
        return Effect.GAINS if widened else Effect.LOSES
    return Effect.LOSES if was == FORWARD else Effect.GAINS if is_now == FORWARD else Effect.DIFFERS


def _with(found: Found) -> str:
    needs = found.route.requirement if isinstance(found, Matched) else None
    return f" with {narrowing(needs)}" if needs is not None and needs.narrows else ""


def _named(changed: list[_Asker], askers: tuple[_Asker, ...]) -> Iterator[str]:
    """A tier where all of it is meant, else the parts of it."""
    for label in dict.fromkeys(asker.label for asker in changed):
        parts = [asker for asker in changed if asker.label == label]
        is_whole = len(parts) == sum(asker.label == label for asker in askers)
        yield label if is_whole else f"{label} ({', '.join(part.evidence for part in parts)})"


def _outcome(found: Found, rules: Rules, caller: Caller, now: float) -> str:
    if isinstance(found, Matched):
        reason, _ = admit(found.route, rules.ladder, caller, now)
        return FORWARD if reason is None else shown(reason)
    return shown(Reason.METHOD_NOT_ALLOWED if isinstance(found, MethodNotAllowed) else Reason.NO_ROUTE)


def _label(found: Found) -> str | None:
    return found.route.label if isinstance(found, Matched) else None


def _upstream(found: Found) -> str | None:
    return found.route.upstream if isinstance(found, Matched) else None


def _settings(old: Rules, new: Rules) -> Iterator[SettingChange]:
    """How late money may be: who is inside the difference is refused sooner, or later."""
    pairs = (
        ("billing.renewal_leeway", old.billing.renewal_leeway, new.billing.renewal_leeway),
        ("billing.past_due_grace", old.billing.past_due_grace, new.billing.past_due_grace),
    )
    for name, before, after in pairs:
        if before != after:
            effect = Effect.LOSES if after < before else Effect.GAINS
            yield SettingChange(name, format_duration(before), format_duration(after), effect)
