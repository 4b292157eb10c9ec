"""What tests of fetched keys share: an authenticator that follows a `JwksServer`, a clock, and tokens by key name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from gateway.credentials import Authenticated, Authenticator, Bounds, KeyState, Unauthenticated
from policies.reasons import Reason
from policies.schema import Auth, Issuer
from tests.support import tokens
from tests.support.jwks_server import JwksServer
from tests.support.tokens import NOW, bearer, claims, sign

OLD = tokens.public_jwk(tokens.ec_key("old"), "old")
NEW = tokens.public_jwk(tokens.ec_key("new"), "new")
QUICK_RETRIES = Bounds(retry_first=0.02, retry_most=0.02)


class Clock:
    """UTC seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.at: float = NOW

    def __call__(self) -> float:
        return self.at


def issuer(server: JwksServer, **settings: Any) -> Issuer:
    given = {"issuer": tokens.ISSUER, "audience": ("my-api",), "algorithms": ("ES256",)}
    if "discovery" not in settings:
        given["jwks_url"] = server.jwks_url
    return Issuer(**{**given, **settings})


@asynccontextmanager
async def running(entry: Issuer, clock: Clock, bounds: Bounds | None = None) -> AsyncIterator[Authenticator]:
    subject = Authenticator(Auth(issuers=(entry,)), now=clock, bounds=bounds)
    await subject.start()
    try:
        yield subject
    finally:
        await subject.stop()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110 - what is waited for is state of the subject, which has no event
            await asyncio.sleep(0.005)


def state(subject: Authenticator) -> KeyState:
    (health,) = subject.health()
    return health.state


async def loaded(subject: Authenticator) -> None:
    await until(lambda: state(subject) is KeyState.OK)


def token(name: str, *, kid: str | None = "same", **changes: Any) -> list[tuple[bytes, bytes]]:
    return bearer(sign(claims(**changes), tokens.ec_key(name), "ES256", kid=name if kid == "same" else kid))


async def settled(subject: Authenticator, headers: list[tuple[bytes, bytes]]) -> Authenticated | Unauthenticated:
    return await subject.settle(subject.authenticate(headers), headers)


def reason(outcome: Authenticated | Unauthenticated) -> Reason | None:
    return outcome.reason if isinstance(outcome, Unauthenticated) else None
