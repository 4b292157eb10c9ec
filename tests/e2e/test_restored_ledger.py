"""A backup of the ledger put back under a Redis that remembers later versions: what ends then is in force (P2, P7)."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.redis_server import RedisServer
from tests.support.stack import eventually, running_stack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.recorder import Recorder

LATER_CHANGES = 2


@pytest.mark.redis
def test_what_is_revoked_or_cancelled_after_a_restore_is_in_force_though_redis_holds_later_versions(
    recorder: Recorder, tmp_path: Path
) -> None:
    ledger, backup = tmp_path / "gateway.db", tmp_path / "backup.db"
    granted, paying = ("ends", "stays"), ("cancels", "pays", "cancelled-before")
    with RedisServer() as redis, running_stack(tmp_path, upstream=recorder.url, redis=redis.url) as stack:
        gateway = stack.gateway

        def cancel(customer: str) -> None:
            [subscription] = stack.stripe.subscriptions_of(customer)
            stack.stripe.stripe(f"subscriptions/{subscription['id']}", "DELETE")
            gateway.until("/pro/x", customer, 402)

        for customer in granted:
            gateway.grant(customer)
        for customer in paying:
            stack.subscribe(customer)
            gateway.until("/pro/x", customer, 200)
        assert stack.stripe.control("settle") == {"settled": True}
        gateway.running.stop()
        assert not ledger.with_name("gateway.db-wal").exists(), "a ledger that was closed is one file"
        shutil.copyfile(ledger, backup)
        gateway.start()
        for _ in range(LATER_CHANGES):
            for customer in granted:
                gateway.grant(customer, "enterprise")
                assert gateway.until("/ent/x", customer, 200)
            for customer in paying:
                stack.renew(customer, enabled=False)
                stack.renew(customer, enabled=True)
        cancel("cancelled-before")
        gateway.running.stop()
        shutil.copyfile(backup, ledger)
        gateway.start()
        eventually(lambda: gateway.readiness()["redis"] == "ok", within=30)  # from now on it is asked before the ledger
        for customer in ("ends", "stays", "cancels", "pays"):
            assert gateway.status("/pro/x", customer) == 200
        answer = gateway.operator_post("/api/revoke/ends", {"reason": "after the restore"})
        assert answer.status_code == 200, answer.text
        gateway.until("/pro/x", "ends", 402)
        cancel("cancels")
        gateway.until("/pro/x", "cancelled-before", 402)
        gateway.running.stop()
        gateway.start()
        eventually(lambda: gateway.readiness()["redis"] == "ok", within=30)
        for customer in ("ends", "cancels", "cancelled-before"):
            assert gateway.status("/pro/x", customer) == 402, "neither does Redis bring it back to a new process"
        for customer in ("stays", "pays"):
            assert gateway.status("/pro/x", customer) == 200
