"""What is sold: each name once, each price in one tier, nothing that can never be had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.diagnostics import listed, nearest, quoted

if TYPE_CHECKING:
    from policies.diagnostics import Findings
    from policies.draft import Draft

RESERVED_TIER_NAMES: Final = frozenset({"deny", "public", "authenticated", "none"})
"""Words that `default`, or the status shown to people, uses with a meaning of its own."""

_SOLD_BY: Final = {"prices": "price", "products": "product", "lookup_keys": "lookup key"}
_MISPLACED: Final = {
    ("prices", "prod_"): "a product; put it under 'products'",
    ("products", "price_"): "a price; put it under 'prices'",
}


def check(draft: Draft, findings: Findings) -> None:
    """`tiers`."""
    _names(draft, findings)
    _ids(draft, findings)
    _features(draft, findings)
    _simulated(draft, findings)
    for index, tier in enumerate(draft.config.tiers):
        lost = any(draft.is_lost("tiers", index, kind) or draft.has_losses("tiers", index, kind) for kind in _SOLD_BY)
        if index > 0 and not tier.sold and not lost:
            findings.warning(
                "unsold-tier",
                draft.positions.value("tiers", index, "name"),
                f"nothing is sold for the tier {draft.shown('tiers', index, 'name')}, so only a grant gives it; "
                "only the first tier is everybody's when it names no price, product or lookup key",
            )


def _names(draft: Draft, findings: Findings) -> None:
    seen: dict[str, int] = {}
    for index, tier in enumerate(draft.config.tiers):
        mark = draft.positions.value("tiers", index, "name")
        shown = draft.shown("tiers", index, "name")
        if tier.name in RESERVED_TIER_NAMES:
            findings.error("reserved-name", mark, f"{shown} can't name a tier; the word has another meaning here")
        first = seen.setdefault(tier.name, index)
        if first != index:
            line = draft.positions.value("tiers", first, "name").line
            findings.error("duplicate-tier", mark, f"the tier {shown} stands in line {line} already")


def _ids(draft: Draft, findings: Findings) -> None:
    for kind, word in _SOLD_BY.items():
        seen: dict[str, tuple[int, int]] = {}
        for index, tier in enumerate(draft.config.tiers):
            for position, name in enumerate(getattr(tier, kind)):
                location = ("tiers", index, kind, position)
                mark, shown = draft.positions.value(*location), draft.shown(*location)
                if not name or not name.isprintable() or " " in name:
                    findings.error("bad-name", mark, f"{shown} can't be a {word} of Stripe's")
                    continue
                for (misplaced_kind, prefix), remedy in _MISPLACED.items():
                    if kind == misplaced_kind and name.startswith(prefix):
                        findings.error("misplaced-id", mark, f"{shown} is {remedy}")
                first = seen.setdefault(name, (index, position))
                if first != (index, position):
                    where = (
                        "in this tier" if first[0] == index else f"in the tier {draft.shown('tiers', first[0], 'name')}"
                    )
                    line = draft.positions.value("tiers", first[0], kind, first[1]).line
                    findings.error(
                        "sold-twice",
                        mark,
                        f"the {word} {shown} is {where} already (line {line}); a {word} pays for one tier",
                    )


def _simulated(draft: Draft, findings: Findings) -> None:
    """`simulator.prices` tells of what the tiers sell, and of nothing else."""
    tiers = draft.config.tiers
    is_partly_lost = any(
        draft.is_lost("tiers", index, kind) or draft.has_losses("tiers", index, kind)
        for index in range(len(tiers))
        for kind in _SOLD_BY
    )
    if is_partly_lost or draft.is_lost("tiers") or draft.has_losses("tiers"):
        return
    sold = [name for tier in tiers for kind in _SOLD_BY for name in getattr(tier, kind)]
    for name in draft.config.simulator.prices:
        if name not in sold:
            mark = draft.positions.key("simulator", "prices", name)
            findings.error(
                "unknown-price",
                mark,
                f"no tier names {quoted(name)} as a price, product or lookup key{nearest(name, sold)}",
            )


def _features(draft: Draft, findings: Findings) -> None:
    below: dict[str, int] = {}
    for index, tier in enumerate(draft.config.tiers):
        own: set[str] = set()
        for position, feature in enumerate(tier.features):
            location = ("tiers", index, "features", position)
            mark, shown = draft.positions.value(*location), draft.shown(*location)
            if not is_feature_name(feature):
                # They reach the upstream as one header, parted by commas.
                findings.error(
                    "bad-name", mark, f"{shown} can't name a feature; use letters, digits, '_', '.', ':' and '-'"
                )
            elif feature in own:
                findings.error("duplicate-feature", mark, f"the feature {shown} is listed twice in this tier")
            elif feature in below:
                name = draft.shown("tiers", below[feature], "name")
                findings.warning(
                    "duplicate-feature",
                    mark,
                    f"the feature {shown} comes with the tier {name} already, and this tier has all of that",
                )
            own.add(feature)
        for feature in own:
            below.setdefault(feature, index)


def is_feature_name(text: str) -> bool:
    """Whether `text` can stand in ``X-Gateway-Features``."""
    return (
        bool(text)
        and text.isascii()
        and text[0].isalnum()
        and all(letter.isalnum() or letter in "_.:-" for letter in text)
    )


def tiers_there_are(draft: Draft) -> str:
    """``; there are 'free' and 'pro'``, for a message about a tier that isn't."""
    names = [draft.shown("tiers", index, "name") for index in range(len(draft.config.tiers))]
    if not names:
        return "; no tiers are defined"
    return f"; there {'is' if len(names) == 1 else 'are'} {listed(names, 'and')}"
