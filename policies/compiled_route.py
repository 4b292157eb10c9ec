"""One route as it judges: what it asks, how it ranks beside another, and what becomes of two that both have a claim.

It decides which of two requirements admits fewer. It must never call one stricter because its number is higher where
scopes, claims, enforcement or `on_unavailable` say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from policies.enforcement import ENFORCED, Enforcement
from policies.requirement import AUTHENTICATED, PUBLIC, Access, Requirement
from policies.rewriting import Rewrite
from policies.schema import Timeouts

MOST_STRICT: Final = 2**31
"""More than any tier."""


def strictness_of(requirement: Requirement) -> int:
    """How much a requirement asks, as one number: see `CompiledRoute`."""
    if requirement.access is Access.PUBLIC:
        return 0
    return 1 if requirement.access is Access.AUTHENTICATED else 2 + requirement.min_rank


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """One route, ready to judge.

    `label` is unique in its table; `methods` None admits all; `index` is that of its entry in the file, which may hold
    several paths, -1 for the default. The lesser `specificity` wins, the greater `strictness` admits fewer: 0 public, 1 authenticated, then the tiers;
    it is what the route asks where it is enforced.
    """

    label: str
    pattern: str
    methods: frozenset[str] | None
    host: str | None
    requirement: Requirement
    upstream: str
    index: int
    specificity: tuple[int, ...] = field(repr=False)
    strictness: int = field(repr=False)
    rewrite: Rewrite | None = None
    timeouts: Timeouts | None = None
    max_body: int | None = None
    fails_open: bool = False
    enforcement: Enforcement = ENFORCED
    keeps_encoded_slash: bool = False
    keeps_double_slash: bool = False

    @property
    def is_open(self) -> bool:
        """Whether nobody looks at who is calling."""
        return self.requirement.access is Access.PUBLIC or not self.enforcement.judges

    @property
    def assured(self) -> int:
        """How much everybody has met who is let through here."""
        if not self.enforcement.refuses_everybody:
            return 0
        granted = self.requirement.granted_rank
        return self.strictness if granted is None else min(self.strictness, 2 + granted)

    @property
    def demanded(self) -> int:
        """How much somebody may have to meet to be let through here."""
        return self.strictness if self.enforcement.refuses_anybody else 0

    def takes(self, body_bytes: int) -> bool:
        """Whether a body of this length is let through."""
        return self.max_body is None or body_bytes <= self.max_body

    @property
    def place(self) -> tuple[int, str]:
        """What tells it from every other route of its table."""
        return self.index, self.pattern

    def asks_as_much_as(self, other: CompiledRoute) -> bool:
        """Whether nobody is let through here whom the other would refuse."""
        if not other.enforcement.refuses_anybody:
            return True
        return (
            # The same share of the customers is the same customers: a route never stands back behind itself.
            (self.enforcement.refuses_everybody or self.enforcement == other.enforcement)
            and self.strictness >= other.strictness
            and self.requirement.narrows_as_much_as(other.requirement)
            and self.requirement.grants_no_more_than(other.requirement)
            # Who has a valid token is let through by both while nobody knows their tier.
            and (other.fails_open or not self.fails_open or other.strictness <= strictness_of(AUTHENTICATED))
        )


LEAST_SPECIFIC: Final = (2,)
ASKS_FOR_NOTHING: Final = CompiledRoute(
    label="", pattern="/**", methods=None, host=None, requirement=PUBLIC, upstream="", index=-1,
    specificity=LEAST_SPECIFIC, strictness=0,
)  # fmt: skip
"""Stands where no route was found, for the guard to say which one might be meant."""


def asking_for_both(route: CompiledRoute, other: CompiledRoute) -> CompiledRoute:
    """The first, asking for what either asks for: neither alone is the stricter one."""
    dearer = max(route, other, key=lambda one: one.demanded)
    granted, granted_rank = route.requirement.and_granted(other.requirement)
    return replace(
        route,
        strictness=dearer.strictness,
        enforcement=ENFORCED,
        fails_open=route.fails_open and other.fails_open,
        requirement=replace(
            dearer.requirement,
            tier=dearer.requirement.tier or route.requirement.tier or other.requirement.tier,
            features=dearer.requirement.features if granted_rank is None else granted,
            granted_rank=granted_rank,
            scopes=tuple(dict.fromkeys(route.requirement.scopes + other.requirement.scopes)),
            claims=tuple(dict.fromkeys(route.requirement.claims + other.requirement.claims)),
        ),
    )


def asking_also(route: CompiledRoute, other: CompiledRoute) -> CompiledRoute:
    """The first, asking for no less than the other does; where it forwards to, and how, stays as it is."""
    if other.demanded == 0 or route.asks_as_much_as(other):
        return route
    if not other.asks_as_much_as(route):
        return asking_for_both(route, other)
    return replace(
        route,
        strictness=other.strictness,
        enforcement=other.enforcement,
        fails_open=other.fails_open,
        requirement=other.requirement,
    )
