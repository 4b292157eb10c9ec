"""The shape of gateway.yaml (DESIGN.md, section 3), as frozen types.

It decides which keys exist, what each may hold and what it is when it is left out. It must never look at two places
of the file at once: what one value means for another is `policies.crosschecks`' business, where positions are known.
A ValueError raised here is a predicate ("is not a duration; …") and doesn't repeat the value, which may be a secret.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, WithJsonSchema

from policies.enforcement import ENFORCE_PATTERN, parse_enforcement
from policies.moments import MOMENT_PATTERN, parse_moment
from policies.scalars import read_flag, read_whole
from policies.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _one_or_several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _without_final_slash(value: object) -> object:
    return value.removesuffix("/") if isinstance(value, str) else value


def _postgresql(value: object) -> object:
    # What many hosts put into DATABASE_URL, and what SQLAlchemy stopped understanding.
    is_short = isinstance(value, str) and value.startswith("postgres://")
    return "postgresql" + str(value).removeprefix("postgres") if is_short else value


def _moment(value: str) -> str:
    parse_moment(value)
    return value


def _currency(value: str) -> str:
    if len(value) != 3 or not (value.isascii() and value.isalpha() and value.islower()):
        raise ValueError("is not a currency; write it as 'usd'")
    return value


def _enforcement(value: str) -> str:
    parse_enforcement(value)
    return value


Duration = Annotated[float, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})]
"""Seconds; written ``500ms``, ``30s``, ``5m``, ``48h`` or ``3d``."""

Size = Annotated[int, BeforeValidator(_size), WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN})]
"""Bytes; written ``512B``, ``64KiB``, ``10MiB`` or ``1GiB``."""

OneOrSeveral = Annotated[
    tuple[str, ...],
    BeforeValidator(_one_or_several),
    WithJsonSchema({"type": ["string", "array"], "items": {"type": "string"}}),
]
"""A list, or its only entry."""

Moment = Annotated[str, AfterValidator(_moment), WithJsonSchema({"type": "string", "pattern": MOMENT_PATTERN})]
"""A time that `parse_moment` reads, kept as it is written: ``2026-12-01`` or ``2026-12-01T18:00Z``."""

Enforce = Annotated[str, AfterValidator(_enforcement), WithJsonSchema({"type": "string", "pattern": ENFORCE_PATTERN})]
"""What `parse_enforcement` reads, kept as it is written: ``on``, ``observe``, ``off`` or ``25%``."""

Currency = Annotated[str, AfterValidator(_currency), WithJsonSchema({"type": "string", "pattern": "^[a-z]{3}$"})]
"""Three small letters, as Stripe writes them."""

Whole = Annotated[int, BeforeValidator(read_whole)]
Flag = Annotated[bool, BeforeValidator(read_flag)]

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class Model(BaseModel):
    """Unknown keys are errors, values are never coerced from another type, and nothing changes after load."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    called: ClassVar[str]
    """What messages call the thing that holds these keys."""


class Server(Model):
    """Listeners and what they believe."""

    called: ClassVar[str] = "server"

    listen: str = "0.0.0.0:8080"
    operator: str = "127.0.0.1:8081"
    operator_token: SecretStr = SecretStr("")
    signing_key: SecretStr = SecretStr("")
    public_url: Annotated[str, BeforeValidator(_without_final_slash)] = "http://localhost:8080"
    trusted_proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    drain: Duration = 30.0
    workers: Whole = Field(default=1, ge=1, le=128)


class Cache(Model):
    """How long and how many entitlements are remembered."""

    called: ClassVar[str] = "cache"

    max_ttl: Duration = 3600.0
    max_stale: Duration = 3600.0
    negative_ttl: Duration = 5.0
    max_entries: Whole = Field(default=100_000, ge=1)


class Timeouts(Model):
    """Bounds on one upstream exchange: connecting, waiting for the head of the answer, and silence between bytes."""

    called: ClassVar[str] = "timeouts"

    connect: Duration = 2.0
    response: Duration = 60.0
    idle: Duration = 300.0


class UpstreamTls(Model):
    """Whom to trust as an upstream with an https target, and what to show it. Files; read at start and at each reload."""

    called: ClassVar[str] = "tls"

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: Flag = True
    server_name: str | None = None


class Health(Model):
    """Active checks of an upstream's targets; none where `path` is empty."""

    called: ClassVar[str] = "health"

    path: str = ""
    interval: Duration = 5.0


class Upstream(Model):
    """One API behind the gateway."""

    called: ClassVar[str] = "an upstream"

    targets: tuple[str, ...] = Field(min_length=1)
    timeouts: Timeouts = Timeouts()
    host: Literal["target", "caller"] = "target"
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    forward_token: Flag = True
    max_connections: Whole = Field(default=256, ge=1)
    queue: Whole = Field(default=1024, ge=0)
    keepalive: Duration = 4.0
    http2: Flag = False
    tls: UpstreamTls = UpstreamTls()
    health: Health = Health()


class Issuer(Model):
    """Who signs tokens, with which keys, and which claim names the paying customer."""

    called: ClassVar[str] = "an issuer"

    issuer: str = Field(min_length=1)
    audience: OneOrSeveral
    algorithms: tuple[Algorithm, ...] = Field(min_length=1)
    jwks_url: str | None = None
    discovery: Flag = False
    public_key: str | None = None
    secret: SecretStr | None = None
    customer: str = "sub"
    shared_customers: Flag = False
    claims: dict[str, OneOrSeveral] = Field(default_factory=dict)
    types: OneOrSeveral = ("JWT", "at+jwt")
    max_age: Duration | None = None
    leeway: Duration = 60.0
    token_from: tuple[str, ...] | None = None


