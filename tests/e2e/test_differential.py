"""A bounded part of `make differential`: what gateway and nginx make of the same bytes is the same, or the gateway refuses."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.differential.run import compare

if TYPE_CHECKING:
    from pathlib import Path


async def test_an_api_behind_the_gateway_sees_what_one_behind_nginx_does(tmp_path: Path) -> None:
    if shutil.which("nginx") is None and shutil.which("nginx", path="/usr/sbin") is None:
        pytest.skip("there is no nginx: on Debian, `apt install nginx-light`")
    tally = await compare(tmp_path, range(60))
    assert tally.faults == []
    assert tally.counted["the same"] > 30
