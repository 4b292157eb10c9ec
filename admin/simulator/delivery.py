"""Webhooks: every event is posted to every endpoint, signed, and tried again a few times.

It decides when to try and what counts as delivered. Signatures and waits are real time, whatever the simulated clock
says: receivers compare `t` with their own. It must never send anything while deliveries are switched off: those events
are lost to the receiver for good, and stay readable at /v1/events.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import httpx

from admin.simulator.thin import thin_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from admin.simulator.entities import Event
    from admin.simulator.faults import DeliveryFault, Faults
    from admin.simulator.thin import Payload
    from admin.simulator.wire import Json

State = Literal["waiting", "delivered", "failed", "lost"]
RECORDS_KEPT: Final = 5000
AT_ONCE: Final = 8
ANSWER_TIMEOUT_SECONDS: Final = 20.0
DEFAULT_RETRY_SECONDS: Final = (1.0, 3.0, 9.0)
OTHER_SECRET: Final = "whsec_the_other_one_of_a_roll"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try, in real time; `status` is None when no answer came."""

    at: float
    status: int | None
    error: str | None


@dataclass(slots=True)
class Delivery:
    """One event on its way to one endpoint."""

    event: str
    type: str
    url: str
    thin: bool = False
    state: State = "waiting"
    attempts: list[Attempt] = field(default_factory=list)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def settle(self, state: State) -> None:
        """It is over, one way or another."""
        self.state = state
        self.settled.set()


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A delivery with what is sent, and how long it is kept back first."""

    delivery: Delivery
    payload: bytes
    secrets: tuple[str, ...]
    wait_seconds: float = 0.0


def sign(payload: bytes, secret: str, timestamp: int, *more: str) -> str:
    """The `Stripe-Signature` of a body; by more than one secret while an endpoint's is being rolled."""
    signed = f"{timestamp}.".encode() + payload
    macs = [hmac.new(one.encode(), signed, hashlib.sha256).hexdigest() for one in (secret, *more)]
    return ",".join([f"t={timestamp}", *(f"v1={mac}" for mac in macs)])


