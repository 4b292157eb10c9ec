"""The faults that are planted: each mistake that others have made and each wrong reading of section 5
that came to mind, as a change of the product's source.

A mutant that no longer applies is an error of this list: the text it replaces must occur exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Edit:
    """In `path`, `old` becomes `new`."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong product. `belief` is what its author would have thought."""

    name: str
    belief: str
    edits: tuple[Edit, ...]


def _one(name: str, belief: str, path: str, old: str, new: str) -> Mutant:
    return Mutant(name, belief, (Edit(path, old, new),))


_RULES: Final = "policies/entitlement.py"
_TIERS: Final = "policies/tiers.py"
_OBJECTS: Final = "admin/stripe/objects.py"
_FETCH: Final = "admin/stripe/fetch.py"
_SYNC: Final = "admin/stripe/sync.py"
_WORK: Final = "admin/stripe/work.py"
_WEBHOOK: Final = "admin/stripe/webhook.py"
_ENVELOPE: Final = "admin/stripe/envelope.py"
_SIGNATURE: Final = "admin/stripe/signature.py"
_RECONCILE: Final = "admin/stripe/reconcile.py"
_LEDGER: Final = "admin/ledger/stripe_customers.py"
_PAYMENTS: Final = "admin/stripe/payments.py"
_LATEST: Final = "admin/stripe/latest_invoice.py"
_INBOX: Final = "admin/ledger/inbox.py"
_STORED: Final = "admin/ledger/stored_facts.py"
_CLIENT: Final = "admin/stripe/client.py"

_PAYING: Final = 'PAYING: Final = frozenset({"trialing", "active"})'
_GRACE: Final = 'if subscription.status == "past_due":\n        unpaid_since'
_KEEP_PAYLOAD: Final = """    if about.get("object") == "subscription":
        kept = PAYLOADS.setdefault(str(customer_of(about)), {})
        {guard}kept[str(about.get("id"))] = (event.get("created"), about)
    return Envelope("""


def _payload(name: str, belief: str, guard: str) -> Mutant:
    return Mutant(
        name,
        belief,
        (
            Edit(_ENVELOPE, "_CATALOG: Final = (", "PAYLOADS: dict[str, dict[str, object]] = {}\n_CATALOG: Final = ("),
            Edit(
                _ENVELOPE,
                '    is_customer = about.get("object") == "customer"\n    return Envelope(',
                '    is_customer = about.get("object") == "customer"\n' + _KEEP_PAYLOAD.replace("{guard}", guard),
            ),
            Edit(
                _FETCH,
                "    found: list[ReadSubscription] = []\n",
                "    from admin.stripe.envelope import PAYLOADS\n"
                "    told = {key: value[1] for key, value in PAYLOADS.get(stripe_customer, {}).items()}\n"
                '    listed = tuple(told.get(one["id"], one) for one in listed)\n'
                "    found: list[ReadSubscription] = []\n",
            ),
        ),
    )


