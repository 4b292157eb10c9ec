"""Where the `gateway` command begins: it loads what a command is made of, and nothing else."""

from __future__ import annotations

import sys

from gateway.collecting import loading_to_stay


def main() -> None:
    """The console script. Ctrl-C while it is still loading is a wish to stop, not a fault."""
    try:
        with loading_to_stay():
            from gateway.cli import main as run_command  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(130)
    run_command()
