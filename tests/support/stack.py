"""Real processes for end-to-end tests: `gateway run`, `gateway simulator`, `gateway demo` and the other verbs.

Each works in a directory of its own on free loopback ports, with an environment that holds nothing of the developer's.
What a process says is kept in files, it is ended by its own id, and every wait is bounded and ends with its words.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import jwt

from tests.support.ledgers import migrated_sqlite

T = TypeVar("T")

START_SECONDS = 40.0
STOP_SECONDS = 30.0
GATEWAY = Path(sys.executable).with_name("gateway")
OPERATOR_TOKEN = "the-operator-token-of-the-end-to-end-tests"
FRESH_LEDGER = "sqlite:///gateway.db"
ISSUER = "https://login.example.com/"
AUDIENCE = "my-api"
TOKEN_SECRET = "a-token-secret-of-the-end-to-end-tests-0123456789"
WEBHOOK_SECRET = "whsec_of_the_end_to_end_tests"

CONFIG = """\
version: 1
server:
  listen: 127.0.0.1:{listen}
  operator: 127.0.0.1:{operator}
  operator_token: {operator_token}
  public_url: {public_url}
  drain: 10s
database: {database}
redis: {redis}
upstreams:
  api: {{targets: ["{upstream}"], timeouts: {{connect: 2s, response: 10s, idle: 30s}}}}
auth:
  issuers:
    - {{issuer: "{issuer}", audience: {audience}, algorithms: [HS256], secret: {token_secret}}}
tiers:
  - name: free
  - name: pro
    prices: [price_pro_monthly, price_pro_yearly]
    features: [export]
  - name: enterprise
    prices: [price_ent]
    features: [sso]
billing:
  stripe:
    secret_key: {secret_key}
    webhook_secrets: {webhook_secret}
    api_base: {stripe}
