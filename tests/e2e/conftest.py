"""Processes that tests share, because each takes seconds to start; each test uses customers of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.recorder import Recorder, running_recorder
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def recorder() -> Iterator[Recorder]:
    with running_recorder() as recorder:
        yield recorder


@pytest.fixture(scope="session")
def stack(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Gateway on SQLite without Redis, and simulator. Its clock only ever moves forward; faults are taken back."""
    with running_stack(tmp_path_factory.mktemp("stack"), upstream=recorder.url) as stack:
        yield stack
