"""The verdict of this moment on an answer under way (P7): its credential, its route under the plan in force, its customer.

It decides what `gateway.streams` acts on. It must never refuse what a new request with the same credential would be let
in with, and never take a key server that is out of reach for a credential that has lapsed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.credentials import Authenticated, Unauthenticated
from gateway.credentials.claims import EXPIRED
from gateway.credentials.outcomes import invalid
from gateway.plan import Plan
from gateway.streams import Open, Verdict
from gateway.upstream.outcome import request_target
from policies.caller import Caller
from policies.decision import Decision, Forward, Refuse, enforce
from policies.entitlement import Entitlement
from policies.reasons import Reason
from policies.routes import CompiledRoute, Matched

Decide = Callable[[Plan, CompiledRoute, Caller, Entitlement | None], Awaitable[Decision]]


class JudgingAgain:
    """`plan` is the one in force, `decide` that of a new request; `wall` is the clock of tokens."""

    def __init__(self, plan: Callable[[], Plan], decide: Decide, wall: Callable[[], float]) -> None:
        self._plan = plan
        self._decide = decide
        self._wall = wall

    async def __call__(self, one: Open, last_known: Entitlement | None) -> Verdict:
        """The verdict; what was `last_known` of the customer counts where nobody can say."""
        plan = self._plan()
        if one.plan is not plan:
            one.plan, one.route = _in_force(plan, one)
        if one.route.is_open:
            return Forward(None)  # it is asked of nobody who comes now
        lapsed = await self._lapsed(one)
        if lapsed is not None:
            nobody = enforce(Refuse(lapsed.reason), one.route.enforcement, None)
            return nobody if isinstance(nobody, Forward) else lapsed
        return await self._decide(one.plan, one.route, one.caller, last_known)

    async def _lapsed(self, one: Open) -> Unauthenticated | None:
        """Why its credential is none any more.

        Keys are asked about, since they can be revoked, and all once the issuers in force are others; a token whose
        issuer is as it was only has its end.
        """
        authenticator, outlives = self._plan().authenticator, one.outlives_token
        if one.caller.key_id is None:
            if self._wall() >= one.caller.expires_at and one.is_stream and not outlives:
                return EXPIRED
            if authenticator is one.walk.plan.authenticator:
                return None
        again = await one.walk.authenticate(authenticator)
        if isinstance(again, Authenticated):
            if again.caller.customer != one.caller.customer:
                return invalid("The credential names another customer by now.")
            one.caller = again.caller
            return None
        if again.reason is Reason.KEYS_UNAVAILABLE:
            return None
        over = again.reason is not Reason.TOKEN_EXPIRED or (one.is_stream and not outlives)
        return again if over else None


def _in_force(plan: Plan, one: Open) -> tuple[Plan, CompiledRoute]:
    """The route that judges this request under `plan`. Where none does any more, the one that let it in still does."""
    if plan.routes is one.plan.routes:
        return plan, one.route
    matched = plan.routes.find(one.walk.method, one.walk.header(b"host"), request_target(one.walk.scope))
    return (plan, matched.route) if isinstance(matched, Matched) else (one.plan, one.route)
