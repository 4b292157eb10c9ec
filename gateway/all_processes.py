"""The metrics of several processes as one: what each counted, added up, those included that are no more.

It must never let a counter go backwards because a process ended: what it had told last stays in the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_ADDED_UP: Final = frozenset({"counter", "histogram", "summary"})
"""Other gauges tell of the gateway (its version, its configuration, the inbox), and one process knows those for all."""
_OF_EACH: Final = frozenset({"gateway_websockets_open"})
"""Gauges of what a process holds. They are added up, too, and what a process held is gone with it."""

Snapshot = list[list[Any]]
"""As JSON has it: name, documentation, type and samples of each family, each sample a name, labels and a value."""


def snapshot(registry: Collector) -> Snapshot:
    """What this process counted until now."""
    return [
        [
            family.name,
            family.documentation,
            family.type,
            [[one.name, one.labels, one.value] for one in family.samples],
        ]
        for family in registry.collect()
        if family.type in _ADDED_UP or family.name in _OF_EACH
    ]


class Totals:
    """Sums by family, sample and labels. It is a collector, too."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str]] = {}
        self._sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}

    def add(self, told: Snapshot) -> None:
        """Count this in."""
        for name, documentation, kind, samples in told:
            self._families.setdefault(name, (documentation, kind))
            sums = self._sums.setdefault(name, {})
            for sample, labels, value in samples:
                key = sample, tuple(labels.items())
                sums[key] = sums.get(key, 0.0) + value

    def add_former(self, told: Snapshot) -> None:
        """Count in what one that is no more has counted."""
        self.add([family for family in told if family[0] not in _OF_EACH])

    def told(self) -> Snapshot:
        """As a snapshot."""
        return [
            [name, *self._families[name], [[sample, dict(labels), value] for (sample, labels), value in sums.items()]]
            for name, sums in self._sums.items()
        ]

    def collect(self) -> Iterator[Metric]:
        """For `generate_latest`."""
        for name, documentation, kind, samples in self.told():
            family = Metric(name, documentation, kind)
            family.samples = [Sample(*one) for one in samples]
            yield family


class AllProcesses(Collector):
    """What `own` counts, with what the others told."""

    def __init__(self, own: Collector, others: Iterable[Snapshot]) -> None:
        self._own = own
        self._totals = Totals()
        for told in (snapshot(own), *others):
            self._totals.add(told)

    def collect(self) -> Iterator[Metric]:
        """For `generate_latest`."""
        yield from self._totals.collect()
        for family in self._own.collect():
            if family.type not in _ADDED_UP and family.name not in _OF_EACH:
                yield family
