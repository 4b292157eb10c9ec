"""The gateway's own answers: one problem shape for all (RFC 9457), HTML with the same facts for a browser.

It decides how a reason looks on the wire and nothing else: status, title and fault come from `policies.reasons`, the
facts from the decision. It must never build an answer whose reason is not in that table, and never speak of what
lies behind the gateway: no upstream address, no stack trace, no credential (P9).
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from policies.entitlement import Standing
from policies.money import format_offer
from policies.offers import Offer, Payment
from policies.reasons import ANSWERS, Reason
from policies.requirement import Requirement
from policies.signed import Claim, Purpose, sign

Headers = list[tuple[bytes, bytes]]

EXPOSED_HEADERS: Final = (
    "X-Gateway-Reason, X-Request-Id, Link, Retry-After, WWW-Authenticate, RateLimit, RateLimit-Policy"
)

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 36rem; margin: 12vh auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin-bottom: .25rem; }
a.pay { display: inline-block; padding: .6rem 1.1rem; border-radius: .4rem; background: #0a58ca; color: #fff;
  text-decoration: none; font-weight: 600; }
code, .facts { color: GrayText; font-size: .875rem; }
"""
_STYLE_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_CSP: Final = f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Asked:
    """What of the request an answer depends on. `accept` and `origin` are empty when the caller sent none.

    `method` is GET for HEAD, so that the answer to HEAD is as long as the one to GET (RFC 9110, section 8.6).
    """

    method: str
    path: str
    request_id: str
    accept: bytes = b""
    origin: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, ready to send."""

    reason: Reason
    status: int
    headers: Headers
    body: bytes


class Answers:
    """Builds every answer of one configuration. `wall` is real UTC seconds: links keep real time.

    `cors_credentials`: tokens may come in cookies, so a page of a listed origin may read what its cookies brought.
    """

    def __init__(
        self,
        *,
        public_url: str,
        signing_key: bytes,
        pay_link_ttl: float,
        cors_origins: tuple[str, ...],
        cors_credentials: bool,
        offers: Callable[[str], tuple[Offer, ...]],
        wall: Callable[[], float],
    ) -> None:
        self._public_url = public_url.rstrip("/")
        self._signing_key = signing_key
        self._pay_link_ttl = pay_link_ttl
        self._cors_origins = frozenset(origin.encode() for origin in cors_origins)
        self._readable: Headers = [(b"access-control-expose-headers", EXPOSED_HEADERS.encode())]
        if cors_credentials:
            self._readable.append((b"access-control-allow-credentials", b"true"))
        self.vary = b"Authorization, Accept, Origin" if cors_origins else b"Authorization, Accept"
        self._offers = offers
        self._wall = wall

    def refuse(
        self,
        reason: Reason,
        detail: str,
        asked: Asked,
        *,
        extra: Headers | None = None,
        facts: dict[str, Any] | None = None,
    ) -> Answer:
        """The answer for `reason`. `facts` are added to the problem, `extra` to the headers."""
        known = ANSWERS[reason]
        problem: dict[str, Any] = {
            "type": f"{self._public_url}/_gateway/problems/{reason}",
            "title": known.title,
            "status": known.status,
            "reason": reason.value,
            "detail": detail,
            **(facts or {}),
            "request_id": asked.request_id,
        }
        headers: Headers = [
            (b"x-gateway-reason", reason.value.encode()),
            (b"x-request-id", asked.request_id.encode("latin-1")),
            (b"cache-control", b"no-store"),
            (b"vary", self.vary),
            *self.readable_from(asked.origin),
            *(extra or ()),
        ]
        if known.status == 401:
            headers.append((b"www-authenticate", _challenge(reason, detail)))
        if known.retry_after_seconds is not None:
            headers.append((b"retry-after", str(known.retry_after_seconds).encode()))
        if prefers_html(asked.accept):
            body = _page(problem)
            headers.append((b"content-type", b"text/html; charset=utf-8"))
            headers.append((b"content-security-policy", _CSP.encode()))
        else:
            body = json.dumps(problem, ensure_ascii=False).encode() + b"\n"
            headers.append((b"content-type", b"application/problem+json"))
        headers.append((b"content-length", str(len(body)).encode()))
        return Answer(reason, known.status, headers, body)

    def payment_required(self, reason: Reason, payment: Payment, asked: Asked) -> Answer:
        """A 402 with the link that takes the money. Building it calls nobody and changes nothing."""
        pay_url = self.pay_url(payment.customer, payment.tier)
        needs, has = payment.requirement, payment.standing
        remedy = _REMEDY.get(reason, "Upgrade")
        why = payment.why or f"{asked.method} {asked.path} needs {_needed(needs)}; {_SITUATION[reason](has)}."
        return self.refuse(
            reason,
            f"{why} {remedy}: {pay_url}",
            asked,
            extra=[
                (
                    b"link",
                    f'<{pay_url}>; rel="payment"; title="{_REMEDY.get(reason, f"Upgrade to {payment.tier}")}"'.encode(),
                )
            ],
            facts={
                "required": {"tier": needs.tier, "features": list(needs.features)},
                "current": {"tier": has.tier, "status": has.status, "access_until": has.access_until},
                "offers": [offer.public() for offer in self._offers(payment.tier)],
                "pay_url": pay_url,
                "status_url": f"{self._public_url}/_gateway/me",
            },
        )

    def pay_url(self, customer: str, tier: str) -> str:
        """The signed link, bound to customer and tier. It counts as a secret (P9)."""
        claim = Claim(Purpose.PAY, customer, tier, int(self._wall() + self._pay_link_ttl))
        return f"{self._public_url}/_gateway/pay/{sign(self._signing_key, claim)}"

    def readable_from(self, origin: bytes) -> Headers:
        """The CORS fields that make an answer of ours readable from `origin`, none for an origin that isn't listed."""
        if not origin or origin not in self._cors_origins:
            return []
        return [(b"access-control-allow-origin", origin), *self._readable]


