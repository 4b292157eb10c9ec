"""The workers of one gateway: started, restarted when they crash, reloaded together, counted as one, stopped.

It decides how many there are and what each is told. It must never leave one running that has other rules than the rest
(one that doesn't take up a configuration in time is killed, and its successor starts with it), nor one without it: each
holds one end of a channel, and stops when the other is gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any, Final

from prometheus_client.registry import Collector

from gateway.all_processes import AllProcesses, Snapshot, Totals
from gateway.entitlements.tasks import end
from gateway.reloading import Candidate, ConfigurationState, Reloads
from gateway.worker_channel import Channel, Frame, source_as_frame

START_SECONDS: Final = 120.0
PREPARE_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 10.0
SNAPSHOT_SECONDS: Final = 2.0
PING_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 90.0
"""Of a worker that runs and does nothing any more. It answers nothing else while it prepares a configuration."""
STOP_SECONDS: Final = 15.0
"""More than `drain`, before a worker that doesn't end is killed."""
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""Whoever lived so long is replaced as quickly as at first."""

_log = logging.getLogger(__name__)


class Worker:
    """One worker, as its supervisor sees it: `gateway.reloading.Part`."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self.pid = process.pid
        self.last: Snapshot = []
        """What it has counted, as last told."""
        self.gone = asyncio.Event()
        self._process = process
        self._channel = channel
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._started: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def spawn(cls, public: socket.socket, turn: int) -> Worker:
        """A fresh interpreter: what has been forked from a process with threads and connections can't be trusted."""
        ours, theirs = socket.socketpair()
        with theirs:
            passed = (theirs.fileno(), public.fileno(), turn)
            # -P: what lies in the working directory must not be taken for a module of ours.
            command = [sys.executable, "-P", "-m", "gateway.worker", *map(str, passed)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=passed, process_group=0)  # noqa: ASYNC220, S603 -- ours
        return cls(process, await Channel.over(ours))

    async def start(self, candidate: Candidate, state: ConfigurationState) -> str | None:
        """Wait until it serves; or why it doesn't."""
        self._channel.send({"source": source_as_frame(candidate.source), "state": asdict(state)})
        try:
            async with asyncio.timeout(START_SECONDS):
                told = await self._started
        except TimeoutError:
            return f"a worker (pid {self.pid}) has not started within {START_SECONDS:.0f} seconds."
        return told.get("cannot")

    async def prepare(self, candidate: Candidate) -> str | None:
        """`Part.prepare`. One that is gone has no say: its successor starts with what is in force then."""
        try:
            answer: str | None = await self._ask("prepare", PREPARE_SECONDS, source=source_as_frame(candidate.source))
        except TimeoutError:
            return f"a worker (pid {self.pid}) has not prepared it within {PREPARE_SECONDS:.0f} seconds."
        return answer

    async def commit(self) -> None:
        """`Part.commit`."""
        await self._obeyed("commit", ANSWER_SECONDS)

    async def discard(self) -> None:
        """`Part.discard`."""
        await self._obeyed("discard", ANSWER_SECONDS)

    def tell(self, state: ConfigurationState) -> None:
        """`Part.tell`."""
        self._number += 1
        self._channel.send({"do": "tell", "id": self._number, "state": asdict(state)})

    async def count(self) -> None:
        """Have `last` told anew; one that is too busy is counted as it was."""
        try:
            told: Snapshot | None = await self._ask("count", SNAPSHOT_SECONDS)
        except TimeoutError:
            _log.warning("worker %d is too busy to tell its metrics", self.pid)
            return
        if told is not None:
            self.last = told

    async def watch(self) -> None:
        """See that it is there to do something; one that isn't is killed, and so replaced."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            await self._obeyed("ping", SILENCE_SECONDS)

    def stop(self, *, now: bool) -> None:
        """Tell it to."""
        self._channel.send({"do": "stop", "now": now})

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()

    async def ended(self) -> int:
        """Its exit status, once it is gone; one that has closed its channel and lives on is killed."""
        await self.gone.wait()
        try:
            return await asyncio.to_thread(self._process.wait, ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return await asyncio.to_thread(self._process.wait)
        finally:
            await self._channel.aclose()

    async def _obeyed(self, what: str, seconds: float) -> None:
        try:
            await self._ask(what, seconds)
        except TimeoutError:
            _log.exception("worker %d has not answered to %r: it is killed", self.pid, what)
            self._process.kill()

    async def _ask(self, what: str, seconds: float, **more: object) -> Any:
        """Its answer; None where it is gone. Raises TimeoutError."""
        if self.gone.is_set():
            return None
        self._number += 1
        number = self._number
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._channel.send({"do": what, "id": number, **more})
        try:
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            del self._asked[number]

    async def _listen(self) -> None:
        try:
            while (frame := await self._channel.receive()) is not None:
                if "id" not in frame:
                    if not self._started.done():
                        self._started.set_result(frame)
                elif (asked := self._asked.get(frame["id"])) is not None and not asked.done():
                    asked.set_result(frame["answer"])
        finally:
            self.gone.set()
            if not self._started.done():
                self._started.set_result({"cannot": f"a worker (pid {self.pid}) ended before it served."})
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_result(None)


class Workers:
    """All of them. `public` is the socket that they share; it stays open while one is replaced, so that callers wait.
    `turn` is the descriptor of the file whose lock is the access log's.
    """

    def __init__(self, reloads: Reloads, public: socket.socket, size: int, turn: int) -> None:
        self.serving: list[Worker] = []
        self._alive: set[Worker] = set()
        self._reloads = reloads
        self._public = public
        self._size = size
        self._turn = turn
        self._former = Totals()
        self._keeping: list[asyncio.Task[None]] = []

    def report(self) -> tuple[int, int]:
        """How many serve, and how many should."""
        return len(self.serving), self._size

    async def start(self) -> str | None:
        """All that there should be; or why one of them can't start."""
        outcomes = await asyncio.gather(*(self._open() for _ in range(self._size)))
        problem = next((one for one in outcomes if isinstance(one, str)), None)
        if problem is None:
            self._keeping = [asyncio.create_task(self._keep(one)) for one in self.serving]
        return problem

    async def gather(self, own: Collector) -> Collector:
        """The metrics of all, and of those that are no more."""
        await asyncio.gather(*(one.count() for one in self.serving))
        return AllProcesses(own, (self._former.told(), *(one.last for one in self.serving)))

    async def stop(self, forced: asyncio.Event, drain: float) -> None:
        """End all, gracefully until `forced`. What is left after `drain` and some more is killed."""
        await end(self._keeping)
        stopping = list(self._alive)
        for one in stopping:
            one.stop(now=forced.is_set())
        forcing = asyncio.create_task(_force(stopping, forced))
        try:
            async with asyncio.timeout(drain + STOP_SECONDS):
                for one in stopping:
                    await one.gone.wait()
        except TimeoutError:
            _log.exception("workers have not ended in time: they are killed")
            for one in stopping:
                one.kill()
        await end([forcing])
        await asyncio.gather(*(one.ended() for one in stopping))
        self._alive.clear()
        self.serving.clear()

    async def _open(self) -> Worker | str:
        try:
            worker = await Worker.spawn(self._public, self._turn)
        except OSError as error:
            return f"no process can be made for a worker: {error.strerror}."
        self._alive.add(worker)
        problem = await worker.start(self._reloads.candidate, self._reloads.state)
        if problem is not None:
            worker.kill()
            await worker.ended()
            self._alive.discard(worker)
            return problem
        self.serving.append(worker)
        return worker

    async def _keep(self, worker: Worker) -> None:
        delay = FIRST_DELAY
        while True:
            began = time.monotonic()
            watching = asyncio.create_task(worker.watch())
            try:
                await worker.gone.wait()
            finally:
                await end([watching])
            self.serving.remove(worker)
            self._former.add_former(worker.last)
            status = await worker.ended()
            self._alive.discard(worker)
            _log.error("worker %d has ended (%s): another takes its place", worker.pid, _told(status))
            if time.monotonic() - began > STEADY_SECONDS:
                delay = FIRST_DELAY
            worker, delay = await self._replaced(delay)

    async def _replaced(self, delay: float) -> tuple[Worker, float]:
        while True:
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
            async with self._reloads.turn:
                opened = await self._open()
            if isinstance(opened, Worker):
                return opened, delay
            _log.error("no worker takes its place yet: %s", opened)


async def _force(stopping: list[Worker], forced: asyncio.Event) -> None:
    await forced.wait()
    for one in stopping:
        one.stop(now=True)


def _told(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
