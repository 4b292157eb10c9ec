"""Running a gateway in this process: bind, join, serve, stop."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from admin.stripe.account import simulator_address
from gateway.bootstrap import Process, running
from gateway.clock import EntitlementClock, client_for_simulator
from gateway.ending import end_within
from gateway.entitlements.tasks import end
from gateway.listener import gateway_protocol
from gateway.reloading import Candidate, Part, Reloads
from gateway.serving import CannotListen, CannotStart, Stop, bind, listener, serving
from gateway.watching import Watch
from policies.schema import Config

TOKEN_FILE: Final = "gateway.operator-token"
_NEW_OBJECTS: Final = 25_000
"""More than there were before a look for cycles among them; Python's own 700 are a few requests."""


async def run_gateway(candidate: Candidate, *, watch: bool = False) -> CannotStart | None:
    """Serve until SIGTERM or SIGINT; `CannotStart` when it didn't come to that. SIGHUP, and a `watch`, reload.

    The process ends soon after: what is left of it then is cut off.
    """
    stop = Stop()
    with stop.on_signals():
        async with AsyncExitStack() as stack:
            clock = await stack.enter_async_context(entitlement_clock(candidate.config))
            started = await stack.enter_async_context(serving_gateway(candidate, clock, stop, watch=watch))
            if isinstance(started, CannotStart):
                return started
            tell_addresses(candidate.config)
            tell_operator_token(started)
            await stop.requested.wait()
            started.readiness.stopping = True
            end_within(started.drain_seconds())
    return None


@asynccontextmanager
async def entitlement_clock(config: Config) -> AsyncIterator[EntitlementClock]:
    """Real time, or where the simulated Stripe stands in, its clock, followed while inside."""
    clock = EntitlementClock()
    async with AsyncExitStack() as stack:
        simulator = simulator_address(config.billing.stripe)
        if simulator is not None:
            async with client_for_simulator(simulator) as client:
                await clock.read(simulator, client)
            stack.push_async_callback(end, [asyncio.create_task(clock.follow(simulator))])
        yield clock


@asynccontextmanager
async def serving_gateway(
    candidate: Candidate, now: Callable[[], float], stop: Stop, *, watch: bool = False
) -> AsyncIterator[Process | CannotStart]:
    """Both listeners of a configuration that may be loaded anew, until the block ends."""
    sockets = bind_both(candidate.config)
    if isinstance(sockets, CannotStart):
        yield sockets
        return
    parts: list[Part] = []
    reloads = Reloads(candidate, environ=os.environ, parts=lambda: parts, wall=time.time)
    async with running(candidate.config, candidate.routes, now, reloads) as process:
        if isinstance(process, CannotStart):
            for opened in sockets:
                opened.close()
            yield process
            return
        parts.append(process.part)
        drain = candidate.config.server.drain
        public = listener(
            process.gateway,
            drain=drain,
            protocol=gateway_protocol(render_refusal=process.refuse_raw, at_once=process.gateway.at_once),
        )
        # The same bounds for whoever reaches the port without the token; its refusals aren't shaped for callers.
        operator = listener(process.operator, drain=drain, protocol=gateway_protocol())
        async with serving([(operator, sockets[1])], stop):
            async with serving([(public, sockets[0])], stop), reloading(reloads, stop, watch=watch):
                collect_garbage_seldom()
                yield process
                ends_at = asyncio.get_running_loop().time() + process.drain_seconds()
                public.drain(process.drain_seconds())
            # The operator's goes on meanwhile: /readyz says that it stops, and /metrics what it still does.
            operator.drain(ends_at - asyncio.get_running_loop().time())


def bind_both(config: Config) -> tuple[socket.socket, socket.socket] | CannotStart:
    """The public and the operator's socket."""
    server = config.server
    remedy = "change server.listen and public_url (LISTEN and PUBLIC_URL)"
    public = bind(server.listen, "server.listen", remedy)
    if isinstance(public, CannotListen):
        return CannotStart(public.detail)
    operator = bind(server.operator, "server.operator", "change server.operator (OPERATOR_LISTEN)")
    if isinstance(operator, CannotListen):
        public.close()
        return CannotStart(operator.detail)
    return public, operator


@asynccontextmanager
async def reloading(reloads: Reloads, stop: Stop, *, watch: bool) -> AsyncIterator[None]:
    """While inside, SIGHUP reloads, and so does a change of the file where it is watched."""
    tasks: set[asyncio.Task[object]] = set()

    def begin(work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    stop.on_hangup = lambda: begin(reloads.reload("SIGHUP"))
    if watch:
        changed = Watch(lambda: reloads.candidate.source, lambda: reloads.reload("the file has changed"))
        begin(changed.run())
    try:
        yield
    finally:
        stop.on_hangup = None
        await end(tasks)


def collect_garbage_seldom() -> None:
    """Once everything has started: a request leaves no cycle behind, so that looking for some every few requests is in vain.

    What has been loaded is never looked at again; that alone was a tenth of each request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 50)


def tell_addresses(config: Config) -> None:
    """Where it is served, once it is."""
    server = config.server
    _say(f"The API is at {server.public_url} (listening on {server.listen}), the operator's at {server.operator}.")


def tell_operator_token(process: Process) -> None:
    """A token that was made here: on a terminal it is shown, otherwise it goes into a file only we can read."""
    if not process.operator_token_is_own:
        return
    if sys.stderr.isatty():
        _say(f"The operator's token is {process.operator_token}")
        return
    path = Path(TOKEN_FILE).resolve()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            file.write(process.operator_token + "\n")
    except OSError as error:
        _say(f"The operator's token can't be written to {path} ({error.strerror}): set GATEWAY_OPERATOR_TOKEN.")
        return
    _say(f"The operator's token is in {path}")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
