"""What an operator sees and does: the JSON API behind the operator's listener."""
