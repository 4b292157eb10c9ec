"""The one place where Stripe's SDK is set up, and the only one that calls it.

It decides how long a call may take, which failures are tried again, and what a failure is: `StripeRefused` when Stripe
answered that it won't, `StripeUnavailable` when there was no answer to rely on. It must never raise for either, and
never put a key, a body or a parameter into a message (P9).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import ssl
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlsplit

import httpx
import stripe

from admin.stripe.budget import Budget, PacedBudget, Priority
from admin.stripe.fields import Json, entries, identifier

SIMULATOR_BASE: Final = "http://127.0.0.1:12111"
SIMULATOR_KEY_PREFIX: Final = "sk_test_simulator"

LONGEST_CALL_SECONDS: Final = 10.0
ATTEMPTS: Final = 3
FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 4.0
PAGE_SIZE: Final = 100
MOST_PAGES: Final = 100
"""Ten thousand objects: a list that goes on longer is a loop, not a customer."""

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

Params: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StripeUnavailable:
    """No answer to rely on: unreachable, too slow, overloaded, or not JSON. Trying later may help."""

    detail: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class StripeRefused:
    """Stripe understood and won't: trying the same again is no use. `message` is Stripe's, without parameters."""

    code: str
    message: str
    status: int = 400

    @property
    def is_missing(self) -> bool:
        """The object named doesn't exist (in this mode)."""
        return self.status == 404 or self.code == "resource_missing"

    @property
    def is_forbidden(self) -> bool:
        """The key may not do this: a restricted one that lacks a permission."""
        return self.status == 403

    @property
    def is_reused_key(self) -> bool:
        """The idempotency key was used with other parameters, or is in use at this moment."""
        return self.code in {"idempotency_error", "idempotency_key_in_use"}


Failure: TypeAlias = StripeUnavailable | StripeRefused


def path(*segments: str) -> str:
    """`/v1/…` of segments, escaped: plan and product ids are whatever the merchant once typed."""
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)


def is_live(secret_key: str) -> bool:
    """The mode that a key belongs to: `sk_live_…` and `rk_live_…` are live, everything else is not."""
    return secret_key.startswith(("sk_live_", "rk_live_"))


def base_address(secret_key: str, api_base: str) -> str | None:
    """Where calls go: the configured place, the local simulator for its own keys, or None for Stripe itself."""
    if api_base:
        return api_base.rstrip("/")
    return SIMULATOR_BASE if secret_key.startswith(SIMULATOR_KEY_PREFIX) else None


class HttpxTransport(stripe.HTTPXClient):
    """The SDK's httpx transport with two repairs, on a client of our own."""

    def __init__(self, timeout: float, base: str | None) -> None:
        super().__init__(timeout=timeout, verify_ssl_certs=False)  # of the client that it makes, and that ours replaces
        # A proxy named in the environment can't reach the simulator on this machine.
        local = base is not None and urlsplit(base).hostname in _LOOPBACK
        # Without TLS there is nobody to be known by the machine's certificates, and reading them takes 20 ms.
        plain = base is not None and urlsplit(base).scheme == "http"
        self._client_async = httpx.AsyncClient(
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True, trust_env=not local
        )

    def _get_request_args_kwargs(self, method: str, url: str, headers: Mapping[str, str], post_data: Any) -> list[Any]:
        args, kwargs = super()._get_request_args_kwargs(method, url, headers, post_data)
        # The SDK passes a form that is encoded already as `data`, which httpx deprecates for text and will drop.
        kwargs["content"] = kwargs.pop("data", None) or None
        return [args, kwargs]


