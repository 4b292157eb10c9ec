"""When Python looks for garbage: not among what is being loaded.

Modules are loaded to stay, so each look among them is in vain, and those looks were a fifth of a start.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_to_stay() -> Iterator[None]:
    """While inside there is no look for cycles, and what was loaded is never looked at again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
