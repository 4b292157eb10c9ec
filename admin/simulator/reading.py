"""Readers that several endpoints share: lists with filters, URLs, email addresses, moments to come."""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from admin.simulator.objects import listing
from admin.simulator.store import page
from admin.simulator.wire import ApiError, missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.simulator.protocol import Call
    from admin.simulator.store import Kept
    from admin.simulator.wire import Json, Params

_COMPARISONS: Final = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def answer_list(call: Call, table: dict[str, Kept], found: list[Kept], url: str) -> Json:
    """One page of `found`, out of `table`, as a list object."""
    wanted = in_range(call.params, "created")
    shown, has_more = page(table, [one for one in found if wanted(one.created)], call.params)
    return listing([call.world.journal.render(one) for one in shown], url, has_more=has_more)


def answer_rows(call: Call, rows: list[Json], noun: str, url: str) -> Json:
    """One page of what belongs to another object, in the order in which that shows it."""
    limit, after = call.params.whole("limit", least=1, most=100) or 10, call.params.text("starting_after")
    ids = [row["id"] for row in rows]
    if after is not None and after not in ids:
        raise missing(noun, after[:255], param="starting_after", status=400)
    rest = rows[ids.index(after) + 1 if after is not None else 0 :]
    return listing(rest[:limit], url, has_more=len(rest) > limit)


def in_range(params: Params, key: str) -> Callable[[int], bool]:
    """What `created`, or `created[gte]` and its kin, ask of a moment."""
    if isinstance(params.tree.get(key), str):
        wanted = params.whole(key)
        return lambda moment: wanted is None or moment == wanted
    sent, bounds = params.table(key), []
    for name in sent.tree:
        compare = _COMPARISONS.get(name)
        if compare is None:
            wrong = sent.name(name)
            raise ApiError(400, f"Received unknown parameter: {wrong}", code="parameter_unknown", param=wrong)
        bound = sent.whole(name)
        if bound is not None:
            bounds.append((compare, bound))
    return lambda moment: all(compare(moment, bound) for compare, bound in bounds)


def url(params: Params, key: str) -> str | None:
    """An absolute http or https URL."""
    value = params.text(key)
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"[\x00-\x20\x7f]", value)
    except ValueError:
        good = False
    if not good:
        raise ApiError(
            400,
            f"Not a valid URL: {params.name(key)} must be absolute and begin with http:// or https://.",
            code="url_invalid",
            param=params.name(key),
        )
    return value


def email(params: Params, key: str) -> str | None:
    """Something with an @ in it, as lenient as Stripe."""
    value = params.text(key)
    if value is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+", value):
        raise ApiError(400, f"Invalid email address: {value[:100]}", code="email_invalid", param=params.name(key))
    return value


def moment_ahead(params: Params, key: str, now: int, *, years: int) -> int | None:
    """A time in the future, at most `years` away."""
    value = params.whole(key)
    if value is None:
        return None
    if value <= now:
        raise ApiError(
            400,
            f"Invalid timestamp: {params.name(key)} must be an integer Unix timestamp in the future.",
            param=params.name(key),
        )
    if value > now + years * 366 * 86400:
        raise ApiError(
            400,
            f"Invalid timestamp: {params.name(key)} can be no more than {years} years in the future.",
            param=params.name(key),
        )
    return value
