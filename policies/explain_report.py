"""An explanation as people and programs read it: plain texts and numbers, the same on the command line and in the API.

It decides words, never outcomes. The answer and what would reach the upstream come from the gateway's own walk.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.explain import Explanation
from policies.supposed import Supposition
from policies.verdict import OWN, Question

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Asking:
    """What is to be explained. At most one of `customer` and `supposition`; with neither, the headers say who it is.

    `target` is what stands in the request line, query and all; `at` None is now. Header names are in lower case.
    """

    method: str
    target: str
    host: str = ""
    headers: Fields = ()
    customer: str | None = None
    supposition: Supposition | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class NotExplained:
    """Why the question makes no sense, as a sentence. `names_what_is_not_there`: with another file it could make some."""

    detail: str
    names_what_is_not_there: bool = False


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """The gateway's own answer, byte for byte: its bodies are UTF-8, its headers Latin-1."""

    status: int
    headers: Fields
    body: str


@dataclass(frozen=True, slots=True)
class ShownForward:
    """What the upstream is sent, but for the body."""

    upstream: str
    method: str
    target: str
    headers: Fields


@dataclass(frozen=True, slots=True)
class ShownLoser:
    """A route that might have judged the request, and why it doesn't."""

    route: str
    why: str


@dataclass(frozen=True, slots=True)
class ShownCheck:
    """Something that was looked at, and what it came to."""

    what: str
    found: str


@dataclass(frozen=True, slots=True)
class ShownChange:
    """If this, then that outcome."""

    what: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Report:
    """One explained request. `outcome` is `forward`, `own` or a status and a reason."""

    request: str
    who: str
    at: int
    outcome: str
    why: str
    route: str | None
    losers: tuple[ShownLoser, ...]
    checks: tuple[ShownCheck, ...]
    changes: tuple[ShownChange, ...]
    answer: ShownAnswer | None
    forwarded: ShownForward | None


def report(
    question: Question,
    who: str,
    at: int,
    explanation: Explanation,
    *,
    answer: ShownAnswer | None,
    forwarded: ShownForward | None,
) -> Report:
    """Everything together."""
    verdict = explanation.verdict
    return Report(
        request=str(question),
        who=who,
        at=at,
        outcome=verdict.outcome,
        why=explanation.why,
        route=None if verdict.route is None else verdict.route.label,
        losers=tuple(ShownLoser(one.route.label, one.why) for one in explanation.losers),
        checks=tuple(ShownCheck(one.what, one.found) for one in explanation.checks),
        changes=tuple(ShownChange(one.what, one.outcome) for one in explanation.changes),
        answer=answer,
        forwarded=forwarded,
    )


def is_rehearsed(explanation: Explanation) -> bool:
    """Whether the walk can show the answer: the gateway's own endpoints may call Stripe, and are left alone."""
    return explanation.verdict.outcome != OWN
