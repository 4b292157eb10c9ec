"""A stop comes to its end, whatever has been overlooked."""

from __future__ import annotations

import subprocess
import sys

STUBBORN = """
import asyncio
import gateway.ending

gateway.ending.UNWINDING_SECONDS = 0.2

async def never(password):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def main():
    task = asyncio.create_task(never("a-secret"), name="one that is deaf")
    await asyncio.sleep(0)
    gateway.ending.end_within(0.1)
    task.cancel()

asyncio.run(main())
"""


def test_a_process_that_does_not_come_to_its_end_is_cut_off_and_says_what_it_waited_for() -> None:
    done = subprocess.run([sys.executable, "-c", STUBBORN], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "one that is deaf: <string>:10" in done.stderr
    assert "a-secret" not in done.stderr


def test_a_process_that_ends_before_is_not_held_up() -> None:
    source = STUBBORN.replace("pass", "return").replace("= 0.2", "= 60")
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
