"""Seats that are paid for reach the API, and nobody can claim more of them."""

from __future__ import annotations

from pathlib import Path

from tests.support.house import house, token_for


async def test_the_api_learns_of_the_seats_that_are_paid_for_and_of_no_others(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.buy("alice")
        answer = await home.get("/pro/1", token_for("alice"), headers={"X-Gateway-Quantity": "9000"})
        assert answer.status_code == 200
        assert home.seen("x-gateway-quantity") == ["1"]
        await home.grant("bob", "pro")
        answer = await home.until(200, "/pro/1", token_for("bob"), headers={"X_Gateway_Quantity": "9000"})
        assert home.seen("x-gateway-quantity") == []
