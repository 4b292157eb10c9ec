"""`gateway demo`: the whole loop on one machine, without an account anywhere.

The demo is the real gateway on the repository's own gateway.yaml. Only three things differ from `gateway run`: Stripe is
the simulator, the API behind it is httpbin, and both are started here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from admin.stripe.account import simulator_address
from admin.stripe.client import SIMULATOR_KEY_PREFIX
from gateway.console import USAGE, fail
from gateway.credentials import MintProblem, mint_development_token
from gateway.reloading import Candidate
from gateway.serve import serving_gateway, tell_operator_token
from gateway.serving import CannotStart, Stop
from gateway.simulating import serving_simulator
from policies.addresses import parse_http_url
from policies.schema import Config

HTTPBIN: Final = ("127.0.0.1", 9000)
HTTPBIN_START_SECONDS: Final = 20.0
TOKEN_SECONDS: Final = 30 * 86400
DEMO_CUSTOMER: Final = "alice"

_HTTPBIN: Final = """
import logging
logging.getLogger("httpbin.core").setLevel(logging.ERROR)  # it warns that it has no page of its own, which nobody asks for
from gunicorn.app.wsgiapp import run
run()
"""

_log = logging.getLogger(__name__)


def prepare_demo(upstream: str | None) -> tuple[str, int] | None:
    """The environment that gateway.yaml is read with: nothing of a real account may take part in a demo.

    Returns where httpbin is to listen, None where the API is another one.
    """
    key = os.environ.get("STRIPE_SECRET_KEY", "")
    if key and not key.startswith(SIMULATOR_KEY_PREFIX):
        fail("the demo plays Stripe itself, and STRIPE_SECRET_KEY is set: unset it, or use `gateway run`.")
    if upstream is not None and isinstance(problem := parse_http_url(upstream), str):
        fail(f"--upstream {upstream} can't be used: it {problem}.", USAGE)
    httpbin = None if upstream else _free_place()
    os.environ["UPSTREAM"] = upstream or "http://{}:{}".format(*httpbin or HTTPBIN)
    return httpbin


def _free_place() -> tuple[str, int]:
    """Port 9000, or any other where that is taken: only the gateway ever speaks with httpbin."""
    for place in (HTTPBIN, (HTTPBIN[0], 0)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError:
                continue
            host, port = probe.getsockname()
            return host, port
    return HTTPBIN


async def run_demo(candidate: Candidate, *, httpbin: tuple[str, int] | None) -> CannotStart | None:
    """Simulator, httpbin and gateway together, until stopped."""
    config = candidate.config
    address = simulator_address(config.billing.stripe)
    if address is None:
        return CannotStart(
            "gateway.yaml names a Stripe key of its own, so there is nothing to simulate: use `gateway run`."
        )
    stop = Stop()
    with stop.on_signals():
        async with AsyncExitStack() as stack:
            place = urlsplit(address).netloc
            simulator = await stack.enter_async_context(serving_simulator(config, place, None, stop))
            if isinstance(simulator, CannotStart):
                return simulator
            if httpbin is not None:
                problem = await stack.enter_async_context(_running_httpbin(*httpbin))
                if problem is not None:
                    return problem
            started = await stack.enter_async_context(serving_gateway(candidate, simulator.now, stop))
            if isinstance(started, CannotStart):
                return started
            token = mint_development_token(
                config.auth.issuers[0], customer=DEMO_CUSTOMER, lifetime_seconds=TOKEN_SECONDS, now=time.time()
            )
            if isinstance(token, MintProblem):
                return CannotStart(token.detail)
            _say(_tour(config, address, token, httpbin))
            tell_operator_token(started)
            await stop.requested.wait()
            started.readiness.stopping = True
    return None


@asynccontextmanager
async def _running_httpbin(host: str, port: int) -> AsyncIterator[CannotStart | None]:
    """Httpbin from its own environment, ended with the demo."""
    python = Path(os.environ.get("HTTPBIN_VENV", ".venv-httpbin")) / "bin" / "python"
    if not python.exists():
        yield CannotStart(
            f"there is no httpbin at {python}: `make run` installs it, or name your own API with --upstream."
        )
        return
    process = await asyncio.create_subprocess_exec(
        str(python), "-c", _HTTPBIN, "--bind", f"{host}:{port}", "--threads", "8", "--log-level", "warning", "httpbin:app",
        start_new_session=True,  # Ctrl-C is ours to pass on, after the gateway has finished what is under way
    )  # fmt: skip
    try:
        yield await _until_listening(process, host, port)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _until_listening(process: asyncio.subprocess.Process, host: str, port: int) -> CannotStart | None:
    deadline = time.monotonic() + HTTPBIN_START_SECONDS
    while time.monotonic() < deadline and process.returncode is None:
        with socket.socket() as probe:
            probe.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(probe, (host, port))
            except OSError:
                await asyncio.sleep(0.1)
                continue
            return None
    return CannotStart("httpbin did not start; `make clean run` installs it anew.")


def _tour(config: Config, simulator: str, token: str, httpbin: tuple[str, int] | None) -> str:
    api = config.server.public_url
    if httpbin is None:
        behind = "your own; the paths below are httpbin's, so use yours and routes of yours in gateway.yaml"
    else:
        behind = "httpbin at http://{}:{}".format(*httpbin)
    return f"""
