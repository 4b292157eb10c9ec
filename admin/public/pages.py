"""The few pages a payer meets: bare, readable, without scripts.

It decides how they look and which headers guard them. A page must never hold a token or a key; the payment link itself
is in the address, so no page tells another site where it came from (`no-referrer`).
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from policies.money import format_offer

_STYLE: Final = (files(__package__) / "templates" / "style.css").read_text(encoding="utf-8")
_STYLE_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

# No form-action: Chrome applies it to the redirect that follows a form, and ours leads to Stripe.
_HEADERS: Final = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}

_environment: Final = Environment(
    loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_environment.filters["offer"] = format_offer
_environment.globals["style"] = _STYLE


def page(template: str, *, status: int = 200, **facts: Any) -> HTMLResponse:
    """One page. `facts` must be all that the template names: a missing one is an error, not a blank."""
    return HTMLResponse(_environment.get_template(template).render(**facts), status_code=status, headers=_HEADERS)
