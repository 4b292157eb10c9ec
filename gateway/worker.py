"""One worker of `server.workers`: serves the public listener, on a socket that it shares, with what its supervisor tells it.

    python -P -m gateway.worker CHANNEL PUBLIC TURN        (descriptors that its supervisor opened)

It ends gracefully when it is told to, at SIGTERM, or when its supervisor is gone. SIGINT and SIGHUP are the supervisor's:
a terminal sends them to every process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack

import uvloop

from gateway.all_processes import snapshot
from gateway.bootstrap import Process, running
from gateway.entitlements.tasks import end
from gateway.listener import gateway_protocol
from gateway.loading import load_source
from gateway.logs import configure_logging
from gateway.reloading import Candidate, ConfigurationState, NoReloads
from gateway.serve import collect_garbage_seldom, entitlement_clock
from gateway.serving import CannotStart, Stop, listener, serving
from gateway.telemetry import AccessLog
from gateway.worker_channel import Channel, Frame, Turn, source_of


async def work(channel: Channel, public: socket.socket, turn: Turn) -> None:
    """From the first frame to the end."""
    stop = Stop()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.requested.set)  # however often: a service manager sends it to all
    first = await channel.receive()
    if first is None:
        return
    candidate = _candidate(first)
    if isinstance(candidate, str):
        channel.send({"cannot": candidate})
        return
    config, control = candidate.config, NoReloads(time.time())
    control.state = ConfigurationState(**first["state"])
    log = AccessLog(wall=time.time, turn=turn)
    async with AsyncExitStack() as stack:
        now = await stack.enter_async_context(entitlement_clock(config))
        process = await stack.enter_async_context(running(config, candidate.routes, now, control, log))
        if isinstance(process, CannotStart):
            channel.send({"cannot": process.detail})
            return
        protocol = gateway_protocol(render_refusal=process.refuse_raw, at_once=process.gateway.at_once)
        server = listener(process.gateway, drain=config.server.drain, protocol=protocol)
        obeying = asyncio.create_task(_obey(channel, process, stop))
        stack.push_async_callback(end, [obeying])
        async with serving([(server, public)], stop):
            collect_garbage_seldom()
            channel.send({"started": True})
            await stop.requested.wait()
            server.drain(process.drain_seconds())


async def _obey(channel: Channel, process: Process, stop: Stop) -> None:
    try:
        while (frame := await channel.receive()) is not None:
            if frame["do"] == "stop":
                stop.requested.set()
                if frame["now"]:
                    stop.forced.set()
            else:
                channel.send({"id": frame["id"], "answer": await _answer(frame, process)})
    finally:
        stop.requested.set()


async def _answer(frame: Frame, process: Process) -> object:
    match frame["do"]:
        case "prepare":
            candidate = await asyncio.to_thread(_candidate, frame)
            return candidate if isinstance(candidate, str) else await process.part.prepare(candidate)
        case "commit":
            await process.part.commit()
        case "discard":
            await process.part.discard()
        case "tell":
            process.part.tell(ConfigurationState(**frame["state"]))
        case "count":
            return snapshot(process.registry)
    return None  # to a "ping" as well


def _candidate(frame: Frame) -> Candidate | str:
    loaded = load_source(source_of(frame["source"]), os.environ)
    if loaded.ready is None:
        return "a worker can't load what its supervisor could: has a file of gateway.yaml's changed meanwhile?"
    return Candidate(*loaded.ready, loaded.source)


async def _main(channel: int, public: int, turn: int) -> None:
    end_of_channel = await Channel.over(socket.socket(fileno=channel))
    try:
        await work(end_of_channel, socket.socket(fileno=public), Turn(turn))
    finally:
        await end_of_channel.aclose()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    configure_logging()
    uvloop.run(_main(*map(int, sys.argv[1:])))
