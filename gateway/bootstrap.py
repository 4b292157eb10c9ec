"""The composition root: joins the rooms into one running process. Nothing here decides about a request.

What can't start says why in a sentence (`CannotStart`); what has started is closed in reverse order, whatever happens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry

from admin.api_keys import KeyOperations
from admin.billing import NoBilling
from admin.control import BackgroundJob, Ledger, LedgerRecords
from admin.key_use import KeyUse
from admin.ledger.api_keys import hash_key
from admin.ledger.engine import LedgerDownError
from admin.ledger.leases import Lease
from admin.ledger.opening import LedgerUnavailable
from admin.ledger.pair import NO_ACCOUNT, Pair
from admin.ledger.schema import open_ledger
from admin.operations import Operations, Rejected
from admin.operator.api import OperatorPorts, build_operator_app
from admin.operator.explain import mount_explain
from admin.operator.reload import ReloadOutcome, mount_reload
from admin.stripe.account import Account, AccountProblem, open_account
from admin.stripe_side import StripeSide
from gateway.app import Gateway, Verification
from gateway.credentials import ApiKeys, KeyBounds
from gateway.credentials.api_keys import NOTE_SECONDS
from gateway.entitlements.tasks import end
from gateway.entitlements_side import EntitlementsSide, open_entitlements
from gateway.explaining import Explainer
from gateway.in_force import InForce
from gateway.operator import Operator
from gateway.own_app import OwnApp
from gateway.plan import Plan
from gateway.readiness import Readiness
from gateway.reloading import Control, NoReloads, Taken
from gateway.serving import CannotStart
from gateway.telemetry import AccessLog, Metrics, Telemetry
from gateway.this_process import Keys, ThisProcess
from gateway.upstream.tls import TlsFilesError
from gateway.version import VERSION
from policies.entitlement import Standing, edge_after
from policies.facts import CustomerFacts
from policies.reasons import Reason
from policies.routes import RouteTable
from policies.schema import Config

FLUSH_SECONDS: Final = 0.2
FEED_START_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Process:
    """A gateway that is ready to serve. `operator_token_is_own`: it was made here, and nobody has seen it yet."""

    gateway: Gateway
    operator: Operator
    operator_token: str = field(repr=False)
    operator_token_is_own: bool
    refuse_raw: Callable[[Reason, str], bytes]
    readiness: Readiness
    part: ThisProcess
    registry: CollectorRegistry
    drain_seconds: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Secrets:
    """What gateway.yaml gives or the ledger has made once."""

    ledger_id: str
    signing_key: str = field(repr=False)
    operator_token: str = field(repr=False)
    operator_token_is_own: bool
    hash_key: bytes = field(repr=False)


@asynccontextmanager
async def running(
    config: Config, routes: RouteTable, now: Clock, control: Control | None = None, log: AccessLog | None = None
) -> AsyncIterator[Process | CannotStart]:
    """A gateway with all its background work, until the block ends. `now` is the entitlement clock."""
    async with AsyncExitStack() as stack:
        log = log or AccessLog(wall=time.time)
        yield await _start(config, routes, now, control or NoReloads(time.time()), log, stack)


async def _start(
    config: Config, routes: RouteTable, now: Clock, control: Control, log: AccessLog, stack: AsyncExitStack
) -> Process | CannotStart:
    database = await open_ledger(config.database.get_secret_value())
    if isinstance(database, LedgerUnavailable):
        return CannotStart(database.detail)
    stack.push_async_callback(database.dispose)
    ledger = Ledger.over(database)
    try:
        kept = await read_secrets(config, ledger)
        account = await open_account(config.billing.stripe, ledger.meta)
    except LedgerDownError as error:
        return CannotStart(f"The ledger could not be used: {error}")
    if isinstance(account, AccountProblem):
        return CannotStart(account.detail)
    if account is not None:
        stack.push_async_callback(account.gateway.aclose)
    pair = NO_ACCOUNT if account is None else account.pair

    registry = CollectorRegistry()
    metrics = Metrics(registry, VERSION)
    cache = config.cache
    api_keys = ApiKeys(
        ledger.api_keys.read,
        hash_key=kept.hash_key,
        now=time.time,
        monotonic=time.monotonic,
        feed_healthy=lambda: entitlements.feed.healthy,
        bounds=KeyBounds(max_ttl=cache.max_ttl, max_stale=cache.max_stale, negative_ttl=cache.negative_ttl),
    )
    key_use = KeyUse(api_keys, ledger.api_keys, seconds=NOTE_SECONDS)
    stack.push_async_callback(key_use.finish)
    stack.push_async_callback(api_keys.aclose)
    keys = KeyOperations(
        ledger.api_keys,
        hash_key=lambda: hash_key(ledger.meta),
        enabled=lambda: in_force.config.auth.api_keys.enabled,
        now=time.time,
        committed=api_keys.changed,
    )

    def own_app(plan: Callable[[], Plan]) -> OwnApp:
        return OwnApp(
            plan,
            entitlement=lambda judging, customer: gateway.entitlement(judging, customer),  # noqa: PLW0108 -- made below
            billing=lambda: NoBilling() if stripe is None else stripe.billing,
            now=now,
            keys=keys,
        )

    stripe: StripeSide | None = None
    try:
        in_force = InForce(
            config, routes, signing_key=kept.signing_key, metrics=metrics, api_keys=api_keys, own_app=own_app
        )
    except TlsFilesError as error:
        return CannotStart(str(error))
    entitlements = await open_entitlements(in_force, ledger, pair, kept.ledger_id, now, api_keys, stack)
    jobs = [*entitlements.jobs, BackgroundJob("key use", key_use.run, leased=False)]
    if account is not None:
        stripe = await _open_stripe(account, in_force, entitlements, ledger, kept, now, registry)
        stack.push_async_callback(stripe.aclose)
        jobs += stripe.jobs

    gateway = Gateway(
        in_force.plan,
        resolver=entitlements.resolver,
        verify_now=_no_stripe_to_ask if stripe is None else _asking(stripe),
        telemetry=Telemetry(metrics, log),
        now=now,
    )
    jobs.append(BackgroundJob("streams", gateway.streams.run, leased=False))
    stack.push_async_callback(gateway.streams.aclose)
    if stripe is not None:
        stripe.on_pins(lambda pins: _use_pins(in_force, entitlements, gateway, pins))
    readiness = Readiness(
        ledger_answers=lambda: _answers(ledger),
        feed_healthy=lambda: entitlements.feed.healthy,
        redis=entitlements.resolver.health,
        keys=lambda: in_force.authenticator.health(),  # noqa: PLW0108 -- a reload may bring another
        stripe=(lambda: {"state": "off"}) if stripe is None else stripe.health,
        configuration=lambda: control.state.report(),  # noqa: PLW0108 -- each reload brings another
    )
    operator_app = build_operator_app(_operator_ports(in_force, ledger, pair, stripe, now, keys), VERSION)
    mount_explain(operator_app, _explainer(gateway, ledger, pair, now))
    mount_reload(operator_app, _reloading(control))
    operator = Operator(
        token=kept.operator_token,
        registry=registry,
        readiness=readiness.report,
        before_metrics=_nothing if stripe is None else stripe.refresh_metrics,
        admin=operator_app,
    )
    part = ThisProcess(
        in_force,
        gateway,
        entitlements.resolver,
        operator,
        metrics,
        keys=Keys(kept.signing_key, kept.operator_token),
        keys_of=_keys_of(ledger),
        sell=_sells_nothing if stripe is None else stripe.take,
    )
    part.tell(control.state)
    await _start_background(in_force, entitlements, ledger, jobs, log, part, stack)
    return Process(
        gateway=gateway,
        operator=operator,
        operator_token=kept.operator_token,
        operator_token_is_own=kept.operator_token_is_own,
        refuse_raw=in_force.refuse_raw,
        readiness=readiness,
        part=part,
        registry=registry,
        drain_seconds=lambda: in_force.config.server.drain,
    )


async def read_secrets(config: Config, ledger: Ledger) -> Secrets:
    """From gateway.yaml, else made once and kept in the ledger. Raises LedgerDownError."""
    server = config.server
    own_token = not server.operator_token.get_secret_value()
    return Secrets(
        ledger_id=await ledger.meta.get_or_make("ledger_id", lambda: secrets.token_hex(8)),
        signing_key=server.signing_key.get_secret_value()
        or await ledger.meta.get_or_make("signing_key", lambda: secrets.token_urlsafe(32)),
        operator_token=server.operator_token.get_secret_value()
        or await ledger.meta.get_or_make("operator_token", lambda: secrets.token_urlsafe(24)),
        operator_token_is_own=own_token,
        hash_key=await hash_key(ledger.meta),
    )


async def _open_stripe(
    account: Account,
    in_force: InForce,
    entitlements: EntitlementsSide,
    ledger: Ledger,
    kept: Secrets,
    now: Clock,
    registry: CollectorRegistry,
) -> StripeSide:
    stripe = StripeSide(
        account,
        in_force.config,
        ledger,
        ladder=lambda: in_force.ladder,
        edge_after=lambda subscriptions, at: edge_after(subscriptions, in_force.rules, at, in_force.ladder),
        published=entitlements.published,
        namespace=kept.ledger_id,
        now=now,
        wall=time.time,
        registry=registry,
    )
    await stripe.load()
    in_force.known_offers = stripe.offers
    in_force.use_pins(stripe.pins)
    return stripe


def _use_pins(in_force: InForce, entitlements: EntitlementsSide, gateway: Gateway, pins: dict[str, str]) -> None:
    in_force.use_pins(pins)
    entitlements.resolver.forget_all(in_force.derive)
    gateway.plan = in_force.plan


def _operator_ports(
    in_force: InForce, ledger: Ledger, pair: Pair, stripe: StripeSide | None, now: Clock, keys: KeyOperations
) -> OperatorPorts:
    async def standing(customer: str) -> Standing:
        return in_force.derive(await ledger.customers.read_facts(pair, customer, now())).at(now())

    return OperatorPorts(
        records=LedgerRecords(ledger, pair, now),
        operations=Operations(ledger.customers, ladder=lambda: in_force.ladder, standing=standing, now=now),
        derive=in_force.derive,
        now=now,
        sync=_no_stripe_to_sync if stripe is None else stripe.sync_now,
        keys=keys,
    )


def _explainer(gateway: Gateway, ledger: Ledger, pair: Pair, now: Clock) -> Explainer:
    async def facts_of(customer: str) -> CustomerFacts:
        return await ledger.customers.read_facts(pair, customer, now())

    return Explainer(lambda: gateway.plan, facts_of=facts_of, now=now)


async def _start_background(
    in_force: InForce,
    entitlements: EntitlementsSide,
    ledger: Ledger,
    jobs: list[BackgroundJob],
    log: AccessLog,
    part: ThisProcess,
    stack: AsyncExitStack,
) -> None:
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    stack.callback(log.flush)
    tasks = [
        asyncio.create_task(_told_of("access log", _flushing(log)), name="access log"),
        asyncio.create_task(_told_of("changes", entitlements.feed.run()), name="changes"),
    ]
    stack.push_async_callback(end, tasks)
    try:
        await asyncio.wait_for(entitlements.feed.started.wait(), FEED_START_SECONDS)
    except TimeoutError:
        _log.warning("changes can't be followed yet: answers are confirmed with the ledger meanwhile")
    entitlements.resolver.start()
    in_force.plan.upstreams.start()
    await in_force.authenticator.start()
    stack.push_async_callback(part.aclose)
    for job in jobs:
        work = Lease(ledger.database, job.name, holder).hold(job.run) if job.leased else job.run()
        tasks.append(asyncio.create_task(_told_of(job.name, work), name=job.name))


async def _told_of(name: str, work: Awaitable[None]) -> None:
    """A background job that ends by itself has failed: that is said, never swallowed."""
    try:
        await work
    except Exception:  # noqa: BLE001 -- whatever it was, it is said and the gateway goes on
        _log.exception("the background job %s has stopped", name)


async def _flushing(log: AccessLog) -> None:
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        log.flush()


async def _answers(ledger: Ledger) -> bool:
    try:
        await ledger.meta.get("ledger_id")
    except LedgerDownError:
        return False
    return True


def _asking(stripe: StripeSide) -> Callable[[str], Awaitable[Verification]]:
    async def verify_now(customer: str) -> Verification:
        return Verification.VERIFIED if await stripe.verify(customer) else Verification.COULD_NOT

    return verify_now


async def _no_stripe_to_ask(_customer: str) -> Verification:
    """Without Stripe there are only grants, and the ledger knows those."""
    return Verification.VERIFIED


async def _no_stripe_to_sync(_customer: str) -> Rejected:
    return Rejected("This gateway has no Stripe key, so there is nothing to fetch.")


async def _nothing() -> None:
    return None


def _sells_nothing(_config: Config) -> None:
    return None


def _keys_of(ledger: Ledger) -> Callable[[Config], Awaitable[Keys | str]]:
    async def keys_of(config: Config) -> Keys | str:
        try:
            kept = await read_secrets(config, ledger)
        except LedgerDownError as error:
            return f"The ledger, which keeps the keys that gateway.yaml leaves out, could not be used: {error}"
        return Keys(kept.signing_key, kept.operator_token)

    return keys_of


def _reloading(control: Control) -> Callable[[], Awaitable[ReloadOutcome]]:
    async def reload() -> ReloadOutcome:
        outcome = await control.reload("the operator's API")
        if isinstance(outcome, Taken):
            return ReloadOutcome(outcome.detail, outcome.generation, outcome.warnings)
        return ReloadOutcome(outcome.detail, None, outcome.problems)

    return reload
