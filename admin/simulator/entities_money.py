"""What the simulated Stripe keeps of money: attempts to take it, what was paid by them, and what was taken back.

It decides which facts exist. An invoice has one payment from when it is finalized; each attempt at that is a charge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

DisputeStatus = Literal[
    "needs_response",
    "under_review",
    "won",
    "lost",
    "warning_needs_response",
    "warning_under_review",
    "warning_closed",
    "prevented",
]
ChargeStatus = Literal["succeeded", "pending", "failed"]
OPEN_DISPUTES: Final = ("needs_response", "under_review", "warning_needs_response", "warning_under_review")
"""A `warning_…` is an inquiry of the bank: no money has moved yet."""


@dataclass(slots=True)
class InvoicePayment:
    """What joins an invoice and the payment intent by which it is paid."""

    id: str
    invoice: str
    currency: str
    amount: int
    created: int
    payment_intent: str
    status: Literal["open", "paid", "canceled"] = "open"
    paid_at: int | None = None
    canceled_at: int | None = None


@dataclass(slots=True)
class Charge:
    """One attempt to take money; `failed` ones stay in the books, too."""

    id: str
    customer: str
    invoice: str
    payment_intent: str
    currency: str
    amount: int
    created: int
    status: ChargeStatus = "succeeded"
    amount_refunded: int = 0
    disputed: bool = False
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def refunded(self) -> bool:
        """Whether all of it was given back."""
        return self.status == "succeeded" and self.amount_refunded == self.amount


@dataclass(slots=True)
class Refund:
    """Money given back. Amounts add up in the charge's `amount_refunded`."""

    id: str
    charge: str
    payment_intent: str
    customer: str
    currency: str
    amount: int
    created: int
    reason: str | None
    metadata: dict[str, str]


@dataclass(slots=True)
class Dispute:
    """The cardholder's bank wants a charge back. It names no customer: only the charge does."""

    id: str
    charge: str
    payment_intent: str
    currency: str
    amount: int
    created: int
    reason: str
    status: DisputeStatus = "needs_response"
    evidence: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether it may still end one way or another."""
        return self.status in OPEN_DISPUTES

    @property
    def is_inquiry(self) -> bool:
        """Whether no money has moved."""
        return self.status.startswith("warning_")
