"""`gateway sync`, `gateway import` and `gateway events backfill`, as they are typed, against a simulated Stripe."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from admin.simulator.faults import ApiFault
from admin.stripe.client import StripeGateway, StripeUnavailable
from admin.stripe.review import MOST_LISTED
from gateway.cli import app
from tests.support.ledgers import fresh_sqlite
from tests.support.simulator import Running, running_simulator


@dataclass(frozen=True, slots=True)
class Desk:
    """A command line, a ledger and a Stripe."""

    stripe: Running
    config: Path
    ledger: Path

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--config", str(self.config)])

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.ledger) as connection:
            found = connection.execute(query).fetchall()
        connection.close()
        return found

    def links(self) -> dict[str, str]:
        return dict(self.ask("SELECT id, customer FROM stripe_customers WHERE customer IS NOT NULL"))

    def new_customer(self, **fields: Any) -> str:
        return str(self.stripe.stripe().v1.customers.create(fields).id)  # type: ignore[arg-type]

    def subscribed(self, **fields: Any) -> str:
        made = self.new_customer(**fields)
        self.stripe.simulator.world.store.customers[made].card = "works"
        self.stripe.stripe().v1.subscriptions.create({"customer": made, "items": [{"price": "price_pro_monthly"}]})
        return made


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with running_simulator() as stripe:
        config = tmp_path / "gateway.yaml"
        config.write_text(
            f"""
version: 1
database: {fresh_sqlite(tmp_path)}
upstreams: {{api: {{targets: ["http://127.0.0.1:9"]}}}}
tiers:
  - name: free
  - {{name: pro, prices: [price_pro_monthly]}}
billing:
  stripe: {{secret_key: sk_test_simulator, api_base: "{stripe.base}"}}
