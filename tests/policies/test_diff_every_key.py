"""`gateway diff` sees a change of every key that the schema has: one that is added and forgotten fails here."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, SecretStr

from policies.access_diff import Comparison, compare
from policies.schema import Auth, Config, Issuer, Model, Route, RouteTimeouts
from policies.setting_changes import Effect, setting_changes
from tests.policies.test_access_diff import compiled
from tests.support.route_tables import config_of, route

BASE: dict[str, Any] = {"path": "/a/b", "tier": "pro"}
ROUTE_KEYS: dict[str, tuple[dict[str, Any], dict[str, Any], Effect]] = {
    "path": ({}, {"path": "/a/c"}, Effect.LOSES),
    "paths": ({"path": None, "paths": ("/a/b", "/a/c")}, {"path": None, "paths": ("/a/b",)}, Effect.LOSES),
    "methods": ({}, {"methods": ("GET",)}, Effect.LOSES),
    "host": ({}, {"host": "api.test"}, Effect.LOSES),
    "access": ({"tier": None, "access": "authenticated"}, {}, Effect.LOSES),
    "tier": ({}, {"tier": "enterprise"}, Effect.LOSES),
    "features": ({}, {"features": ("sso",)}, Effect.LOSES),
    "scopes": ({}, {"scopes": ("b:read",)}, Effect.LOSES),
    "claims": ({}, {"claims": {"role": ("admin",)}}, Effect.LOSES),
    "upstream": ({"upstream": "api"}, {"upstream": "other"}, Effect.DIFFERS),
    "strip_prefix": ({}, {"strip_prefix": "/a"}, Effect.DIFFERS),
    "add_prefix": ({}, {"add_prefix": "/v2"}, Effect.DIFFERS),
    "timeouts": ({}, {"timeouts": RouteTimeouts(response=5.0)}, Effect.DIFFERS),
    "max_body": ({}, {"max_body": 1024}, Effect.LOSES),
    "on_unavailable": ({"on_unavailable": "allow"}, {}, Effect.LOSES),
    "enforce": ({"enforce": "observe"}, {}, Effect.LOSES),
    "spelling": ({}, {"spelling": "exact"}, Effect.LOSES),
    "encoded_slash": ({"encoded_slash": "literal"}, {}, Effect.LOSES),
    "double_slash": ({"double_slash": "literal"}, {}, Effect.LOSES),
    "outlive_token": ({"outlive_token": True}, {}, Effect.LOSES),
}


def test_no_key_of_a_route_is_forgotten() -> None:
    assert ROUTE_KEYS.keys() == Route.model_fields.keys()


@pytest.mark.parametrize("key", ROUTE_KEYS)
def test_a_change_of_one_key_of_a_route_is_a_difference_in_both_directions(key: str) -> None:
    before, after, effect = ROUTE_KEYS[key]
    back = {Effect.LOSES: Effect.GAINS}.get(effect, effect)

    assert effect in effects(compared(before, after))
    assert back in effects(compared(after, before))
    assert effects(compared(before, before)) == set()


def compared(before: dict[str, Any], after: dict[str, Any]) -> Comparison:
    old, new = (config_of(route(**{**BASE, **rest}), upstreams=("api", "other")) if "upstream" in rest else
                config_of(route(**{**BASE, **rest})) for rest in (before, after))  # fmt: skip
    return compare(compiled(old), compiled(new))


def effects(comparison: Comparison) -> set[Effect]:
    return {one.effect for one in comparison.differences}


ISSUER = Issuer(issuer="https://a.test/", audience=("api",), algorithms=("RS256",))
WHOLE = config_of(route("/a")).model_copy(update={"auth": Auth(issuers=(ISSUER,))})
NOT_A_SETTING = {"version", "routes", "default", "tests", "run_tests_at_load"}
EMPTY: dict[str, Any] = {"past_due_grace": 5.0, "max_age": 5.0, "secret": SecretStr("s"), "token_from": ("header",)}


def leaves(path: tuple[str, ...], model: Model) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in type(model).model_fields:
        value = inner(model, name)
        found += leaves((*path, name), value) if isinstance(value, Model) else [(*path, name)]
    return found


def inner(model: BaseModel, name: str) -> Any:
    """The value, or the only model in it."""
    value = getattr(model, name)
    if isinstance(value, dict) and value and isinstance(next(iter(value.values())), Model):
        return next(iter(value.values()))
    return value[-1] if isinstance(value, tuple) and value and isinstance(value[-1], Model) else value


def altered(model: Model, path: tuple[str, ...]) -> Model:
    name, *rest = path
    value = getattr(model, name)
    if rest:
        changed = altered(inner(model, name), tuple(rest))
        if isinstance(value, dict):
            return model.model_copy(update={name: {**value, next(iter(value)): changed}})
        return model.model_copy(update={name: (*value[:-1], changed) if isinstance(value, tuple) else changed})
    return model.model_copy(update={name: other_than(value, name, type(model).model_fields[name].annotation)})


def other_than(value: Any, name: str, annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        return next(each for each in get_args(annotation) if each != value)
    match value:
        case None:
            return EMPTY.get(name, "other")
        case bool():
            return not value
        case int() | float():
            return value + 1
        case SecretStr():
            return SecretStr("redis://:quite another@h" if name in {"database", "redis"} else "quite another")
        case dict():
            return {**value, "k": ("v",)}
        case tuple():
            return (*value, "other")
        case _:
            return value + "x"


SETTINGS = [path for path in leaves((), WHOLE) if path[0] not in NOT_A_SETTING]


@pytest.mark.parametrize("path", SETTINGS, ids=".".join)
def test_a_change_of_one_setting_is_told_without_a_secret(path: tuple[str, ...]) -> None:
    changed = altered(WHOLE, path)
    assert isinstance(changed, Config)

    found = list(setting_changes(WHOLE, changed))

    assert len(found) == 1
    assert found[0].name.endswith(path[-1]) or path[-1] in {"name", "issuer"}
    assert found[0].before != found[0].after
    assert "quite another" not in found[0].after
    assert list(setting_changes(WHOLE, WHOLE)) == []


@pytest.mark.parametrize(
    ("name", "before", "after", "effect"),
    [
        ("audience", ("a", "b"), ("a",), Effect.LOSES),
        ("audience", ("a",), ("a", "b"), Effect.GAINS),
        ("audience", ("a", "b"), ("b", "a"), Effect.DIFFERS),
        ("algorithms", ("RS256",), ("ES256",), Effect.LOSES),
        ("claims", {}, {"x": ("1",)}, Effect.LOSES),
        ("claims", {"x": ("1",)}, {"x": ("1", "2")}, Effect.GAINS),
        ("claims", {"x": ("1", "2")}, {"x": ("1",)}, Effect.LOSES),
        ("claims", {"x": ("1",)}, {"y": ("1",)}, Effect.LOSES),
        ("max_age", None, 60.0, Effect.LOSES),
        ("max_age", 60.0, None, Effect.GAINS),
        ("max_age", 60.0, 30.0, Effect.LOSES),
        ("leeway", 60.0, 0.0, Effect.LOSES),
        ("customer", "sub", "org_id", Effect.LOSES),
        ("jwks_url", "https://a.test/1", "https://a.test/2", Effect.LOSES),
        ("shared_customers", False, True, Effect.DIFFERS),
    ],
)
def test_what_a_change_of_an_issuer_takes(name: str, before: Any, after: Any, effect: Effect) -> None:
    old, new = (
        WHOLE.model_copy(update={"auth": Auth(issuers=(ISSUER.model_copy(update={name: value}),))})
        for value in (before, after)
    )
    assert [(one.name, one.effect) for one in setting_changes(old, new)] == [
        (f"auth.issuers[https://a.test/].{name}", effect)
    ]


def test_an_issuer_that_goes_is_one_line_and_a_loss_and_their_order_is_nothing() -> None:
    second = ISSUER.model_copy(update={"issuer": "https://b.test/", "jwks_url": "https://b.test/keys"})
    one, both, turned = (
        WHOLE.model_copy(update={"auth": Auth(issuers=issuers)})
        for issuers in ((ISSUER,), (ISSUER, second), (second, ISSUER))
    )

    assert [(each.name, each.effect) for each in setting_changes(both, one)] == [("auth.issuers", Effect.LOSES)]
    assert [(each.name, each.effect) for each in setting_changes(one, both)] == [("auth.issuers", Effect.GAINS)]
    assert list(setting_changes(both, turned)) == []
