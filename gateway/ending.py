"""The bound of a stop: a process that was told to end does end, whatever of it has not.

It decides when waiting has no sense any more. Everything that is waited for at a stop has a bound of its own; this one is for what was
overlooked, and says what it was, so that it can be mended. It must never come before what may still finish.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
from typing import Final

UNWINDING_SECONDS: Final = 10.0
"""Beyond the drain, for background work to be called off and connections to be closed; on a busy machine that takes a while."""
EXIT_STATUS: Final = 1


def end_within(seconds: float) -> None:
    """From now on the process has so long, and the time to unwind. Call it within the event loop."""
    loop = asyncio.get_running_loop()
    timer = threading.Timer(seconds + UNWINDING_SECONDS, _end, (loop, seconds))
    timer.daemon = True  # whoever ends before isn't held up
    timer.start()


def _end(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """Places in the code are said and no values, which may be secrets."""
    told = [
        f"The stop has not come to its end within {seconds:.0f} + {UNWINDING_SECONDS:.0f} seconds and is cut off. Still under way:"
    ]
    try:
        for task in asyncio.all_tasks(loop):
            stack = [f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in task.get_stack(limit=5)]
            told.append(f"  {task.get_name()}: {' < '.join(reversed(stack))}")
        sys.stderr.write("\n".join(told) + "\n")
        sys.stderr.flush()
        faulthandler.dump_traceback(all_threads=True)
    finally:
        os._exit(EXIT_STATUS)