RULES: Final = (
    _one("incomplete-pays", "the period is ahead", _RULES, _PAYING, _PAYING.replace("{", '{"incomplete", ')),
    _one("canceled-runs-on", "canceled ends with its period", _RULES, _PAYING, _PAYING.replace("{", '{"canceled", ')),
    _one("unpaid-runs-on", "a deletion will come", _RULES, _PAYING, _PAYING.replace("{", '{"unpaid", ')),
    _one("paused-runs-on", "paused is not canceled", _RULES, _PAYING, _PAYING.replace("{", '{"paused", ')),
    _one("past-due-pays", "the period has rolled", _RULES, _PAYING, _PAYING.replace("{", '{"past_due", ')),
    _one("unknown-pays", "not one of the bad ones", _RULES, "if subscription.status in PAYING:\n        if item", "if subscription.status not in KNOWN_STATUSES or subscription.status in PAYING:\n        if item"),
    _one("no-grace", "past_due has not paid", _RULES, _GRACE, _GRACE.replace("past_due", "never")),
    _one("no-leeway", "access ends with the period", _RULES, "item.period_end + rules.renewal_leeway", "item.period_end"),
    _one("endless-leeway", "the webhook will come", _RULES, "item.period_end + rules.renewal_leeway", "math.inf"),
    _one("leeway-after-a-planned-end", "every end has leeway", _RULES, "            return planned\n", "            return planned + rules.renewal_leeway\n"),
    _one("planned-end-is-a-promise", "they said until when", _RULES, "if planned is not None and planned <= item.period_end:", "if planned is not None:"),
    _one("only-the-flag", "cancel_at_period_end says it", _RULES, "    if subscription.cancel_at is not None:\n        return subscription.cancel_at\n", ""),
    _one("flag-unread", "cancel_at says it", _RULES, "return min(ends, default=None) if subscription.cancel_at_period_end else None", "return None"),
    _one("planned-end-unread", "Stripe will tell when it ends", _RULES, "    if subscription.cancel_at is not None:\n        return subscription.cancel_at\n    ends = ", "    if True:\n        return None\n    ends = "),
    _one("planned-end-forgotten-in-grace", "past_due has its own end", _RULES, "return graced if planned is None else min(planned, graced)", "return graced"),
    _one("grace-from-this-period", "the unpaid period began then", _RULES, "unpaid_since = subscription.oldest_open_invoice_at", "unpaid_since = None"),
    _one("grace-from-the-period-end", "until then it was paid", _RULES, "unpaid_since = subscription.oldest_open_invoice_at", "unpaid_since = item.period_end"),
    _one("endless-grace", "Stripe retries", _RULES, "graced = unpaid_since + rules.past_due_grace", "graced = math.inf"),
    _one("end-is-inclusive", "until means through", _RULES, "            if now < until:", "            if now <= until:"),
    _one("empty-seats-count", "an item is an item", _RULES, "if rank == NO_TIER or item.quantity == 0:", "if rank == NO_TIER:"),
    _one("first-item-only", "items[0]", _RULES, "for item in subscription.items if (span", "for item in subscription.items[:1] if (span"),
    _one("first-subscription-only", "one customer has one", _RULES, "    for subscription in facts.subscriptions:\n        spans", "    for subscription in facts.subscriptions[:1]:\n        spans"),
    _one("lowest-tier-wins", "the last to end wins", _RULES, "        if best is not None and span.rank <= best.rank:\n            continue\n", "        if best is not None:\n            continue\n"),
    _one("trial-by-date", "trial_end is ahead", _RULES, "    planned = planned_end(subscription)\n    if subscription.status in PAYING:", "    planned = planned_end(subscription)\n    if subscription.trial_end is not None and subscription.trial_end > (subscription.ended_at or 0) and subscription.status == 'canceled':\n        return subscription.trial_end\n    if subscription.status in PAYING:"),
    _one("trial-without-leeway", "a trial is over when it is", _RULES, "        late = item.period_end + rules.renewal_leeway\n", "        late = item.period_end + (0 if subscription.status == 'trialing' else rules.renewal_leeway)\n"),
    _one("pin-unread", "a lookup key names its price", _TIERS, "            (self._pinned, item.price),\n", ""),
    _one("product-unread", "prices are what is sold", _TIERS, "            (self._products, item.product),\n", ""),
    _one("no-leeway-once-an-end-is-planned", "they are leaving anyway", _RULES, "return late if planned is None else min(planned, late)", "return late if planned is None else min(planned, item.period_end)"),
    _one("one-end-for-all-items", "a subscription has a period", _RULES, "            late = item.period_end + rules.renewal_leeway\n", "            late = max(one.period_end or 0 for one in subscription.items) + rules.renewal_leeway\n"),
    _one("grace-on-top-of-leeway", "a renewal may be late", _RULES, "graced = unpaid_since + rules.past_due_grace", "graced = unpaid_since + rules.renewal_leeway + rules.past_due_grace"),
    _one("own-grace-unread", "there is one grace", _RULES, "return rules if own is None else replace(rules, past_due_grace=own)", "return rules"),
    _one("highest-tier-until-the-last-end", "they still pay", _RULES, "    return tuple(reversed(steps))", "    return ((steps[0][0], steps[-1][1]),) if steps else ()"),
    _one("no-open-bill-no-grace", "nothing is owed", _RULES, "            unpaid_since = item.period_start\n", "            return None\n"),
    _one("seats-of-one-item", "a tier has one price", _RULES, "best = replace(best, quantity=(best.quantity or 0) + span.quantity)", "best = replace(best, quantity=span.quantity)"),
    _one("product-decides-first", "a product is what is sold", _TIERS, "            (self._prices, item.price),\n", "            (self._products, item.product),\n            (self._prices, item.price),\n"),
    _one("lookup-key-unread", "prices have ids", _TIERS, "            (self._lookup_keys, item.lookup_key),\n", ""),
)  # fmt: skip