class ApiKeySettings(Model):
    """Whether keys of this gateway's own making are taken beside tokens, and in which header."""

    called: ClassVar[str] = "api_keys"

    enabled: Flag = False
    header: str = "X-API-Key"


class Auth(Model):
    """Where a token is looked for and who may have signed it."""

    called: ClassVar[str] = "auth"

    issuers: tuple[Issuer, ...] = ()
    token_from: tuple[str, ...] = ("header",)
    api_keys: ApiKeySettings = ApiKeySettings()


class Tier(Model):
    """One level of what is sold; it admits everything that the tiers before it admit."""

    called: ClassVar[str] = "a tier"

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    prices: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    lookup_keys: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    past_due_grace: Duration | None = None

    @property
    def sold(self) -> bool:
        """Whether anything of Stripe's maps to this tier."""
        return bool(self.prices or self.products or self.lookup_keys)


class StripeSettings(Model):
    """The account that takes the money."""

    called: ClassVar[str] = "stripe"

    secret_key: SecretStr = SecretStr("")
    webhook_secrets: SecretStr = SecretStr("")
    api_base: str = ""


class Billing(Model):
    """How late money may be, and where the payer goes afterwards."""

    called: ClassVar[str] = "billing"

    stripe: StripeSettings = StripeSettings()
    renewal_leeway: Duration = 48 * 3600.0
    past_due_grace: Duration = 72 * 3600.0
    require_paid_invoice: Flag = False
    revoke_on_refund: Flag = False
    revoke_on_dispute: Flag = False
    features_from: Literal["tiers", "stripe"] = "tiers"
    pay_link_ttl: Duration = 3600.0
    success_url: str = ""


class RouteTimeouts(Model):
    """Those of one route; what is left out is its upstream's."""

    called: ClassVar[str] = "a route's timeouts"

    connect: Duration | None = None
    response: Duration | None = None
    idle: Duration | None = None

    def over(self, upstream: Timeouts) -> Timeouts | None:
        """What is in force on the route, None where it says nothing."""
        given = {name: seconds for name in RouteTimeouts.model_fields if (seconds := getattr(self, name)) is not None}
        return upstream.model_copy(update=given) if given else None


class Route(Model):
    """One path pattern, or several that are judged alike, and who is let through."""

    called: ClassVar[str] = "a route"

    path: str | None = Field(default=None, min_length=1)
    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    host: str | None = None
    access: Literal["public", "authenticated"] | None = None
    tier: str | None = None
    features: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    claims: dict[str, OneOrSeveral] = Field(default_factory=dict)
    upstream: str | None = None
    strip_prefix: str | None = None
    add_prefix: str | None = None
    timeouts: RouteTimeouts = RouteTimeouts()
    max_body: Size | None = None
    on_unavailable: Literal["deny", "allow"] = "deny"
    enforce: Enforce = "on"
    spelling: Literal["exact", "lenient"] | None = None
    encoded_slash: Literal["refuse", "literal"] = "refuse"
    double_slash: Literal["refuse", "literal"] = "refuse"
    outlive_token: Flag = False

    @property
    def each_path(self) -> tuple[str, ...]:
        """Every path that the entry stands for; one is given, or several."""
        return self.paths if self.path is None else (self.path,)


class Streams(Model):
    """What becomes of answers under way when their caller may have no more of them."""

    called: ClassVar[str] = "streams"

    grace: Duration = 300.0


SupposedStatus = Literal[
    "none", "active", "trialing", "canceled", "past_due", "unpaid", "expired", "paused", "incomplete", "blocked"
]
"""How somebody who is made up for a question stands; `policies.supposed` says what each word means."""


class Who(Model):
    """Who asks in a test. Left empty it is nobody: a request without a token."""

    called: ClassVar[str] = "who"

    tier: str | None = None
    status: SupposedStatus | None = None
    until: Moment | None = None


class Expectation(Model):
    """One test of the routes: a request, who sends it, and what comes of it. `gateway check` runs them."""

    called: ClassVar[str] = "a test"

    request: str = Field(min_length=1)
    host: str | None = None
    who: Who = Who()
    at: Moment | None = None
    expect: str = Field(min_length=1)


class SimulatedPrice(Model):
    """What the simulated Stripe asks for a price: the real one knows, and is not asked in a rehearsal."""

    called: ClassVar[str] = "a simulated price"

    amount: Annotated[int, Field(ge=0, le=99_999_999), BeforeValidator(read_whole)] | None = None
    currency: Currency = "usd"
    interval: Literal["day", "week", "month", "year"] | None = None
    interval_count: Whole = Field(default=1, ge=1, le=1095)


class Simulated(Model):
    """What `gateway simulator`, `gateway demo` and `gateway rehearse` can't know of what the tiers name."""

    called: ClassVar[str] = "simulator"

    prices: dict[str, SimulatedPrice] = Field(default_factory=dict)


class Config(Model):
    """A whole gateway.yaml. What it refers to exists and agrees: `policies.load` saw to that."""

    called: ClassVar[str] = "the file"

    version: Annotated[Literal[1], BeforeValidator(read_whole)]
    server: Server = Server()
    database: Annotated[SecretStr, BeforeValidator(_postgresql)] = SecretStr("sqlite:///gateway.db")
    redis: SecretStr = SecretStr("")
    cache: Cache = Cache()
    upstreams: dict[str, Upstream] = Field(min_length=1)
    auth: Auth = Auth()
    tiers: tuple[Tier, ...] = ()
    billing: Billing = Billing()
    routes: tuple[Route, ...] = ()
    default: str = "deny"
    streams: Streams = Streams()
    simulator: Simulated = Simulated()
    tests: tuple[Expectation, ...] = ()
    run_tests_at_load: Flag = False
