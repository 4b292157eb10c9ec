"""Whose an API key is: remembered, looked up, forgotten on a change, and what is answered when nobody can say."""

from __future__ import annotations

import asyncio
import hmac
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from gateway.credentials import ApiKeys, Authenticated, Authenticator, KeyBounds, Unauthenticated
from gateway.credentials.api_keys import NO_END, NOTE_SECONDS
from policies import schema
from policies.api_key import ApiKey, KeyRecord, digest_of, make_key
from policies.reasons import Reason
from tests.support.ledger_stub import Clock
from tests.support.tokens import sign

HASH_KEY = b"h" * 32
NOW = 1_800_000_000
RNG = random.Random(20)
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Records:
    """The ledger's side: what it holds, what was asked, and whether it answers."""

    def __init__(self) -> None:
        self.held: dict[str, KeyRecord] = {}
        self.reads: list[tuple[str, ...]] = []
        self.is_gone = False
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def add(self, customer: str = "alice", version: int = 1, **fields: object) -> ApiKey:
        key = make_key(RNG.randrange)
        digest = digest_of(HASH_KEY, key.text.encode())
        plain = KeyRecord(key.id, customer, digest, None, None, None, None, version)
        self.held[key.id] = replace(plain, **fields)  # type: ignore[arg-type]
        return key

    def change(self, key: ApiKey, **fields: object) -> KeyRecord:
        held = self.held[key.id]
        self.held[key.id] = replace(held, version=held.version + 1, **fields)  # type: ignore[arg-type]
        return self.held[key.id]

    async def read(self, ids: Sequence[str]) -> dict[str, KeyRecord]:
        self.reads.append(tuple(ids))
        self.asked.set()
        if self.is_gone:
            raise ConnectionError
        found = {one: self.held[one] for one in ids if one in self.held}
        await self.gate.wait()
        return found


class Desk:
    """An authenticator that takes keys, its clocks in hand."""

    def __init__(self, bounds: KeyBounds | None = None, header: str = "X-API-Key") -> None:
        self.records = Records()
        self.monotonic = Clock(1000.0)
        self.wall = float(NOW)
        self.is_followed = True
        self.keys = ApiKeys(
            self.records.read,
            hash_key=HASH_KEY,
            now=lambda: self.wall,
            monotonic=self.monotonic,
            feed_healthy=lambda: self.is_followed,
            bounds=bounds,
        )
        issuer = schema.Issuer.model_validate(
            {
                "issuer": "https://issuer.test/",
                "audience": ("api",),
                "algorithms": ("HS256",),
                "secret": "a-secret-of-the-tests-that-is-long-enough-0123",
            }
        )
        auth = schema.Auth(
            issuers=(issuer,),
            token_from=("header", "cookie:session", "query:token"),
            api_keys=schema.ApiKeySettings(enabled=True, header=header),
        )
        self.subject = Authenticator(auth, now=lambda: self.wall, api_keys=self.keys)

    def at_once(self, *headers: tuple[bytes, bytes], query: bytes = b"") -> Authenticated | Unauthenticated:
        return self.subject.authenticate(list(headers), query)

    async def ask(self, *headers: tuple[bytes, bytes], query: bytes = b"") -> Authenticated | Unauthenticated:
        outcome = self.subject.authenticate(list(headers), query)
        return await self.subject.settle(outcome, list(headers), query)

    async def show(self, key: ApiKey) -> Authenticated | Unauthenticated:
        return await self.ask(bearer(key))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.keys.aclose()


def bearer(key: ApiKey | str) -> tuple[bytes, bytes]:
    return (b"authorization", b"Bearer " + (key if isinstance(key, str) else key.text).encode())


def header(key: ApiKey | str, name: bytes = b"x-api-key") -> tuple[bytes, bytes]:
    return (name, (key if isinstance(key, str) else key.text).encode())


def with_id(key_id: str) -> str:
    """Another key of the same id, checksum and all: anybody can make one."""
    digits = iter(key_id)
    return make_key(lambda below: ALPHABET.index(next(digits, "z")) % below).text


def near(key: ApiKey, right: int) -> str:
    """A key of the same id whose secret begins as the right one does, that far."""
    return with_id(key.id + key.text[16 : 16 + right])


def customer(outcome: Authenticated | Unauthenticated) -> str:
    assert isinstance(outcome, Authenticated), outcome
    return outcome.caller.customer


def reason(outcome: Authenticated | Unauthenticated) -> Reason:
    assert isinstance(outcome, Unauthenticated), outcome
    return outcome.reason