READINGS: Final = (
    _one("grace-from-the-newest-bill", "the last bill is what they owe", _FETCH, "since = invoices[0].owed_since", "since = invoices[-1].owed_since"),
    _one("grace-from-each-retry", "a retry is a new chance", _OBJECTS, '    owed_since = moment(source, "due_date", what)\n', '    owed_since = moment(source, "next_payment_attempt", what) or moment(source, "due_date", what)\n'),
    _one("due-date-unread", "a bill is owed when it is made", _OBJECTS, '    owed_since = moment(source, "due_date", what)\n', "    owed_since = None\n"),
    _one("canceled-at-is-the-end", "canceled_at says when", _OBJECTS, 'cancel_at=moment(source, "cancel_at", what),', 'cancel_at=moment(source, "canceled_at", what) or moment(source, "cancel_at", what),'),
    _one("older-period-unread", "the period is on the item", _OBJECTS, 'moment(subscription, "current_period_end", what) if period_end is None else period_end', "period_end"),
    _one("newer-period-unread", "the period is on the subscription", _OBJECTS, 'moment(subscription, "current_period_end", what) if period_end is None else period_end', 'moment(subscription, "current_period_end", what)'),
    _one("plan-unread", "every item has a price", _OBJECTS, 'item.get("price") if isinstance(item.get("price"), dict) else item.get("plan")', 'item.get("price")'),
    _one("pending-update-counts", "they have asked for it", _OBJECTS, '    listed = child(source, "items")\n', '    pending = child(source, "pending_update").get("subscription_items")\n    listed = {"data": pending} if pending else child(source, "items")\n'),
    _one("paused-collection-pauses", "paused is paused", _OBJECTS, "        status=status,\n        items=", '        status="paused" if source.get("pause_collection") else status,\n        items='),
    _one("ten-items", "the list is the list", _FETCH, "if subscription.has_more_items:", "if False:"),
    _one("one-subscription", "limit: 1", _CLIENT, '                    if page.get("has_more") is not True:', '                    if path == "/v1/subscriptions":\n                        return tuple(found[:1])\n                    if page.get("has_more") is not True:'),
    _one("cancel-by-customer", "a deletion is the customer's end", _FETCH, "subscriptions=tuple(subscription.fact for subscription in found),", 'subscriptions=() if any(one.fact.status == "canceled" for one in found) else tuple(one.fact for one in found),'),
    _one("deleted-keeps", "a customer that is gone changes nothing", _FETCH, "        return Fetched((), {}, deleted=True)\n", '        return Failed("it is gone")\n'),
    _one("grace-from-anybodys-bill", "open bills are theirs", _FETCH, 'query = {"subscription": subscription, "status": "open"}', 'query = {"status": "open"}'),
    Mutant("paid-bills-are-owed", "a bill is a bill", (
        Edit(_FETCH, 'query = {"subscription": subscription, "status": "open"}', 'query = {"subscription": subscription}'),
        Edit(_FETCH, 'still_open = (invoice for invoice in invoices if invoice.status == "open")', "still_open = iter(invoices)"),
    )),
)  # fmt: skip

OPTIONS: Final = (
    _one("active-is-paid", "active is good standing", _RULES, "if rules.require_paid_invoice and _is_unpaid(subscription):", "if False:"),
    _one("first-period-is-on-credit", "they have just begun", _RULES, "if item.period_start is None or item.period_start <= subscription.created:", "if item.period_start is None:"),
    _one("unpaid-at-once", "what isn't paid isn't paid", _RULES, "            late = item.period_start + rules.renewal_leeway\n", "            late = item.period_start\n"),
    _one("a-bill-that-went-out-is-paid", "it is on its way", _RULES, 'subscription.latest_invoice not in {None, "paid"}', 'subscription.latest_invoice not in {None, "paid", "open"}'),
    _one("void-is-settled", "nothing is owed any more", _RULES, 'subscription.latest_invoice not in {None, "paid"}', 'subscription.latest_invoice not in {None, "paid", "void"}'),
    _one("latest-is-last-of-the-list", "lists are in order", _PAYMENTS, "status_of_latest(gateway, fact, invoices,", "status_of_latest(gateway, fact, invoices[::-1],"),
    _one("void-change-is-owed", "an invoice is an invoice", _LATEST, 'if status == "void":', "if False:"),
    _one("pending-change-is-owed", "the newest invoice is what they have", _LATEST, 'if status == "open" and is_change_pending:', "if False:"),
    _one("two-answers-of-two-moments", "a look is one moment", _PAYMENTS, "if named is not None and invoices and", "if False and invoices and"),
    _one("refund-unread", "a refund changes no status", _RULES, "(rules.revoke_on_refund and subscription.refunded) or ", ""),
    _one("part-refunds-count", "money went back", _PAYMENTS, 'bool(charges) and all(charge.get("refunded") is True for charge in charges)', 'any(charge.get("amount_refunded") for charge in charges)'),
    _one("refund-of-the-first-bill", "what they paid", _PAYMENTS, 'paid = (one for one in invoices if one.get("status") == "paid")', 'paid = (one for one in [*invoices][::-1] if one.get("status") == "paid")'),
    _one("dispute-unread", "the bank will see", _RULES, " or (rules.revoke_on_dispute and subscription.disputed)", ""),
    _one("disputed-is-disputed", "charge.disputed says it", _PAYMENTS, "if any(status not in _NOT_TAKEN_BACK and not status.startswith(_INQUIRY) for status in statuses):", "if statuses:"),
    _one("inquiries-count", "a dispute is a dispute", _PAYMENTS, "if any(status not in _NOT_TAKEN_BACK and not status.startswith(_INQUIRY) for status in statuses):", "if any(status not in _NOT_TAKEN_BACK for status in statuses):"),
    _one("lost-is-over", "a closed dispute is closed", _PAYMENTS, 'frozenset({"won", "prevented"})', 'frozenset({"won", "lost", "prevented"})'),
    _one("ten-features", "the list is the list", _PAYMENTS, "for entry in listed)", "for entry in listed[:10])"),
    _one("features-unread", "tiers have the features", _RULES, "if rules.features_from_stripe and facts.features:", "if False:"),
    _one("features-for-ever", "Stripe grants them", _RULES, "paid_until = max(ends, default=-math.inf)", "paid_until = FOREVER"),
    _one("features-need-a-tier", "who has no tier has nothing", _RULES, "    for until, standing in (*steps, (FOREVER, floor)):\n", "    for until, standing in steps:\n"),
)  # fmt: skip

