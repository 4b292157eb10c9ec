"""`gateway`, as a child process that kills itself at a named point, once a file says that it is time.

    KILL_AT=POINT KILL_WHEN=FILE python killed_gateway.py run

The points are wrapped from outside: the product knows nothing of them. SIGKILL leaves no time for anything to be put in
order, which is the point.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import admin.stripe.sync
from admin.ledger.inbox import Inbox
from admin.ledger.stripe_customers import StripeCustomers
from gateway.cli import main
from gateway.entitlements.redis import EntitlementPublisher

POINTS: Final[dict[str, tuple[Any, str]]] = {
    "after the inbox row": (Inbox, "store"),
    "after the fetch": (admin.stripe.sync, "fetch_customer"),
    "after the commit, before publishing": (StripeCustomers, "write_sync"),
    "during publishing": (EntitlementPublisher, "publish"),
}


def _deadly(act: Callable[..., Awaitable[Any]], when: Path) -> Callable[..., Awaitable[Any]]:
    async def then_die(*args: Any, **kwargs: Any) -> Any:
        done = await act(*args, **kwargs)
        if os.path.exists(when):  # noqa: ASYNC240, PTH110 -- one look, in a process that is about to die
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return then_die


if __name__ == "__main__":
    owner, name = POINTS[os.environ["KILL_AT"]]
    setattr(owner, name, _deadly(getattr(owner, name), Path(os.environ["KILL_WHEN"])))
    main()