async def test_a_key_is_looked_up_once_and_known_at_once_after_that(desk: Desk) -> None:
    key = desk.records.add(scopes=("a",))
    first = await desk.show(key)
    assert isinstance(first, Authenticated)
    assert (first.caller.customer, first.caller.key_id, first.caller.scopes) == ("alice", key.id, ("a",))
    assert first.caller.expires_at == NO_END
    for place in (bearer(key), header(key)):
        assert customer(desk.at_once(place)) == "alice"
    assert desk.records.reads == [(key.id,)]


async def test_it_may_come_in_either_header_and_in_both_if_it_is_the_same(desk: Desk) -> None:
    key = desk.records.add()
    assert customer(await desk.ask(header(key))) == "alice"
    outcome = desk.at_once(bearer(key), header(key))
    assert customer(outcome) == "alice"
    assert isinstance(outcome, Authenticated)
    assert outcome.source.kind == "header"
    alone = desk.at_once(header(key))
    assert isinstance(alone, Authenticated)
    assert alone.source.kind == "key"


async def test_two_credentials_in_one_request_are_refused_whatever_they_are(desk: Desk) -> None:
    one, two = desk.records.add(), desk.records.add()
    token = sign({"iss": "https://issuer.test/", "aud": "api", "sub": "alice", "exp": NOW + 60})
    cookie = (b"cookie", f"session={token}".encode())
    for headers in (
        [bearer(one), header(two)],
        [bearer(token), header(one)],
        [header(one), cookie],
        [bearer(one), cookie],
        [header(one), header(two)],
        [header(one), header(one)],
        [header(one), header(one, b"x_api_key")],
        [bearer(one), bearer(one)],
        [bearer(token), header("a-key-of-the-upstreams-own")],
    ):
        assert reason(await desk.ask(*headers)) is Reason.BAD_REQUEST
    assert reason(await desk.ask(header(one), query=f"token={token}".encode())) is Reason.BAD_REQUEST
    assert desk.records.reads == []


async def test_an_alias_of_the_header_is_the_header(desk: Desk) -> None:
    key = desk.records.add()
    for alias in (b"x_api-key", b"x.api.key", b"x~api+key"):
        assert customer(await desk.ask(header(key, alias))) == "alice"


async def test_a_key_in_a_cookie_or_a_query_is_no_credential(desk: Desk) -> None:
    key = desk.records.add()
    assert reason(await desk.ask((b"cookie", f"session={key.text}".encode()))) is Reason.TOKEN_INVALID
    assert reason(await desk.ask(query=f"token={key.text}".encode())) is Reason.TOKEN_INVALID
    assert desk.records.reads == []


async def test_what_is_no_key_never_reaches_the_ledger(desk: Desk) -> None:
    key = desk.records.add()
    for text in (
        "gw_",
        "gw_x",
        key.text[:-1],
        key.text + "0",
        key.text[:-1] + "!",
        "GW_" + key.text[3:],
        "x",
        "gw_" + "a" * 51,
    ):
        assert reason(await desk.ask(header(text))) is Reason.TOKEN_INVALID, text
        assert reason(await desk.ask(bearer(text))) is Reason.TOKEN_INVALID, text
    assert reason(await desk.ask((b"x-api-key", b"  "))) is Reason.TOKEN_MISSING
    assert reason(await desk.ask((b"x-api-key", b"\xff" * 54))) is Reason.TOKEN_INVALID
    assert desk.records.reads == []


async def test_an_unknown_key_is_refused_and_asked_about_again_only_after_a_while(desk: Desk) -> None:
    stranger = make_key(RNG.randrange)
    for _ in range(3):
        assert reason(await desk.show(stranger)) is Reason.TOKEN_INVALID
    assert len(desk.records.reads) == 1
    desk.monotonic.advance(5.1)
    assert reason(await desk.show(stranger)) is Reason.TOKEN_INVALID
    assert len(desk.records.reads) == 2


