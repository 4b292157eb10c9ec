"""The data plane: verify, look up, decide, forward."""