PIPELINE: Final = (
    _payload("last-write-wins", "the payload is the state", ""),
    _payload("newest-second-wins", "created orders events; a tie is old", 'if about.get("id") not in kept or kept[str(about.get("id"))][0] < event.get("created"):\n            '),
    _one("duplicate-is-done", "it was received before", _WEBHOOK, 'if stored.status == "duplicate_done":', 'if stored.status != "new":'),
    _one("acknowledged-and-dropped", "200, it was only a 429", _WEBHOOK, "            await self._inbox.mark_doubted(self._pair, envelope.event_id, self._wall())\n", '            await self._inbox.mark(self._pair, envelope.event_id, "done", "tried", self._wall())\n'),
    _one("unlocked-fetch-latest", "what was fetched is the latest", _LEDGER, "if row is None or row.ticket != ticket.number or row.written_ticket >= ticket.number:", "if row is None:"),
    _one("settles-what-came-meanwhile", "a fetch answers all events", _LEDGER, "            await settle(connection, pair, ticket.event_ids)\n", "            await settle(connection, pair, await pending_for(connection, pair, ticket.stripe_customer))\n"),
    _one("link-moves", "the newest claim is right", _LEDGER, "            if owner is not None:\n", "            if False:\n"),
    Mutant("unknown-customer-ignored", "200, not ours", (
        Edit(_SYNC, "        if isinstance(fetched, Failed) or fetched.own_claim or", "        if True or isinstance(fetched, Failed) or fetched.own_claim or"),
        Edit(_WORK, "        if claim is not None:\n", "        if False:\n"),
    )),
    _one("only-subscription-metadata", "metadata is copied everywhere", _FETCH, "        own_claim=own.claim,\n", "        own_claim=None,\n"),
    _one("any-mode", "a valid signature is enough", _WEBHOOK, "if envelope.livemode != self._pair.livemode:", "if False:"),
    _one("any-account", "a valid signature is enough", _WEBHOOK, "if envelope.account not in {None, self._pair.account}:", "if False:"),
    _one("thin-unread", "events carry their object", _ENVELOPE, 'if kind == "v2.core.event":', 'if kind == "v3":'),
    _one("first-page-of-events", "a hundred is plenty", _RECONCILE, 'if page.get("has_more") is not True:', "if True:"),
    _one("no-catch-up", "webhooks arrive", _RECONCILE, "        if not fresh:\n", "        if True:\n"),
    _one("deletions-unheard", "nobody deletes customers", _ENVELOPE, '_LOOK_EXACTLY: Final = frozenset({"customer.created", "customer.updated", "customer.deleted"})', "_LOOK_EXACTLY: Final = frozenset()"),
    _one("future-is-fine", "only what is old is replayed", _SIGNATURE, "if abs(skew) > TOLERANCE_SECONDS:", "if skew > TOLERANCE_SECONDS:"),
    _one("old-is-fine", "the signature fits", _SIGNATURE, "if abs(skew) > TOLERANCE_SECONDS:", "if -skew > TOLERANCE_SECONDS:"),
    _one("decoy-counts", "any scheme will do", _SIGNATURE, 'elif name == "v1":', 'elif name in ("v0", "v1"):'),
    _one("one-secret", "an endpoint has one secret", _SIGNATURE, "    for secret in secrets:\n", "    for secret in secrets[:1]:\n"),
    _one("one-signature", "a header has one signature", _SIGNATURE, "for signature in signatures)", "for signature in signatures[:1])"),
    _one("end-unheard", "updated says it all", _ENVELOPE, "    return event_type.startswith(_LOOK) or", '    return (event_type.startswith(_LOOK) and not event_type.endswith(("deleted", "updated"))) or'),
    _one("claimed-before-done", "so that it is done once", _WEBHOOK, "stored = await self._inbox.store(self._row(envelope, wall_now), wall_now)\n", 'stored = await self._inbox.store(self._row(envelope, wall_now), wall_now, status="done", outcome="claimed")\n'),
    _one("insert-and-see", "an id comes once", _INBOX, "on_conflict_do_nothing().returning(inbox.c.seq)", "returning(inbox.c.seq)"),
    _one("twin-that-waits-counts", "its twin is here", _INBOX, 'twin, inbox.c.status == "done").limit(1)', "twin).limit(1)"),
    _one("cursor-moves-anyway", "read up to now", _RECONCILE, "        if isinstance(read, NotCaughtUp):\n            return read\n        newest", "        if isinstance(read, NotCaughtUp):\n            await self._meta.set(self._meta_key, str(stripe_now))\n            return read\n        newest"),
    _one("one-stripe-customer", "one customer is one customer", _STORED, "subscriptions.setdefault(customer, []).extend(decode_subscriptions(text))", "subscriptions.setdefault(customer, list(decode_subscriptions(text)))"),
    _one("metadata-moves", "the merchant's word is right", _LEDGER, '                if values["customer"] is None:\n', "                if True:\n"),
    _one("context-unread", "thin events have no account", _ENVELOPE, 'return identifier(context.rsplit("/", 1)[-1])', "return None"),
    _one("unsigned-is-fine", "the address is secret", _SIGNATURE, "    if not matches:\n", "    if False:\n"),
)  # fmt: skip

MUTANTS: Final = RULES + READINGS + OPTIONS + PIPELINE
