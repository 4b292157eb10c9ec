"""What changes for whom between two gateway.yaml: each route and method, each tier, nobody included.

It decides which differences there are and which take access away. Every "before" and "after" is judged by the code that
judges requests. Whoever pays is followed by what they bought, not by the name of a tier: a tier that is renamed and keeps
its prices takes nothing from anybody who pays, and a price that moves to a lower tier does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from policies.access_cells import Cell, Found, cells
from policies.decision import OBSERVABLE, Forward, Refuse
from policies.enforcement import ENFORCED, Mode
from policies.entitlement import Entitlement
from policies.explain import Rules
from policies.facts import CustomerFacts, GrantFact, SubscriptionFact
from policies.reasons import Reason
from policies.requirement import AUTHENTICATED, Requirement
from policies.route_table import Matched, MethodNotAllowed
from policies.route_terms import term_changes
from policies.schema import Config, Tier
from policies.setting_changes import Effect, SettingChange, setting_changes
from policies.supposed import item_of
from policies.verdict import FORWARD, Caller, admit, narrowing, shown

NOBODY: Final = "nobody"
NOTHING_BOUGHT: Final = "any token"
OF_NO_TIER: Final = "a price of no tier"
WHOEVER_GETS_IN: Final = "whoever gets in"
_NOW: Final = 1_767_225_600
_LATER: Final = _NOW + 86_400


@dataclass(frozen=True, slots=True)
class Difference:
    """The same askers meet the same change. `who` are tiers, `nobody`, `any token`, `pro (price_x)` for a part,
    or `whoever gets in`.
    """

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
class _Outcome:
    """What askers of a kind meet, in words, and how many of a hundred are refused."""

    text: str
    refused: int

    @property
    def lets_all_in(self) -> bool:
        return self.refused == 0


@dataclass(frozen=True, slots=True)
class _Asker:
    """`but_for` is the same one without what Stripe grants: only where they meet something else are they told apart."""

    label: str
    evidence: str
    facts: CustomerFacts | None
    but_for: _Asker | None = None


def compare(old: Rules, new: Rules) -> Comparison:
    """Exhaustively, from both tables."""
    plain = tuple(_askers(old.config.tiers, new.config.tiers))
    askers = (*plain, *_granted(plain, old.config, new.config))
    callers = [(_caller(old, asker), _caller(new, asker)) for asker in askers]
    met = tuple(cells((old.config, old.table), (new.config, new.table)))
    return Comparison(
        differences=tuple(
            one for cell in met for one in (*_differences(cell, old, new, askers, callers), *_terms(cell, old, new))
        ),
        settings=tuple(setting_changes(old.config, new.config)),
        cells=met,
    )


def affected(
    comparison: Comparison, old: Rules, new: Rules, customers: Iterable[CustomerFacts], now: float
) -> tuple[Affected, ...]:
    """The customers of a ledger, at `now`: those routes only that somebody gains or loses."""
    shares = {
        found.route.enforcement
        for cell in comparison.cells
        for found in (cell.before, cell.after)
        if isinstance(found, Matched) and found.route.enforcement.mode is Mode.SHARE
    }
    alike: dict[tuple[object, ...], tuple[int, bool, Entitlement, Entitlement]] = {}
    for facts in customers:
        before, after = old.derive(facts), new.derive(facts)
        pays = _pays(facts, old, now) or _pays(facts, new, now)
        bound = tuple(share.binds(facts.customer) for share in shares)
        standings = [(one.rank, frozenset(one.features)) for one in (before.at(now), after.at(now))]
        key = (*standings, facts.blocked is not None, pays, bound)
        count, *_ = alike.get(key, (0,))
        alike[key] = (count + 1, pays, before, after)
    found: list[Affected] = []
    for cell in comparison.cells:
        losing, gaining = [0, 0], [0, 0]
        for count, pays, before, after in alike.values():
            had, has = _lets_in(cell.before, old, before, now), _lets_in(cell.after, new, after, now)
            counted = losing if had and not has else gaining if has and not had else None
            if counted is not None:
                counted[0] += count
                counted[1] += count if pays else 0
        if losing[0] or gaining[0]:
            found.append(Affected(cell.path, cell.host, cell.methods, *losing, *gaining))
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


def _granted(plain: tuple[_Asker, ...], old: Config, new: Config) -> Iterator[_Asker]:
    """Whoever pays for a tier, or for none of them, and has what some route asks for from Stripe itself."""
    if "stripe" not in {old.billing.features_from, new.billing.features_from}:
        return
    asked = dict.fromkeys(frozenset(route.features) for one in (old, new) for route in one.routes if route.features)
    paying = {asker.label: asker for asker in reversed(plain) if asker.facts is not None and asker.facts.subscriptions}
    for_nothing = SubscriptionFact("sub_supposed", "active", (item_of(price="\0", until=_LATER),), created=_NOW)
    nothing = next(asker for asker in plain if asker.label == NOTHING_BOUGHT)
    for label, but_for, subscriptions in (
        (OF_NO_TIER, nothing, (for_nothing,)),
        *((name, asker, asker.facts.subscriptions) for name, asker in paying.items() if asker.facts is not None),
    ):
        for features in asked:
            facts = CustomerFacts(
                "somebody", 1, subscriptions=subscriptions, fetched_at=_NOW, features=tuple(sorted(features))
            )
            yield _Asker(f"{label} granted {' and '.join(sorted(features))}", but_for.evidence, facts, but_for)


def _caller(rules: Rules, asker: _Asker) -> Caller:
    return Reason.TOKEN_MISSING if asker.facts is None else rules.derive(asker.facts)


def _differences(
    cell: Cell, old: Rules, new: Rules, askers: tuple[_Asker, ...], callers: list[tuple[Caller, Caller]]
) -> Iterator[Difference]:
    """Askers with the same before and after in one."""
    grouped: dict[tuple[_Outcome, _Outcome], list[_Asker]] = {}
    met: dict[int, tuple[_Outcome, _Outcome]] = {}
    for asker, (before, after) in zip(askers, callers, strict=True):
        was, is_now = _outcome(cell.before, old, before, _NOW), _outcome(cell.after, new, after, _NOW)
        if was.lets_all_in and is_now.lets_all_in and _upstream(cell.before) != _upstream(cell.after):
            was = replace(was, text=f"{was.text} to {_upstream(cell.before)}")
            is_now = replace(is_now, text=f"{is_now.text} to {_upstream(cell.after)}")
        met[id(asker)] = was, is_now
        if asker.but_for is not None and met[id(asker.but_for)] == (was, is_now):
            continue
        if was != is_now or _is_narrowed_otherwise(cell, was):
            grouped.setdefault((was, is_now), []).append(asker)
    for (was, is_now), changed in grouped.items():
        effect = _effect(cell, was, is_now)
        narrowed = is_now.lets_all_in and _is_narrowed_otherwise(cell, was)
        yield Difference(
            path=cell.path,
            host=cell.host,
            methods=cell.methods,
            route_before=_label(cell.before),
            route_after=_label(cell.after),
            who=tuple(_named(changed, askers)),
            before=was.text + _with(cell.before) if narrowed else was.text,
            after=is_now.text + _with(cell.after) if narrowed else is_now.text,
            effect=effect,
        )


def _terms(cell: Cell, old: Rules, new: Rules) -> Iterator[Difference]:
    """What else the route settles for whoever is let through, where both let somebody through."""
    if cell.is_literal or not (isinstance(cell.before, Matched) and isinstance(cell.after, Matched)):
        return
    for change in term_changes((cell.before.route, old.config), (cell.after.route, new.config)):
        yield Difference(
            path=cell.path,
            host=cell.host,
            methods=cell.methods,
            route_before=_label(cell.before),
            route_after=_label(cell.after),
            who=(WHOEVER_GETS_IN,),
            before=change.before,
            after=change.after,
            effect=change.effect,
        )


def _is_narrowed_otherwise(cell: Cell, was: _Outcome) -> bool:
    """Whether who is let through must hold other scopes or claims than before. Whoever asks here holds them all."""
    if not was.lets_all_in or not (isinstance(cell.before, Matched) and isinstance(cell.after, Matched)):
        return False
    before, after = _held_to(cell.before), _held_to(cell.after)
    return not (before.narrows_as_much_as(after) and after.narrows_as_much_as(before))


def _held_to(matched: Matched) -> Requirement:
    """What a credential must hold there; nothing where nobody is refused for it."""
    return matched.route.requirement if matched.route.enforcement.refuses_anybody else AUTHENTICATED


def _effect(cell: Cell, was: _Outcome, is_now: _Outcome) -> Effect:
    if was.lets_all_in and is_now.lets_all_in and _is_narrowed_otherwise(cell, was):
        widened = (
            isinstance(cell.before, Matched)
            and isinstance(cell.after, Matched)
            and _held_to(cell.before).narrows_as_much_as(_held_to(cell.after))
        )
        return Effect.GAINS if widened else Effect.LOSES
    if was.refused == is_now.refused:
        return Effect.DIFFERS
    return Effect.LOSES if was.refused < is_now.refused else Effect.GAINS


def _with(found: Found) -> str:
    needs = found.route.requirement if isinstance(found, Matched) else None
    return f" with {narrowing(needs)}" if needs is not None and needs.narrows else ""


def _named(changed: list[_Asker], askers: tuple[_Asker, ...]) -> Iterator[str]:
    """A tier where all of it is meant, else the parts of it."""
    for label in dict.fromkeys(asker.label for asker in changed):
        parts = [asker for asker in changed if asker.label == label]
        is_whole = len(parts) == sum(asker.label == label for asker in askers)
        yield label if is_whole else f"{label} ({', '.join(part.evidence for part in parts)})"


def _outcome(found: Found, rules: Rules, caller: Caller, now: float) -> _Outcome:
    if not isinstance(found, Matched):
        reason = Reason.METHOD_NOT_ALLOWED if isinstance(found, MethodNotAllowed) else Reason.NO_ROUTE
        return _Outcome(shown(reason), 100)
    enforcement = found.route.enforcement
    strictly = admit(replace(found.route, enforcement=ENFORCED), rules.ladder, caller, now)
    if not isinstance(strictly, Refuse) or not enforcement.judges:
        return _Outcome(FORWARD, 0)
    refusal = shown(strictly.reason)
    if enforcement.refuses_everybody or strictly.reason not in OBSERVABLE:
        return _Outcome(refusal, 100)
    if enforcement.mode is Mode.SHARE and not isinstance(caller, Reason):
        return _Outcome(f"{refusal} for {enforcement}", enforcement.percent)
    return _Outcome(f"{FORWARD}, observed {refusal}", 0)


def _lets_in(found: Found, rules: Rules, caller: Caller, now: float) -> bool:
    """Whether this very caller is forwarded."""
    if not isinstance(found, Matched):
        return False
    return isinstance(admit(found.route, rules.ladder, caller, now), Forward | None)


def _label(found: Found) -> str | None:
    return found.route.label if isinstance(found, Matched) else None


def _upstream(found: Found) -> str | None:
    return found.route.upstream if isinstance(found, Matched) else None
