"""The short way of a request: from its head to its answer without a task, where nothing has to be waited for.

Most requests are of one kind: no body, a caller and a standing that are remembered, a connection to the upstream that
rests, and an answer that comes in one piece. They need none of what a task, its wake-ups and five coroutines are for,
and those were a quarter of what a request cost. The walk (`gateway.app`) takes such a request here first.

It decides nothing by itself. Who may pass is what `policies.decision` says of what is remembered; whatever is not of that
kind, a refusal first of all, is left to the long way before anything was done. And when the answer doesn't come
in one piece, or not at once, or not at all, the long way goes on with what was begun here: it alone knows how to retry,
to time out, to stream, and to judge again what lasts (P7).
"""

from __future__ import annotations

from operator import is_
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from gateway.own_endpoints import is_reserved
from gateway.telemetry import RequestEnd
from gateway.upstream.headers import inbound_response_headers, outbound_request_headers
from gateway.upstream.request_head import request_head
from gateway.upstream.sent_fields import SentFields
from gateway.walk import FORWARDED, Walk, header_of, identity_of, loggable, new_request_id, own_request_id
from policies.paths import BadTarget
from policies.routes import Matched

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.answers import Headers
    from gateway.app import Gateway
    from gateway.fields import Fields
    from gateway.plan import App, Plan
    from gateway.upstream.begun import Begun
    from gateway.upstream.outcome import Receive, Scope, Send
    from policies.caller import Caller
    from policies.entitlement import Standing
    from policies.routes import CompiledRoute

PATIENCE_SECONDS: Final = 0.25
"""How long an answer may take before the long way waits for it, where timeouts run and access is judged again."""


class Request(Protocol):
    """What the listener has read, and how it is answered: `gateway.listener_cycle`."""

    method: str
    target: bytes
    fields: Fields

    @property
    def whole_body(self) -> bytes | None:
        """The body, where it has come whole, is small, and nobody waits to be asked for it."""

    @property
    def scheme(self) -> str:
        """That of the caller's connection."""

    @property
    def peer(self) -> str:
        """The address that connected."""

    def on_departure(self, callback: Callable[[], None] | None) -> None:
        """What to call at once when the caller leaves."""

    def whole_head(self, status: int, headers: Headers) -> bytes | None:
        """The head of an answer that can be sent at once, if one can. Raises RuntimeError for headers that can't be sent."""

    def send_whole(self, head: bytes, body: bytes) -> None:
        """Send the whole answer."""

    def go_on(self, app: App) -> asyncio.Task[None]:
        """Let a task answer after all."""

    def end_unanswered(self) -> None:
        """End what has no answer, or half of one, as a failure; nothing where it has."""


class ShortWays:
    """Takes what can go the short way."""

    def __init__(self, gateway: Gateway, tell: Callable[[RequestEnd], None]) -> None:
        self._gateway = gateway
        self._tell = tell

    def take(self, request: Request) -> bool:
        """Send on a request that has come whole; False, and nothing done, where it must go the long way."""
        started, plan, method, fields = perf_counter(), self._gateway.plan, request.method, request.fields
        target = plan.routes.read(request.target)
        if isinstance(target, BadTarget) or method == "OPTIONS" or is_reserved(target):
            return False
        if fields.host is None:
            fields.host = header_of(fields.headers, b"host")
            fields.request_id = own_request_id(fields.headers)
        matched = plan.routes.match(method, fields.host, target)
        if not isinstance(matched, Matched):
            return False
        route = matched.route
        if route.rewrite is not None or not plan.upstreams.rules(route.upstream).keeps_token:
            return False
        body = request.whole_body
        if body is None or not route.takes(len(body)):
            return False
        caller: Caller | None = None
        standing: Standing | None = None
        if not route.is_open:
            authenticator, sought = plan.authenticator, fields.sought
            if sought is None or sought.by is not authenticator:
                if authenticator.telltale_places:
                    return False
                sought = fields.sought = authenticator.seek(fields.headers)
                if sought is None:
                    return False
            known = authenticator.recall(sought)
            if known is None:
                return False
            caller = known.caller
            decision = self._gateway.admits_at_once(plan, route, caller)
            if decision is None:
                return False
            standing = decision.standing
        request_id = fields.request_id or new_request_id()
        sent = fields.sent
        of = (plan, route.upstream, caller, standing)
        if sent is not None and all(map(is_, sent.of, of)):
            head = sent.head(method, request.target, request_id, len(body))
        else:
            outbound = _outbound(request, plan, route.upstream, caller, standing, request_id)
            try:
                head = request_head(method, request.target, outbound)
            except ValueError:  # the long way comes to the same, and tells of it
                return False
            if head.length != len(body):  # it came in chunks
                return False
            fields.sent = SentFields(fields.headers, outbound, of)
        begun = plan.upstreams.begin(route.upstream, head, route.timeouts, body)
        if begun is None:
            return False
        if caller is not None:
            self._gateway.admitted_at_once()
        ShortWay(self, request, begun, plan, route, caller, standing, request_id, started)
        return True

    def tell(self, end: RequestEnd) -> None:
        """Count it and write its line."""
        self._tell(end)

    def long_way(self, short: ShortWay) -> App:
        """The rest of a request's way as an app."""

        async def going_on(scope: Scope, receive: Receive, send: Send) -> None:
            gateway, route = self._gateway, short.route
            walk = Walk(scope, receive, send, short.plan, short.request_id, scope["method"], short.path)
            walk.route, walk.upstream = route.label, route.upstream
            walk.customer = None if short.caller is None else short.caller.customer
            walk.tier = None if short.standing is None else short.standing.tier
            await gateway.to_its_end(
                walk, short.started, gateway.go_on(walk, route, short.caller, short.begun, short.started)
            )

        return going_on


