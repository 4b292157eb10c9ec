"""`/docs`: the operator's API as one page without scripts, made from the OpenAPI document that the app itself gives.

It decides how an operation is shown. It must never load anything from elsewhere: FastAPI's own page takes its scripts
from a CDN, which the operator's listener has no reason to trust.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

_STYLE: Final = (files(__package__) / "templates" / "docs.css").read_text(encoding="utf-8")
_STYLE_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Final = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'; frame-ancestors 'none'; "
        "form-action 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_environment: Final = Environment(
    loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that an operation takes or gives."""

    name: str
    place: str
    kind: str
    needed: bool
    text: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    text: str
    takes: tuple[Field, ...]
    gives: str
    gives_fields: tuple[Field, ...]


def docs_page(document: dict[str, Any]) -> HTMLResponse:
    """The page for this OpenAPI document."""
    shown = _environment.get_template("docs.html").render(
        title=document["info"]["title"],
        version=document["info"]["version"],
        operations=tuple(operations(document)),
        style=_STYLE,
    )
    return HTMLResponse(shown, headers=_HEADERS)


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """Every operation, in the order of the app."""
    schemas = document.get("components", {}).get("schemas", {})
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answer = _json_schema(next(one for status, one in operation["responses"].items() if status.startswith("2")))
            yield Operation(
                method=method.upper(),
                path=path,
                text=operation.get("description", ""),
                takes=(*_parameters(operation), *_body(operation, schemas)),
                gives=_kind(answer),
                gives_fields=tuple(_fields(_named(answer, schemas), "")),
            )


def _parameters(operation: dict[str, Any]) -> Iterator[Field]:
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        text = parameter.get("description", schema.get("description", ""))
        yield Field(parameter["name"], parameter["in"], _kind(schema), parameter.get("required", False), text)


def _body(operation: dict[str, Any], schemas: dict[str, Any]) -> Iterator[Field]:
    if "requestBody" in operation:
        yield from _fields(_named(_json_schema(operation["requestBody"]), schemas), "body")


def _fields(schema: dict[str, Any], place: str) -> Iterator[Field]:
    needed = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        yield Field(name, place, _kind(field), name in needed, field.get("description", ""))


def _json_schema(part: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = part.get("content", {}).get("application/json", {}).get("schema", {})
    return schema


def _named(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The object that a schema refers to, also as the items of a list."""
    inner = schema.get("items", schema)
    found: dict[str, Any] = schemas.get(_last(inner["$ref"]), {}) if "$ref" in inner else inner
    return found


def _kind(schema: dict[str, Any]) -> str:
    """`string or null`, `list of CustomerLine`, `one of pending, done`."""
    if "$ref" in schema:
        return _last(schema["$ref"])
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))


def _last(reference: str) -> str:
    return reference.rpartition("/")[2]
