"""An OpenAPI document from a file or an address, as plain values.

It decides how much of a stranger's document is read. It must never follow a redirect, read without an end, or build more
than was written: YAML's aliases stay references, its merge keys and tags mean nothing.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

import httpx
import yaml

LARGEST_DOCUMENT: Final = 16 << 20
FETCH_SECONDS: Final = 30.0
_DEEPEST_YAML: Final = 100
_Loader: Final = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def is_address(source: str) -> bool:
    """Whether it is fetched rather than opened."""
    return source.lower().startswith(("http://", "https://"))


def read_document(source: str) -> object | str:
    """What `source` holds: mappings, lists and scalars, or a text that says why nothing."""
    data = _fetched(source) if is_address(source) else _opened(source)
    return data if isinstance(data, str) else parse(data)


def parse(data: bytes) -> object | str:
    """JSON where it looks like it, else YAML, all of whose scalars stay texts."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "it is not UTF-8"
    try:
        if text.lstrip()[:1] == "{":
            found: object = json.loads(text)
        else:
            found = _yaml(text)
    except RecursionError:
        return "it is nested too deeply"
    except (ValueError, OverflowError, yaml.YAMLError):
        return "it is neither JSON nor YAML"
    return "it holds a single text" if isinstance(found, str) else found


def _yaml(text: str) -> object:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST_YAML:
            raise RecursionError
    found: object = yaml.load(text, Loader=_Loader)  # noqa: S506 - it builds texts, lists and mappings, nothing else
    return found


def _opened(source: str) -> bytes | str:
    path = Path(source)
    try:
        if not path.is_file():  # a FIFO would wait for ever, a device might never end
            path.stat()
            return "it is no regular file"
        with path.open("rb") as file:
            data = file.read(LARGEST_DOCUMENT + 1)
    except (OSError, ValueError) as error:
        return f"it can't be read ({getattr(error, 'strerror', None) or type(error).__name__})"
    return data if len(data) <= LARGEST_DOCUMENT else f"it is larger than {LARGEST_DOCUMENT >> 20} MiB"


def _fetched(source: str) -> bytes | str:
    headers = {"Accept": "application/json, application/yaml;q=0.9, */*;q=0.1", "Accept-Encoding": "identity"}
    until = time.monotonic() + FETCH_SECONDS
    body = bytearray()
    try:
        with (
            httpx.Client(timeout=10.0, follow_redirects=False) as client,
            client.stream("GET", source, headers=headers) as response,
        ):
            if response.is_redirect:
                return "it was answered with a redirect, which isn't followed; give the address it leads to"
            if response.status_code != httpx.codes.OK:
                return f"it was answered with {response.status_code}"
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                return "it came compressed, which was not asked for"
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > LARGEST_DOCUMENT:
                    return f"it is larger than {LARGEST_DOCUMENT >> 20} MiB"
                if time.monotonic() > until:
                    return f"it did not come whole within {FETCH_SECONDS:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return f"it could not be fetched ({type(error).__name__})"
    return bytes(body)
