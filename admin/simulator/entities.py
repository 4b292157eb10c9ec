"""What the simulated Stripe keeps: one mutable record per object, as its books have it.

It decides which facts exist. It must never know how they look on the wire (`objects`) or what happens to them (`billing`).
All times are simulated UTC seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

from admin.simulator.entities_clock import TestClock
from admin.simulator.entities_features import ActiveEntitlement, EntitlementSummary, Feature, ProductFeature
from admin.simulator.entities_money import Charge, Dispute, InvoicePayment, Refund

if TYPE_CHECKING:
    from admin.simulator.periods import Interval
    from admin.simulator.wire import Json

Status = Literal["incomplete", "incomplete_expired", "trialing", "active", "past_due", "unpaid", "paused", "canceled"]
STATUSES: Final[tuple[Status, ...]] = (
    "incomplete",
    "incomplete_expired",
    "trialing",
    "active",
    "past_due",
    "unpaid",
    "paused",
    "canceled",
)
ENDED: Final[tuple[Status, ...]] = ("canceled", "incomplete_expired")
InvoiceStatus = Literal["draft", "open", "paid", "void", "uncollectible"]
Card = Literal["works", "fails", "none", "debit", "debit_bounces"]
CARDS: Final[tuple[Card, ...]] = get_args(Card)
"""How somebody pays. A `debit` of a bank account takes days, and can come back."""


@dataclass(slots=True)
class Product:
    """Something that is sold."""

    id: str
    name: str
    created: int
    updated: int
    description: str | None = None
    active: bool = True
    default_price: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Price:
    """What a product costs; one without an interval is paid once."""

    id: str
    product: str
    currency: str
    unit_amount: int
    created: int
    interval: Interval | None = "month"
    interval_count: int = 1
    lookup_key: str | None = None
    nickname: str | None = None
    active: bool = True
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Customer:
    """`card` is what happens when it is charged; who is made through the API has one that works until told otherwise."""

    id: str
    created: int
    email: str | None = None
    name: str | None = None
    description: str | None = None
    phone: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    balance: int = 0
    card: Card = "works"
    deleted: bool = False
    invoices: int = 0
    test_clock: str | None = None


@dataclass(slots=True)
class Item:
    """One line of a subscription, with a period of its own (as since API 2025-03-31)."""

    id: str
    price: str
    quantity: int
    created: int
    anchor: int
    period_start: int
    period_end: int
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class PauseCollection:
    """Invoices are not collected; status and access stay. Not to be confused with the status `paused`."""

    behavior: str
    resumes_at: int | None


@dataclass(slots=True)
class PendingUpdate:
    """A change that waits for `invoice` to be paid; until then the items are the old ones."""

    items: list[Item]
    invoice: str
    expires_at: int


@dataclass(slots=True)
class Subscription:
    """A customer who pays, or does not, for items. `owed_prorations` are lines that wait for the next invoice."""

    id: str
    customer: str
    currency: str
    created: int
    anchor: int
    items: list[Item]
    status: Status = "incomplete"
    billing_mode: str = "flexible"
    collection_method: str = "charge_automatically"
    days_until_due: int | None = None
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    latest_invoice: str | None = None
    cancel_at: int | None = None
    cancel_at_period_end: bool = False
    canceled_at: int | None = None
    ended_at: int | None = None
    cancellation_reason: str | None = None
    trial_start: int | None = None
    trial_end: int | None = None
    trial_end_announced: bool = False
    missing_payment_method: str = "create_invoice"
    pause_collection: PauseCollection | None = None
    paused_at: int | None = None
    paused_by: str | None = None
    pending_update: PendingUpdate | None = None
    owed_prorations: list[Line] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing will ever happen to it again."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an invoice."""

    id: str
    description: str
    amount: int
    period_start: int
    period_end: int
    price: str | None
    item: str | None
    quantity: int | None
    proration: bool = False


@dataclass(slots=True)
class Invoice:
    """What a subscription owes for a period."""

    id: str
    customer: str
    subscription: str
    currency: str
    created: int
    billing_reason: str
    lines: list[Line]
    period_start: int
    period_end: int
    metadata: dict[str, str]
    collection_method: str = "charge_automatically"
    status: InvoiceStatus = "draft"
    number: str | None = None
    auto_advance: bool = True
    finalizes_at: int | None = None
    next_payment_attempt: int | None = None
    due_date: int | None = None
    attempts: int = 0
    starting_balance: int = 0
    ending_balance: int | None = None
    amount_due: int = 0
    finalized_at: int | None = None
    paid_at: int | None = None
    voided_at: int | None = None
    uncollectible_at: int | None = None
    settles_at: int | None = None
    bounces: bool = False

    @property
    def total(self) -> int:
        """The sum of the lines, which a credit can make negative."""
        return sum(line.amount for line in self.lines)


@dataclass(frozen=True, slots=True)
class LineItem:
    """One line of a Checkout session."""

    id: str
    price: str
    quantity: int


@dataclass(slots=True)
class CheckoutSession:
    """A page on which somebody may pay, once."""

    id: str
    created: int
    expires_at: int
    line_items: tuple[LineItem, ...]
    success_url: str
    cancel_url: str | None
    customer: str | None
    customer_email: str | None
    client_reference_id: str | None
    metadata: dict[str, str]
    subscription_metadata: dict[str, str]
    subscription_description: str | None
    trial_days: int | None
    trial_end: int | None
    missing_payment_method: str
    payment_method_collection: str
    status: Literal["open", "complete", "expired"] = "open"
    payment_status: Literal["unpaid", "paid", "no_payment_required"] = "unpaid"
    subscription: str | None = None
    invoice: str | None = None


@dataclass(slots=True)
class PortalConfiguration:
    """What a portal offers. `products` are those to which a plan may be changed."""

    id: str
    created: int
    updated: int
    is_default: bool
    active: bool
    name: str | None
    default_return_url: str | None
    business_profile: Json
    features: Json
    products: list[Json]
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class PortalSession:
    """One visit of the Billing portal."""

    id: str
    created: int
    customer: str
    configuration: str
    return_url: str | None
    locale: str | None
    flow: Json | None


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, with the object as it was then. `number` counts all events, in order."""

    id: str
    number: int
    type: str
    created: int
    object: Json
    previous: Json | None
    request: str | None
    idempotency_key: str | None


Entity = (
    Product
    | Price
    | Customer
    | Item
    | Subscription
    | Invoice
    | CheckoutSession
    | PortalConfiguration
    | PortalSession
    | Event
    | InvoicePayment
    | Charge
    | Refund
    | Dispute
    | Feature
    | ProductFeature
    | ActiveEntitlement
    | EntitlementSummary
    | TestClock
)
