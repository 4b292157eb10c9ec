"""What an OpenAPI document (2.0, 3.0, 3.1) says an API offers: operations, each under every base path of its servers.

It decides what in such a document is an operation and which asks for no credential. The document is a stranger's: nothing
in it is followed but references within it, a few steps deep, and what can't be read is named and left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit

METHODS: Final = ("get", "head", "post", "put", "patch", "delete", "options", "trace", "query")
MOST_OPERATIONS: Final = 10_000
DEEPEST_REFERENCE: Final = 8
LONGEST_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `template` is the path as written behind its base; `is_open`: `security: []` stands there."""

    method: str
    template: str
    tag: str
    is_open: bool

    @property
    def shown(self) -> str:
        """On one line, whatever the document holds."""
        return f"{self.method} {printable(self.template)}"


@dataclass(frozen=True, slots=True)
class Offered:
    """The operations in the document's order, and what could not be read, as sentences."""

    operations: tuple[Operation, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotOpenApi:
    """Why this is no document to draft from, as a clause."""

    clause: str


def printable(text: str) -> str:
    """`text` fit for a terminal and for a comment: one line, no control characters, not long."""
    shown = "".join(character if character.isprintable() else "?" for character in text[: LONGEST_SHOWN + 1])
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[: LONGEST_SHOWN - 1]}…"


def read_operations(document: object, *, address: str = "") -> Offered | NotOpenApi:
    """Every operation. `address` is where the document is from: servers may be named relative to it."""
    if not isinstance(document, Mapping):
        return NotOpenApi("holds no object")
    version = str(document.get("swagger", document.get("openapi", "")))
    if not version.startswith(("2.", "3.")):
        return NotOpenApi("says neither 'swagger: 2.0' nor 'openapi: 3.x'")
    paths = document.get("paths", {})
    if not isinstance(paths, Mapping):
        return NotOpenApi("has 'paths' that are no object")
    reader = _Reader(document, address, is_old="swagger" in document)
    operations: list[Operation] = []
    for operation in reader.operations(paths):
        operations.append(operation)
        if len(operations) > MOST_OPERATIONS:
            return NotOpenApi(f"has more than {MOST_OPERATIONS} operations")
    return Offered(tuple(dict.fromkeys(operations)), tuple(dict.fromkeys(reader.problems)))


class _Reader:
    def __init__(self, document: Mapping[str, Any], address: str, *, is_old: bool) -> None:
        self._document = document
        self._address = address
        self._is_old = is_old
        self.problems: list[str] = []

    def operations(self, paths: Mapping[Any, Any]) -> Iterator[Operation]:
        for path, written in paths.items():
            if not isinstance(path, str) or path.startswith("x-"):
                continue
            item = self._item(path, written)
            if item is None:
                continue
            for key in METHODS:
                operation = item.get(key)
                if isinstance(operation, Mapping):
                    for base in self._bases(path, item, operation):
                        yield Operation(key.upper(), base + path, _tag(operation), self._is_open(operation))

    def _item(self, path: str, written: object) -> Mapping[str, Any] | None:
        item = written
        for _ in range(DEEPEST_REFERENCE):
            if not isinstance(item, Mapping):
                break
            reference = item.get("$ref")
            if reference is None:
                return item
            item = self._at(reference)
        if not isinstance(written, Mapping):
            self.problems.append(f"{printable(path)} holds no operations that can be read.")
            return None
        self.problems.append(f"{printable(path)} is a reference that leads nowhere, or to another document.")
        return None

    def _at(self, reference: object) -> object:
        """What a reference within the document points at (RFC 6901); another document is never fetched."""
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        node: object = self._document
        for step in reference[2:].split("/"):
            if not isinstance(node, Mapping):
                return None
            node = node.get(unquote(step).replace("~1", "/").replace("~0", "~"))
        return node

    def _is_open(self, operation: Mapping[str, Any]) -> bool:
        """`security: []`, of its own or inherited. Where nothing is said, nothing is known, and it isn't open."""
        security = operation.get("security", self._document.get("security"))
        return isinstance(security, list) and not security

    def _bases(self, path: str, item: Mapping[str, Any], operation: Mapping[str, Any]) -> tuple[str, ...]:
        """The paths before the operation's own: of its servers, its path's or the document's, whichever is nearest."""
        if self._is_old:
            base = self._document.get("basePath", "/")
            return (base.rstrip("/"),) if isinstance(base, str) else ("",)
        nearest = (holder.get("servers") for holder in (operation, item, self._document))
        servers = next((one for one in nearest if isinstance(one, list) and one), [{"url": "/"}])
        bases = [self._base(server) for server in servers if isinstance(server, Mapping)]
        if None in bases:
            self.problems.append(f"A server of {printable(path)} has a 'url' that can't be read.")
        return tuple(dict.fromkeys(base for base in bases if base is not None))

    def _base(self, server: Mapping[str, Any]) -> str | None:
        url, variables = server.get("url", "/"), server.get("variables", {})
        if not isinstance(url, str):
            return None
        for name, variable in variables.items() if isinstance(variables, Mapping) else ():
            default = variable.get("default") if isinstance(variable, Mapping) else None
            if isinstance(default, str | int):
                url = url.replace(f"{{{name}}}", str(default))
        try:
            path = urlsplit(urljoin(self._address, url)).path
        except ValueError:
            return None
        return ("/" + path.lstrip("/")).rstrip("/")


def _tag(operation: Mapping[str, Any]) -> str:
    tags = operation.get("tags")
    first = tags[0] if isinstance(tags, list) and tags else ""
    return printable(first) if isinstance(first, str) else ""
