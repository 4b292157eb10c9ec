"""The configuration in force as ``gateway check --print`` shows it: every default filled in, every secret masked."""

from __future__ import annotations

import re
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from policies.schema import Config, Duration, Route, Size
from policies.units import format_duration, format_size

MASK: Final = "********"

_PASSWORD: Final = re.compile(r"^([a-z]+://(?:[^:@/]*:)?).*(?=@)", re.DOTALL)
"""Up to the last '@', wherever it is: a password may hold what should have been escaped. A user alone may be a token."""
_URLS: Final = frozenset({"database", "redis"})


def effective(config: Config) -> dict[str, Any]:
    """Plain values under the keys of the schema, fit for JSON; keys without a value are left out."""
    return _shown(config)


def effective_defaults(model: type[BaseModel]) -> dict[str, Any]:
    """What each single value of `model` is when it is left out, as it is written; for the JSON Schema."""
    found = {name: _written(declared, declared.default) for name, declared in model.model_fields.items()}
    return {name: value for name, value in found.items() if isinstance(value, str | int)}


def effective_yaml(config: Config) -> str:
    """The same as a gateway.yaml, which loads again but for what is masked."""
    return yaml.safe_dump(_dollars_doubled(effective(config)), sort_keys=False, allow_unicode=True, width=120)


def _shown(model: BaseModel) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        # An empty list of methods says "none" where it is written, and "all" where it is left out.
        if value is None or (isinstance(model, Route) and value in ((), {})):
            continue
        shown[name] = written(model, name)
    return shown


def written(model: BaseModel, name: str) -> Any:
    """One setting as a plain value, masked where it is secret."""
    return _written(type(model).model_fields[name], getattr(model, name), is_url=name in _URLS)


def _written(declared: FieldInfo, value: Any, *, is_url: bool = True) -> Any:
    is_duration = declared.annotation is float and tuple(declared.metadata) == get_args(Duration)[1:]
    is_duration |= value is not None and Duration in get_args(declared.annotation)
    if value is not None and Size in get_args(declared.annotation):
        return format_size(value)
    return format_duration(value) if is_duration else _value(value, is_url=is_url)


def _value(value: Any, *, is_url: bool = False) -> Any:
    if isinstance(value, SecretStr):
        return _masked(value.get_secret_value(), is_url=is_url)
    if isinstance(value, BaseModel):
        return _shown(value)
    if isinstance(value, tuple):
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items()}
    return value


def _masked(secret: str, *, is_url: bool) -> str:
    """Of a URL the place may be read and the user; a query can hold a password too, and goes whole."""
    if not is_url or not secret:
        return MASK if secret else ""
    without_password = _PASSWORD.sub(rf"\g<1>{MASK}", secret)
    place, separator, _ = without_password.partition("?")
    return f"{place}{separator}{MASK if separator else ''}"


def _dollars_doubled(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [_dollars_doubled(item) for item in value]
    if isinstance(value, dict):
        return {key: _dollars_doubled(item) for key, item in value.items()}
    return value
