"""How one path segment may be read by servers that are less careful than RFC 3986 asks.

It decides two things about a segment whose escapes have been decoded once: whether some server would take it for
something else than a name (`..`, a separator, nothing at all), and which name the most forgiving server would read.
It must never be used to change what is forwarded: a reading is only compared.

The furthest reading of a segment undoes everything that a server behind us is known to undo:

- case (IIS, NTFS, macOS), also of letters whose lower case is ASCII: U+212A KELVIN SIGN, U+017F LONG S
- compatibility forms, accents and invisible characters (NFKC in Python and Java frameworks, "best fit" in Windows)
- path parameters: `reports;v=1` (Tomcat, Jetty, Spring)
- an escape inside an escape: `%2541` (IIS, old PHP front controllers, two proxies in a row)
- spaces around the name, dots and spaces after it (Win32 file names)
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

DEEPEST_ESCAPE: Final = 3
"""How often a segment may be escaped, the ordinary escape included. Deeper nesting has no honest use, and reading it
to its end would cost the square of its length."""

_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")

# C0, DEL and C1 controls, the separators, and the characters that Windows code pages fit to them (U+2044 FRACTION
# SLASH, U+2215 DIVISION SLASH, U+2216 SET MINUS, U+29F5, U+29F8, U+29F9).
_NEVER_IN_A_NAME: Final = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\u2044\u2215\u2216\u29f5\u29f8\u29f9]")

# What NFKD makes of a vulgar fraction holds U+2044; only a real separator in the outcome is one.
_SEPARATOR: Final = re.compile(r"[\x00-\x1f\x7f-\x9f/\\]")
ENDS_THE_PATH: Final = re.compile(r"[?#]")
_ESCAPED_DOT: Final = re.compile(r"%2[Ee]")
_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class Reading:
    """The name that the most forgiving server reads.

    `cut_short` is the same up to the first decoded `?` or `#`, for a server that decodes before it looks for the query
    (then the path ends there); None when there is neither. `has_parameters` says that a `;` ended the name.
    """

    name: str
    cut_short: str | None
    has_parameters: bool = False


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The segment can be taken for something else than a name. `detail` is fit for the caller's eyes."""

    detail: str


def lenient(segment: str) -> str:
    """What a route with a tier compares: without ASCII case, up to the first `;` (P1)."""
    name = segment.partition(";")[0]
    return name.lower() if name.isascii() else name.translate(_ASCII_LOWER)


def furthest_reading(segment: str) -> Reading | Ambiguous:
    """The furthest reading of a segment that was decoded once, or why none is safe."""
    text = segment
    if _NEVER_IN_A_NAME.search(text) is not None:
        return Ambiguous("holds an encoded separator or control character")
    for _ in range(DEEPEST_ESCAPE):
        text = _fold(text)
        if _SEPARATOR.search(text):
            return Ambiguous("holds a character that some servers read as a separator")
        name = text.partition(";")[0]
        if _is_no_name(name):
            return Ambiguous("has a segment that some servers read as '.', '..' or nothing")
        shorter = ENDS_THE_PATH.split(name, maxsplit=1)[0]
        if shorter and _is_no_name(shorter):
            return Ambiguous("has a segment that some servers read as '.' or '..'")
        if _ESCAPE.search(text) is None:
            return Reading(_trimmed(name), None if shorter == name else _trimmed(shorter), len(name) < len(text))
        decoded = decode_once(text)
        if decoded is None:
            return Ambiguous("holds a doubly encoded byte sequence that is not UTF-8")
        if _NEVER_IN_A_NAME.search(decoded) or _ESCAPED_DOT.search(text):
            return Ambiguous("holds a doubly encoded dot, separator or control character")
        text = decoded
    return Ambiguous("is encoded several times over")


def decode_once(text: str | bytes) -> str | None:
    """`text` with each escape decoded once, or None where the bytes are not UTF-8 (overlong forms and surrogates are not)."""
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _is_no_name(name: str) -> bool:
    return not name.strip(" .")


def _trimmed(name: str) -> str:
    return name.strip(" ").rstrip(" .")


def _fold(text: str) -> str:
    """Without case, compatibility forms, accents and invisible characters.

    Character by character: normalising the whole would sort combining marks, which costs the square of their number.
    """
    return text.lower() if text.isascii() else "".join(map(_fold_character, text))


@lru_cache(maxsize=4096)
def _fold_character(character: str) -> str:
    once = unicodedata.normalize("NFKD", character).casefold()
    return "".join(
        part for part in unicodedata.normalize("NFKD", once) if unicodedata.category(part) not in {"Mn", "Me", "Cf"}
    )
