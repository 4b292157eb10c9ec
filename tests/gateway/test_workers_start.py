"""A worker that can't start ends the whole start, with a sentence; no process and no lock is left."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

from gateway.all_processes import Totals
from gateway.loading import LoadedFile, load_file
from gateway.reloading import Candidate, Reloads
from gateway.workers import Workers

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

MINIMAL = """\
version: 1
server: {public_url: "https://api.example.com"}
upstreams: {api: {targets: ["http://127.0.0.1:9"]}}
routes: [{path: /**, access: public}]
default: deny
"""


async def test_a_worker_that_ends_before_it_serves_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(MINIMAL)
    loaded = load_file(file, os.environ)
    assert isinstance(loaded, LoadedFile)
    assert loaded.ready is not None
    candidate = Candidate(*loaded.ready, loaded.source)
    reloads = Reloads(candidate, environ={}, parts=tuple, wall=lambda: 0.0)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with socket.create_server(("127.0.0.1", 0)) as public, tempfile.TemporaryFile() as turn:
        workers = Workers(reloads, public, 2, turn.fileno())
        problem = await workers.start()
        assert problem is not None
        assert "ended before it served" in problem
        await workers.stop(asyncio.Event(), 1.0)
        assert workers.report() == (0, 2)


def test_totals_add_up_by_labels_and_keep_the_order_of_buckets() -> None:
    totals = Totals()
    told = [
        ["d", "Seconds.", "histogram", [["d_bucket", {"le": "0.1"}, 1.0], ["d_bucket", {"le": "+Inf"}, 2.0]]],
        ["r", "Requests.", "counter", [["r_total", {"route": "a"}, 3.0]]],
    ]
    totals.add(told)
    totals.add([told[0], ["r", "Requests.", "counter", [["r_total", {"route": "b"}, 4.0]]]])
    assert totals.told() == [
        ["d", "Seconds.", "histogram", [["d_bucket", {"le": "0.1"}, 2.0], ["d_bucket", {"le": "+Inf"}, 4.0]]],
        ["r", "Requests.", "counter", [["r_total", {"route": "a"}, 3.0], ["r_total", {"route": "b"}, 4.0]]],
    ]
