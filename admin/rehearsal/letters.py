"""What may lie in the gateway's letter box: Stripe's own letters, under any secret that is in use, and those of others.

It decides how a body is signed and what a stranger would try. It must never know how a signature is checked.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Final

from admin.simulator.delivery import sign

SECRET: Final = "whsec_rehearsal"
NEXT_SECRET: Final = "whsec_rehearsal_rolled"
ROLLS: Final = ((SECRET,), (SECRET, NEXT_SECRET), (NEXT_SECRET, SECRET), (NEXT_SECRET,))
"""What the gateway may know while a webhook's secret is rolled."""

_STRANGERS: Final = "whsec_of_somebody_else"
_TOLERANCE: Final = 300
_DAY: Final = 86_400


def signature(body: bytes, at: int, known: tuple[str, ...], chance: random.Random) -> str:
    """As Stripe signs: by every secret that it holds, of which the gateway knows at least one, with decoys between."""
    signers = {chance.choice(known)}
    if chance.random() < 0.4:
        signers |= {SECRET, NEXT_SECRET}
    first, *more = chance.sample(sorted(signers), len(signers))
    header = sign(body, first, at, *more)
    return header if chance.random() < 0.8 else f"{header},v0={'0' * 64}"


def forged(body: bytes, at: int, known: tuple[str, ...], chance: random.Random) -> tuple[str, bytes, str | None]:
    """What it is, and a delivery that Stripe never made, or made at another time. None of them may be believed."""
    own, away = chance.choice(known), _TOLERANCE + chance.choice([1, 60, _DAY])
    good = sign(body, own, at)
    forgeries: tuple[Callable[[], tuple[str, bytes, str | None]], ...] = (
        lambda: ("a replay from the past", body, sign(body, own, at - away)),
        lambda: ("a letter from the future", body, sign(body, own, at + away)),
        lambda: ("a decoy signature", body, good.replace("v1=", "v0=")),
        lambda: ("a stranger's secret", body, sign(body, _STRANGERS, at)),
        lambda: ("a letter that was changed", body.replace(b'"created": ', b'"created": 1'), good),
        lambda: ("no signature", body, None),
        lambda: ("a signature that is none", body, f"t={at},v1=\xe9"),
        lambda: ("the time of another letter", body, good.replace(f"t={at}", f"t={at - 1}")),
    )
    return chance.choice(forgeries)()


def of_another(body: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Whose it is, and a letter that Stripe did send: of the other mode, or of an account that isn't ours."""
    letter = json.loads(body)
    is_thin = letter["object"] != "event"
    letter["id"] = f"{letter['id']}_foreign_{chance.getrandbits(32):08x}"
    if chance.random() < 0.5:
        letter["livemode"] = not letter["livemode"]
        return "of the other mode", json.dumps(letter).encode()
    letter["context" if is_thin else "account"] = "acct_somebody_elses"
    return "of another account", json.dumps(letter).encode()


def event_id(body: bytes) -> str:
    """The id under which the inbox would keep it."""
    return str(json.loads(body)["id"])
