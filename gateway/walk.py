"""One request on its way, and what is learnt of it for its line in the log.

It decides what of a request may be repeated at all: its id only if short and plain, its path without the query, and
nothing of an address that may be a payment link (P9). It must never hold a token.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from gateway.answers import Answer, Asked, Headers
from gateway.credentials import Authenticated, Authenticator, Unauthenticated
from gateway.plan import Plan
from gateway.telemetry import NO_TIER_HELD, UNKNOWN_TIER, Observed, RequestEnd
from gateway.upstream.headers import identity_headers
from gateway.upstream.outcome import (
    BODY_FOLLOWS_KEY,
    CLIENT_CLOSED_REQUEST,
    TUNNEL_KEY,
    Receive,
    Scope,
    Send,
    Tunnel,
    request_target,
)
from policies.api_key import masked
from policies.caller import Caller
from policies.decision import Decision, Forward, Refuse
from policies.entitlement import Standing
from policies.paths import BadTarget, Target
from policies.reasons import Reason
from policies.route_table import CompiledRoute

RESERVED_SEGMENT: Final = "_gateway"
FORWARDED: Final = "forwarded"
OWN: Final = "own"
FAILED: Final = "failed"
"""What logs and metrics say where no refusal names a reason: the upstream's answer, one of ours, a fault in here."""

_PLAIN_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_LONGEST_PATH: Final = 2048
_IDS_AT_ONCE: Final = 256
_unused_ids: Final[list[str]] = []
os.register_at_fork(after_in_child=_unused_ids.clear)  # or two processes would give out the same ones


@dataclass(slots=True)
class Walk:
    """The request, the plan it takes from its start to its end, and what it has come to so far."""

    scope: Scope
    receive: Receive
    send: Send
    plan: Plan
    request_id: str
    method: str
    path: str
    route: str = "_none"
    status: int = 500
    reason: str = FORWARDED
    customer: str | None = None
    tier: str | None = None
    upstream: str | None = None
    upstream_seconds: float | None = None
    bytes_sent: int = 0
    note: str | None = None
    forwarded_path: bytes | None = None
    observed: Observed | None = None
    tunnel: Tunnel | None = None

    @property
    def headers(self) -> Headers:
        """The request's, names in lower case."""
        headers: Headers = self.scope["headers"]
        return headers

    def header(self, wanted: bytes) -> str:
        """The first value of a field, empty without one."""
        return header_of(self.headers, wanted)

    def asked(self) -> Asked:
        """What an answer of ours depends on."""
        return Asked(
            method="GET" if self.method == "HEAD" else self.method,
            path=self.path,
            request_id=self.request_id,
            accept=b",".join(value for name, value in self.headers if name == b"accept"),
            origin=self.header(b"origin").encode("latin-1"),
        )

    def rewrite(self, route: CompiledRoute, target: Target) -> BadTarget | None:
        """Settle which path goes on, where the route declares that it isn't the one that came; or why none can."""
        if route.rewrite is None:
            return None
        path = route.rewrite.path(target)
        if isinstance(path, BadTarget):
            return path
        self.forwarded_path = path
        return None

    @property
    def comes_from_own_page(self) -> bool:
        """Whether a browser says that it is a page of an origin that `server.cors_origins` lists, or the gateway's own."""
        return self.header(b"origin").encode("latin-1") in self.plan.own_origins

    def without(self, without: Callable[[Headers, bytes], tuple[Headers, bytes]]) -> tuple[Headers, bytes | None]:
        """The headers and the target without the caller's credential; the rest byte for byte. None is the target as it came.

        With `forward_token: false` also where nobody looked at the token: on a public route it stops here all the same.
        """
        path, mark, query = request_target(self.scope).partition(b"?")
        headers, kept = without(self.headers, query)
        if kept == query:
            return headers, None
        return headers, path + mark + kept if kept else path

    async def authenticate(self, by: Authenticator | None = None) -> Authenticated | Unauthenticated:
        """Who is calling, by its plan's issuers or others. Waits only for a fetch of keys under way, and that not for long."""
        authenticator, query = by or self.plan.authenticator, self.scope["query_string"]
        outcome = authenticator.authenticate(self.headers, query)
        return await authenticator.settle(outcome, self.headers, query)

    async def refuse(self, reason: Reason, detail: str, extra: Headers | None = None) -> None:
        """Answer with a refusal."""
        await self.answer(self.plan.answers.refuse(reason, detail, self.asked(), extra=extra))

    async def answer(self, answer: Answer) -> None:
        """Answer with something of ours, whole."""
        self.status, self.reason = answer.status, answer.reason.value
        body = b"" if self.method == "HEAD" else answer.body
        head = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": answer.headers,
            BODY_FOLLOWS_KEY: True,
        }
        await self.send(head)
        await self.send({"type": "http.response.body", "body": body})
        self.bytes_sent = len(body)

    def observe(self, decision: Forward) -> None:
        """Keep in mind what it is forwarded in spite of, if anything."""
        if decision.observed is not None:
            standing = decision.standing
            unknown = standing is None or decision.observed is Reason.ENTITLEMENT_UNAVAILABLE
            tier = UNKNOWN_TIER if standing is None or unknown else standing.tier or NO_TIER_HELD
            self.observed = Observed(decision.observed, tier)

    def caller_left(self) -> None:
        """Nobody waits for the answer any more."""
        self.status, self.note = CLIENT_CLOSED_REQUEST, "the caller left"

    def end(self, seconds: float) -> RequestEnd:
        """All that is told of it."""
        return RequestEnd(
            request_id=self.request_id,
            method=self.method,
            path=self.path,
            route=self.route,
            status=self.status,
            reason=self.reason,
            customer=self.customer,
            tier=self.tier,
            upstream=self.upstream,
            seconds=seconds,
            upstream_seconds=self.upstream_seconds,
            bytes_sent=self.bytes_sent,
            note=self.note,
            observed=self.observed,
        )


