"""What tests share: real servers to start and kill, tokens, an oracle."""