def _needed(requirement: Requirement) -> str:
    features = ", ".join(f"'{feature}'" for feature in requirement.features)
    tier = f"tier '{requirement.tier}'"
    return f"{tier} with {features}" if features else tier


def _on(standing: Standing) -> str:
    return f"you are on '{standing.tier}'" if standing.tier else "you have no subscription"


_SITUATION: Final[dict[Reason, Callable[[Standing], str]]] = {
    Reason.SUBSCRIPTION_REQUIRED: _on,
    Reason.TIER_REQUIRED: _on,
    Reason.QUOTA_EXHAUSTED: lambda _: "what your subscription includes is used up",
    Reason.SUBSCRIPTION_EXPIRED: lambda _: "your subscription has ended",
    Reason.PAYMENT_FAILED: lambda _: "the last payment of your subscription failed",
    Reason.SUBSCRIPTION_PAUSED: lambda _: "your subscription is paused",
}
_REMEDY: Final[dict[Reason, str]] = {
    Reason.SUBSCRIPTION_REQUIRED: "Subscribe",
    Reason.SUBSCRIPTION_EXPIRED: "Subscribe again",
    Reason.PAYMENT_FAILED: "Pay the open invoice",
    Reason.SUBSCRIPTION_PAUSED: "Resume",
}


def _challenge(reason: Reason, detail: str) -> bytes:
    """What a 401 must carry (RFC 6750, section 3): no error code where no token was sent."""
    challenge = 'Bearer realm="gateway"'
    if reason is not Reason.TOKEN_MISSING:
        told = "".join("'" if one in '"\\' else one if one.isprintable() else " " for one in detail)
        challenge += f', error="invalid_token", error_description="{told}"'
    return challenge.encode("ascii", "replace")


def prefers_html(accept: bytes) -> bool:
    """Whether `Accept` ranks text/html above JSON (RFC 9110, section 12.5.1). A tie, or no field, is JSON."""
    accept = accept.lower()
    if b"html" not in accept:
        return False
    ranks = {
        b"text/html": 0.0,
        b"application/problem+json": 0.0,
        b"application/json": 0.0,
        b"application/*": 0.0,
        b"*/*": 0.0,
    }
    for part in accept.split(b","):
        media, *parameters = (piece.strip() for piece in part.split(b";"))
        if media not in ranks:
            continue
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith(b"q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        ranks[media] = quality
    named = max(ranks[b"application/problem+json"], ranks[b"application/json"])
    return ranks[b"text/html"] > (named or ranks[b"application/*"] or ranks[b"*/*"])


def _page(problem: dict[str, Any]) -> bytes:
    """The problem as a page: the same facts, and the link as a button."""
    escaped = {key: html.escape(str(value)) for key, value in problem.items()}
    pay_url = escaped.get("pay_url")
    # The link is a button here; as text it would be long and end up copied into places that keep it.
    detail = escaped["detail"].rpartition(". ")[0] + "." if pay_url else escaped["detail"]
    pay = f'<p><a class="pay" href="{pay_url}">Continue to payment</a></p>' if pay_url else ""
    prices = "".join(f"<li>{html.escape(_priced(offer))}</li>" for offer in problem.get("offers", ()))
    offers = f"<ul>{prices}</ul>" if prices else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escaped["title"]}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escaped['title']}</h1><p>{detail}</p>{offers}{pay}"
        f'<p class="facts">{escaped["status"]} <code>{escaped["reason"]}</code> · request {escaped["request_id"]}</p>'
        "</body></html>\n"
    ).encode()


def _priced(offer: dict[str, Any]) -> str:
    known = Offer(
        offer["tier"],
        offer["price"],
        offer["amount"],
        offer["currency"],
        offer["interval"],
        offer.get("interval_count", 1),
    )
    return f"{known.tier}: {format_offer(known)}"


def raw_refusal(answer: Answer) -> bytes:
    """`answer` as a complete HTTP/1.1 response that closes the connection, for refusals below ASGI."""
    lines = [b"HTTP/1.1 %d %s" % (answer.status, HTTPStatus(answer.status).phrase.encode())]
    lines += [name + b": " + value for name, value in answer.headers]
    return b"\r\n".join([*lines, b"connection: close", b"", answer.body])