async def test_secrets_are_told_apart_in_constant_time_and_by_their_digests_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def noting(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    key = desk.records.add()
    other = near(key, 31)
    right, wrong = (digest_of(HASH_KEY, each.encode()).encode() for each in (key.text, other))
    monkeypatch.setattr(hmac, "compare_digest", noting)
    assert customer(await desk.show(key)) == "alice"
    assert reason(await desk.ask(bearer(other))) is Reason.TOKEN_INVALID
    assert compared == [(right, right), (right, wrong)]


async def test_whoever_guesses_by_prefix_learns_nothing_from_how_near_they_came(desk: Desk) -> None:
    key = desk.records.add()
    outcomes = [await desk.ask(bearer(near(key, right))) for right in (0, 1, 16, 31)]
    assert {repr(outcome) for outcome in outcomes} == {repr(outcomes[0])}
    assert reason(outcomes[0]) is Reason.TOKEN_INVALID
    unknown = await desk.show(make_key(RNG.randrange))
    assert repr(unknown) == repr(outcomes[0]), "not even whether the id exists"


async def test_the_right_id_with_another_secret_is_refused_and_leaves_the_right_key_alone(desk: Desk) -> None:
    key = desk.records.add()
    forged = with_id(key.id)
    assert customer(await desk.show(key)) == "alice"
    assert reason(await desk.ask(bearer(forged))) is Reason.TOKEN_INVALID
    assert len(desk.records.reads) == 2
    assert customer(desk.at_once(bearer(key))) == "alice"


async def test_many_unknown_keys_at_once_are_a_few_queries(desk: Desk) -> None:
    good = desk.records.add()
    strangers = [make_key(RNG.randrange) for _ in range(500)]
    desk.records.gate.clear()
    asking = [asyncio.create_task(desk.show(key)) for key in (*strangers, *strangers, good)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(desk.records.reads) == 1
    desk.records.gate.set()
    outcomes = await asyncio.gather(*asking)
    assert customer(outcomes[-1]) == "alice"
    assert {reason(outcome) for outcome in outcomes[:-1]} == {Reason.TOKEN_INVALID}
    assert len(desk.records.reads) <= 4


async def test_what_waits_and_what_is_remembered_is_bounded() -> None:
    desk = Desk(KeyBounds(most_remembered=3, most_refused=3, most_waiting=4))
    desk.records.gate.clear()
    strangers = [make_key(RNG.randrange) for _ in range(6)]
    outcomes = [desk.at_once(bearer(key)) for key in strangers]
    assert [reason(outcome) for outcome in outcomes] == [Reason.KEYS_UNAVAILABLE] * 6
    assert [isinstance(outcome, Unauthenticated) and outcome.awaited is not None for outcome in outcomes] == (
        [True] * 4 + [False] * 2
    )
    desk.records.gate.set()
    for key in strangers:
        await desk.show(key)
    assert len(desk.keys._refused) == 3
    owned = [desk.records.add(f"c{number}") for number in range(6)]
    for key in owned:
        assert isinstance(await desk.show(key), Authenticated)
    assert len(desk.keys._remembered) == 3
    assert set(desk.keys._of_customer) == {"c3", "c4", "c5"}
    assert customer(await desk.show(owned[0])) == "c0"
    await desk.keys.aclose()


async def test_a_change_of_the_customer_makes_their_keys_forgotten_and_nobody_elses(desk: Desk) -> None:
    one, two, bobs = desk.records.add(), desk.records.add(), desk.records.add("bob")
    for key in (one, two, bobs):
        await desk.show(key)
    revoked = desk.records.change(one, revoked_at=NOW)
    desk.records.change(two)
    assert customer(desk.at_once(bearer(one))) == "alice"
    desk.keys.changed("alice", revoked.version)
    assert reason(await desk.show(one)) is Reason.TOKEN_INVALID
    assert customer(await desk.show(two)) == "alice"
    assert len(desk.records.reads) == 5
    assert customer(desk.at_once(bearer(bobs))) == "bob"
    desk.keys.changed("alice", revoked.version)
    assert customer(desk.at_once(bearer(two))) == "alice"


async def test_a_record_that_a_change_overtook_is_read_again(desk: Desk) -> None:
    key = desk.records.add()
    desk.records.gate.clear()
    asking = asyncio.create_task(desk.show(key))
    await desk.records.asked.wait()
    revoked = desk.records.change(key, revoked_at=NOW)
    desk.keys.changed("alice", revoked.version)
    desk.records.gate.set()
    assert reason(await asking) is Reason.TOKEN_INVALID
    assert len(desk.records.reads) == 2


async def test_a_ledger_that_was_restored_is_the_truth(desk: Desk) -> None:
    key = desk.records.add(version=5)
    desk.keys.changed("alice", 99)
    assert customer(await desk.show(key)) == "alice"
    desk.keys.changed("alice", 99)
    assert customer(await desk.show(key)) == "alice"


async def test_a_key_ends_when_it_ends_without_anybody_telling(desk: Desk) -> None:
    key = desk.records.add(expires_at=NOW + 60)
    outcome = await desk.show(key)
    assert isinstance(outcome, Authenticated)
    assert outcome.caller.expires_at == NOW + 60
    desk.wall = NOW + 59.9
    assert customer(desk.at_once(bearer(key))) == "alice"
    desk.wall = NOW + 60
    assert reason(desk.at_once(bearer(key))) is Reason.TOKEN_EXPIRED
    assert len(desk.records.reads) == 1


class TestWithoutTheLedger:
    async def test_an_unknown_key_is_503_and_asked_about_once_a_second(self, desk: Desk) -> None:
        key = desk.records.add()
        desk.records.is_gone = True
        for _ in range(3):
            assert reason(await desk.show(key)) is Reason.KEYS_UNAVAILABLE
        assert len(desk.records.reads) == 1
        desk.records.is_gone = False
        assert reason(await desk.show(key)) is Reason.KEYS_UNAVAILABLE
        desk.monotonic.advance(1.1)
        assert customer(await desk.show(key)) == "alice"

    async def test_garbage_is_still_401(self, desk: Desk) -> None:
        desk.records.is_gone = True
        assert reason(await desk.ask(bearer("gw_nonsense"))) is Reason.TOKEN_INVALID

    async def test_a_remembered_key_goes_on_for_max_stale_and_is_503_after(self) -> None:
        desk = Desk(KeyBounds(max_ttl=3600, max_stale=600))
        key = desk.records.add()
        await desk.show(key)
        desk.monotonic.advance(100)
        assert customer(desk.at_once(bearer(key))) == "alice"  # heard of until now
        desk.records.is_gone, desk.is_followed = True, False
        desk.monotonic.advance(599)
        assert customer(await desk.show(key)) == "alice"
        assert len(desk.records.reads) == 2
        assert customer(desk.at_once(bearer(key))) == "alice"
        desk.monotonic.advance(2)
        for _ in range(3):
            assert reason(await desk.show(key)) is Reason.KEYS_UNAVAILABLE
        assert len(desk.records.reads) == 3

    async def test_an_end_that_is_known_comes_all_the_same(self, desk: Desk) -> None:
        key = desk.records.add(expires_at=NOW + 60)
        await desk.show(key)
        desk.records.is_gone, desk.is_followed, desk.wall = True, False, NOW + 61.0
        desk.monotonic.advance(61)
        assert reason(await desk.show(key)) is Reason.TOKEN_EXPIRED

    async def test_a_change_that_was_heard_of_is_not_unheard(self, desk: Desk) -> None:
        key = desk.records.add()
        await desk.show(key)
        desk.keys.changed("alice", 2)
        desk.records.is_gone = True
        assert reason(await desk.show(key)) is Reason.KEYS_UNAVAILABLE

    async def test_an_answer_that_never_comes_ends_the_wait(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.credentials.api_keys.READ_SECONDS", 0.05)
        key = desk.records.add()
        desk.records.gate.clear()
        assert reason(await desk.show(key)) is Reason.KEYS_UNAVAILABLE


class TestWhileChangesAreNotFollowed:
    async def test_a_key_is_confirmed_at_most_once_a_second(self, desk: Desk) -> None:
        key = desk.records.add()
        desk.is_followed = False
        for _ in range(3):
            assert customer(await desk.show(key)) == "alice"
        assert len(desk.records.reads) == 1
        desk.records.change(key, revoked_at=NOW)
        desk.monotonic.advance(1.1)
        assert reason(await desk.show(key)) is Reason.TOKEN_INVALID
        assert len(desk.records.reads) == 2

    async def test_a_gap_makes_every_key_be_confirmed_before_it_serves(self, desk: Desk) -> None:
        key = desk.records.add()
        await desk.show(key)
        desk.monotonic.advance(5)
        desk.records.change(key, revoked_at=NOW)
        desk.keys.unconfirm_all()
        assert reason(await desk.show(key)) is Reason.TOKEN_INVALID

    async def test_a_read_slower_than_a_second_is_still_an_answer(self, desk: Desk) -> None:
        key = desk.records.add()
        desk.is_followed = False
        desk.records.gate.clear()
        asking = asyncio.create_task(desk.show(key))
        await desk.records.asked.wait()
        desk.monotonic.advance(1.4)
        desk.records.gate.set()
        assert customer(await asking) == "alice"

    async def test_what_is_remembered_is_read_anew_after_max_ttl(self) -> None:
        desk = Desk(KeyBounds(max_ttl=60, max_stale=600))
        key = desk.records.add()
        await desk.show(key)
        desk.monotonic.advance(61)
        assert customer(await desk.show(key)) == "alice"
        assert len(desk.records.reads) == 2


async def test_use_is_noted_coarsely_and_handed_over_once(desk: Desk) -> None:
    fresh, used = desk.records.add(), desk.records.add(last_used_at=NOW - 10)
    for _ in range(3):
        await desk.show(fresh)
        await desk.show(used)
    assert desk.keys.take_used() == {fresh.id: NOW}
    assert desk.keys.take_used() == {}
    desk.wall = NOW + NOTE_SECONDS - 10.0
    await desk.show(fresh)
    await desk.show(used)
    assert desk.keys.take_used() == {used.id: NOW + NOTE_SECONDS - 10}
    desk.keys.put_back({used.id: 1, fresh.id: 2})
    desk.wall = NOW + NOTE_SECONDS + 1.0
    await desk.show(fresh)
    assert desk.keys.take_used() == {used.id: 1, fresh.id: NOW + NOTE_SECONDS + 1}


async def test_a_refused_key_is_not_noted_as_used(desk: Desk) -> None:
    revoked, expired = desk.records.add(revoked_at=NOW - 1), desk.records.add(expires_at=NOW - 1)
    await desk.show(revoked)
    await desk.show(expired)
    assert desk.keys.take_used() == {}


async def test_who_gives_up_waiting_takes_the_answer_from_nobody(desk: Desk) -> None:
    key = desk.records.add()
    desk.records.gate.clear()
    impatient, patient = asyncio.create_task(desk.show(key)), asyncio.create_task(desk.show(key))
    await desk.records.asked.wait()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    desk.records.gate.set()
    assert customer(await patient) == "alice"


async def test_closing_ends_the_wait(desk: Desk) -> None:
    key = desk.records.add()
    desk.records.gate.clear()
    outcome = desk.at_once(bearer(key))
    assert isinstance(outcome, Unauthenticated)
    assert outcome.awaited is not None
    await asyncio.sleep(0)
    await desk.keys.aclose()
    await asyncio.wait_for(outcome.awaited.landed(60), 5)


async def test_without_token_takes_the_key_out_in_any_spelling_and_place(desk: Desk) -> None:
    key = desk.records.add()
    other = (b"x-api-key-2", b"kept")
    for place in (bearer(key), header(key), header(key, b"x_api_key"), header("anything"), (b"x-api_key", b"")):
        headers, query = desk.subject.without_token([place, other], b"a=1")
        assert (headers, query) == ([other], b"a=1")


async def test_where_keys_are_off_the_header_is_the_upstreams_and_a_key_is_no_token() -> None:
    issuer = schema.Issuer.model_validate(
        {"issuer": "i", "audience": ("api",), "algorithms": ("HS256",), "secret": "x" * 40}
    )
    subject = Authenticator(schema.Auth(issuers=(issuer,)), now=lambda: float(NOW))
    key = make_key(RNG.randrange)
    assert reason(subject.authenticate([header(key)])) is Reason.TOKEN_MISSING
    assert reason(subject.authenticate([bearer(key)])) is Reason.TOKEN_INVALID
    assert subject.without_token([header(key)], b"")[0] == [header(key)]


async def test_an_authenticator_without_records_says_503_and_never_401() -> None:
    auth = schema.Auth(api_keys=schema.ApiKeySettings(enabled=True))
    key = make_key(RNG.randrange)
    assert reason(Authenticator(auth, now=lambda: float(NOW)).authenticate([bearer(key)])) is Reason.KEYS_UNAVAILABLE


async def test_another_header_may_be_named() -> None:
    desk = Desk(header="Api_Token")
    key = desk.records.add()
    assert customer(await desk.ask(header(key, b"api-token"))) == "alice"
    assert reason(await desk.ask(header(key))) is Reason.TOKEN_MISSING
    await desk.keys.aclose()


async def test_nothing_that_can_be_printed_holds_a_key_or_its_hash(desk: Desk) -> None:
    key = desk.records.add()
    desk.records.gate.clear()
    pending = desk.at_once(bearer(key))
    assert isinstance(pending, Unauthenticated)
    desk_shown = [repr(pending), repr(pending.awaited), repr(desk.keys)]
    desk.records.gate.set()
    outcome = await desk.show(key)
    desk_shown += [repr(outcome), *(repr(one) for one in desk.keys._remembered.values())]
    digest = digest_of(HASH_KEY, key.text.encode())
    for text in desk_shown:
        assert key.text[16:48] not in text
        assert digest not in text
