"""What an API key looks like, and how one is known again without being kept.

    gw_7Hq2mXk0bTzE_9fKd…(32 characters)…Lw3Zp1Qx
    ──              ──                      ──────
    prefix, id      secret                  checksum

The id is public: it finds the record and stands in lists. The secret is 32 characters of base62, 190 bits. The checksum
is the CRC-32 of everything before it, so that a scanner of source code, and this gateway, know a key from what only looks
like one without asking anybody (GitHub's tokens do the same since 2021). It guards against slips, not against malice.

It decides what is a key at all. It must never be given a key to keep: what is stored is `digest_of` it (P9).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

PREFIX: Final = "gw_"
ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 32
CHECKSUM_LENGTH: Final = 6
KEY_LENGTH: Final = len(PREFIX) + ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH

KEY_PATTERN: Final = rf"\bgw_[0-9A-Za-z]{{{ID_LENGTH}}}_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}\b"
"""For scanners of source code; the checksum tells the rest."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY: Final = re.compile(KEY_PATTERN.replace(r"\b", "").encode())
_SECRET: Final = re.compile(rf"({PREFIX}[0-9A-Za-z]{{{ID_LENGTH}}}_)[0-9A-Za-z]+")
_ID: Final = re.compile(rf"[0-9A-Za-z]{{{ID_LENGTH}}}", re.ASCII)
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")
"""A scope-token of RFC 6749, section 3.3."""

MOST_SCOPES: Final = 50


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that has just been made: shown to its owner once, and to nobody after that."""

    id: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What the ledger holds of a key, as a request is judged by it. Times are UTC seconds.

    `scopes` None: not narrowed. `version` is the customer's when this was read: a change with a higher one outdates it.
    """

    id: str
    customer: str
    digest: str = field(repr=False)
    scopes: tuple[str, ...] | None
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    version: int


def make_key(randbelow: Callable[[int], int]) -> ApiKey:
    """A new key. `randbelow` gives unpredictable numbers below its argument, as `secrets.randbelow` does."""
    key_id = "".join(_ALPHABET[randbelow(62)] for _ in range(ID_LENGTH))
    secret = "".join(_ALPHABET[randbelow(62)] for _ in range(SECRET_LENGTH))
    body = f"{PREFIX}{key_id}_{secret}"
    return ApiKey(key_id, body + _checksum(body.encode()))


def key_id_of(text: bytes) -> str | None:
    """The id in a whole and well-formed key, None for anything else."""
    if len(text) != KEY_LENGTH or _KEY.fullmatch(text) is None:
        return None
    if _checksum(text[:-CHECKSUM_LENGTH]).encode() != text[-CHECKSUM_LENGTH:]:
        return None
    return text[len(PREFIX) : len(PREFIX) + ID_LENGTH].decode()


def is_key_id(text: str) -> bool:
    """Whether this could be a key's id."""
    return _ID.fullmatch(text) is not None


def shown(key_id: str) -> str:
    """How a key is named wherever the key itself may not stand."""
    return f"{PREFIX}{key_id}"


def masked(text: str) -> str:
    """`text` with the secret of every key in it left out, for what is repeated or written down (P9)."""
    return _SECRET.sub(r"\1…", text) if PREFIX in text else text


def digest_of(hash_key: bytes, text: bytes) -> str:
    """HMAC-SHA256 in hex. A fast hash is enough: nobody guesses 190 random bits, unlike a password."""
    return hmac.digest(hash_key, text, hashlib.sha256).hex()


def is_same_digest(one: str, other: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def scopes_problem(scopes: tuple[str, ...]) -> str | None:
    """What keeps these from narrowing a key, as a predicate; or None."""
    if not scopes:
        return "are an empty list; leave them out for a key that is not narrowed"
    if len(scopes) > MOST_SCOPES:
        return f"are more than {MOST_SCOPES}"
    if len(set(scopes)) < len(scopes):
        return "name one twice"
    if not all(_SCOPE.fullmatch(scope) for scope in scopes):
        return 'must each be 1 to 100 visible ASCII characters without " and \\'
    return None


def _checksum(body: bytes) -> str:
    number, digits = crc32(body), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits
