"""Which customer a verified token speaks for.

It decides how the `customer` setting of an issuer is read: a claim's name (`sub`, `app.org.id`), or a template with
claims in braces (`{iss}|{sub}`, `acme:{sub}`). It must never give two different sets of claims one name: the first of two
joined claims may not hold the text that parts them, or `a` + `b|c` would be the customer `a|b` + `c`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from gateway.credentials.outcomes import Flaw, Unauthenticated, invalid
from policies.caller import customer_problem

_FIELD: Final = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Claim:
    """A place in the template that a claim of the token fills."""

    name: str


@dataclass(frozen=True, slots=True)
class CustomerRule:
    """A compiled `customer` setting: literal text and claims in turn, never two claims without text between them."""

    parts: tuple[str | Claim, ...]

    @property
    def prefix(self) -> str:
        """What every customer of this issuer begins with."""
        return self.parts[0] if isinstance(self.parts[0], str) else ""

    @property
    def suffix(self) -> str:
        """What every customer of this issuer ends with."""
        return self.parts[-1] if isinstance(self.parts[-1], str) else ""

    def overlaps(self, other: CustomerRule) -> bool:
        """Whether some customer's name could come from either rule."""
        prefixes_meet = self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix)
        suffixes_meet = self.suffix.endswith(other.suffix) or other.suffix.endswith(self.suffix)
        return prefixes_meet and suffixes_meet

    def customer(self, claims: dict[str, Any]) -> str | Unauthenticated:
        """The customer that these claims name."""
        words: list[str] = []
        for position, part in enumerate(self.parts):
            if isinstance(part, str):
                words.append(part)
                continue
            value = claim_at(claims, part.name)
            if value is None:
                return invalid(f"The token has no claim '{part.name}', which names the customer.")
            problem = customer_problem(value)
            if problem is not None:
                return invalid(f"The token's claim '{part.name}', which names the customer, {problem}.")
            separator = self._separator_after(position)
            # Found at the value's end and no sooner, so that splitting at the first separator gives the value back.
            if separator and (value + separator).find(separator) != len(value):
                return invalid(f"The token's claim '{part.name}' holds the text that parts it from the next claim.")
            words.append(value)
        name = "".join(words)
        problem = customer_problem(name)
        return name if problem is None else invalid(f"The customer that the token names {problem}.")

    def claims_for(self, customer: str) -> dict[str, str] | None:
        """The claims that name this customer, or None where no token of this issuer could."""
        fits = len(customer) > len(self.prefix) + len(self.suffix)
        if not (fits and customer.startswith(self.prefix) and customer.endswith(self.suffix)):
            return None
        rest = customer[len(self.prefix) : len(customer) - len(self.suffix)]
        found: dict[str, str] = {}
        for position, part in enumerate(self.parts):
            if isinstance(part, str):
                continue
            separator = self._separator_after(position)
            value, parted, rest = rest.partition(separator) if separator else (rest, "", "")
            if parted != separator or found.setdefault(part.name, value) != value:
                return None
        return found

    def _separator_after(self, position: int) -> str:
        """The text between this claim and the next one; empty after the last."""
        following = self.parts[position + 1 : position + 3]
        return following[0] if len(following) == 2 and isinstance(following[0], str) else ""


def claim_at(claims: dict[str, Any], name: str) -> Any | None:
    """The claim of that very name, else the one that its dots lead to; None when there is none."""
    if name in claims:
        return claims[name]
    node: Any = claims
    for step in name.split("."):
        if not isinstance(node, dict):
            return None
        node = node.get(step)
    return node


def compile_customer(setting: str, issuer: str) -> CustomerRule | Flaw:
    """The rule that `setting` spells for tokens of `issuer`, whose name is a constant of it."""
    template = setting if "{" in setting or "}" in setting else f"{{{setting}}}"
    words = _FIELD.split(template)  # literal, name, literal, name, …, literal
    parts: list[str | Claim] = []
    for position, word in enumerate(words):
        is_name = position % 2 == 1
        if not is_name and ("{" in word or "}" in word):
            return Flaw("has a brace without its counterpart, or nothing between two")
        piece = Claim(word) if is_name and word != "iss" else issuer if is_name else word
        if isinstance(piece, str) and parts and isinstance(parts[-1], str):
            parts[-1] += piece
        elif piece != "":
            if isinstance(piece, Claim) and parts and isinstance(parts[-1], Claim):
                return Flaw("joins two claims without text between them, so two customers could get one name")
            parts.append(piece)
    if not any(isinstance(part, Claim) for part in parts):
        return Flaw("holds no claim of the token but the issuer, so every caller would be one customer")
    return CustomerRule(tuple(parts))
