"""How requests are written for Stripe: form bodies in bracket form, and errors in Stripe's shape.

It decides what a parameter means (text, number, list, table) and which sentence a wrong one gets. It must never let an
input out of here that a later step would stumble over: nothing a caller sends is a 500.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Json = dict[str, Any]
"""An object as it goes out on the wire."""

Tree = dict[str, "str | Tree"]
"""Parameters as sent: text, or a table of the same. Lists are tables whose keys are their positions."""

MOST_FIELDS: Final = 2000
DEEPEST: Final = 8
LARGEST_NUMBER: Final = 99_999_999_999
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


class ApiError(Exception):
    """An answer other than 2xx, as Stripe words it. `status` is the HTTP status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        decline_code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.decline_code = decline_code

    def body(self) -> Json:
        """The JSON that Stripe sends with it."""
        error: Json = {"message": self.message, "type": self.kind}
        for name, value in (("code", self.code), ("param", self.param), ("decline_code", self.decline_code)):
            if value is not None:
                error[name] = value
        if self.code is not None:
            error["doc_url"] = f"https://docs.stripe.com/error-codes/{self.code.replace('_', '-')}"
        return {"error": error}


def missing(noun: str, identifier: str, *, param: str = "id", status: int = 404) -> ApiError:
    """The answer for an id that names nothing: 404 in a path, 400 in a parameter."""
    return ApiError(status, f"No such {noun}: '{identifier}'", code="resource_missing", param=param)


def parse_form(text: str) -> Tree:
    """`items[0][price]=x&expand[]=y` as a tree. Raises ApiError on what can't be read."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise ApiError(400, f"The parameters can't be read: {error}") from error
    tree: Tree = {}
    for key, value in pairs:
        _plant(tree, _steps(key), key, value)
    return tree


def parse_json(body: bytes) -> Tree:
    """A JSON object as the tree that the same parameters in bracket form would give."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "The body is not JSON that can be read.") from error
    if not isinstance(value, dict):
        raise ApiError(400, "The body must be a JSON object.")
    tree = _tree_from(value, DEEPEST)
    assert isinstance(tree, dict)  # noqa: S101 - a dict gives a dict
    return tree


