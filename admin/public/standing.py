"""`GET /_gateway/me` and `/_gateway/plans`: what someone has, and what more there is."""

from __future__ import annotations

from typing import Any

from admin.public.ports import PublicPorts
from policies.entitlement import Entitlement
from policies.requirement import Access


def me(ports: PublicPorts, customer: str, entitlement: Entitlement) -> dict[str, Any]:
    """The customer's standing now, and what each higher tier would unlock."""
    now = ports.entitlement_now()
    ladder = ports.ladder()
    standing = entitlement.at(now)
    return {
        "customer": customer,
        "tier": standing.tier,
        "status": standing.status,
        "access_until": standing.access_until,
        "features": list(standing.features),
        "blocked": entitlement.facts.blocked is not None,
        "unlocks": [
            {
                "tier": ladder.names[rank],
                "features": [feature for feature in ladder.features[rank] if feature not in standing.features],
                "routes": _unlocked(ports, customer, standing.rank, rank),
                "offers": [offer.public() for offer in ports.offers(ladder.names[rank])],
            }
            for rank in range(standing.rank + 1, len(ladder.names))
            if ladder.sold[rank]
        ],
    }


def plans(ports: PublicPorts) -> dict[str, Any]:
    """Every tier with its features and what it costs."""
    ladder = ports.ladder()
    return {
        "tiers": [
            {
                "tier": name,
                "features": list(ladder.features[rank]),
                "offers": [offer.public() for offer in ports.offers(name)],
            }
            for rank, name in enumerate(ladder.names)
        ]
    }


def _unlocked(ports: PublicPorts, customer: str, has: int, rank: int) -> list[str]:
    """Routes that the tier opens to this customer; one that isn't enforced for them is open already."""
    return [
        route.label
        for route in ports.routes()
        if route.requirement.access is Access.TIER
        and has < route.requirement.min_rank <= rank
        and route.enforcement.binds(customer)
    ]
