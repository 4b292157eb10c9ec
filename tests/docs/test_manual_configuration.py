"""gateway.yaml in the manual: every block loads, and the reference has every key with its default, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from policies.diagnostics import render
from policies.effective import effective_defaults
from policies.expectations import unmet_expectations
from policies.load import load
from policies.routes import compile_routes
from policies.schema import Config
from tests.docs.manual import CONFIGURATION, DESIGN, ROOT, STRIPE, Block, blocks, blocks_of, rows, words_of

ENVIRON = {
    "STRIPE_SECRET_KEY": "sk_test_51PxYz",
    "STRIPE_WEBHOOK_SECRET": "whsec_1PxYz",
    "WEATHER_API_KEY": "k-weather",
    "GATEWAY_SHARED_SECRET": "5f0d2b7e9c",
    "GATEWAY_TOKEN_SECRET": "0123456789abcdef0123456789abcdef",
}
PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"
BASE = """
version: 1
server: {listen: "127.0.0.1:8080"}
upstreams:
  api: {targets: ["http://127.0.0.1:9000"]}
auth:
  issuers:
    - {issuer: "https://login.example.com/", audience: my-api, algorithms: [RS256], discovery: true}
tiers:
  - name: free
  - {name: pro, prices: [price_pro], features: [export]}
