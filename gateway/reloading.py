"""Reload: a changed gateway.yaml is loaded whole beside the one in force, and takes its place at once or not at all (P10).

    read and compile ──▶ nothing that waits for a restart? ──▶ every part prepares ──▶ every part commits
          │                            │                               │
          └────────── refused: nothing has changed, and log, metric and /readyz say why

It decides which configuration is in force. It must never leave the parts (this process, or all workers) with different
ones, nor run two reloads at once: who asks while one is under way gets the next, which reads the file anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from gateway.loading import LoadedFile, Source, Unreadable, load_file
from policies.diagnostics import Diagnostic, Severity, render
from policies.fixed_settings import changed_fixed_settings
from policies.routes import RouteTable
from policies.schema import Config

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration that loaded whole, and what it was made from."""

    config: Config = field(repr=False)
    routes: RouteTable = field(repr=False)
    source: Source


@dataclass(frozen=True, slots=True)
class Taken:
    """It is in force. `warnings` are for a person to judge."""

    generation: int
    detail: str
    warnings: str = ""


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Nothing has changed. `problems` are the file's, as `gateway check` shows them."""

    detail: str
    problems: str = ""


@dataclass(frozen=True, slots=True)
class ConfigurationState:
    """For /readyz and metrics: which configuration is in force, and whether a newer one was refused since."""

    generation: int
    loaded_at: float
    refused: str = ""

    def report(self) -> dict[str, Any]:
        """For /readyz."""
        loaded_at = datetime.fromtimestamp(self.loaded_at, UTC).isoformat(timespec="seconds")
        report: dict[str, Any] = {"generation": self.generation, "loaded_at": loaded_at}
        return report | ({"refused": self.refused} if self.refused else {})


class Part(Protocol):
    """One process of this gateway. `prepare` may fail and changes nothing; after it comes `commit` or `discard`."""

    async def prepare(self, candidate: Candidate) -> str | None:
        """Make everything ready; or why that can't be, as a sentence."""

    async def commit(self) -> None:
        """What was prepared is in force."""

    async def discard(self) -> None:
        """Drop what was prepared, if anything was."""

    def tell(self, state: ConfigurationState) -> None:
        """How the last reload ended."""


class Control(Protocol):
    """What a process of a gateway knows of the configuration in force, and how it asks for another."""

    state: ConfigurationState

    async def reload(self, cause: str) -> Taken | NotTaken:
        """Load the file anew."""


class NoReloads:
    """Of a gateway that has no file: `Control`."""

    def __init__(self, started_at: float) -> None:
        self.state = ConfigurationState(1, started_at)

    async def reload(self, _cause: str) -> Taken | NotTaken:
        """Nothing is read."""
        return NotTaken("this gateway has no file to load anew.")


class Reloads:
    """The reloads of one running gateway. `parts` are its processes at the time."""

    def __init__(
        self,
        candidate: Candidate,
        *,
        environ: Mapping[str, str],
        parts: Callable[[], Sequence[Part]],
        wall: Callable[[], float],
    ) -> None:
        self.candidate = candidate
        self.state = ConfigurationState(1, wall())
        self.turn = asyncio.Lock()
        """Held while the configuration or the parts change."""
        self._environ = environ
        self._parts = parts
        self._wall = wall
        self._begun = 0
        self._outcome: Taken | NotTaken | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.candidate.source.path

    async def reload(self, cause: str) -> Taken | NotTaken:
        """Load the file anew, and put it in force if all of it can be."""
        seen = self._begun
        async with self.turn:
            if self._begun == seen or self._outcome is None:
                self._begun += 1
                self._outcome = None
                self._outcome = await self._reload(cause)
            return self._outcome

    async def _reload(self, cause: str) -> Taken | NotTaken:
        try:
            outcome = await self._attempt()
        except Exception as error:  # noqa: BLE001 -- a defect of ours must not end a gateway that works
            _log.exception("a reload failed in an unforeseen way")
            outcome = NotTaken(f"the reload failed in an unforeseen way ({type(error).__name__}).")
        if isinstance(outcome, Taken):
            self.state = ConfigurationState(outcome.generation, self._wall())
            _log.info("%s %s", outcome.detail, f"({cause})")
        else:
            self.state = replace(self.state, refused=(outcome.problems or outcome.detail)[:2000])
            _log.error("not reloaded (%s), nothing has changed: %s\n%s", cause, outcome.detail, outcome.problems)
        if isinstance(outcome, Taken) and outcome.warnings:
            _log.warning("of what is in force now:\n%s", outcome.warnings)
        for part in self._parts():
            part.tell(self.state)
        return outcome

    async def _attempt(self) -> Taken | NotTaken:
        # Compiling ten thousand routes takes a second, in which requests go on.
        loaded = await asyncio.to_thread(load_file, self.path, self._environ)
        if isinstance(loaded, Unreadable):
            return NotTaken(loaded.detail)
        if loaded.ready is None:
            return NotTaken(f"{self.path} has errors.", render(loaded.diagnostics).rstrip("\n"))
        fixed = self._waiting_for_a_restart(loaded)
        if fixed:
            settings = "a setting" if len(fixed) == 1 else f"{len(fixed)} settings"
            return NotTaken(f"{self.path} changes {settings} that only a restart can.", render(fixed).rstrip("\n"))
        candidate = Candidate(*loaded.ready, loaded.source)
        parts = tuple(self._parts())
        refusals = await asyncio.gather(*(part.prepare(candidate) for part in parts))
        problem = next((one for one in refusals if one is not None), None)
        if problem is not None:
            await asyncio.gather(*(part.discard() for part in parts))
            return NotTaken(problem)
        self.candidate = candidate
        await asyncio.gather(*(part.commit() for part in parts))
        generation = self.state.generation + 1
        warnings = render(loaded.diagnostics).rstrip("\n") if loaded.diagnostics else ""
        return Taken(generation, f"{self.path} is in force, as configuration {generation} of this process.", warnings)

    def _waiting_for_a_restart(self, loaded: LoadedFile) -> list[Diagnostic]:
        assert loaded.ready is not None  # noqa: S101 -- the caller has looked
        found = []
        for setting in changed_fixed_settings(self.candidate.config, loaded.ready[0]):
            mark = loaded.positions.value(*setting)
            message = f"'{'.'.join(setting)}' is not what this gateway was started with; restart it, or set it back"
            found.append(Diagnostic(str(self.path), mark.line, mark.column, Severity.ERROR, "needs-restart", message))
        return found
