"""`gateway rehearse` as it is typed: it finds nothing where nothing is wrong, a planted fault, and touches nothing outside."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import policies.entitlement
from gateway.cli import app
from policies.facts import ItemFact, SubscriptionFact

ROOT = Path(__file__).parents[2]
UNREACHABLE = """
version: 1
database: postgresql://nobody:secret@db.invalid/ledger
redis: redis://cache.invalid:6379
upstreams: {api: {targets: ["http://127.0.0.1:9"]}}
tiers:
  - {name: starter, prices: [price_starter_weekly]}
  - {name: team, products: [prod_seats], past_due_grace: 12h}
  - {name: scale, lookup_keys: [scale_monthly, scale_yearly]}
billing:
  stripe: {secret_key: sk_live_of_somebody, webhook_secrets: whsec_of_somebody}
  renewal_leeway: 6h
  past_due_grace: 5d
routes:
  - {path: /**, access: public}
"""


def rehearse(config: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["rehearse", "--config", str(config), *words])


@pytest.fixture
def other_file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(UNREACHABLE, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def nothing_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_socket: socket.socket, address: Any) -> None:
        raise AssertionError(f"{address} was called")

    for way in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, way, refused)


def test_the_demos_own_file_is_rehearsed_and_its_ledger_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    shown = rehearse(ROOT / "gateway.yaml", "--lives", "3", "--seed", "5")

    assert shown.exit_code == 0, shown.output
    assert "3 lives with 90 steps, seeds 5 to 5" in shown.stdout
    assert "invoice.paid" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_other_tiers_without_a_free_one_are_rehearsed_by_their_own_leeway_and_grace(other_file: Path) -> None:
    shown = rehearse(other_file, "--lives", "3", "--seed", "1")

    assert shown.exit_code == 0, shown.output
    rows = [line.split("\t") for line in shown.stdout.splitlines() if "\t" in line]
    assert [(row[0], row[5], row[7]) for row in rows] == [
        ("starter", "6h", "120h"),
        ("team", "6h", "12h"),
        ("scale", "6h", "120h"),
    ]
    assert sum(int(row[1]) for row in rows) > 0
    assert "somebody" not in shown.output


def test_the_same_seed_lives_the_same_lives(other_file: Path) -> None:
    once, twice, other = (
        rehearse(other_file, "--lives", "1", "--seed", seed).stdout.splitlines()[1:] for seed in "334"
    )
    assert once == twice
    assert once != other


def test_a_fault_of_the_rules_is_found_with_the_words_to_find_it_again(
    other_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = policies.entitlement._closes_at

    def forgets_the_planned_end(subscription: SubscriptionFact, item: ItemFact, *rest: Any) -> float | None:
        return sound(replace(subscription, cancel_at=None, cancel_at_period_end=False), item, *rest)

    monkeypatch.setattr(policies.entitlement, "_closes_at", forgets_the_planned_end)

    shown = rehearse(other_file, "--lives", "10", "--seed", "7")

    assert shown.exit_code == 1
    assert "seed 7, " in shown.stdout
    assert ": customer-" in shown.stdout
    assert f"Repeat it: gateway rehearse --config {other_file} --seed 7 --lives 10" in shown.stdout
    assert "1 of 1 worlds went wrong" in shown.stderr
    assert "Nobody who had paid was refused" not in shown.stdout


def test_a_product_that_breaks_is_a_disagreement_and_no_traceback_of_ours(
    other_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(policies.entitlement, "_staircase", broken)

    shown = rehearse(other_file, "--lives", "1")

    assert shown.exit_code == 1
    assert "ZeroDivisionError: planted" in shown.stdout
    assert "--seed 0 --lives 1" in shown.stdout


def test_the_end_of_the_time_is_said(other_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admin.rehearsal.run.LIVES_A_WORLD", 1)
    shown = rehearse(other_file, "--lives", "2", "--minutes", "0")
    assert shown.exit_code == 0, shown.output
    assert "The time was over after 1 of 2 lives." in shown.stdout


def test_a_file_that_sells_nothing_cannot_be_rehearsed(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "version: 1\nupstreams: {api: {targets: ['http://127.0.0.1:9']}}\ntiers: [{name: free}]\n"
        "routes: [{path: /**, access: public}]\n",
        encoding="utf-8",
    )
    shown = rehearse(path)
    assert shown.exit_code == 3
    assert "there is nothing to buy" in shown.stderr


@pytest.mark.parametrize("words", [("--lives", "0"), ("--minutes", "-1"), ("--seed", "-1"), ("--lives", "many")])
def test_wrong_words_are_a_matter_of_usage(other_file: Path, words: tuple[str, str]) -> None:
    assert rehearse(other_file, *words).exit_code == 2


def test_a_missing_file_could_not_start(tmp_path: Path) -> None:
    assert rehearse(tmp_path / "none.yaml").exit_code == 3
