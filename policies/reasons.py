"""Every reason the gateway itself answers with: its status, its title, whose fault it is (docs/design.md, section 4).

One table. An answer whose reason is not in it can't be built, so the table is the whole public vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """Who can do something about it."""

    CALLER = "caller"
    MONEY = "money"
    OPERATOR = "operator"
    UPSTREAM = "upstream"


class Reason(StrEnum):
    """The value of `X-Gateway-Reason` and of `reason` in the problem."""

    BAD_PATH = "bad_path"
    BAD_REQUEST = "bad_request"
    REQUEST_TIMEOUT = "request_timeout"
    BODY_TOO_LARGE = "body_too_large"
    URI_TOO_LONG = "uri_too_long"
    HEADERS_TOO_LARGE = "headers_too_large"
    TOKEN_MISSING = "token_missing"
    TOKEN_INVALID = "token_invalid"
    TOKEN_EXPIRED = "token_expired"
    SUBSCRIPTION_REQUIRED = "subscription_required"
    TIER_REQUIRED = "tier_required"
    SUBSCRIPTION_EXPIRED = "subscription_expired"
    PAYMENT_FAILED = "payment_failed"
    SUBSCRIPTION_PAUSED = "subscription_paused"
    QUOTA_EXHAUSTED = "quota_exhausted"
    SCOPE_MISSING = "scope_missing"
    FORBIDDEN = "forbidden"
    BLOCKED = "blocked"
    ALREADY_SUBSCRIBED = "already_subscribed"
    NO_ROUTE = "no_route"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    RATE_LIMITED = "rate_limited"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_PROTOCOL_ERROR = "upstream_protocol_error"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    ENTITLEMENT_UNAVAILABLE = "entitlement_unavailable"
    KEYS_UNAVAILABLE = "keys_unavailable"
    OVERLOADED = "overloaded"
    BILLING_UNAVAILABLE = "billing_unavailable"
    BILLING_NOT_CONFIGURED = "billing_not_configured"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes with a reason whatever the request was."""

    status: int
    title: str
    fault: Fault
    retry_after_seconds: int | None = None


ANSWERS: Final[dict[Reason, Answer]] = {
    Reason.BAD_PATH: Answer(400, "Ambiguous path", Fault.CALLER),
    Reason.BAD_REQUEST: Answer(400, "Bad request", Fault.CALLER),
    Reason.REQUEST_TIMEOUT: Answer(408, "Request timeout", Fault.CALLER),
    Reason.BODY_TOO_LARGE: Answer(413, "Body too large", Fault.CALLER),
    Reason.URI_TOO_LONG: Answer(414, "URI too long", Fault.CALLER),
    Reason.HEADERS_TOO_LARGE: Answer(431, "Headers too large", Fault.CALLER),
    Reason.TOKEN_MISSING: Answer(401, "Token missing", Fault.CALLER),
    Reason.TOKEN_INVALID: Answer(401, "Token invalid", Fault.CALLER),
    Reason.TOKEN_EXPIRED: Answer(401, "Token expired", Fault.CALLER),
    Reason.SUBSCRIPTION_REQUIRED: Answer(402, "Payment required", Fault.MONEY),
    Reason.TIER_REQUIRED: Answer(402, "Payment required", Fault.MONEY),
    Reason.SUBSCRIPTION_EXPIRED: Answer(402, "Payment required", Fault.MONEY),
    Reason.PAYMENT_FAILED: Answer(402, "Payment required", Fault.MONEY),
    Reason.SUBSCRIPTION_PAUSED: Answer(402, "Payment required", Fault.MONEY),
    Reason.QUOTA_EXHAUSTED: Answer(402, "Payment required", Fault.MONEY),
    Reason.SCOPE_MISSING: Answer(403, "Scope missing", Fault.CALLER),
    Reason.FORBIDDEN: Answer(403, "Forbidden", Fault.CALLER),
    Reason.BLOCKED: Answer(403, "Blocked", Fault.CALLER),
    Reason.ALREADY_SUBSCRIBED: Answer(409, "Already subscribed", Fault.CALLER),
    Reason.NO_ROUTE: Answer(404, "No such route", Fault.CALLER),
    Reason.METHOD_NOT_ALLOWED: Answer(405, "Method not allowed", Fault.CALLER),
    Reason.RATE_LIMITED: Answer(429, "Too many requests", Fault.CALLER),
    Reason.UPSTREAM_UNREACHABLE: Answer(502, "Upstream unreachable", Fault.UPSTREAM),
    Reason.UPSTREAM_PROTOCOL_ERROR: Answer(502, "Upstream protocol error", Fault.UPSTREAM),
    Reason.UPSTREAM_TIMEOUT: Answer(504, "Upstream timeout", Fault.UPSTREAM),
    Reason.ENTITLEMENT_UNAVAILABLE: Answer(503, "Entitlement unavailable", Fault.OPERATOR, retry_after_seconds=2),
    Reason.KEYS_UNAVAILABLE: Answer(503, "Keys unavailable", Fault.OPERATOR, retry_after_seconds=5),
    Reason.OVERLOADED: Answer(503, "Overloaded", Fault.OPERATOR, retry_after_seconds=1),
    Reason.BILLING_UNAVAILABLE: Answer(503, "Billing unavailable", Fault.OPERATOR, retry_after_seconds=5),
    Reason.BILLING_NOT_CONFIGURED: Answer(503, "Billing not configured", Fault.OPERATOR, retry_after_seconds=60),
}