def _outbound(
    request: Request, plan: Plan, upstream: str, caller: Caller | None, standing: Standing | None, request_id: str
) -> Headers:
    peer = request.peer
    return outbound_request_headers(
        request.fields.headers,
        rules=plan.upstreams.rules(upstream),
        peer=peer,
        trusted=plan.trusted_proxies.trusts(peer),
        scheme=request.scheme,
        request_id=request_id,
        identity=() if caller is None else identity_of(caller, standing),
    )


class ShortWay:
    """One request that was sent to its upstream, until its answer has been sent on or the long way goes on with it."""

    __slots__ = ("_request", "_ways", "begun", "caller", "path", "plan", "request_id", "route", "standing", "started")

    def __init__(
        self,
        ways: ShortWays,
        request: Request,
        begun: Begun,
        plan: Plan,
        route: CompiledRoute,
        caller: Caller | None,
        standing: Standing | None,
        request_id: str,
        started: float,
    ) -> None:
        self._ways = ways
        self._request = request
        self.begun = begun
        self.plan = plan
        self.route = route
        self.caller = caller
        self.standing = standing
        self.request_id = request_id
        self.path = loggable(request.target)
        self.started = started
        """When the request came, on the clock of `perf_counter`."""
        request.on_departure(self._caller_left)
        begun.connection.follow(self, min(PATIENCE_SECONDS, begun.timeouts.response))

    def news(self) -> None:
        """Something has come from the upstream, or nothing will any more."""
        reader, request = self.begun.reader, self._request
        if not reader.complete or reader.head is None:
            return self.takes_long()
        status = reader.head.status
        try:
            head = request.whole_head(status, inbound_response_headers(reader.head.headers))
        except RuntimeError:  # the long way comes to the same, and tells of it
            head = None
        if head is None:
            return self.takes_long()
        body = reader.take_body()
        self._let_go()
        self.begun.over()
        request.send_whole(head, body)
        took = perf_counter() - self.started
        caller, standing = self.caller, self.standing
        self._ways.tell(
            RequestEnd(
                self.request_id,
                request.method,
                self.path,
                self.route.label,
                status,
                FORWARDED,
                None if caller is None else caller.customer,
                None if standing is None else standing.tier,
                self.route.upstream,
                took,
                took,
                len(body),
            )
        )
        return None

    def takes_long(self) -> None:
        """The long way goes on from here."""
        self._let_go()
        task = self._request.go_on(self._ways.long_way(self))
        task.add_done_callback(self._ended)

    def _let_go(self) -> None:
        self.begun.connection.unfollow()
        self._request.on_departure(None)

    def _caller_left(self) -> None:
        self.begun.connection.abort()  # which is news

    def _ended(self, _task: asyncio.Task[None]) -> None:
        # Where the task was cancelled before it began, nobody else lets go of anything.
        self.begun.give_up()
        self._request.end_unanswered()
