"""`server.workers` above one: this process serves the operator and does the background work, the workers serve the API.

It decides in which order a gateway of several processes starts and stops. Everything that can keep it from starting
happens here first, once: ports, secrets, the schema, the account. It must never end while a worker of its own goes on.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack

from gateway.bootstrap import running
from gateway.ending import end_within
from gateway.entitlements.tasks import end
from gateway.listener import gateway_protocol
from gateway.reloading import Candidate, Part, Reloads
from gateway.serve import (
    bind_both,
    collect_garbage_seldom,
    entitlement_clock,
    reloading,
    tell_addresses,
    tell_operator_token,
)
from gateway.serving import CannotStart, Stop, listener, serving
from gateway.telemetry import AccessLog
from gateway.worker_channel import Turn
from gateway.workers import STOP_SECONDS, Workers


async def run_supervisor(candidate: Candidate, *, watch: bool = False) -> CannotStart | None:
    """As `gateway.serve.run_gateway`, with several processes."""
    config, stop = candidate.config, Stop()
    with stop.on_signals():
        async with AsyncExitStack() as stack:
            sockets = bind_both(config)
            if isinstance(sockets, CannotStart):
                return sockets
            public, private = (stack.enter_context(one) for one in sockets)
            now = await stack.enter_async_context(entitlement_clock(config))
            own: list[Part] = []
            reloads = Reloads(candidate, environ=os.environ, parts=lambda: (*own, *workers.serving), wall=time.time)
            turn = stack.enter_context(tempfile.TemporaryFile()).fileno()  # noqa: SIM115 -- the stack is its context
            workers = Workers(reloads, public, config.server.workers, turn)
            log = AccessLog(wall=time.time, turn=Turn(turn))
            process = await stack.enter_async_context(running(config, candidate.routes, now, reloads, log))
            if isinstance(process, CannotStart):
                return process
            own.append(process.part)
            process.operator.gather = workers.gather
            process.readiness.workers = workers.report
            try:
                problem = await _unless(stop, workers)
                if problem is not None:
                    stop.forced.set()  # nobody has been told of an address yet
                    return CannotStart(problem)
                operator = listener(process.operator, drain=config.server.drain, protocol=gateway_protocol())
                async with serving([(operator, private)], stop), reloading(reloads, stop, watch=watch):
                    if not stop.requested.is_set():
                        collect_garbage_seldom()
                        tell_addresses(config)
                        tell_operator_token(process)
                    await stop.requested.wait()
                    process.readiness.stopping = True
                    # The workers first, which are killed where they don't end; then the operator's listener.
                    end_within(2 * process.drain_seconds() + STOP_SECONDS)
                    public.close()  # the last that holds it refuses whoever comes
                    await workers.stop(stop.forced, process.drain_seconds())
                    operator.drain(process.drain_seconds())
            finally:
                await workers.stop(stop.forced, process.drain_seconds())
    return None


async def _unless(stop: Stop, workers: Workers) -> str | None:
    """Start them; a stop that is asked for meanwhile is no problem, and ends the wait."""
    starting = asyncio.create_task(workers.start())
    stopping = asyncio.create_task(stop.requested.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    problem = starting.result() if starting.done() else None
    await end([starting, stopping])
    return problem
