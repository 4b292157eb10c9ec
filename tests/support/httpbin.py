"""A real application that nobody here wrote: httpbin, from an environment of its own, as `make` installs it.

`$HTTPBIN_VENV` names that environment, else it is the repository's `.venv-httpbin`. A test that needs it skips without.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def httpbin_environment() -> Path:
    """The environment; skips the test where there is none."""
    named = Path(os.environ.get("HTTPBIN_VENV", ".venv-httpbin"))
    place = named if named.is_absolute() else REPOSITORY / named
    if not (place / "bin" / "python").exists():
        pytest.skip(f"there is no httpbin in {place}: `make test` installs it")
    return place
