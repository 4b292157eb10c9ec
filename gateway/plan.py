"""Everything that one configuration generation decides with, swapped whole (P10).

A request takes the plan once, at its start, and finishes on it: a reload never shows it half of each.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.answers import Answers
from gateway.credentials import Authenticator
from gateway.upstream.forward import Upstreams
from gateway.upstream.headers import TrustedProxies
from policies.routes import RouteTable
from policies.schema import Config
from policies.tiers import Ladder


@dataclass(frozen=True, slots=True)
class Plan:
    """One loaded configuration, compiled. `own_origins` may use a cookie token on the gateway's own endpoints."""

    config: Config
    routes: RouteTable
    ladder: Ladder
    authenticator: Authenticator
    answers: Answers
    upstreams: Upstreams
    trusted_proxies: TrustedProxies
    own_origins: frozenset[bytes]
