"""How far a route is enforced: `on`, `observe`, `off`, or for a percentage of its customers.

It decides for whom a refusal stands. It must never look at a request, draw lots, or change with the time: one customer
always gets one answer from one route, and whoever is refused at 25% is refused at 50%.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Final

from policies.caller import MADE_UP

_PERCENT: Final = re.compile(r"([0-9]{1,3})%")
_HASH_BITS: Final = 64


class Mode(Enum):
    """What becomes of a request that the route would refuse."""

    ON = "on"
    SHARE = "share"
    OBSERVE = "observe"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Enforcement:
    """One route's. `percent` is how many of its customers are refused what they may not have; `key` is the route's own."""

    mode: Mode
    percent: int = 100
    key: str = ""

    @property
    def refuses_anybody(self) -> bool:
        """Whether somebody known may meet a refusal here."""
        return self.percent > 0

    @property
    def refuses_everybody(self) -> bool:
        """Whether all that the route asks for is asked of all."""
        return self.mode is Mode.ON

    @property
    def judges(self) -> bool:
        """Whether anybody looks at who is calling."""
        return self.mode is not Mode.OFF

    def binds(self, customer: str | None) -> bool:
        """Whether a refusal of this customer stands. Nobody known (None) is in no share: there is nothing to tell them by.

        Somebody made up for a question is in every share: they stand for those of whom a rule is asked.
        """
        if self.mode is not Mode.SHARE or customer == MADE_UP:
            return self.percent > 0
        if customer is None:
            return False
        digest = sha256(f"{self.key}\0{customer}".encode()).digest()
        return int.from_bytes(digest[: _HASH_BITS // 8], "big") * 100 < self.percent << _HASH_BITS

    def __str__(self) -> str:
        return f"{self.percent}%" if self.mode is Mode.SHARE else self.mode.value


ENFORCED: Final = Enforcement(Mode.ON)
_WHOLE: Final = {
    "on": ENFORCED,
    "observe": Enforcement(Mode.OBSERVE, 0),
    "off": Enforcement(Mode.OFF, 0),
}
ENFORCE_PATTERN: Final = r"^(on|observe|off|[1-9][0-9]?%)$"


def parse_enforcement(text: str, key: str = "") -> Enforcement:
    """What `enforce` says. Raises ValueError, as a predicate, for what it can't say."""
    if (known := _WHOLE.get(text)) is not None:
        return known
    parts = _PERCENT.fullmatch(text)
    if parts is None:
        raise ValueError("is not on, observe, off or a percentage such as 25%")
    percent = int(parts[1])
    if not 0 < percent < 100:
        raise ValueError("is no part of the customers; write observe for none of them, on for all, or 1% to 99%")
    return Enforcement(Mode.SHARE, percent, key)
