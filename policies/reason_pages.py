"""What each reason means to the person who met it: the cause, and what to do. Served at `/_gateway/problems/{reason}`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from policies.reasons import Reason


@dataclass(frozen=True, slots=True)
class ReasonPage:
    """One page's two sentences."""

    cause: str
    remedy: str


PAGES: Final[dict[Reason, ReasonPage]] = {
    Reason.BAD_PATH: ReasonPage(
        "The path could be read in more than one way: it holds '..', an empty segment, an encoded slash or a bad escape.",
        "Send the path as the API documents it, each character escaped at most once.",
    ),
    Reason.BAD_REQUEST: ReasonPage(
        "The request could not be read: a header, the body or the credentials contradict themselves or HTTP.",
        "The detail of the answer names what was wrong.",
    ),
    Reason.REQUEST_TIMEOUT: ReasonPage(
        "The request did not arrive in full in time.", "Send it again; check the connection if it happens often."
    ),
    Reason.BODY_TOO_LARGE: ReasonPage("The body is larger than this endpoint takes.", "Send a smaller body."),
    Reason.URI_TOO_LONG: ReasonPage("The address is longer than this gateway takes.", "Put long values into the body."),
    Reason.HEADERS_TOO_LARGE: ReasonPage(
        "The header fields are too many or too long.", "Remove cookies or fields that this API doesn't need."
    ),
    Reason.TOKEN_MISSING: ReasonPage(
        "This route needs to know who is calling, and no token was sent.",
        "Send 'Authorization: Bearer' with a token of the API's identity provider.",
    ),
    Reason.TOKEN_INVALID: ReasonPage(
        "The token was not accepted: its signature, issuer, audience or a claim is not what this API expects.",
        "Get a new token for this API from its identity provider.",
    ),
    Reason.TOKEN_EXPIRED: ReasonPage("The token's time is over.", "Get a new one from the identity provider."),
    Reason.SUBSCRIPTION_REQUIRED: ReasonPage(
        "This route is for subscribers, and there is no subscription for this customer.",
        "Follow the payment link of the answer.",
    ),
    Reason.TIER_REQUIRED: ReasonPage(
        "This route needs a higher tier than the customer has.", "Follow the payment link of the answer to upgrade."
    ),
    Reason.SUBSCRIPTION_EXPIRED: ReasonPage(
        "The subscription that would admit to this route has ended, or its renewal never came.",
        "Follow the payment link of the answer to subscribe again.",
    ),
    Reason.PAYMENT_FAILED: ReasonPage(
        "The last payment of the subscription failed and its grace has run out.",
        "Follow the payment link of the answer to pay the open invoice.",
    ),
    Reason.SUBSCRIPTION_PAUSED: ReasonPage(
        "The subscription is paused.", "Resume it in the billing portal, or follow the payment link of the answer."
    ),
    Reason.QUOTA_EXHAUSTED: ReasonPage(
        "What the subscription includes is used up.", "Upgrade, or wait for the next period."
    ),
    Reason.SCOPE_MISSING: ReasonPage(
        "The token is valid but not for this operation.", "Ask for a token with the scope that the detail names."
    ),
    Reason.FORBIDDEN: ReasonPage(
        "No tier that can be bought admits to this route.", "Ask the API's owner; paying does not change it."
    ),
    Reason.BLOCKED: ReasonPage("The API's owner has blocked this customer.", "Ask the API's owner."),
    Reason.ALREADY_SUBSCRIBED: ReasonPage(
        "The customer already pays for this tier or a higher one.", "Repeat the request; use the portal to change it."
    ),
    Reason.NO_ROUTE: ReasonPage("Nothing is served at this path.", "Check the path against the API's documentation."),
    Reason.METHOD_NOT_ALLOWED: ReasonPage(
        "The path exists, but not with this method.", "The Allow header lists the methods that do."
    ),
    Reason.RATE_LIMITED: ReasonPage("Too many requests in a short time.", "Wait as long as Retry-After says."),
    Reason.UPSTREAM_UNREACHABLE: ReasonPage(
        "The API behind the gateway could not be reached.", "Try again later; its owner sees this in the metrics."
    ),
    Reason.UPSTREAM_PROTOCOL_ERROR: ReasonPage(
        "The API behind the gateway gave an answer that is not valid HTTP.", "Tell the API's owner the request's id."
    ),
    Reason.UPSTREAM_TIMEOUT: ReasonPage(
        "The API behind the gateway did not answer in time.", "Try again; ask for less at once if it repeats."
    ),
    Reason.ENTITLEMENT_UNAVAILABLE: ReasonPage(
        "It could not be found out what this customer has paid for. That is our fault, not a refusal.",
        "Try again as Retry-After says; there is nothing to pay.",
    ),
    Reason.KEYS_UNAVAILABLE: ReasonPage(
        "The keys that tokens are verified with could not be fetched yet, or the record of API keys could not be read.",
        "Try again as Retry-After says.",
    ),
    Reason.OVERLOADED: ReasonPage("The API has more to do than it can take.", "Try again as Retry-After says."),
    Reason.BILLING_UNAVAILABLE: ReasonPage(
        "The payment provider could not be reached. Nothing was charged.", "Try again in a minute."
    ),
    Reason.BILLING_NOT_CONFIGURED: ReasonPage(
        "This gateway has no Stripe key, so it can't take money.",
        "The API's owner sets STRIPE_SECRET_KEY, or billing.stripe.secret_key in gateway.yaml.",
    ),
}
