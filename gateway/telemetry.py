"""Metrics and the access log: what happened, told once per request, at its end, from the decision.

Labels come from our configuration, never from the request: a method that isn't one of HTTP's own is `_other`. No
token, cookie, query or payment link is ever written (P9): a path is logged without its query, and a path under
`/_gateway/` only as its route.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as _quoted
from typing import Final, NamedTuple, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

from gateway.tallies import Count, Counts, Timing, Timings
from policies.reasons import Reason

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BATCH_BYTES: Final = 32 * 1024

_log = logging.getLogger(__name__)


class Metrics:
    """Every metric of the data plane, in one registry that /metrics renders."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double every series and nobody reads them
        self.registry = registry
        self.requests = Counts(
            "gateway_requests_total",
            "Requests answered, by route, method, status and the gateway's reason ('forwarded' when it was the upstream's answer).",
            ("route", "method", "status", "reason"),
            registry,
        )
        self.duration = Timings(
            "gateway_request_duration_seconds",
            "Time from the request's head to the end of its answer.",
            ("route",),
            registry,
        )
        self.upstream_duration = Timings(
            "gateway_upstream_duration_seconds",
            "Time spent in the exchange with the upstream.",
            ("upstream",),
            registry,
        )
        self.lookups = Counts(
            "gateway_entitlement_lookups_total",
            "Entitlement lookups by where the answer came from.",
            ("result",),
            registry,
        )
        self.fail_open = Counter(
            "gateway_fail_open_total",
            "Requests let through because a route says on_unavailable: allow, and what the customer pays couldn't be found out.",
            ("route",),
            registry=registry,
        )
        self.observed = Counter(
            "gateway_observed_total",
            "Requests forwarded that an enforced route would have refused, by route, reason and the caller's tier.",
            ("route", "reason", "tier"),
            registry=registry,
        )
        self.unknown_statuses = Counter(
            "gateway_unknown_subscription_statuses_total",
            "Subscriptions met whose status this version does not know; they give no access.",
            registry=registry,
        )
        self.unmapped = Counter(
            "gateway_unmapped_subscriptions_total",
            "Paying subscriptions met none of whose items belongs to a tier of gateway.yaml.",
            registry=registry,
        )
        self.websockets = Gauge("gateway_websockets_open", "WebSockets that are open now.", registry=registry)
        self.reloaded = Gauge(
            "gateway_config_last_reload_successful",
            "Whether the last attempt to load gateway.yaml succeeded.",
            registry=registry,
        )
        self.loaded_at = Gauge(
            "gateway_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was loaded.",
            registry=registry,
        )
        self.build = Gauge("gateway_build_info", "The running version.", ("version",), registry=registry)
        self.build.labels(version).set(1)
        self.reloaded.set(1)


UNKNOWN_TIER: Final = "_unknown"
NO_TIER_HELD: Final = "_none"
"""What stands for the tier of a caller whom nobody knows or could look up, and of one who has none; no tier begins so."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What a request was forwarded in spite of, and the tier of whoever sent it."""

    reason: Reason
    tier: str


class RequestEnd(NamedTuple):
    """What is told of one request. `reason` is `forwarded` when the answer was the upstream's own."""

    request_id: str
    method: str
    path: str
    route: str
    status: int
    reason: str
    customer: str | None
    tier: str | None
    upstream: str | None
    seconds: float
    upstream_seconds: float | None
    bytes_sent: int
    note: str | None = None
    observed: Observed | None = None


class Telemetry:
    """Counts a request and writes its line. Label children are remembered: looking them up costs more than counting."""

    def __init__(self, metrics: Metrics, log: AccessLog) -> None:
        self.metrics = metrics
        self._log = log
        self._counters: dict[tuple[str, str, int, str], Count] = {}
        self._durations: dict[str, Timing] = {}
        self._upstream_durations: dict[str, Timing] = {}

    def tell(self, end: RequestEnd) -> None:
        """Once per request, at its end."""
        method = end.method if end.method in METHODS else "_other"
        key = (end.route, method, end.status, end.reason)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self.metrics.requests.labels(end.route, method, str(end.status), end.reason)
        counter.inc()
        duration = self._durations.get(end.route)
        if duration is None:
            duration = self._durations[end.route] = self.metrics.duration.labels(end.route)
        duration.observe(end.seconds)
        if end.upstream is not None and end.upstream_seconds is not None:
            duration = self._upstream_durations.get(end.upstream)
            if duration is None:
                duration = self.metrics.upstream_duration.labels(end.upstream)
                self._upstream_durations[end.upstream] = duration
            duration.observe(end.upstream_seconds)
        if end.observed is not None:
            self.metrics.observed.labels(end.route, end.observed.reason.value, end.observed.tier).inc()
        self._log.write(end)


class AccessLog:
    """One JSON line per request, written in batches so that a slow reader of the log never slows a request.

    `flush` is called by the event loop's timer, and here when a batch is full; what is left is flushed at the end. A log
    that can't be written loses its lines and says so once: it must never end a request. `turn` is held while a batch is
    written, where other processes write to the same place: a pipe takes no more than 4 KiB in one piece (pipe(7)).
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        wall: Callable[[], float],
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        self._turn = nullcontext() if turn is None else turn
        self._stream = stream if stream is not None else sys.stdout
        self._wall = wall
        self._lines: list[str] = []
        self._size = 0
        self._lock = threading.Lock()
        self._is_written = True
        self._second = -1
        self._second_told = ""

    def write(self, end: RequestEnd) -> None:
        """Format the line now and write it with the next batch."""
        # By hand: of all that is told of a request this line costs the most, and json.dumps made it twice as much. Whatever
        # the caller had a say in is quoted as JSON asks, every control character escaped: a path can't forge a second line.
        observed = "" if end.observed is None else f',"observed":"{end.observed.reason.value}"'
        note = "" if end.note is None else f',"note":{_quoted(end.note)}'
        line = (
            f'{{"time":"{self._told_time()}","request_id":{_quoted(end.request_id)},"method":{_quoted(end.method)}'
            f',"path":{_quoted(end.path)},"route":{_quoted(end.route)},"status":{end.status},"reason":"{end.reason}"'
            f',"customer":{_or_null(end.customer)},"tier":{_or_null(end.tier)},"upstream":{_or_null(end.upstream)}'
            f',"ms":{round(end.seconds * 1000, 2)},"upstream_ms":{_milliseconds(end.upstream_seconds)}'
            f',"bytes":{end.bytes_sent}{observed}{note}}}\n'
        )
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _BATCH_BYTES:
            self.flush()

    def _told_time(self) -> str:
        """Now, to the millisecond; all but that is formatted once a second."""
        second, microseconds = divmod(round(self._wall() * 1_000_000), 1_000_000)
        if second != self._second:
            self._second_told = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = second
        return f"{self._second_told}.{microseconds // 1000:03}+00:00"

    def flush(self) -> None:
        """Write what has gathered."""
        with self._lock:
            lines, self._lines, self._size = self._lines, [], 0
            if not lines:
                return
            try:
                with self._turn:
                    self._stream.write("".join(lines))
                    self._stream.flush()
            except (OSError, ValueError) as error:  # a closed pipe, a full disk, a closed file
                if self._is_written:
                    _log.warning("the access log can't be written (%s): lines are dropped until it can be", error)
                self._is_written = False
            else:
                self._is_written = True


def _or_null(text: str | None) -> str:
    return "null" if text is None else _quoted(text)


def _milliseconds(seconds: float | None) -> str:
    return "null" if seconds is None else str(round(seconds * 1000, 2))
