"""The JSON Schema that editors read says what the schema of gateway.yaml says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from policies.json_schema import json_schema
from policies.schema import Cache, Config, Model, Server

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = (ROOT / "docs" / "example.gateway.yaml").read_text(encoding="utf-8")


def problems(schema: dict[str, Any], value: Any, whole: dict[str, Any], where: str = "$") -> list[str]:
    """As much of JSON Schema as ours uses."""
    if "$ref" in schema:
        return problems(whole["$defs"][schema["$ref"].rpartition("/")[2]], value, whole, where)
    if "anyOf" in schema:
        each = [problems(one, value, whole, where) for one in schema["anyOf"]]
        return [] if [] in each else each[0]
    unknown = schema.keys() - {"type", "properties", "items", "additionalProperties", "required", "enum", "const", "pattern",
                               "minimum", "maximum", "minLength", "minItems", "minProperties", "default", "title", "description", "$schema", "$defs"}  # fmt: skip
    assert not unknown, unknown
    types = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
    names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if type(value) not in [types[name] for name in names]:
        return [f"{where}: {value!r} is no {names}"]
    found: list[str] = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: {value!r} is not in {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{where}: {value!r} is not {schema['const']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{where}: {value!r} does not match")
    if isinstance(value, dict):
        found += [f"{where}: {name} is missing" for name in schema.get("required", []) if name not in value]
        for name, inner in value.items():
            rest = schema.get("additionalProperties")
            declared = schema.get("properties", {}).get(name, rest)
            found += (
                [f"{where}.{name} is unknown"]
                if not isinstance(declared, dict)
                else problems(declared, inner, whole, f"{where}.{name}")
            )
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += problems(schema["items"], item, whole, f"{where}[{index}]")
    return found


class _Core(yaml.SafeLoader):
    """YAML 1.2, as editors read it: `on` is a word and a date is text."""


_Core.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Core.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))


def judged(text: str) -> list[str]:
    schema = json_schema()
    return problems(schema, yaml.load(text, _Core), schema)


def test_the_example_fits_the_json_schema() -> None:
    assert judged(EXAMPLE) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("drain: 30s", "drain: 30"),
        ("version: 1", "version: 2"),
        ("access: public ", "access: pro "),
        ("algorithms: [RS256]", "algorithms: [none]"),
        ("- path: /status", "- pfad: /status"),
        ("workers: 1", "workers: many"),
        ("forward_token: true", "forward_token: 1"),
    ],
)
def test_a_slip_does_not_fit_the_json_schema(right: str, wrong: str) -> None:
    assert right in EXAMPLE
    assert judged(EXAMPLE.replace(right, wrong)) != []


def test_a_variable_may_stand_for_a_number_a_word_or_a_duration() -> None:
    text = EXAMPLE.replace("workers: 1", "workers: ${WORKERS:-1}").replace("drain: 30s", "drain: ${DRAIN}")
    assert judged(text.replace("forward_token: true", "forward_token: ${FORWARD}")) == []


def test_the_json_schema_has_every_key_and_shows_each_default_as_it_is_written() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(Config.model_fields)
    for model in Model.__subclasses__():
        if model is not Config:
            assert set(schema["$defs"][model.__name__]["properties"]) == set(model.model_fields)
    assert schema["$defs"][Server.__name__]["properties"]["drain"]["default"] == "30s"
    assert schema["$defs"][Cache.__name__]["properties"]["max_entries"]["default"] == 100_000
    assert schema["properties"]["database"]["default"] == "sqlite:///gateway.db"
    json.dumps(schema)


SHIPPED = {"gateway.yaml": "docs/gateway.schema.json", "docs/example.gateway.yaml": "gateway.schema.json"}


def test_the_committed_schema_is_the_one_of_this_version() -> None:
    committed = (ROOT / "docs" / "gateway.schema.json").read_text(encoding="utf-8")

    assert json.loads(committed) == json_schema(), "write it anew: gateway schema > docs/gateway.schema.json"


@pytest.mark.parametrize(("file", "schema"), SHIPPED.items())
def test_every_shipped_configuration_names_the_schema_in_its_first_line_and_fits_it(file: str, schema: str) -> None:
    path = ROOT / file
    text = path.read_text(encoding="utf-8")

    assert text.splitlines()[0] == f"# yaml-language-server: $schema={schema}"
    assert (path.parent / schema).resolve() == ROOT / "docs" / "gateway.schema.json"
    assert judged(text) == []
