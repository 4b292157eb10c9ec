"""What the public listener serves of its own, under `/_gateway/`."""
