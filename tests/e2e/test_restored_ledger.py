"""A backup of the ledger put back under a Redis that remembers later versions: what is revoked then is in force (P2, P7)."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.redis_server import RedisServer
from tests.support.stack import prepared_gateway

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.recorder import Recorder

LATER_CHANGES = 2


@pytest.mark.redis
def test_a_revocation_after_a_restore_is_in_force_though_redis_holds_later_versions(
    recorder: Recorder, tmp_path: Path
) -> None:
    ledger, backup = tmp_path / "gateway.db", tmp_path / "backup.db"
    with RedisServer() as redis, prepared_gateway(tmp_path, upstream=recorder.url, redis=redis.url) as gateway:
        gateway.start()
        for customer in ("ends", "stays"):
            gateway.grant(customer)
        gateway.running.stop()
        assert not ledger.with_name("gateway.db-wal").exists(), "a ledger that was closed is one file"
        shutil.copyfile(ledger, backup)
        gateway.start()
        for _ in range(LATER_CHANGES):
            for customer in ("ends", "stays"):
                gateway.grant(customer, "enterprise")
                assert gateway.until("/ent/x", customer, 200)
        gateway.running.stop()
        shutil.copyfile(backup, ledger)
        gateway.start()
        for customer in ("ends", "stays"):
            assert gateway.status("/pro/x", customer) == 200
        answer = gateway.operator_post("/api/revoke/ends", {"reason": "after the restore"})
        assert answer.status_code == 200, answer.text
        gateway.until("/pro/x", "ends", 402)
        gateway.running.stop()
        gateway.start()
        assert gateway.status("/pro/x", "ends") == 402, "neither does Redis bring it back to a new process"
        assert gateway.status("/pro/x", "stays") == 200