class StripeGateway:
    """Calls to one Stripe account in one mode. Build it inside a running loop and close it at the end."""

    def __init__(
        self,
        secret_key: str,
        api_base: str = "",
        *,
        budget: Budget | None = None,
        timeout: float = LONGEST_CALL_SECONDS,
        jitter: Callable[[], float] = random.random,
        new_key: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.livemode = is_live(secret_key)
        self.trouble: str | None = None
        """Why the last call got no answer to rely on; None after one that did. /readyz says so."""
        self._secret_key = secret_key
        self._budget = budget or PacedBudget()
        self._timeout = min(timeout, LONGEST_CALL_SECONDS)
        self._jitter = jitter
        self._waiting = 0
        self._new_key = new_key
        base = base_address(secret_key, api_base)
        # For it the SDK keeps an id in a file below the home directory, and raises where a user has none, as in containers.
        stripe.enable_telemetry = False
        self._http = HttpxTransport(self._timeout, base)
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": base} if base else None,
            max_network_retries=0,  # the SDK doesn't retry 429 and knows no deadline: `_attempts` does both
            http_client=self._http,
        )
        # At INFO the SDK logs addresses and at DEBUG whole bodies, which hold customers and links that pay.
        for name in ("stripe", "httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def __repr__(self) -> str:
        return f"StripeGateway(livemode={self.livemode})"

    @property
    def waiting(self) -> int:
        """How many calls of this process wait for the budget."""
        return self._waiting

    def use_budget(self, budget: Budget) -> None:
        """From now on calls wait for this one; at the start there is no ledger yet to share one by."""
        self._budget = budget

    @property
    def key_digest(self) -> str:
        """What the ledger may know the key by."""
        return hashlib.sha256(self._secret_key.encode()).hexdigest()[:32]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def account_id(self, priority: Priority = Priority.CUSTOMER) -> str | Failure:
        """The account that the key belongs to."""
        answer = await self.get("/v1/account", priority=priority)
        if isinstance(answer, StripeUnavailable | StripeRefused):
            return answer
        return identifier(answer.get("id")) or StripeUnavailable("Stripe's account has no id")

    async def get(
        self, path: str, params: Params | None = None, *, priority: Priority, timeout: float | None = None
    ) -> Json | Failure:
        """One object or one page."""
        return await self._attempts("get", path, params or {}, key=None, priority=priority, timeout=timeout)

    async def post(
        self,
        path: str,
        params: Params | None = None,
        *,
        priority: Priority,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Json | Failure:
        """One change. All attempts share one idempotency key: the given one, or one made for this call."""
        key = idempotency_key or self._new_key()
        return await self._attempts("post", path, params or {}, key=key, priority=priority, timeout=timeout)

    async def list_all(
        self, path: str, params: Params | None = None, *, priority: Priority, timeout: float | None = None
    ) -> tuple[Json, ...] | Failure:
        """Every object of a list, page after page, all within `timeout` seconds."""
        found: list[Json] = []
        after: str | None = None
        try:
            async with asyncio.timeout(timeout or self._timeout):
                for _ in range(MOST_PAGES):
                    query = {**(params or {}), "limit": PAGE_SIZE, **({"starting_after": after} if after else {})}
                    page = await self.get(path, query, priority=priority, timeout=timeout)
                    if isinstance(page, StripeUnavailable | StripeRefused):
                        return page
                    data = [entry for entry in entries(page, "data") if isinstance(entry, Mapping)]
                    found.extend(data)
                    after = identifier(data[-1].get("id")) if data else None
                    if page.get("has_more") is not True:
                        return tuple(found)
                    if after is None:
                        return StripeUnavailable("a page of Stripe's list says that there is more, but not after what")
        except TimeoutError:
            return StripeUnavailable("Stripe's list took too long")
        return StripeUnavailable("Stripe's list has no end")

    async def _attempts(
        self, method: str, path: str, params: Params, *, key: str | None, priority: Priority, timeout: float | None
    ) -> Json | Failure:
        outcome = await self._tried(method, path, params, key=key, priority=priority, timeout=timeout)
        self.trouble = outcome.detail if isinstance(outcome, StripeUnavailable) else None
        return outcome

    async def _tried(
        self, method: str, path: str, params: Params, *, key: str | None, priority: Priority, timeout: float | None
    ) -> Json | Failure:
        pause = FIRST_PAUSE_SECONDS
        last: Failure = StripeUnavailable("Stripe took too long to answer")
        try:
            async with asyncio.timeout(min(timeout or self._timeout, self._timeout)):
                for attempt in range(ATTEMPTS):
                    await self._permission(priority)
                    outcome = await self._once(method, path, params, key)
                    if not isinstance(outcome, StripeUnavailable) or attempt == ATTEMPTS - 1:
                        return outcome
                    last = outcome
                    wait = max(outcome.retry_after or 0.0, pause)
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                    await asyncio.sleep(wait + self._jitter() * wait / 2)
        except TimeoutError:
            return last
        return last

    async def _permission(self, priority: Priority) -> None:
        self._waiting += 1
        try:
            await self._budget.acquire(priority)
        finally:
            self._waiting -= 1

    async def _once(self, method: str, path: str, params: Params, key: str | None) -> Json | Failure:
        options: dict[str, Any] = {"idempotency_key": key} if key else {}
        try:
            answer = await self._client.raw_request_async(method, path, **params, **options)
        except stripe.StripeError as problem:
            return self._failure(problem)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            # Something between us and Stripe answered. The SDK decodes any body as UTF-8 for its log before it looks at
            # it, and takes `error` of a failed answer for an object.
            return StripeUnavailable("Stripe's answer can't be read")
        data = answer.data
        return data if isinstance(data, Mapping) else StripeUnavailable("Stripe's answer is not an object")

    def _failure(self, problem: stripe.StripeError) -> Failure:
        if isinstance(problem, stripe.APIConnectionError):
            cause = type(problem.__cause__).__name__ if problem.__cause__ else "no answer"
            return StripeUnavailable(f"Stripe can't be reached ({cause})")
        status = problem.http_status or 0
        # 409 is a lock or the same key in flight: the next attempt gets the answer of the first.
        if status in {409, 429} or status >= 500 or problem.error is None:
            return StripeUnavailable(f"Stripe answered {status}", _retry_after(problem))
        kind = "idempotency_error" if isinstance(problem, stripe.IdempotencyError) else "refused"
        message = (problem.user_message or "").replace(self._secret_key, "…")[:300]
        return StripeRefused(identifier(problem.code) or kind, message, status)


def _retry_after(problem: stripe.StripeError) -> float | None:
    value = (problem.headers or {}).get("retry-after", "")
    return min(float(value), LONGEST_CALL_SECONDS) if value.isdecimal() else None