def begin(scope: Scope, receive: Receive, send: Send, plan: Plan) -> Walk:
    """The walk of a request that has just come."""
    path = loggable(request_target(scope))
    request_id = own_request_id(scope["headers"]) or new_request_id()
    return Walk(scope, receive, send, plan, request_id, scope["method"], path, tunnel=scope.get(TUNNEL_KEY))


def header_of(headers: Headers, wanted: bytes) -> str:
    """The first value of a field, empty without one."""
    for name, value in headers:
        if name == wanted:
            return value.decode("latin-1")
    return ""


def new_request_id() -> str:
    """Sixteen hex digits, from randomness that is fetched for many ids at once: a system call each would cost more than the id."""
    if not _unused_ids:
        drawn = os.urandom(8 * _IDS_AT_ONCE).hex()
        _unused_ids.extend(drawn[at : at + 16] for at in range(0, len(drawn), 16))
    return _unused_ids.pop()


def own_request_id(headers: Headers) -> str | None:
    """The caller's own id if it is short and plain."""
    for name, value in headers:
        if name == b"x-request-id" and _PLAIN_ID.fullmatch(value):
            return value.decode("ascii")
    return None


def loggable(raw_target: bytes) -> str:
    """The path as sent, without its query, an API key's secret, and what may be a payment link, however it is spelt."""
    path = raw_target.partition(b"?")[0].partition(b"#")[0].decode("latin-1")
    read = unicodedata.normalize("NFKC", unquote(unquote(path))) if "%" in path else path
    return f"/{RESERVED_SEGMENT}/…" if RESERVED_SEGMENT in read.lower() else masked(path[:_LONGEST_PATH])


def identity_of(caller: Caller, standing: Standing | None) -> Headers:
    """Who the caller is, for the upstream."""
    if standing is None:
        return identity_headers(caller.customer, tier=None, features=(), status=None)
    return identity_headers(
        caller.customer,
        tier=standing.tier,
        features=standing.features,
        status=standing.status,
        quantity=standing.quantity,
    )


def observed_of(walk: Walk) -> Headers:
    """Tells an API that takes whatever reaches it for paid which requests are not."""
    return [] if walk.observed is None else [(b"x-gateway-observed", walk.observed.reason.value.encode())]


def known_tier(decision: Decision) -> str | None:
    """What the log says: nothing where nobody could say whether they still have more than what is left of it."""
    unsure = isinstance(decision, Refuse) and decision.reason is Reason.ENTITLEMENT_UNAVAILABLE
    return None if unsure or decision.standing is None else decision.standing.tier
