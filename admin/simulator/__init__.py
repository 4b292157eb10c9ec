"""A local Stripe with a clock that can be moved."""