routes:
  - {{path: /**, access: public}}
""",
            encoding="utf-8",
        )
        yield Desk(stripe, config, tmp_path / "ledger.db")


def lines(result: Result) -> list[list[str]]:
    return [line.split("\t") for line in result.stdout.splitlines()]


def test_import_shows_who_would_be_whom_and_changes_nothing(desk: Desk) -> None:
    alice = desk.subscribed(metadata={"user_id": "alice"})
    nobody = desk.new_customer(email="x@example.com")
    torn = desk.new_customer(metadata={"user_id": "carol", "gateway_customer": "dave"})
    shown = desk.run("import", "--match", "metadata:user_id")
    assert shown.exit_code == 0, shown.output
    assert sorted(lines(shown)) == sorted(
        [
            [alice, "alice", "new", "-"],
            [nobody, "-", "unnamed", "nothing there"],
            [torn, "carol", "conflict", "its metadata names dave"],
        ]
    )
    assert "1 to link, 0 linked before, 1 in conflict, 1 without a name." in shown.stderr
    assert "--write does it" in shown.stderr
    assert desk.ask("SELECT * FROM stripe_customers") == []
    assert desk.ask("SELECT * FROM customers") == []


def test_import_with_write_links_fetches_and_gives_access(desk: Desk) -> None:
    alice = desk.subscribed(metadata={"user_id": "alice"})
    desk.new_customer(metadata={"user_id": ""})
    written = desk.run("import", "--match", "metadata:user_id", "--write")
    assert written.exit_code == 0, written.output
    assert desk.links() == {alice: "alice"}
    shown = desk.run("customers", "alice")
    assert '"tier": "pro"' in shown.stdout


@pytest.mark.parametrize(("rule", "expected"), [("email", "ann@example.com"), ("id", None)])
def test_import_matches_by_email_and_by_stripes_own_id(desk: Desk, rule: str, expected: str | None) -> None:
    made = desk.subscribed(email="ann@example.com")
    assert desk.run("import", "--match", rule, "--write").exit_code == 0
    assert desk.links() == {made: expected or made}


def test_several_stripe_customers_may_be_one_customer(desk: Desk) -> None:
    made = {desk.subscribed(email="ann@example.com") for _ in range(2)}
    desk.run("import", "--match", "email", "--write")
    assert desk.links() == dict.fromkeys(made, "ann@example.com")


def test_import_moves_no_link_and_a_second_run_changes_nothing(desk: Desk) -> None:
    made = desk.subscribed(email="ann@example.com", metadata={"user_id": "ann"})
    desk.run("import", "--match", "metadata:user_id", "--write")
    before = desk.ask("SELECT customer, version FROM customers")
    again = desk.run("import", "--match", "metadata:user_id", "--write")
    assert lines(again) == [[made, "ann", "known", "-"]]
    assert desk.ask("SELECT customer, version FROM customers") == before
    other = desk.run("import", "--match", "email", "--write")
    assert lines(other) == [[made, "ann@example.com", "conflict", "is linked to ann"]]
    assert desk.links() == {made: "ann"}


def test_what_a_killed_import_linked_but_did_not_fetch_is_fetched_by_the_next(desk: Desk) -> None:
    made = desk.subscribed(metadata={"user_id": "ann"})
    desk.run("import", "--match", "metadata:user_id", "--write")
    with sqlite3.connect(desk.ledger) as connection:
        connection.execute(
            "UPDATE stripe_customers SET facts = '[]', fetched_at = NULL, ticket = 0, written_ticket = 0"
        )
    connection.close()
    assert lines(desk.run("import", "--match", "metadata:user_id", "--write")) == [[made, "ann", "known", "-"]]
    assert '"tier": "pro"' in desk.run("customers", "ann").stdout


def test_import_reads_every_page(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admin.stripe.adoption.PAGE_SIZE", 2)
    made = {desk.new_customer(metadata={"user_id": f"user-{number}"}) for number in range(7)}
    assert {line[0] for line in lines(desk.run("import", "--match", "metadata:user_id"))} == made


def test_import_says_when_stripe_went_away_and_ends_with_3(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {desk.new_customer(metadata={"user_id": f"user-{number}"}) for number in range(3)}
    monkeypatch.setattr("admin.stripe.adoption.PAGE_SIZE", 2)
    real = StripeGateway.get

    async def get(self: StripeGateway, path: str, params: Any = None, **more: Any) -> Any:
        away = "starting_after" in (params or {})
        return StripeUnavailable("it is away") if away else await real(self, path, params, **more)

    monkeypatch.setattr(StripeGateway, "get", get)
    gone = desk.run("import", "--match", "metadata:user_id")
    assert gone.exit_code == 3
    assert len({line[0] for line in lines(gone)} & made) == 2
    assert "could not all be read" in gone.stderr


@pytest.mark.parametrize("rule", ["name", "metadata:", "metadata", "metadata:" + "k" * 41, ""])
def test_a_rule_that_is_none_is_a_wrong_usage(desk: Desk, rule: str) -> None:
    assert desk.run("import", "--match", rule).exit_code == 2


def test_sync_all_repairs_what_no_webhook_told(desk: Desk) -> None:
    for name in ("ann", "ben", "cem"):
        desk.subscribed(metadata={"user_id": name})
    desk.run("import", "--match", "metadata:user_id", "--write")
    gone = next(iter(desk.links()))
    (subscription,) = desk.stripe.stripe().v1.subscriptions.list({"customer": gone}).data
    desk.stripe.stripe().v1.subscriptions.cancel(subscription.id)
    synced = desk.run("sync", "--all")
    assert synced.exit_code == 0, synced.output
    assert synced.stdout == "3 Stripe customers fetched, 1 of them were not as Stripe has them.\n"
    assert '"tier": "free"' in desk.run("customers", desk.links()[gone]).stdout


def test_sync_all_counts_and_names_whom_it_could_not_fetch(desk: Desk) -> None:
    for name in ("ann", "ben"):
        desk.new_customer(metadata={"user_id": name})
    desk.run("import", "--match", "metadata:user_id", "--write")
    torn = next(iter(desk.links()))
    desk.stripe.simulator.world.faults.api.append(ApiFault("500", 100, customer=torn))
    synced = desk.run("sync", "--all")
    assert synced.exit_code == 1, synced.output
    assert synced.stdout == "1 Stripe customers fetched, 0 of them were not as Stripe has them.\n"
    assert f"  {torn}: " in synced.stderr
    assert "1 could not be fetched" in synced.stderr


def test_sync_all_that_is_interrupted_says_so_and_goes_on_behind_the_last_whole_page(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admin.stripe.everybody.PAGE", 2)
    for number in range(5):
        desk.new_customer(metadata={"user_id": f"user-{number}"})
    desk.run("import", "--match", "metadata:user_id", "--write")
    real, third = StripeGateway.list_all, sorted(desk.links())[2]

    async def list_all(self: StripeGateway, path: str, params: Any, **more: Any) -> Any:
        if params.get("customer") == third:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        return await real(self, path, params, **more)

    monkeypatch.setattr(StripeGateway, "list_all", list_all)
    stopped = desk.run("sync", "--all")
    assert stopped.exit_code in {1, 130}, stopped.output
    assert "gateway: stopped; run it again to go on from there." in stopped.stderr
    monkeypatch.setattr(StripeGateway, "list_all", real)
    went_on = desk.run("sync", "--all")
    assert "going on after the first 2" in went_on.stderr
    assert went_on.stdout == "5 Stripe customers fetched, 0 of them were not as Stripe has them.\n"


def test_sync_wants_a_customer_or_all(desk: Desk) -> None:
    assert desk.run("sync").exit_code == 2
    assert desk.run("sync", "alice", "--all").exit_code == 2


def test_sync_of_one_who_is_unknown_says_so(desk: Desk) -> None:
    unknown = desk.run("sync", "nobody")
    assert unknown.exit_code == 1
    assert "No Stripe customer is linked to nobody" in unknown.stderr


def test_sync_of_an_id_that_stripe_does_not_have_says_so(desk: Desk) -> None:
    unknown = desk.run("sync", "cus_QrStUvWx")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "Stripe has no customer cus_QrStUvWx" in unknown.stderr
    assert desk.ask("SELECT * FROM stripe_customers") == [], "a slip of the hand leaves nothing"


def test_sync_of_a_customer_that_was_deleted_at_stripe_says_so_and_stores_nothing(desk: Desk) -> None:
    gone = desk.new_customer()
    desk.stripe.stripe().v1.customers.delete(gone)
    told = desk.run("sync", gone)
    assert (told.exit_code, told.stdout) == (1, "")
    assert f"Stripe customer {gone} was deleted" in told.stderr
    assert desk.ask("SELECT * FROM stripe_customers") == []


def test_sync_of_an_id_while_stripe_is_away_can_not_be_done_and_stores_nothing(desk: Desk) -> None:
    stranger = desk.subscribed()
    desk.stripe.simulator.world.faults.api.append(ApiFault("500", 3, customer=stranger))
    away = desk.run("sync", stranger)
    assert away.exit_code == 3
    assert f"{stranger} could not be fetched" in away.stderr
    assert desk.ask("SELECT * FROM stripe_customers") == []
    assert desk.run("sync", stranger).stdout == f"Fetched from Stripe: {stranger}.\n"
    assert desk.ask("SELECT id FROM stripe_customers") == [(stranger,)]


def test_backfill_stores_what_is_missing_once(desk: Desk) -> None:
    desk.subscribed(metadata={"gateway_customer": "ann"})
    first = desk.run("events", "backfill", "--since", "3d")
    assert first.exit_code == 0, first.output
    stored = desk.ask("SELECT event_id, status FROM inbox")
    assert len(stored) > 2
    assert {status for _, status in stored} == {"pending"}
    assert first.stdout.startswith(f"{len(stored)} events of the last 3d were missing")
    again = desk.run("events", "backfill", "--since", "3d")
    assert again.stdout.startswith("0 events")
    assert desk.ask("SELECT value FROM meta WHERE key LIKE 'stripe.events.%'") == [], "the cursor is the gateway's"


def test_backfill_reaches_no_further_than_it_was_told(desk: Desk) -> None:
    desk.subscribed(metadata={"gateway_customer": "ann"})
    desk.stripe.advance(days=2)
    assert desk.run("events", "backfill", "--since", "1d").stdout.startswith("0 events")
    assert not desk.run("events", "backfill", "--since", "3d").stdout.startswith("0 events")


@pytest.mark.parametrize("since", ["31d", "0s", "soon", "-1d"])
def test_a_stretch_that_stripe_does_not_keep_is_a_wrong_usage(desk: Desk, since: str) -> None:
    assert desk.run("events", "backfill", "--since", since).exit_code == 2


def test_a_dead_letter_is_seen_and_can_be_replayed(desk: Desk) -> None:
    desk.subscribed(metadata={"gateway_customer": "ann"})
    desk.run("events", "backfill", "--since", "1d")
    (event, *_), *_ = desk.ask("SELECT event_id FROM inbox WHERE type = 'customer.subscription.created'")
    with sqlite3.connect(desk.ledger) as connection:
        connection.execute("UPDATE inbox SET status = 'dead', error = 'no luck' WHERE event_id = ?", (event,))
    connection.close()
    (shown,) = lines(desk.run("events", "--status", "dead"))
    assert (shown[0], shown[2], shown[5]) == (event, "dead", "no luck")
    assert desk.run("events", "replay", event).exit_code == 0
    assert desk.ask(f"SELECT status, attempts FROM inbox WHERE event_id = '{event}'") == [("pending", 0)]


@pytest.mark.parametrize(
    ("words", "said"), [((), "No event is on record.\n"), (("--status", "pending"), "No event is pending.\n")]
)
def test_that_there_are_no_events_is_said(desk: Desk, words: tuple[str, ...], said: str) -> None:
    shown = desk.run("events", *words)
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "", said)


def test_without_a_key_there_is_nothing_to_fetch(desk: Desk) -> None:
    text = desk.config.read_text(encoding="utf-8").replace("sk_test_simulator", '""')
    desk.config.write_text(text, encoding="utf-8")
    for words in (("sync", "--all"), ("import", "--match", "id"), ("events", "backfill", "--since", "1d")):
        refused = desk.run(*words)
        assert refused.exit_code == 3
        assert "there is no Stripe key" in refused.stderr


def test_check_asks_stripe_who_pays_for_no_tier_and_which_ids_it_does_not_know(desk: Desk) -> None:
    desk.subscribed(metadata={"user_id": "alice"})
    assert desk.run("check", "--stripe").exit_code == 0
    text = desk.config.read_text(encoding="utf-8")
    desk.config.write_text(text.replace("prices: [price_pro_monthly]", "prices: [price_of_another_mode]"))
    found = desk.run("check", "--stripe", "--format", "json")
    assert found.exit_code == 1, found.output
    told = {one["code"]: one for one in json.loads(found.stdout)}
    assert told["unknown-in-stripe"]["severity"] == "error"
    assert "'price_of_another_mode' is not known" in told["unknown-in-stripe"]["message"]
    assert text.splitlines()[told["unknown-in-stripe"]["line"] - 1].lstrip().startswith("- {name: pro")
    assert told["unmapped-subscription"]["severity"] == "warning"
    assert "is active and pays for price_pro_monthly, which no tier has" in told["unmapped-subscription"]["message"]
    assert desk.run("check").exit_code == 0  # the file itself is in order


def test_check_reads_every_page_of_who_pays_and_names_the_first_thousand(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_LISTED == 1000
    monkeypatch.setattr("admin.stripe.review.PAGE_SIZE", 2)
    for _ in range(5):
        desk.subscribed()
    text = desk.config.read_text(encoding="utf-8")
    desk.config.write_text(text.replace("prices: [price_pro_monthly]", "prices: [price_ent]"), encoding="utf-8")
    paying = {one.id for one in desk.stripe.stripe().v1.subscriptions.list({"limit": 100}).data}
    assert len(paying) == 5
    messages = [line.split(": ", 1)[1] for line in desk.run("check", "--stripe").stdout.splitlines() if "sub_" in line]
    assert {next(one for one in paying if one in message) for message in messages} == paying
    assert len(messages) == 5

    monkeypatch.setattr("admin.stripe.review.MOST_LISTED", 3)
    shown = desk.run("check", "--stripe", "--format", "github")
    assert shown.exit_code == 0, "a person is to judge who pays for no tier"
    annotations = shown.stdout.splitlines()
    line = next(number for number, each in enumerate(text.splitlines(), 1) if each == "tiers:")
    head = f"::warning file={desk.config},line={line},col=1,title=unmapped-subscription::"
    assert all(each.startswith(head) for each in annotations), annotations
    assert [each.removeprefix(head).startswith("sub_") for each in annotations] == [True, True, True, False]
    assert annotations[-1] == head + "with 2 more, 5 paying subscriptions belong to no tier"


def test_check_says_when_stripe_could_not_be_asked(desk: Desk) -> None:
    desk.stripe.simulator.world.faults.api.append(ApiFault("500", 100))
    found = desk.run("check", "--stripe")
    assert found.exit_code == 3
    assert "Stripe could not be asked" in found.output
