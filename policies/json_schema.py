"""gateway.yaml as a JSON Schema, so that editors complete keys and underline slips (``gateway schema``).

It describes what may be *written*: a duration is a text, and wherever a number or one of some words is wanted,
``${NAME}`` may stand. It can't say what only `gateway check` knows, such as whether a tier that is named exists.
"""

from __future__ import annotations

from typing import Any, Final

from policies.effective import effective_defaults
from policies.schema import Config, Model

_SUBSTITUTION: Final = {"type": "string", "pattern": r"\$\{.+\}"}


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    schema = Config.model_json_schema()
    definitions = schema.pop("$defs")
    for model in Model.__subclasses__():
        described = schema if model is Config else definitions[model.__name__]
        defaults = effective_defaults(model)
        for name, described_property in described["properties"].items():
            described["properties"][name] = _written(described_property) | (
                {"default": defaults[name]} if name in defaults else {}
            )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "gateway.yaml",
        "$defs": definitions,
    }


def _written(described: dict[str, Any]) -> dict[str, Any]:
    """One property without the noise, as it is written rather than as it is kept."""
    kept = {key: value for key, value in described.items() if key not in {"title", "default", "writeOnly", "format"}}
    alternatives = kept.get("anyOf")
    if alternatives is not None:  # X | None: null is never written
        (kept,) = [alternative for alternative in alternatives if alternative.get("type") != "null"]
        kept = {key: value for key, value in kept.items() if key not in {"writeOnly", "format"}}
    if "items" in kept:
        kept["items"] = _written(kept["items"])
    is_more_than_text = kept.get("type") in ["integer", "boolean"] or kept.keys() & {"enum", "const", "pattern"}
    return {"anyOf": [kept, _SUBSTITUTION]} if is_more_than_text else kept
