"""Where the program's own log goes: one line a record on stderr, from this house at INFO and from libraries at WARNING.

httpx writes whole URLs at INFO, Stripe's SDK whole bodies at DEBUG: neither may be turned up, whatever the level (P9).
"""

from __future__ import annotations

import logging
import sys


def configure_logging() -> None:
    """Once per process, before anything else starts."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for room in ("admin", "gateway", "policies"):
        logging.getLogger(room).setLevel(logging.INFO)
    # Who holds which job is of interest when it changes hands unexpectedly, which is said as a warning.
    logging.getLogger("admin.ledger.leases").setLevel(logging.WARNING)
