"""The Stripe account, and how late money may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.addresses import HttpUrl, is_loopback, parse_http_url

if TYPE_CHECKING:
    from policies.diagnostics import Findings
    from policies.draft import Draft

SECRET_KEY_PREFIXES: Final = ("sk_test_", "sk_live_", "rk_test_", "rk_live_")
DEMO_WEBHOOK_SECRET: Final = "whsec_simulator"
SIMULATOR_KEY_PREFIX: Final = "sk_test_simulator"
WEBHOOK_SECRET_PREFIX: Final = "whsec_"
LONGEST_USUAL_LATENESS_SECONDS: Final = 31 * 86400.0
LONGEST_PAY_LINK_SECONDS: Final = 30 * 86400.0


def check(draft: Draft, findings: Findings) -> None:
    """`billing`."""
    _keys(draft, findings)
    _urls(draft, findings)
    billing = draft.config.billing
    for key, seconds in (("renewal_leeway", billing.renewal_leeway), ("past_due_grace", billing.past_due_grace)):
        if seconds > LONGEST_USUAL_LATENESS_SECONDS:
            findings.warning(
                "out-of-range",
                draft.positions.value("billing", key),
                f"'{key}' is longer than a month: that much is given away unpaid",
            )
    for index, tier in enumerate(draft.config.tiers):
        if tier.past_due_grace is None:
            continue
        mark = draft.positions.value("tiers", index, "past_due_grace")
        if tier.past_due_grace > LONGEST_USUAL_LATENESS_SECONDS:
            findings.warning(
                "out-of-range", mark, "'past_due_grace' is longer than a month: that much is given away unpaid"
            )
        elif not tier.sold:
            findings.warning("out-of-range", mark, "'past_due_grace' of a tier that nobody can buy has no effect")
    mark = draft.positions.value("billing", "pay_link_ttl")
    if billing.pay_link_ttl < 60:
        findings.error(
            "out-of-range", mark, "'pay_link_ttl' is shorter than a minute; nobody reads a refusal that fast"
        )
    elif billing.pay_link_ttl > LONGEST_PAY_LINK_SECONDS:
        findings.error(
            "out-of-range",
            mark,
            "'pay_link_ttl' is longer than 30 days; whoever finds such a link in a log could still use it",
        )


def _keys(draft: Draft, findings: Findings) -> None:
    stripe = draft.config.billing.stripe
    at = ("billing", "stripe")
    secret_key = stripe.secret_key.get_secret_value()
    key_mark = draft.positions.value(*at, "secret_key")
    if secret_key.startswith("pk_"):
        findings.error(
            "bad-stripe-key", key_mark, "'secret_key' is a publishable key; the secret one begins with sk_ or rk_"
        )
    elif secret_key and (
        not secret_key.startswith(SECRET_KEY_PREFIXES) or not secret_key.isascii() or not secret_key.isprintable()
    ):
        findings.error(
            "bad-stripe-key",
            key_mark,
            "'secret_key' tells no mode; Stripe's begin with sk_test_, sk_live_, rk_test_ or rk_live_",
        )
    webhook_mark = draft.positions.value(*at, "webhook_secrets")
    webhook_secrets = [part.strip() for part in stripe.webhook_secrets.get_secret_value().split(",") if part.strip()]
    if not all(part.startswith(WEBHOOK_SECRET_PREFIX) for part in webhook_secrets):
        findings.warning(
            "bad-webhook-secret", webhook_mark, "one of 'webhook_secrets' does not begin with whsec_, as Stripe's do"
        )
    if webhook_secrets and not secret_key and draft.is_whole(*at, "secret_key"):
        findings.warning(
            "no-stripe-key",
            webhook_mark,
            "'webhook_secrets' without 'secret_key': events are turned away, and nothing can be looked up or sold",
        )
    if DEMO_WEBHOOK_SECRET in webhook_secrets and secret_key and not secret_key.startswith(SIMULATOR_KEY_PREFIX):
        findings.warning(
            "demo-secret",
            webhook_mark,
            "'webhook_secrets' holds the simulator's, so no event of Stripe's is believed: set STRIPE_WEBHOOK_SECRET",
        )


def _urls(draft: Draft, findings: Findings) -> None:
    stripe = draft.config.billing.stripe
    if stripe.api_base:
        mark = draft.positions.value("billing", "stripe", "api_base")
        url = parse_http_url(stripe.api_base)
        is_live = "_live_" in stripe.secret_key.get_secret_value()[:8]
        if not isinstance(url, HttpUrl):
            findings.error("bad-url", mark, f"'api_base' {url}")
        elif url.has_userinfo or url.has_query or url.has_fragment:
            findings.error("bad-url", mark, "'api_base' has more than scheme, host, port and path")
        elif url.scheme == "http" and is_live and not is_loopback(url.host):
            findings.error("bad-url", mark, "'api_base' is http: the live key would cross the network in the clear")
    success_url = draft.config.billing.success_url
    if success_url:
        # Stripe fills the template in; it is the one place where braces belong into a URL.
        url = parse_http_url(success_url.replace("{CHECKOUT_SESSION_ID}", "x"))
        if not isinstance(url, HttpUrl):
            shown = draft.shown("billing", "success_url")
            findings.error(
                "bad-url", draft.positions.value("billing", "success_url"), f"'success_url', which reads {shown}, {url}"
            )
