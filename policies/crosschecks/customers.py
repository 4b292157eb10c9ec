"""Whether the customers of two issuers can be one: two issuers' ``sub: 42`` are two people (docs/design.md, section 3).

`{iss}` is a constant of its issuer, so what every customer of an issuer begins and ends with is known at load.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_CLAIM: Final = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Ends:
    """What every customer of one issuer begins and ends with."""

    prefix: str
    suffix: str

    def may_meet(self, other: Ends) -> bool:
        """Whether one name could be a customer of both."""
        begins_alike = self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix)
        ends_alike = self.suffix.endswith(other.suffix) or other.suffix.endswith(self.suffix)
        return begins_alike and ends_alike


def is_template(setting: str) -> bool:
    """Whether `customer` is a text with claims in braces, not the name of one claim."""
    return "{" in setting or "}" in setting


def ends_of(setting: str, issuer: str) -> Ends | str:
    """The fixed ends of a `customer` setting, or what is wrong with it."""
    if not setting.strip():
        return "is empty; name a claim, such as sub"
    if not is_template(setting):
        return Ends("", "")
    words = _CLAIM.split(setting)  # text, claim, text, …, claim, text
    if any(brace in word for word in words[::2] for brace in "{}"):
        return "has a brace without its counterpart, or nothing between two; write {iss}|{sub}"
    claims = words[1::2]
    # A NUL can't be in a template that was read, so it marks where a claim of the token stands.
    filled = "".join(
        word if position % 2 == 0 else issuer if word == "iss" else "\0" for position, word in enumerate(words)
    )
    if all(claim == "iss" for claim in claims):
        return "holds no claim of the token but {iss}, so all callers would be one customer; add one, such as {sub}"
    if "\0\0" in filled:
        return "joins two claims without a text between them, so two callers could be one customer; part them, as in {org}|{sub}"
    return Ends(filled.partition("\0")[0], filled.rpartition("\0")[2])
