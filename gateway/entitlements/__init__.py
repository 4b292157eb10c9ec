"""What a customer is entitled to: memory, then Redis, then SQL."""
