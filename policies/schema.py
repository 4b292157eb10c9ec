"""The shape of gateway.yaml (DESIGN.md, section 3), as frozen types.

It decides which keys exist, what each may hold and what it is when it is left out. It must never look at two places
of the file at once: what one value means for another is `policies.load`'s business, where positions are known.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from policies.units import parse_duration


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(_duration)]
"""Seconds; written ``500ms``, ``30s``, ``5m``, ``48h`` or ``3d``."""

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class Model(BaseModel):
    """Unknown keys are errors, values are never coerced from another type, and nothing changes after load."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Server(Model):
    """Listeners and what they believe."""

    listen: str = "0.0.0.0:8080"
    operator: str = "127.0.0.1:8081"
    operator_token: SecretStr = SecretStr("")
    signing_key: SecretStr = SecretStr("")
    public_url: str = "http://localhost:8080"
    trusted_proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    drain: Duration = 30.0
    workers: int = Field(default=1, ge=1, le=128)


class Cache(Model):
    """How long and how many entitlements are remembered."""

    max_ttl: Duration = 3600.0
    max_stale: Duration = 3600.0
    negative_ttl: Duration = 5.0
    max_entries: int = Field(default=100_000, ge=1)


class Timeouts(Model):
    """Bounds on one upstream exchange: connecting, waiting for the head of the answer, and silence between bytes."""

    connect: Duration = 2.0
    response: Duration = 60.0
    idle: Duration = 300.0


class Upstream(Model):
    """One API behind the gateway."""

    targets: tuple[str, ...] = Field(min_length=1)
    timeouts: Timeouts = Timeouts()
    host: Literal["target", "caller"] = "target"
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    forward_token: bool = True


class Issuer(Model):
    """Who signs tokens, with which keys, and which claim names the paying customer."""

    issuer: str = Field(min_length=1)
    audience: str | tuple[str, ...]
    algorithms: tuple[Algorithm, ...] = Field(min_length=1)
    jwks_url: str | None = None
    discovery: bool = False
    public_key: str | None = None
    secret: SecretStr | None = None
    customer: str = "sub"
    shared_customers: bool = False


class Auth(Model):
    """Where a token is looked for and who may have signed it."""

    issuers: tuple[Issuer, ...] = ()
    token_from: tuple[str, ...] = ("header",)


class Tier(Model):
    """One level of what is sold; it admits everything that the tiers before it admit."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    prices: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    lookup_keys: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    @property
    def sold(self) -> bool:
        """Whether anything of Stripe's maps to this tier."""
        return bool(self.prices or self.products or self.lookup_keys)


class StripeSettings(Model):
    """The account that takes the money."""

    secret_key: SecretStr = SecretStr("")
    webhook_secrets: SecretStr = SecretStr("")
    api_base: str = ""


class Billing(Model):
    """How late money may be, and where the payer goes afterwards."""

    stripe: StripeSettings = StripeSettings()
    renewal_leeway: Duration = 48 * 3600.0
    past_due_grace: Duration = 72 * 3600.0
    pay_link_ttl: Duration = 3600.0
    success_url: str = ""


class Route(Model):
    """One path pattern and who is let through."""

    path: str = Field(min_length=1)
    methods: tuple[str, ...] = ()
    host: str | None = None
    access: Literal["public", "authenticated"] | None = None
    tier: str | None = None
    features: tuple[str, ...] = ()
    upstream: str | None = None
    spelling: Literal["exact", "lenient"] | None = None


class Config(Model):
    """A whole gateway.yaml. What it refers to exists and agrees: `policies.load` saw to that."""

    version: Literal[1]
    server: Server = Server()
    database: SecretStr = SecretStr("sqlite:///gateway.db")
    redis: SecretStr = SecretStr("")
    cache: Cache = Cache()
    upstreams: dict[str, Upstream] = Field(min_length=1)
    auth: Auth = Auth()
    tiers: tuple[Tier, ...] = ()
    billing: Billing = Billing()
    routes: tuple[Route, ...] = ()
    default: str = "deny"
