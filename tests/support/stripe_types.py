"""Holds JSON against the classes of Stripe's SDK: every field known to its class, and of the type that stands there."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal, get_args, get_origin

import stripe
import stripe.v2.core
from stripe import ListObject, StripeObject

CLASSES: dict[str, type[Any]] = {
    "account": stripe.Account,
    "billing_portal.configuration": stripe.billing_portal.Configuration,
    "billing_portal.session": stripe.billing_portal.Session,
    "charge": stripe.Charge,
    "checkout.session": stripe.checkout.Session,
    "customer": stripe.Customer,
    "dispute": stripe.Dispute,
    "entitlements.active_entitlement": stripe.entitlements.ActiveEntitlement,
    "entitlements.active_entitlement_summary": stripe.entitlements.ActiveEntitlementSummary,
    "entitlements.feature": stripe.entitlements.Feature,
    "event": stripe.Event,
    "invoice": stripe.Invoice,
    "invoice_payment": stripe.InvoicePayment,
    "item": stripe.LineItem,
    "line_item": stripe.InvoiceLineItem,
    "plan": stripe.Plan,
    "price": stripe.Price,
    "product": stripe.Product,
    "product_feature": stripe.ProductFeature,
    "refund": stripe.Refund,
    "subscription": stripe.Subscription,
    "subscription_item": stripe.SubscriptionItem,
    "test_helpers.test_clock": stripe.test_helpers.TestClock,
    "v2.core.event": stripe.v2.core.Event,
}
_LIST = frozenset({"object", "data", "has_more", "url"})


def disagreements(value: object, where: str) -> Iterator[str]:
    """What an answer or event has that the SDK's classes don't: a kind of object, a field, a type."""
    if isinstance(value, dict) and value.get("object") == "list":
        for name in set(value) - _LIST:
            yield f"{where}: a list has no {name!r}"
        for one in value["data"]:
            yield from disagreements(one, where)
    elif isinstance(value, dict):
        kind = value.get("object")
        found = CLASSES.get(str(kind))
        if found is None:
            yield f"{where}: {kind!r} is no object of Stripe's that is known here"
        else:
            yield from _of_class(value, found, str(kind))


def _of_class(value: dict[str, Any], cls: type[Any], where: str) -> Iterator[str]:
    hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
    for name, inner in value.items():
        if name not in hints:
            yield f"{where}.{name}: unknown to {cls.__qualname__}"
        else:
            yield from _of_type(inner, hints[name], f"{where}.{name}")


def _of_type(value: object, hint: Any, where: str) -> Iterator[str]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if any(get_origin(one) is Literal for one in arguments):
            # `Literal[…] | str`: what is none of the words that this version has is a slip of ours.
            arguments = tuple(one for one in arguments if one is not str)
        found = [list(_of_type(value, one, where)) for one in arguments]
        if [] not in found:
            # The alternative that comes nearest tells most.
            yield from max(found, key=lambda problems: max(len(problem) for problem in problems))
    elif hint is Any:
        return
    elif origin is Literal:
        if value not in arguments:
            yield f"{where}: {value!r} is none of {arguments}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
        else:
            for one in value:
                yield from _of_type(one, arguments[0], where)
    elif origin is dict or _is(hint, stripe.StripeObject) is None:
        if not isinstance(value, dict):
            yield f"{where}: {value!r} is no table"
    elif _is(origin or hint, ListObject) or _is(origin or hint, StripeObject):
        yield from _of_object(value, origin or hint, where)
    elif not _is_scalar(value, hint):
        yield f"{where}: {value!r} is no {hint}"


def _of_object(value: object, cls: type[Any], where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: {value!r} is no {cls.__qualname__}"
    elif isinstance(value.get("object"), str):
        yield from disagreements(value, where)
    elif cls.__name__ != "UntypedStripeObject":
        yield from _of_class(value, cls, where)


def _is(hint: Any, cls: type[Any]) -> bool:
    return isinstance(hint, type) and issubclass(hint, cls)


def _is_scalar(value: object, hint: Any) -> bool:
    if hint is type(None):
        return value is None
    if hint is Decimal:  # goes over the wire as text
        return isinstance(value, str)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(hint, type) and isinstance(value, hint)


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    """The types of the class's fields; names that the SDK imports for type checkers only are imported now."""
    names: dict[str, Any] = {}
    for base in cls.__mro__:
        module = sys.modules.get(base.__module__)
        if module is not None and base.__module__.startswith("stripe"):
            names |= _checked_imports(module)
    return typing.get_type_hints(cls, localns=names)


@functools.cache
def _checked_imports(module: types.ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), module.__name__, "exec"), found)
    return found
