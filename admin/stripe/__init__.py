"""Stripe: an event is a reason to look, never the truth."""
