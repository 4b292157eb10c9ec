"""`gateway run --watch`: a reload when gateway.yaml, or a file that it takes values from, holds something else.

It decides by content, looked at regularly: editors write a new file and rename it, Kubernetes moves a link, some network
file systems tell nobody. What is seen twice in a row has been written whole. It must never ask twice for the same content:
a broken file is told of once, and a file that is gone for a moment not at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.loading import Source, read_bounded, read_text

WATCH_SECONDS: Final = 0.5
GONE_LOOKS: Final = 10
"""After so many looks at a file that isn't there it is said, once."""

_log = logging.getLogger(__name__)


class Watch:
    """`in_force` is what the configuration in force was made from; `changed` loads it anew."""

    def __init__(self, in_force: Callable[[], Source], changed: Callable[[], Awaitable[object]]) -> None:
        self._in_force = in_force
        self._changed = changed
        self._seen: bytes | None = None
        self._tried: bytes | None = None
        self._gone = 0

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await self.look()

    async def look(self) -> None:
        """One look; a reload where it is the second that sees the same new content."""
        source = self._in_force()
        now = await asyncio.to_thread(_digest_of_disk, source)
        if now is None:
            self._gone += 1
            if self._gone == GONE_LOOKS:
                _log.warning("%s is gone or can't be read; the configuration that is in force stays", source.path)
            self._seen = None
            return
        self._gone = 0
        before, self._seen = self._seen, now
        if now != before:
            return
        in_force = _digest(source)
        # What was refused and then set back is read once more, so that nobody is told of it for ever.
        untold = self._tried is not None and self._tried != in_force if now == in_force else now != self._tried
        if untold:
            self._tried = now
            await self._changed()


def _digest(source: Source) -> bytes:
    digest = hashlib.blake2b(source.text)
    for name, text in sorted(source.files.items()):
        digest.update(f"\0{name}\0{text}".encode("utf-8", "surrogatepass"))
    return digest.digest()


def _digest_of_disk(source: Source) -> bytes | None:
    """Of what is there now in the place of the same files; None where there is no gateway.yaml."""
    try:
        text = read_bounded(source.path)
    except OSError:
        return None
    return _digest(Source(source.path, text, {name: _text_or_nothing(name) for name in source.files}))


def _text_or_nothing(name: str) -> str:
    try:
        return read_text(name)
    except (OSError, ValueError):
        return ""