class Webhooks:
    """Sends events, while `run` is entered."""

    def __init__(
        self,
        endpoints: Iterable[tuple[str, str]],
        *,
        wall_clock: Callable[[], float],
        render: Callable[[Event], Json],
        render_older: Callable[[Json], Json],
        faults: Faults,
        retry_seconds: tuple[float, ...] = DEFAULT_RETRY_SECONDS,
    ) -> None:
        self.endpoints = list(endpoints)
        self.enabled = True
        self.payload: Payload = "snapshot"
        self.records: deque[Delivery] = deque(maxlen=RECORDS_KEPT)
        self._by_event: dict[str, list[Delivery]] = {}
        self._wall_clock = wall_clock
        self._render = render
        self._render_older = render_older
        self._faults = faults
        self._retry_seconds = retry_seconds
        self._queue: asyncio.Queue[_Parcel] = asyncio.Queue()
        self._held: list[_Parcel] = []

    def offer(self, event: Event) -> None:
        """Take an event in; it is sent once the loop comes round."""
        fault = self._faults.take_delivery() if self.enabled and self.endpoints else None
        overtaken, self._held = self._held, []
        rolling = fault is not None and fault.kind == "two_secrets"
        for url, secret in self.endpoints:
            for body in self._bodies(event, fault):
                delivery = Delivery(event.id, event.type, url, body["object"] != "event")
                self._record(delivery)
                if not self.enabled or (fault is not None and fault.kind == "drop"):
                    delivery.settle("lost")
                else:
                    signers = (OTHER_SECRET, secret) if rolling else (secret,)
                    self._enqueue(_Parcel(delivery, json.dumps(body, indent=2).encode(), signers), fault)
        for entry in overtaken:
            self._queue.put_nowait(entry)

    def _bodies(self, event: Event, fault: DeliveryFault | None = None) -> list[Json]:
        """What is sent of an event. A fault changes that alone: at /v1/events it stands as it is."""
        if fault is not None and fault.kind == "same_second":
            fault.second = event.created if fault.second is None else fault.second
            event = replace(event, created=fault.second)
        bodies = [self._render(event)] if self.payload != "thin" else []
        if fault is not None and fault.kind == "old_version":
            bodies = [self._render_older(body) for body in bodies]
        if self.payload != "snapshot":
            bodies.append(thin_json(event, beside_snapshot=self.payload == "both"))
        if fault is not None and fault.kind == "wrong_mode":
            bodies = [{**body, "livemode": not body["livemode"]} for body in bodies]
        return bodies

    def release(self) -> None:
        """Send what a `reorder` still holds back."""
        overtaken, self._held = self._held, []
        for entry in overtaken:
            self._queue.put_nowait(entry)

    def _enqueue(self, parcel: _Parcel, fault: DeliveryFault | None) -> None:
        if fault is not None and fault.kind == "reorder":
            self._held.append(parcel)
            return
        if fault is not None and fault.kind == "delay":
            parcel = replace(parcel, wait_seconds=fault.seconds)
        self._queue.put_nowait(parcel)
        if fault is not None and fault.kind == "duplicate":
            first = parcel.delivery
            again = Delivery(first.event, first.type, first.url, first.thin)
            self._record(again)
            self._queue.put_nowait(replace(parcel, delivery=again))

    def _record(self, delivery: Delivery) -> None:
        if len(self.records) == RECORDS_KEPT:
            oldest = self.records[0]
            self._by_event.get(oldest.event, []).remove(oldest)
            if not self._by_event[oldest.event]:
                del self._by_event[oldest.event]
        self.records.append(delivery)
        self._by_event.setdefault(delivery.event, []).append(delivery)

    def undelivered(self, event: str) -> int:
        """How many endpoints have not had this event."""
        return sum(one.state != "delivered" for one in self._by_event.get(event, ()))

    async def acknowledged(self, event: str, timeout: float) -> None:
        """Wait until every endpoint answered this event with 2xx or was given up, at most `timeout` seconds."""
        await self._settled(self._by_event.get(event, []), timeout)

    async def settled(self, timeout: float) -> bool:
        """Wait until nothing is on its way, at most `timeout` seconds; whether that came to be."""
        return await self._settled(self.records, timeout)

    async def _settled(self, deliveries: Iterable[Delivery], timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                for delivery in list(deliveries):
                    await delivery.settled.wait()
        except TimeoutError:
            return False
        return True

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Send what is offered, until this is left."""
        # Neither proxies of the environment nor redirects: Stripe follows none.
        is_secure = any(url.startswith("https:") for url, _ in self.endpoints)
        async with httpx.AsyncClient(
            # Reading the machine's certificates takes 20 ms.
            verify=True if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            timeout=ANSWER_TIMEOUT_SECONDS,
            trust_env=False,
            follow_redirects=False,
        ) as client:
            sender = asyncio.create_task(self._send_all(client))
            try:
                yield
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)

    async def _send_all(self, client: httpx.AsyncClient) -> None:
        slots = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            while True:
                parcel = await self._queue.get()
                tasks.create_task(self._deliver(client, slots, parcel))

    async def _deliver(self, client: httpx.AsyncClient, slots: asyncio.Semaphore, parcel: _Parcel) -> None:
        delivery = parcel.delivery
        for pause in (parcel.wait_seconds, *self._retry_seconds):
            if pause:
                await asyncio.sleep(pause)
            if not self.enabled:
                delivery.settle("lost")
                return
            async with slots:
                attempt = await self._attempt(client, delivery.url, parcel.payload, parcel.secrets)
            delivery.attempts.append(attempt)
            if attempt.status is not None and 200 <= attempt.status < 300:
                delivery.settle("delivered")
                return
        delivery.settle("failed")

    async def _attempt(self, client: httpx.AsyncClient, url: str, payload: bytes, secrets: tuple[str, ...]) -> Attempt:
        now, (first, *more) = self._wall_clock(), secrets
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": sign(payload, first, int(now), *more),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks) simulator",
        }
        try:
            answer = await client.post(url, content=payload, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Attempt(now, None, str(error) or type(error).__name__)
        return Attempt(now, answer.status_code, None)