def _tree_from(value: object, depth: int) -> str | Tree:
    if depth == 0:
        raise ApiError(400, f"The body is nested more than {DEEPEST} levels deep.")
    if isinstance(value, dict):
        return {_clean(str(key)): _tree_from(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list):
        return {str(index): _tree_from(inner, depth - 1) for index, inner in enumerate(value)}
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _clean(str(value))


def _clean(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, "The body holds text that is not valid Unicode.") from error
    return text


def _steps(key: str) -> list[str]:
    match = _KEY.fullmatch(key)
    if match is None:
        raise ApiError(400, f"Invalid parameter name: {key[:100]}", param=key[:100])
    steps = [match[1], *match[2][1:-1].split("][")] if match[2] else [match[1]]
    if len(steps) > DEEPEST:
        raise ApiError(400, f"Parameters may be nested {DEEPEST} levels deep.", param=key[:100])
    return steps


def _plant(tree: Tree, steps: list[str], key: str, value: str) -> None:
    node = tree
    for step in steps[:-1]:
        inner = node.setdefault(step or str(len(node)), {})
        if not isinstance(inner, dict):
            raise ApiError(
                400, f"Invalid parameter: {key[:100]} is given both as a value and as a table.", param=key[:100]
            )
        node = inner
    last = steps[-1] or str(len(node))
    if isinstance(node.get(last), dict):
        raise ApiError(400, f"Invalid parameter: {key[:100]} is given both as a value and as a table.", param=key[:100])
    node[last] = value


class Params:
    """The parameters of one request, or of one table within it; each reader names what is wrong with its own."""

    def __init__(self, tree: Tree, prefix: str = "") -> None:
        self.tree = tree
        self._prefix = prefix

    def name(self, key: str) -> str:
        """How the caller wrote `key`: `line_items[0][price]`."""
        return f"{self._prefix}[{key}]" if self._prefix else key

    def has(self, key: str) -> bool:
        """Whether `key` was sent at all, also if only to clear it."""
        return key in self.tree

    def text(self, key: str) -> str | None:
        """The text of `key`; None when it is not there or cleared by an empty value."""
        value = self.tree.get(key)
        if isinstance(value, dict):
            raise ApiError(400, f"Invalid string: {self.name(key)} must be text, not a table.", param=self.name(key))
        if value is not None and len(value) > 5000:
            raise ApiError(
                400, f"Invalid string: {self.name(key)} must be at most 5000 characters.", param=self.name(key)
            )
        return value or None

    def need(self, key: str) -> str:
        """The text of `key`, which must be there."""
        value = self.text(key)
        if value is None:
            raise self.required(key)
        return value

    def required(self, key: str) -> ApiError:
        """The answer for a `key` that has to be there and is not."""
        name = self.name(key)
        return ApiError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)

    def whole(self, key: str, *, least: int = -LARGEST_NUMBER, most: int = LARGEST_NUMBER) -> int | None:
        """A whole number between `least` and `most`."""
        value = self.text(key)
        if value is None:
            return None
        number = int(value) if re.fullmatch(r"-?[0-9]{1,15}", value) else None
        if number is None:
            name = self.name(key)
            raise ApiError(400, f"Invalid integer: {value[:50]}", code="parameter_invalid_integer", param=name)
        if not least <= number <= most:
            name = self.name(key)
            raise ApiError(400, f"Invalid integer: {name} must be from {least} to {most}.", param=name)
        return number

    def number(self, key: str) -> float | None:
        """A number that may have a fraction; never infinite or not a number."""
        value = self.text(key)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ApiError(400, f"Invalid number: {value[:50]}", param=self.name(key))
        return number

    def flag(self, key: str) -> bool | None:
        """`true` or `false`."""
        value = self.text(key)
        if value is None:
            return None
        # 1, 0, on and off are what curl users and HTML check boxes send.
        known = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
        if value.lower() not in known:
            raise ApiError(400, f"Invalid boolean: {value[:50]}", param=self.name(key))
        return known[value.lower()]

    def choice(self, key: str, allowed: Collection[str]) -> str | None:
        """One of `allowed`."""
        value = self.text(key)
        if value is not None and value not in allowed:
            raise ApiError(
                400, f"Invalid {self.name(key)}: must be one of {', '.join(sorted(allowed))}", param=self.name(key)
            )
        return value

    def child(self, key: str) -> Params | None:
        """The table under `key`; None when it is not there or cleared."""
        value = self.tree.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, dict):
            raise ApiError(400, f"Invalid hash: {self.name(key)} must be a table.", param=self.name(key))
        return Params(value, self.name(key))

    def table(self, key: str) -> Params:
        """The table under `key`, empty when it is not there."""
        return self.child(key) or Params({}, self.name(key))

    def children(self, key: str) -> list[Params]:
        """The list of tables under `key`."""
        value = self.child(key)
        if value is None:
            return []
        found = [value.child(position) for position in _positions(value)]
        return [child for child in found if child is not None]

    def texts(self, key: str) -> list[str]:
        """The list of texts under `key`; a single value counts as a list of one."""
        if isinstance(self.tree.get(key), str):
            single = self.text(key)
            return [single] if single is not None else []
        value = self.child(key)
        return [value.need(position) for position in _positions(value)] if value is not None else []

    def metadata(self, before: dict[str, str], key: str = "metadata") -> dict[str, str]:
        """`before` with what was sent laid over it; an empty value removes its key, an empty table all."""
        if self.tree.get(key) == "":
            return {}
        merged = dict(before)
        sent = self.table(key)
        for name in sent.tree:
            value = sent.text(name)
            if value is None:
                merged.pop(name, None)
            elif len(name) > 40 or len(value) > 500:
                raise ApiError(
                    400, "Metadata keys are at most 40 characters, values at most 500.", param=sent.name(name[:40])
                )
            else:
                merged[name] = value
        if len(merged) > 50:
            raise ApiError(400, "Metadata holds at most 50 keys.", param=self.name(key))
        return merged


def _positions(value: Params) -> Iterable[str]:
    for position in value.tree:
        if not re.fullmatch(r"[0-9]{1,6}", position):
            raise ApiError(
                400, f"Invalid array: {value.name(position)} is not a position in a list.", param=value.name(position)
            )
    return sorted(value.tree, key=int)
