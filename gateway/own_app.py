"""The gateway's own endpoints under one plan: `admin.public` joined with what that plan decides with.

A part of the composition root. Each plan has an app of its own, so that a request under `/_gateway/` finishes on what it
began with, too; it is made when it is first asked for something.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from admin.api_keys import KeyOperations
from admin.public.app import build_public_app
from admin.public.ports import Billing, PublicPorts
from gateway.answers import Answers, Asked
from gateway.own_endpoints import ASKED_KEY
from gateway.plan import Plan
from gateway.upstream.outcome import Receive, Scope, Send
from policies.entitlement import Entitlement
from policies.offers import Payment
from policies.reasons import Reason


class OwnApp:
    """`plan` and `billing` are there by the first request. `now` is the entitlement clock."""

    def __init__(
        self,
        plan: Callable[[], Plan],
        *,
        entitlement: Callable[[Plan, str], Awaitable[Entitlement | None]],
        billing: Callable[[], Billing],
        now: Callable[[], float],
        keys: KeyOperations,
    ) -> None:
        self._plan = plan
        self._entitlement = entitlement
        self._billing = billing
        self._now = now
        self._keys = keys
        self._app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if self._app is None:
            self._app = build_public_app(self._ports(self._plan()), self._billing())
        await self._app(scope, receive, send)

    def _ports(self, plan: Plan) -> PublicPorts:
        return PublicPorts(
            refuse=_Refusals(plan.answers),
            entitlement=lambda customer: self._entitlement(plan, customer),
            ladder=lambda: plan.ladder,
            routes=lambda: plan.routes.routes,
            offers=plan.offers,
            entitlement_now=self._now,
            wall=time.time,
            signing_key=plan.signing_key.encode(),
            public_url=plan.config.server.public_url.rstrip("/"),
            success_url=plan.config.billing.success_url,
            keys=self._keys,
        )


class _Refusals:
    """`admin.public.ports.RefusalWriter`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def __call__(
        self, scope: Mapping[str, Any], reason: Reason, detail: str, payment: Payment | None = None
    ) -> Response:
        """In the one shape of all; with a `payment`, a whole 402."""
        asked: Asked = scope[ASKED_KEY]
        if payment is not None:
            answer = self._answers.payment_required(reason, payment, asked)
        else:
            answer = self._answers.refuse(reason, detail, asked)
        response = Response(answer.body, status_code=answer.status)
        response.raw_headers = list(answer.headers)
        return response
