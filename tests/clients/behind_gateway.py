"""A pytest plugin that puts a gateway in front of the server that somebody else's test suite talks to.

It is loaded into the suites of requests and urllib3 as they were released (`-p behind_gateway`), in an environment
that holds nothing of ours. `$GATEWAY` is the command to run; without it the suites talk to their servers directly, which
is what the outcomes are compared with. `$OUTCOMES` is where the outcome of every test is written.

It must change nothing else of a suite: only the address that a test is given is another one.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

START_SECONDS = 40.0
CONFIG = """\
version: 1
server:
  listen: 127.0.0.1:{listen}
  operator: 127.0.0.1:{operator}
  operator_token: an-operator-token-of-the-clients-tests
  public_url: http://127.0.0.1:{listen}
  drain: 1s
upstreams:
  api: {{targets: ["http://127.0.0.1:{behind}"], host: caller}}
auth:
  issuers:
    - {{issuer: "https://login.example.com/", audience: api, algorithms: [HS256], secret: a-secret-of-0123456789-0123456789}}
tiers: [{{name: free}}]
routes: []
default: public
"""

_outcomes: dict[str, str] = {}


class Gateway:
    """A gateway in front of this port, all routes public."""

    def __init__(self, behind: int) -> None:
        self.port, operator = _free_ports(2)
        directory = Path(tempfile.mkdtemp(prefix="behind-gateway-"))
        (directory / "gateway.yaml").write_text(CONFIG.format(listen=self.port, operator=operator, behind=behind))
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen([os.environ["GATEWAY"], "run"], cwd=directory, stdout=log, stderr=log)
        atexit.register(self.stop)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((directory / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
    """The server of requests is a fixture."""
    server = yield
    if "GATEWAY" in os.environ and fixturedef.argname == "httpbin" and hasattr(server, "port"):
        server.port = Gateway(server.port).port
    return server


def pytest_collection_finish() -> None:
    """The servers of urllib3 are base classes."""
    try:
        servers = importlib.import_module("dummyserver.testcase")
    except ModuleNotFoundError:
        return
    if "GATEWAY" not in os.environ:
        return
    plain, encrypted = servers.HypercornDummyServerTestCase, servers.HTTPSHypercornDummyServerTestCase
    original = plain.setup_class.__func__

    def setup_class(cls: Any) -> None:
        original(cls)
        if not issubclass(cls, encrypted) and cls.host != "::1":
            gateway = Gateway(cls.port)
            cls.port = gateway.port
            cls._stack.callback(gateway.stop)

    plain.setup_class = classmethod(setup_class)


def pytest_runtest_logreport(report: Any) -> None:
    """The worst of a test's phases is its outcome."""
    if (report.when == "call" or report.outcome != "passed") and _outcomes.get(report.nodeid) != "failed":
        _outcomes[report.nodeid] = "xfailed" if hasattr(report, "wasxfail") else report.outcome


def pytest_sessionfinish() -> None:
    """All outcomes, for who compares them."""
    if place := os.environ.get("OUTCOMES"):
        Path(place).write_text(json.dumps(_outcomes, indent=1))
