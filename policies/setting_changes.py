"""Which settings beside the routes two gateway.yaml differ in, and whether that may take access from somebody.

It walks the whole schema, so a setting that is added there is compared without a word here. What a difference does is
in `_EFFECTS`, by the setting's name; a setting that isn't named there `differs`. It must never show a secret: of
those it says only that they changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from policies.effective import MASK, written
from policies.schema import Config

_ABSENT: Final = "-"
_COMPARED_ELSEWHERE: Final = frozenset({"routes", "default", "tests", "run_tests_at_load"})
"""Routes and the default are judged request by request (`policies.access_diff`); tests change nothing for anybody."""
_NAMED_BY: Final = {"tiers": "name", "issuers": "issuer"}
"""What tells the entries of a list apart."""
_RANKED: Final = frozenset({"tiers"})
"""The order of these says something."""


class Effect(StrEnum):
    """What a change does to somebody."""

    LOSES = "loses"
    GAINS = "gains"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting, as it is written; `-` where it has no value."""

    name: str
    before: str
    after: str
    effect: Effect


def setting_changes(old: Config, new: Config) -> Iterator[SettingChange]:
    """Every setting that differs, in the order of the schema."""
    before, after = dict(_settings(old)), dict(_settings(new))
    # What only one of them has is of an issuer, a tier or an upstream that the other doesn't: their list says so.
    for name in (name for name in before if name in after):
        was, is_now = before[name], after[name]
        if was.value != is_now.value:
            shown = (was.shown, is_now.shown) if was.shown != is_now.shown else (MASK, f"another {MASK}")
            yield SettingChange(name, *shown, _effect(name, was.value, is_now.value))


@dataclass(frozen=True, slots=True)
class _Setting:
    value: Any
    shown: str


def _settings(config: Config) -> Iterator[tuple[str, _Setting]]:
    for name in Config.model_fields:
        if name not in _COMPARED_ELSEWHERE:
            yield from _flat(name, config, name)


def _flat(path: str, model: BaseModel, name: str) -> Iterator[tuple[str, _Setting]]:
    value = getattr(model, name)
    if isinstance(value, BaseModel):
        for inner in type(value).model_fields:
            yield from _flat(f"{path}.{inner}", value, inner)
    elif isinstance(value, dict) and any(isinstance(entry, BaseModel) for entry in value.values()):
        yield path, _Setting(sorted(value), _listed(list(value)))
        for key, entry in value.items():
            yield from _entry(f"{path}.{key}", entry)
    elif name in _NAMED_BY:
        names = [getattr(entry, _NAMED_BY[name]) for entry in value]
        yield path, _Setting(names if name in _RANKED else sorted(names), _listed(names))
        for known_as, entry in zip(names, value, strict=True):
            yield from _entry(f"{path}[{known_as}]", entry)
    else:
        yield path, _Setting(_plain(value), _listed(written(model, name)))


def _entry(path: str, entry: BaseModel) -> Iterator[tuple[str, _Setting]]:
    for inner in type(entry).model_fields:
        yield from _flat(f"{path}.{inner}", entry, inner)


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value


def _listed(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return _ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_listed(inner)}' for key, inner in value.items())}}}"
    return str(value)


def _effect(name: str, before: Any, after: Any) -> Effect:
    for pattern, effect in _EFFECTS:
        if pattern.fullmatch(name):
            return effect(before, after)
    return Effect.DIFFERS


def _more_is_kinder(before: float | None, after: float | None) -> Effect:
    return Effect.LOSES if (after or 0) < (before or 0) else Effect.GAINS


def _less_is_stricter(before: float | None, after: float | None) -> Effect:
    """As `_more_is_kinder`, where no value is no bound."""
    return Effect.LOSES if before is None or (after is not None and after < before) else Effect.GAINS


def _set_is_stricter(before: bool | None, after: bool | None) -> Effect:
    return Effect.LOSES if after and not before else Effect.GAINS


def _set_is_kinder(before: bool | None, after: bool | None) -> Effect:
    return _set_is_stricter(after, before)


def _each_is_taken(before: Sequence[str] | None, after: Sequence[str] | None) -> Effect:
    """Of a list of what is taken, in any order."""
    gone, come = set(before or ()) - set(after or ()), set(after or ()) - set(before or ())
    return Effect.LOSES if gone else Effect.GAINS if come else Effect.DIFFERS


def _each_is_asked(before: dict[str, Sequence[str]] | None, after: dict[str, Sequence[str]] | None) -> Effect:
    """Of claims that must hold, each with the values that will do."""
    was, is_now = before or {}, after or {}
    asks_more = any(name not in was or not set(was[name]) <= set(values) for name, values in is_now.items())
    return Effect.LOSES if asks_more else Effect.GAINS


def _a_tiers_grace(before: float | None, after: float | None) -> Effect:
    """Without one the tier has that of all, which isn't known here."""
    return Effect.LOSES if before is None or after is None else _more_is_kinder(before, after)


def _loses(_before: object, _after: object) -> Effect:
    return Effect.LOSES


_Effects = tuple[tuple[str, Callable[[Any, Any], Effect]], ...]
_TABLE: Final[_Effects] = (
    (r"billing\.(renewal_leeway|past_due_grace)", _more_is_kinder),
    (r"billing\.(require_paid_invoice|revoke_on_refund|revoke_on_dispute)", _set_is_stricter),
    (r"billing\.features_from", _loses),
    (r"auth\.token_from", _each_is_taken),
    (r"auth\.issuers", _each_is_taken),
    (r"auth\.issuers\[.*\]\.(audience|algorithms|types)", _each_is_taken),
    (r"auth\.issuers\[.*\]\.claims", _each_is_asked),
    (r"auth\.issuers\[.*\]\.max_age", _less_is_stricter),
    (r"auth\.issuers\[.*\]\.leeway", _more_is_kinder),
    (r"auth\.issuers\[.*\]\.(jwks_url|discovery|public_key|secret|customer|token_from)", _loses),
    (r"auth\.api_keys\.enabled", _set_is_kinder),
    (r"auth\.api_keys\.header", _loses),
    (r"tiers\[.*\]\.past_due_grace", _a_tiers_grace),
    (r"cache\.max_stale|streams\.grace", _more_is_kinder),
)
_EFFECTS: Final = tuple((re.compile(pattern), effect) for pattern, effect in _TABLE)
