"""What every test may use."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast a machine makes or runs an example is no property of the code: two busy cores must not fail a test.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("house")


MEMORY = Path("/dev/shm")
ROOM_NEEDED = 2 * 2**30


def _files_in_memory() -> None:
    """Ledgers of tests are on a file system in memory where there is room: processes are killed here, machines are not.

    Every commit of a ledger waits for the disk, as it must; for thousands of them that is minutes, and proves nothing.
    """
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM_NEEDED:
        return
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None  # read anew


_files_in_memory()


def pytest_configure() -> None:
    # A shell starts what it puts in the background deaf to Ctrl-C, and all that we start from here would be, too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was loaded stays: to look for garbage among it, again and again, was a sixth of what the tests took."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(25_000, 20, 50)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