routes:
  - {path: /**, access: authenticated}
"""


def whole(text: str) -> str:
    """A fragment takes the place of the same keys in a small file that is complete."""
    fragment = yaml.safe_load(text)
    return text if "version" in fragment else yaml.safe_dump(yaml.safe_load(BASE) | fragment)


def problems_of(text: str) -> str:
    """What keeps this file from being used, and what it warns of; empty for a file without a word against it."""
    loaded = load(whole(text), file="gateway.yaml", environ=ENVIRON, read_file=lambda _path: PUBLIC_KEY)
    if loaded.config is None:
        return render(loaded.diagnostics)
    compiled = compile_routes(loaded.config)
    assert compiled.table is not None
    unmet = unmet_expectations(loaded.config, compiled.table)
    messages = [problem.message for problem in compiled.problems] + [test.message for test in unmet]
    return render(loaded.diagnostics) + "".join(messages)


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_yaml_block_of_the_manual_loads_without_an_error_or_a_warning(block: Block) -> None:
    assert problems_of(block.text).strip() == ""


def test_a_block_with_a_slip_in_it_would_be_found() -> None:
    assert "did you mean 'tier'" in problems_of("routes:\n  - {path: /a, tire: pro}\n")
    assert "no tier" in problems_of("routes:\n  - {path: /a, tier: gold}\n")
    assert "token_missing" in problems_of("tests:\n  - {request: GET /a, expect: forward}\n")


def test_the_message_that_the_reference_shows_is_what_check_says() -> None:
    (shown,) = [block for block in blocks_of(CONFIGURATION) if block.language == "console"]
    message = shown.text.splitlines()[1].partition(": ")[2]

    assert message in problems_of("routes:\n  - path: /a\n    tire: pro\n")


def keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, tuple[type[BaseModel], str, FieldInfo]]:
    """Every key as the reference spells it, with the model and the name that decide its default."""
    found: dict[str, tuple[type[BaseModel], str, FieldInfo]] = {}
    for name, declared in model.model_fields.items():
        inner, spelling = _inside(declared.annotation)
        if inner is None:
            found[f"{prefix}{name}"] = (model, name, declared)
            continue
        found |= keys_of(inner, f"{prefix}{name}{spelling}.")
        if model.__name__ == "Auth":  # a list that may be left out is a setting itself
            found[f"{prefix}{name}"] = (model, name, declared)
    return found


def _inside(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    parts = [one for one in get_args(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
    if not parts:
        return None, ""
    return parts[0], ".NAME" if get_origin(annotation) is dict else "[]"


def written(default: object) -> str:
    """A default as the reference spells it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return f"[{', '.join(default)}]"
    return str(default) if default != "" else "''"


def documented() -> dict[str, str]:
    """Key → the default's cell, from the reference's tables."""
    return {
        key: cells[1]
        for cells in rows(CONFIGURATION)
        if len(cells) == 3
        for key in words_of(cells[0])[:1]
        if cells[0] == f"`{key}`"
    }


def test_the_reference_has_every_key_of_the_schema_and_no_other() -> None:
    assert set(documented()) == set(keys_of(Config))


@pytest.mark.parametrize(("key", "where"), keys_of(Config).items(), ids=keys_of(Config))
def test_the_reference_names_the_default_that_is_used(key: str, where: tuple[type[BaseModel], str, FieldInfo]) -> None:
    model, name, declared = where
    shown = documented()[key]

    if declared.is_required():
        assert shown == "\N{EN DASH}"
    elif name in effective_defaults(model):
        assert shown == f"`{written(effective_defaults(model)[name])}`"
    elif isinstance(declared.default, tuple) and name != "methods":
        assert shown == f"`{written(declared.default)}`"
    elif declared.default_factory is dict:
        assert shown == "`{}`"
    else:  # a word for what the absence means: none, all, any
        assert shown
        assert "`" not in shown


EXAMPLE = ROOT / "docs" / "example.gateway.yaml"
ALTERNATIVE = re.compile(r"^( +)# ((\w+): .*?) +# (?:in place of (\w+)|with https targets).*$", re.MULTILINE)


def extends(more: Any, less: Any) -> bool:
    """Whether `more` says all that `less` says: keys may be added to it, and entries at the end of its lists of mappings."""
    if isinstance(less, dict):
        return isinstance(more, dict) and all(key in more and extends(more[key], less[key]) for key in less)
    if isinstance(less, list) and any(isinstance(one, dict) for one in less):
        return len(more) >= len(less) and all(extends(*pair) for pair in zip(more, less, strict=False))
    return bool(more == less)


def test_the_example_says_all_that_the_one_of_the_design_says() -> None:
    block = DESIGN.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    example = EXAMPLE.read_text(encoding="utf-8")

    assert example.partition("\n")[0] == "# yaml-language-server: $schema=gateway.schema.json"
    assert extends(yaml.safe_load(example), yaml.safe_load(block))
    assert not extends(yaml.safe_load(example.replace("tier: pro", "tier: enterprise")), yaml.safe_load(block))


def with_alternative(match: re.Match[str]) -> str:
    """The example with this comment's key in force, instead of the one whose place it takes."""
    text = EXAMPLE.read_text(encoding="utf-8").replace(match[0], match[1] + match[2])
    if match[4] is None:
        return text.replace("[http://127.0.0.1:9000]", "[https://127.0.0.1:9000]")
    return re.sub(rf"^ +{match[4]}: .*\n", "", text, count=1, flags=re.MULTILINE)


def examples() -> dict[str, str]:
    """The example as it stands, and once for each key that only a comment holds."""
    alternatives = ALTERNATIVE.finditer(EXAMPLE.read_text(encoding="utf-8"))
    return {"": EXAMPLE.read_text(encoding="utf-8")} | {match[3]: with_alternative(match) for match in alternatives}


@pytest.mark.parametrize("text", examples().values(), ids=examples())
def test_the_example_has_nothing_against_it_with_what_its_comments_offer_either(text: str) -> None:
    algorithms = "algorithms: [HS256]" if "\n      secret: " in text else "algorithms: [RS256]"
    environ = ENVIRON | {"TOKEN_SECRET": ENVIRON["GATEWAY_TOKEN_SECRET"]}
    loaded = load(
        text.replace("algorithms: [RS256]", algorithms), file="x", environ=environ, read_file=lambda _path: PUBLIC_KEY
    )

    assert loaded.diagnostics == ()
    assert loaded.config is not None
    table = compile_routes(loaded.config).table
    assert table is not None
    assert list(unmet_expectations(loaded.config, table)) == []


def holds(tree: Any, key: list[str]) -> bool:
    """Whether this key of the reference stands in `tree`: `NAME` is any key, `[]` any entry."""
    if not key:
        return True
    name, is_list = key[0].removesuffix("[]"), key[0].endswith("[]")
    if name == "NAME":
        return any(holds(inner, key[1:]) for inner in tree.values())
    if not isinstance(tree, dict) or name not in tree:
        return False
    return any(holds(entry, key[1:]) for entry in tree[name]) if is_list else holds(tree[name], key[1:])


@pytest.mark.parametrize("key", keys_of(Config))
def test_the_example_has_every_key(key: str) -> None:
    assert any(holds(yaml.safe_load(text), key.split(".")) for text in examples().values())


def test_the_demos_configuration_has_nothing_against_it() -> None:
    loaded = load(
        Path(ROOT, "gateway.yaml").read_text(encoding="utf-8"), file="gateway.yaml", environ={}, read_file=str
    )

    assert loaded.config is not None
    assert loaded.diagnostics == ()


def test_the_environment_table_names_every_variable_of_the_demo_and_the_example() -> None:
    used = {
        name
        for file in (ROOT / "gateway.yaml", ROOT / "docs" / "example.gateway.yaml")
        for line in file.read_text(encoding="utf-8").splitlines()
        for name in re.findall(r"\$\{([A-Z_]+)", line.partition(" #")[0])
    }
    named = {name for cells in rows(CONFIGURATION) if len(cells) == 2 for name in words_of(cells[0])}

    assert used == named


def test_the_webhook_is_to_be_subscribed_to_what_the_receiver_knows() -> None:
    from admin.stripe.webhook import KNOWN_TYPES

    (listed,) = [block for block in blocks_of(STRIPE) if block.language == "text"]

    assert set(listed.text.split()) == KNOWN_TYPES