routes:
  - {{path: /public/**, access: public}}
  - {{path: /free/**, access: authenticated}}
  - {{path: /pro/**, tier: pro}}
  - {{path: /only-get/**, methods: [GET], tier: pro}}
  - {{path: /export/**, methods: [POST], tier: pro, features: [export]}}
  - {{path: /ent/**, tier: enterprise}}
  - {{path: /small/**, access: public, max_body: 64KiB}}
  - {{path: /brisk/**, access: public, timeouts: {{response: 500ms, idle: 500ms}}}}
default: deny
"""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, below those that the system hands out for outgoing connections."""
    for _ in range(1000):
        port = random.randrange(18_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("there is no free port")


def eventually(seen: Callable[[], T], *, within: float = 30.0, told: Callable[[], str] = lambda: "") -> T:
    """The first truthy value of `seen`; an assertion error with what it saw last when none came in time."""
    deadline = time.monotonic() + within
    while True:
        value = seen()
        if value:
            return value
        assert time.monotonic() < deadline, f"it did not come to it; last seen: {value!r}\n{told()}"
        time.sleep(0.05)


def plain_environment(**more: str) -> dict[str, str]:
    """What a fresh shell has."""
    kept = {name: value for name in ("PATH", "HOME", "LANG", "TMPDIR") if (value := os.environ.get(name))}
    return {**kept, "NO_PROXY": "127.0.0.1,localhost", **more}


def run_verb(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """One `gateway` command, to its end."""
    return subprocess.run(
        [str(GATEWAY), *arguments],
        cwd=cwd,
        env=plain_environment() if env is None else dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Process:
    """One serving command. Its standard output is the access log, its standard error what it says to people."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        own_session: bool = False,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self._out = cwd / f"{arguments[0]}-{time.monotonic_ns()}.out"
        self._err = self._out.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [str(GATEWAY), *arguments],
                cwd=cwd,
                env=plain_environment() if env is None else dict(env),
                stdin=stdin,
                stdout=out,
                stderr=err,
                start_new_session=own_session,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        return self._err.read_text(encoding="utf-8", errors="replace")

    @property
    def logged(self) -> str:
        return self._out.read_text(encoding="utf-8", errors="replace")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Its exit status."""
        return self._process.wait(timeout)

    def stop(self) -> int:
        """SIGTERM, and its exit status; SIGKILL where it does not end."""
        if self.is_running:
            self.send(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: no time to write anything."""
        self._process.kill()
        self._process.wait()

    def until_answers(self, url: str) -> None:
        """Until a GET there is a 200."""
        deadline = time.monotonic() + START_SECONDS
        with httpx.Client(verify=False, trust_env=False, timeout=5) as client:
            while time.monotonic() < deadline:
                if not self.is_running:
                    break
                try:
                    if client.get(url).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        state = "is running" if self.is_running else f"ended with {self._process.returncode}"
        self.kill()
        raise AssertionError(f"{url} did not answer; the process {state} and said:\n{self.said}")


@dataclass(slots=True)
class Gateway:
    """A gateway of one gateway.yaml, and how to speak with it. Its process may be ended and started again."""

    directory: Path
    listen: int
    operator: int
    http: httpx.Client
    process: Process | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.listen}"

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.listen)

    @property
    def running(self) -> Process:
        assert self.process is not None, "the gateway was not started"
        return self.process

    def start(self) -> Self:
        self.process = Process("run", cwd=self.directory)
        self.process.until_answers(f"http://127.0.0.1:{self.operator}/readyz")
        return self

    def ask(self, path: str, customer: str | None = None, method: str = "GET", **more: Any) -> httpx.Response:
        """One request, with the customer's token where one is named."""
        headers = {**({} if customer is None else bearer(customer)), **more.pop("headers", {})}
        return self.http.request(method, f"{self.base}{path}", headers=headers, **more)

    def status(self, path: str, customer: str | None = None) -> int:
        return self.ask(path, customer).status_code

    def until(self, path: str, customer: str | None, status: int, *, within: float = 30.0) -> httpx.Response:
        """The first answer with this status."""
        seen: list[httpx.Response] = []

        def answered() -> bool:
            seen[:] = [self.ask(path, customer)]
            return seen[0].status_code == status

        eventually(answered, within=within, told=lambda: f"{seen[0].status_code} {seen[0].text}\n{self.running.said}")
        return seen[0]

    def verb(self, *arguments: str) -> str:
        """A `gateway` command of another process on the same gateway.yaml; it must succeed."""
        done = run_verb(*arguments, cwd=self.directory)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def readiness(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.get(f"http://127.0.0.1:{self.operator}/readyz").json()
        return answer

    def operator_get(self, path: str) -> httpx.Response:
        return self.http.get(
            f"http://127.0.0.1:{self.operator}{path}", headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"}
        )

    def operator_post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.http.post(
            f"http://127.0.0.1:{self.operator}{path}", json=body, headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"}
        )

    def deliver(self, event: dict[str, Any] | bytes, **signed: Any) -> httpx.Response:
        """An event as Stripe would deliver it."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        return self.http.post(f"{self.base}/_gateway/stripe/webhook", content=body, headers=signature(body, **signed))

    def grant_only(self, customer: str, tier: str = "pro") -> None:
        """By the operator's API."""
        answer = self.operator_post(f"/api/grant/{customer}", {"tier": tier, "reason": "a test"})
        assert answer.status_code == 200, answer.text

    def grant(self, customer: str, tier: str = "pro") -> None:
        """By the operator's API, and in force on a route that an upstream answers."""
        self.grant_only(customer, tier)
        self.until("/pro/x", customer, 200)

    def everything_said(self) -> str:
        """Every log of every process that ran on this directory."""
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in self.directory.glob("*.out")]
        return "".join(texts + [path.read_text(encoding="utf-8") for path in self.directory.glob("*.err")])


@dataclass(slots=True)
class SimulatedStripe:
    """A `gateway simulator`, and how to drive it."""

    port: int
    http: httpx.Client
    process: Process

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def control(self, path: str, **body: Any) -> dict[str, Any]:
        """POST to `/_sim/{path}`; it must be taken."""
        answer = self.http.post(f"{self.base}/_sim/{path}", json=body)
        assert answer.is_success, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def clear_faults(self) -> None:
        assert self.http.delete(f"{self.base}/_sim/faults").is_success

    def stripe(self, path: str, method: str = "GET", **params: Any) -> dict[str, Any]:
        """A call to the simulated API, as a merchant's own code would make it."""
        named: dict[str, Any] = {"params" if method == "GET" else "data": params}
        answer = self.http.request(method, f"{self.base}/v1/{path}", auth=("sk_test_simulator", ""), **named)
        assert answer.is_success, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def customers_of(self, customer: str) -> list[dict[str, Any]]:
        """The Stripe customers that were made for this customer."""
        found = self.stripe("customers", limit=100)["data"]
        return [one for one in found if customer in one["metadata"].values()]

    def events_of(self, customer: str) -> list[dict[str, Any]]:
        """Every event about these, oldest first."""
        ids = {one["id"] for one in self.customers_of(customer)}
        events = self.stripe("events", limit=100)["data"]
        about = [one for one in events if ids & {one["data"]["object"].get("customer"), one["data"]["object"]["id"]}]
        return about[::-1]

    def subscriptions_of(self, customer: str) -> list[dict[str, Any]]:
        """Every subscription of these, ended ones too."""
        return [
            subscription
            for one in self.customers_of(customer)
            for subscription in self.stripe("subscriptions", customer=one["id"], status="all")["data"]
        ]

    def pay(self, checkout_url: str, **form: str) -> httpx.Response:
        """Press a button on a page."""
        return self.http.post(checkout_url, data={"card": "works", **form})


def token_for(customer: str, **changes: Any) -> str:
    """What the issuer of `CONFIG` gives this customer."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": customer, "iat": now, "exp": now + 3600, **changes}
    return jwt.encode(claims, TOKEN_SECRET, algorithm="HS256")


def bearer(customer: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token_for(customer)}"}


def signature(body: bytes, *, at: float | None = None, secret: str = WEBHOOK_SECRET) -> dict[str, str]:
    """The header by which Stripe signs this body."""
    moment = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={moment},v1={digest}"}


def write_config(directory: Path, **changes: Any) -> dict[str, Any]:
    """Write gateway.yaml there; the values it was written with. `more` stands at its end as it is."""
    listen = changes.get("listen") or free_port()
    values: dict[str, Any] = {
        "listen": listen,
        "operator": free_port(),
        "operator_token": OPERATOR_TOKEN,
        "public_url": f"http://127.0.0.1:{listen}",
        "database": FRESH_LEDGER,
        "redis": '""',
        "upstream": "http://127.0.0.1:9",
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "token_secret": TOKEN_SECRET,
        "secret_key": '""',
        "webhook_secret": WEBHOOK_SECRET if changes.get("secret_key") else '""',
        "stripe": '""',
        **changes,
    }
    (directory / "gateway.yaml").write_text(CONFIG.format(**values) + values.get("more", ""))
    return values


@contextmanager
def prepared_gateway(directory: Path, **changes: Any) -> Iterator[Gateway]:
    """A gateway that is not started yet; whatever runs at the end is stopped."""
    directory.mkdir(parents=True, exist_ok=True)
    values = write_config(directory, **changes)
    if values["database"] == FRESH_LEDGER:
        migrated_sqlite(directory / "gateway.db")
    with httpx.Client(verify=False, trust_env=False, timeout=30) as client:
        gateway = Gateway(directory, values["listen"], values["operator"], client)
        try:
            yield gateway
        finally:
            if gateway.process is not None and gateway.process.is_running:
                gateway.process.stop()


@contextmanager
def running_gateway(directory: Path, **changes: Any) -> Iterator[Gateway]:
    """A gateway with this configuration, ready."""
    with prepared_gateway(directory, **changes) as gateway:
        yield gateway.start()


@contextmanager
def running_simulator(
    directory: Path, *, webhook: str | None = None, port: int | None = None
) -> Iterator[SimulatedStripe]:
    """A simulator that sells the tiers of `CONFIG`; its events go to `webhook`, a gateway's own by default."""
    place = port or free_port()
    arguments = ["simulator", "--listen", f"127.0.0.1:{place}", *(["--webhook", webhook] if webhook else [])]
    process = Process(*arguments, cwd=directory)
    process.until_answers(f"http://127.0.0.1:{place}/_sim/clock")
    with httpx.Client(verify=False, trust_env=False, timeout=70) as client:
        try:
            yield SimulatedStripe(place, client, process)
        finally:
            process.stop()


@dataclass(slots=True)
class Stack:
    """A gateway and the simulator that it sells through."""

    gateway: Gateway
    stripe: SimulatedStripe

    def refusal(self, customer: str, path: str = "/pro/x") -> dict[str, Any]:
        """The problem of a 402."""
        answer = self.gateway.ask(path, customer)
        assert answer.status_code == 402, answer.text
        problem: dict[str, Any] = answer.json()
        return problem

    def checkout_of(self, customer: str, path: str = "/pro/x") -> str:
        """The page to pay on, by way of a 402's link."""
        answer = self.gateway.http.post(self.refusal(customer, path)["pay_url"])
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def subscribe(self, customer: str, path: str = "/pro/x") -> None:
        """402, link, Checkout, paid; the way back is not taken."""
        answer = self.stripe.pay(self.checkout_of(customer, path))
        assert answer.status_code == 303, answer.text

    def renew(self, customer: str, *, enabled: bool) -> None:
        """Auto-renew on or off, and its webhook delivered."""
        for one in self.stripe.subscriptions_of(customer):
            if one["status"] == "active":
                self.stripe.control(f"subscriptions/{one['id']}/auto_renew", enabled=enabled)
        self.stripe.control("settle")

    def advance(self, *, wait: bool = True, **step: float) -> None:
        """Move Stripe's clock, and wait until the gateway has heard what time it is."""
        self.stripe.control("clock/advance", wait=wait, **step)
        # The gateway reads the clock twice a second; nothing public tells when it has.
        time.sleep(1.2)


@contextmanager
def running_stack(directory: Path, **changes: Any) -> Iterator[Stack]:
    """Simulator and gateway, ready, joined by webhooks."""
    directory.mkdir(parents=True, exist_ok=True)
    place = free_port()
    joined = {"secret_key": "sk_test_simulator", "stripe": f"http://127.0.0.1:{place}", **changes}
    with prepared_gateway(directory, **joined) as gateway, running_simulator(directory, port=place) as stripe:
        yield Stack(gateway.start(), stripe)
        gateway.running.stop()