The gateway is up. In another terminal, in this order:

  TOKEN={token}

  # 1  a public route: 200 from httpbin
  curl -i {api}/status/200

  # 2  without a token: 401. With the token of a free user on a paid route: 402, and a link
  curl -i {api}/headers
  curl -i -H "Authorization: Bearer $TOKEN" {api}/headers

  # 3  the link: open pay_url in a browser and pay there, or do the same from here
  PAY=$(curl -s -H "Authorization: Bearer $TOKEN" {api}/headers | grep -o '"pay_url": "[^"]*' | cut -d'"' -f4)
  CHECKOUT=$(curl -s -o /dev/null -w '%{{redirect_url}}' -X POST "$PAY")
  curl -sL -d card=works "$CHECKOUT"

  # 4  the same request again: 200, and httpbin sees X-Gateway-Tier: pro
  curl -i -H "Authorization: Bearer $TOKEN" {api}/headers

  # 5  webhooks off, then a day past the period's end: it renews by itself, and the leeway lets it be late. 200
  curl -X POST -d enabled=false {simulator}/_sim/webhooks
  curl -X POST -d days=31 {simulator}/_sim/clock/advance
  curl -i -H "Authorization: Bearer $TOKEN" {api}/headers

  #    past the leeway, and Stripe can't be asked either: refused, but as 503; nobody is told to pay twice
  curl -X POST -d api=500 -d count=1000 {simulator}/_sim/faults
  curl -X POST -d days=40 {simulator}/_sim/clock/advance
  curl -i -H "Authorization: Bearer $TOKEN" {api}/headers
  curl -X DELETE {simulator}/_sim/faults

  #    with auto-renew off, the end of the period ends access, webhook or not: 402 subscription_expired
  SUB=$(curl -s -u sk_test_simulator: {simulator}/v1/subscriptions | grep -o 'sub_[0-9a-f]*' | head -1)
  curl -X POST -d enabled=false {simulator}/_sim/subscriptions/$SUB/auto_renew
  curl -X POST -d days=32 {simulator}/_sim/clock/advance
  curl -i -H "Authorization: Bearer $TOKEN" {api}/headers

The simulated Stripe, with a page to drive it:  {simulator}/
The operator's API and metrics:                 http://{config.server.operator}/docs  (any user name, the token as password)
Customers from the command line:                .venv/bin/gateway customers
The API behind the gateway:                     {behind}

Ctrl-C stops everything.
"""


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
