"""Workers that hang, crash or can't start: real processes that say over their channel what a test wants them to."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway import workers as supervised
from gateway.loading import LoadedFile, load_file
from gateway.reloading import Candidate, NotTaken, Reloads, Taken
from gateway.workers import FIRST_DELAY, LONGEST_DELAY, PING_SECONDS, Workers
from tests.gateway.test_workers_start import MINIMAL
from tests.support.calls import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STUB = """\
#!{python}
# In place of the interpreter that a worker would run in: its channel is the first of three descriptors.
import json, os, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[4]))
turn = len(os.listdir({place!r}))
open(os.path.join({place!r}, str(os.getpid())), "w").close()
def say(frame):
    text = json.dumps(frame).encode()
    channel.sendall(len(text).to_bytes(4, "big") + text)
def hear():
    size = channel.recv(4, socket.MSG_WAITALL)
    if not size:
        sys.exit(0)
    return json.loads(channel.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
hear()
{does}
"""
OBEYS = """
say({"started": True})
while True:
    frame = hear()
    if frame["do"] == "stop":
        sys.exit(0)
    if frame["do"] != HANGS or turn > 1:
        say({"id": frame["id"], "answer": None})
"""


def loaded(file: Path) -> Candidate:
    found = load_file(file, os.environ)
    assert isinstance(found, LoadedFile)
    assert found.ready is not None
    return Candidate(*found.ready, found.source)


@asynccontextmanager
async def supervising(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, size: int = 2
) -> AsyncIterator[tuple[Workers, Reloads, Path]]:
    """Two workers that are such stubs; the folder in which each leaves its process id."""
    place = tmp_path / "started"
    place.mkdir()
    stub = tmp_path / "stub"
    stub.write_text(STUB.format(python=sys.executable, place=str(place), does=does))
    stub.chmod(0o755)
    file = tmp_path / "gateway.yaml"
    file.write_text(MINIMAL)
    monkeypatch.setattr(sys, "executable", str(stub))
    reloads = Reloads(loaded(file), environ=os.environ, parts=lambda: tuple(workers.serving), wall=lambda: 0.0)
    with socket.create_server(("127.0.0.1", 0)) as public, tempfile.TemporaryFile() as turn:
        workers = Workers(reloads, public, size, turn.fileno())
        try:
            yield workers, reloads, place
        finally:
            await workers.stop(asyncio.Event(), 1.0)


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_reload_that_a_worker_does_not_prepare_is_refused_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "PREPARE_SECONDS", 0.3)
    hangs = OBEYS.replace("HANGS", '"prepare"')
    async with supervising(tmp_path, monkeypatch, hangs) as (workers, reloads, _):
        assert await workers.start() is None
        outcome = await reloads.reload("a test")
        assert isinstance(outcome, NotTaken)
        assert "has not prepared it within" in outcome.detail
        assert len(workers.serving) == 2  # a reload that is refused changes nothing


async def test_a_worker_that_does_not_take_up_what_the_others_did_is_killed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(supervised, "FIRST_DELAY", 0.01)
    hangs = OBEYS.replace("HANGS", '"commit"')
    async with supervising(tmp_path, monkeypatch, hangs) as (workers, reloads, place):
        assert await workers.start() is None
        hung = {one.pid for one in workers.serving}
        outcome = await reloads.reload("a test")
        assert isinstance(outcome, Taken)
        await until(lambda: len(list(place.iterdir())) > 2 and len(workers.serving) == 2, 15)
        assert {one.pid for one in workers.serving} != hung
        assert isinstance(await reloads.reload("a test"), Taken)


async def test_a_worker_that_does_nothing_any_more_is_killed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervised, "PING_SECONDS", 0.02)
    monkeypatch.setattr(supervised, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(supervised, "FIRST_DELAY", 0.01)
    hangs = OBEYS.replace("HANGS", '"ping"')
    async with supervising(tmp_path, monkeypatch, hangs, size=1) as (workers, _, _):
        assert await workers.start() is None
        [hung] = workers.serving
        await until(lambda: hung not in workers.serving and len(workers.serving) == 1, 15)
        assert f"worker {hung.pid} has not answered to 'ping': it is killed" in caplog.text


async def test_one_that_crashes_again_and_again_is_replaced_ever_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    paused = asyncio.sleep
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if seconds == PING_SECONDS:
            await paused(3600)
        delays.append(seconds)
        if len(delays) == 12:
            enough.set()
            await paused(3600)
        await paused(0)

    async with supervising(tmp_path, monkeypatch, 'say({"started": True})', size=1) as (workers, _, place):
        monkeypatch.setattr(asyncio, "sleep", sleep)
        assert await workers.start() is None
        await asyncio.wait_for(enough.wait(), 30)
        monkeypatch.undo()
        assert delays == [min(FIRST_DELAY * 2**turn, LONGEST_DELAY) for turn in range(12)]
        assert len(list(place.iterdir())) == 12
        assert workers.report() == (0, 1)


async def test_a_worker_that_does_not_end_is_killed_after_the_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervised, "STOP_SECONDS", 0.1)
    deaf = 'say({"started": True})\ntime.sleep(3600)'
    async with supervising(tmp_path, monkeypatch, deaf) as (workers, _, place):
        assert await workers.start() is None
        await workers.stop(asyncio.Event(), 0.1)
        assert "workers have not ended in time" in caplog.text
        assert not any(_is_there(int(pid.name)) for pid in place.iterdir())
