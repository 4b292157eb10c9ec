"""The control plane: ledger, Stripe, operator API, simulator."""
