"""A local Stripe with a clock that can be moved."""

from __future__ import annotations

from admin.simulator.app import DEFAULT_API_KEY, Simulator
from admin.simulator.seeding import Offer

__all__ = ["DEFAULT_API_KEY", "Offer", "Simulator"]
