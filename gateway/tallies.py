"""Counters and histograms of the request path: plain numbers, which become a registry's metrics when somebody asks for them.

prometheus_client locks each of its numbers, and a request counts in seven of them: that cost a tenth of the whole walk.
All of a process's requests are on one event loop, and a scrape is a request there, too. They must never be
counted from a thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends of the buckets, in seconds, each included in its own (`le`)."""
_LE: Final = (*map(floatToGoString, BOUNDS), "+Inf")


class Count:
    """How often something happened."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """Once more."""
        self.value += 1


class Timing:
    """How long something took, each time."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.buckets = [0] * len(_LE)

    def observe(self, seconds: float) -> None:
        """It took this long."""
        self.seconds += seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += 1


class Counts(Collector):
    """A family of counters in a registry."""

    def __init__(self, name: str, documentation: str, names: Sequence[str], registry: CollectorRegistry) -> None:
        self._told = name, documentation
        self._names = tuple(names)
        self._counts: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The counter of these labels."""
        return self._counts.setdefault(values, Count())

    def describe(self) -> Iterator[Metric]:
        """The family without numbers, by which a registry knows its names."""
        yield CounterMetricFamily(*self._told, labels=self._names)

    def collect(self) -> Iterator[Metric]:
        """As they stand now."""
        family = CounterMetricFamily(*self._told, labels=self._names)
        for values, count in self._counts.items():
            family.add_metric(values, count.value)
        yield family


class Timings(Collector):
    """A family of histograms in a registry."""

    def __init__(self, name: str, documentation: str, names: Sequence[str], registry: CollectorRegistry) -> None:
        self._told = name, documentation
        self._names = tuple(names)
        self._timings: dict[tuple[str, ...], Timing] = {}
        registry.register(self)

    def labels(self, *values: str) -> Timing:
        """The histogram of these labels."""
        return self._timings.setdefault(values, Timing())

    def describe(self) -> Iterator[Metric]:
        """The family without numbers, by which a registry knows its names."""
        yield HistogramMetricFamily(*self._told, labels=self._names)

    def collect(self) -> Iterator[Metric]:
        """As they stand now."""
        family = HistogramMetricFamily(*self._told, labels=self._names)
        for values, timing in self._timings.items():
            so_far = 0
            buckets: list[tuple[str, float]] = []
            for le, count in zip(_LE, timing.buckets, strict=True):
                so_far += count
                buckets.append((le, so_far))
            family.add_metric(values, buckets=buckets, sum_value=timing.seconds)
        yield family
