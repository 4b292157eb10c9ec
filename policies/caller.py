"""Who is calling, once a credential has been verified; handed on in the ASGI scope under `SCOPE_KEY`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SCOPE_KEY: Final = "gateway.caller"
LONGEST_CUSTOMER: Final = 255
MADE_UP: Final = "somebody"
"""What a customer is called who is made up for a question."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One verified caller. `expires_at` is the credential's own end, in UTC seconds.

    `key_id` is the public id of an API key, None for a token. `scopes` are those that the credential was granted; None is
    none. Of a token's `claims` only those are kept that some route asks for. Somebody who is made up for a question
    holds whatever is asked for.
    """

    customer: str
    issuer: str
    expires_at: int
    key_id: str | None = None
    scopes: tuple[str, ...] | None = None
    claims: tuple[tuple[str, tuple[str, ...]], ...] = ()
    is_made_up: bool = False


def customer_problem(customer: object) -> str | None:
    """What keeps `customer` from naming a customer, or None: 1 to 255 printable characters (docs/design.md, section 3)."""
    if not isinstance(customer, str):
        return "is not a string"
    if not customer:
        return "is empty"
    if len(customer) > LONGEST_CUSTOMER:
        return f"is longer than {LONGEST_CUSTOMER} characters"
    if not customer.isprintable():
        return "has characters that can't be printed"
    return None
