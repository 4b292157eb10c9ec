"""What one place of gateway.yaml means for another, each finding at its line.

Every check reads the draft and adds findings. It must not report twice what the schema reported, nor call something
undefined that may have been lost with a broken part. Routes that shadow each other or tie are looked at last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.crosschecks import (
    attainable,
    billing,
    conflicts,
    expectations,
    issuers,
    routes,
    server,
    tiers,
    tokens,
    upstreams,
)

if TYPE_CHECKING:
    from policies.diagnostics import Findings
    from policies.draft import Draft


def cross_check(draft: Draft, findings: Findings) -> None:
    """Every check that looks at more than one value, or knows more of a value than its type."""
    for check in (
        server.check,
        upstreams.check,
        issuers.check,
        tokens.check,
        attainable.check,
        tiers.check,
        billing.check,
        routes.check,
        expectations.check,
        conflicts.check,
    ):
        check(draft, findings)
