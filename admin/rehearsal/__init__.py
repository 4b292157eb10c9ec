"""A dress rehearsal of billing: random lives in a simulated world, the real Stripe side, and an oracle that disagrees."""
