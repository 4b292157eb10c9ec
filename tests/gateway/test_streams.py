"""Answers under way when their caller may have no more of them (P7), over real sockets through the whole gateway."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import time
import zlib
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from h2.errors import ErrorCodes

from gateway.loading import LoadedFile, load_file
from policies.entitlement import Entitlement
from tests.support.house import ROUTES, house, token_for
from tests.support.http2_upstream import http2_upstream
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from admin.control import Ledger
    from tests.support.house import House
    from tests.support.http2_upstream import Stream
    from tests.support.upstreams import Visit

EVENTS: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
FIRST: Final = b"data: 1\n\n"
SHORT_GRACE: Final = "deny\nstreams:\n  grace: 1500ms"
"""Goes where `default` stands."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def forever(visit: Visit) -> None:
    """Says the first event, and ends when the gateway does."""
    await visit.request()
    await visit.say(EVENTS + b"\r\n" + chunk(FIRST))
    await until_left(visit)


async def until_left(visit: Visit) -> None:
    while await visit.read():
        pass


class Reader:
    """One caller who reads a chunked answer as it comes."""

    def __init__(self, client: RawClient, headers: dict[str, str], status: int) -> None:
        self.client = client
        self.headers = headers
        self.status = status

    async def chunk(self) -> bytes:
        size = int((await self.client._within(self.client.reader.readuntil(b"\r\n"))).strip(), 16)
        return (await self.client._within(self.client.reader.readexactly(size + 2)))[:-2]

    async def rest(self) -> tuple[bytes, bool]:
        """What still comes, and whether it ended as a whole answer ends."""
        return await self.client._chunks()

    async def problem(self, name: str) -> dict[str, Any]:
        """What the last event says; nothing but that event comes, and the answer ends well."""
        body, whole = await self.rest()
        assert whole
        first, second = body.removesuffix(b"\n\n").split(b"\n")
        assert first == b"event: " + name.encode()
        problem: dict[str, Any] = json.loads(second.removeprefix(b"data: "))
        return problem


async def opened(one: House, stack: AsyncExitStack, path: str, *headers: str) -> Reader:
    """A request whose answer has begun."""
    client = await stack.enter_async_context(await RawClient.connect(one.address))
    await client.send("\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode())
    status, fields, _ = await client.head()
    return Reader(client, {name.lower(): value for name, value in fields}, status)


async def streaming(one: House, stack: AsyncExitStack, token: str | None = None, path: str = "/pro/s") -> Reader:
    """A stream whose first event has come."""
    reader = await opened(one, stack, path, f"Authorization: Bearer {token or token_for()}")
    assert reader.status == 200
    assert await reader.chunk() == FIRST
    return reader


async def eventually(seen: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not seen():  # noqa: ASYNC110 -- of other parties' state, which sets no event
            await asyncio.sleep(0.02)


async def revoke(one: House, customer: str = "alice") -> None:
    answer = await one.operate("POST", f"/api/revoke/{customer}", json={"reason": "a test"})
    assert answer.status_code == 200, answer.text


async def block(one: House, customer: str = "alice") -> None:
    answer = await one.operate("POST", f"/api/block/{customer}", json={"reason": "a test"})
    assert answer.status_code == 200, answer.text


def last_known(one: House, customer: str = "alice") -> Entitlement | None:
    known = one.process.gateway.streams._customers.get(customer)
    return None if known is None else known.last_known


async def test_a_revoked_customers_stream_ends_with_the_problem_as_its_last_event(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, script=forever) as one, AsyncExitStack() as stack:
        await one.grant("alice", "pro")
        await one.grant("bob", "pro")
        others = await streaming(one, stack, token_for("bob"))
        client = await stack.enter_async_context(await RawClient.connect(one.address))
        await client.send(
            b"GET /pro/s HTTP/1.1\r\nHost: a\r\nX-Request-Id: the-stream\r\nAccept: text/html\r\n"
            b"Authorization: Bearer %b\r\n\r\n" % token_for().encode()
        )
        await client.head()
        reader = Reader(client, {}, 200)
        assert await reader.chunk() == FIRST
        await revoke(one)
        problem = await reader.problem("payment-required")
        assert (problem["status"], problem["reason"], problem["request_id"]) == (402, "tier_required", "the-stream")
        assert problem["required"]["tier"] == "pro"
        assert (await one.http.get(problem["pay_url"])).status_code == 200
        line = await one.logged("the-stream")
        assert (line["status"], line["reason"], line["customer"]) == (200, "tier_required", "alice")
        assert "ended with an event" in line["note"]
        assert problem["pay_url"].rpartition("/")[2] not in one.printed.getvalue()
        assert line["bytes"] > len(FIRST)
        # The answer ended well, so the connection serves the next request, which is refused.
        again = await client.ask(
            b"GET /pro/s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % token_for().encode()
        )
        assert again.status == 402
        assert await one.count(status="200", reason="tier_required") == 1
        # Its upstream connection is gone and not kept, the other customer's stream goes on.
        mine = await one.upstream.visit(1)
        await asyncio.wait_for(mine.closed.wait(), 30)
        assert one.process.gateway.plan.upstreams.state("api").targets[0].pending == 1
        await one.upstream.visits[0].say(chunk(b"data: 2\n\n"))
        assert await others.chunk() == b"data: 2\n\n"


async def test_a_caller_of_http_1_0_is_told_before_the_connection_ends(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, script=forever) as one, await RawClient.connect(one.address) as client:
        await one.grant("alice", "pro")
        await client.send(b"GET /pro/s HTTP/1.0\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % token_for().encode())
        await client.head()
        assert await client.reader.readexactly(len(FIRST)) == FIRST
        await revoke(one)
        assert (await client.rest()).startswith(b"event: payment-required\ndata: {")


async def test_a_caller_who_does_not_read_keeps_no_upstream_and_gets_no_half_event_for_a_whole_one(
    tmp_path: Path,
) -> None:
    event = b"data: " + b"x" * 993 + b"\n\n"

    async def flood(visit: Visit) -> None:
        await visit.request()
        await visit.say(EVENTS + b"\r\n")
        while True:
            await visit.say(chunk(event))

    async with (
        house(tmp_path, stripe=False, script=flood) as one,
        await RawClient.connect(one.address, receive_buffer=4096) as client,
    ):
        await one.grant("alice", "pro")
        await client.send(b"GET /pro/s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % token_for().encode())
        await eventually(lambda: last_known(one) is not None)
        await revoke(one)
        visit = await one.upstream.visit()
        await asyncio.wait_for(visit.closed.wait(), 30)
        await client.head()
        body, whole = await client._chunks()
        whole_events, _, last = body.rpartition(b"event: ")
        assert whole == bool(whole_events)
        assert not whole or (
            last.startswith(b"payment-required\n") and whole_events == event * (len(whole_events) // 1001)
        )
        await eventually(lambda: len(one.process.gateway.streams) == 0)


async def test_a_stream_ends_at_the_customers_next_edge_when_the_clock_jumps_over_it(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, script=forever) as one, AsyncExitStack() as stack:
        await one.grant("alice", "pro", until="30d")
        reader = await streaming(one, stack)
        await eventually(lambda: last_known(one) is not None)
        one.clock.offset = 29 * 86400
        await asyncio.sleep(1)
        await one.upstream.visits[0].say(chunk(b"data: 2\n\n"))
        assert await reader.chunk() == b"data: 2\n\n"
        one.clock.offset = 30 * 86400 + 1
        assert (await reader.problem("payment-required"))["status"] == 402


async def test_a_downgrade_closes_nothing_that_the_route_still_admits(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, script=forever) as one, AsyncExitStack() as stack:
        await one.grant("alice", "enterprise", until="10d")
        await one.grant("alice", "pro")
        on_pro = await streaming(one, stack)
        on_ent = await streaming(one, stack, path="/ent")
        one.clock.offset = 11 * 86400
        assert (await on_ent.problem("payment-required"))["reason"] == "tier_required"
        known = last_known(one)
        assert known is not None
        assert known.at(one.clock()).tier == "pro"  # so that the other was decided again as well
        await one.upstream.visits[0].say(chunk(b"data: 2\n\n"))
        assert await on_pro.chunk() == b"data: 2\n\n"


async def test_a_blocked_customers_streams_end_with_a_403(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, script=forever) as one, AsyncExitStack() as stack:
        reader = await streaming(one, stack, path="/mine")
        await block(one)
        problem = await reader.problem("access-ended")
        assert (problem["status"], problem["reason"]) == (403, "blocked")
        assert "pay_url" not in problem


async def test_the_end_of_the_token_ends_a_stream_unless_its_route_says_otherwise(tmp_path: Path) -> None:
    routes = ROUTES + "\n  - path: /lasting\n    access: authenticated\n    outlive_token: true\n"
    async with house(tmp_path, stripe=False, script=forever, routes=routes) as one, AsyncExitStack() as stack:
        token = token_for(lifetime=3)
        lasting = await streaming(one, stack, token, "/lasting")
        ending = await streaming(one, stack, token, "/mine")
        problem = await ending.problem("token-expired")
        assert (problem["status"], problem["reason"]) == (401, "token_expired")
        await asyncio.sleep(1)
        await one.upstream.visits[0].say(chunk(b"data: 2\n\n"))
        assert await lasting.chunk() == b"data: 2\n\n"
        await block(one)  # its token alone is what it outlives
        assert (await lasting.problem("access-ended"))["reason"] == "blocked"


async def test_the_end_of_the_token_ends_no_ordinary_answer(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def slowly(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await release.wait()
        await visit.say(b"cd")

    async with house(tmp_path, stripe=False, script=slowly, default=SHORT_GRACE) as one:
        asking = asyncio.create_task(one.get("/mine", token_for(lifetime=2)))
        await one.upstream.visit()
        await asyncio.sleep(5)
        release.set()
        assert (await asking).text == "abcd"


async def test_a_stream_that_is_refused_within_an_event_is_broken_off(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, script=forever) as one, AsyncExitStack() as stack:
        await one.grant("alice", "pro")
        reader = await streaming(one, stack)
        await one.upstream.visits[0].say(chunk(b"data: ha"))
        assert await reader.chunk() == b"data: ha"
        await revoke(one)
        assert await reader.rest() == (b"", False)
        line = (await logged_with(one, "tier_required"))[0]
        assert "cut off" in line["note"]
        await asyncio.wait_for(one.upstream.visits[0].closed.wait(), 30)


async def logged_with(one: House, reason: str) -> list[dict[str, Any]]:
    def lines() -> list[dict[str, Any]]:
        return [line for line in one.log() if line["reason"] == reason and line["path"].startswith("/pro/s")]

    await eventually(lambda: bool(lines()))
    return lines()


async def test_an_encoded_stream_is_broken_off_since_nothing_can_be_added_to_it(tmp_path: Path) -> None:
    async def compressed(visit: Visit) -> None:
        await visit.request()
        packer = zlib.compressobj(wbits=31)
        packed = packer.compress(FIRST) + packer.flush(zlib.Z_SYNC_FLUSH)
        await visit.say(EVENTS + b"Content-Encoding: gzip\r\n\r\n" + chunk(packed))
        await until_left(visit)

    async with house(tmp_path, stripe=False, script=compressed) as one, AsyncExitStack() as stack:
        await one.grant("alice", "pro")
        reader = await opened(one, stack, "/pro/s", f"Authorization: Bearer {token_for()}")
        await reader.chunk()
        await revoke(one)
        assert await reader.rest() == (b"", False)


async def test_ordinary_answers_under_way_finish_unless_they_outlast_the_grace(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def download(visit: Visit) -> None:
        await visit.request()
        size = 1 << 30 if b"/endless" in visit.received else 40 * 1024
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(20):
            await visit.say(b"x" * 1024)
            await asyncio.sleep(0.01)
        await release.wait()
        while True:
            await visit.say(b"x" * 1024)
            size -= 1024
            if size == 20 * 1024:
                return
            await asyncio.sleep(0.02)

    async with house(tmp_path, stripe=False, script=download, default=SHORT_GRACE) as one, AsyncExitStack() as stack:
        await one.grant("alice", "pro")
        long = await opened(one, stack, "/pro/endless", f"Authorization: Bearer {token_for()}")
        short = await opened(one, stack, "/pro/short", f"Authorization: Bearer {token_for()}")
        await eventually(lambda: last_known(one) is not None)
        await revoke(one)
        await eventually(lambda: refused(one) == 2)
        release.set()
        assert len(await short.client._within(short.client.reader.readexactly(40 * 1024))) == 40 * 1024
        taken = len(await long.client.rest())
        assert 20 * 1024 <= taken < 1 << 30
        line = next(line for line in one.log() if line["path"] == "/pro/endless")
        assert (line["status"], line["reason"]) == (200, "tier_required")
        assert next(line for line in one.log() if line["path"] == "/pro/short")["reason"] == "forwarded"


async def test_an_answer_that_has_not_begun_by_the_end_of_the_grace_is_the_refusal(tmp_path: Path) -> None:
    async def silent(visit: Visit) -> None:
        await until_left(visit)

    async with house(tmp_path, stripe=False, script=silent, default=SHORT_GRACE) as one:
        await one.grant("alice", "pro")
        asking = asyncio.create_task(one.get("/pro/s", token_for()))
        await one.upstream.visit()
        await revoke(one)
        answer = await asking
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (402, "tier_required")
        await asyncio.wait_for(one.upstream.visits[0].closed.wait(), 30)


async def test_a_stream_that_begins_after_its_refusal_ends_without_waiting_for_the_grace(tmp_path: Path) -> None:
    begin = asyncio.Event()

    async def late(visit: Visit) -> None:
        await visit.request()
        await begin.wait()
        await visit.say(EVENTS + b"\r\n")
        await until_left(visit)

    async with house(tmp_path, stripe=False, script=late) as one, AsyncExitStack() as stack:
        await one.grant("alice", "pro")
        client = await stack.enter_async_context(await RawClient.connect(one.address))
        await client.send(b"GET /pro/s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % token_for().encode())
        await one.upstream.visit()
        await revoke(one)
        await eventually(lambda: refused(one) == 1)
        begin.set()
        assert (await client.head())[0] == 200
        assert (await Reader(client, {}, 200).problem("payment-required"))["status"] == 402


def customers(one: House) -> list[Any]:
    return list(one.process.gateway.streams._customers.values())


def refused(one: House) -> int:
    """How many answers under way would not be admitted any more."""
    return sum(answer.refused_at is not None for known in customers(one) for answer in known.open)


async def test_a_payers_stream_outlives_a_renewal_that_no_webhook_told_of(tmp_path: Path) -> None:
    async with house(tmp_path, webhooks=False, script=forever) as one, AsyncExitStack() as stack:
        await one.buy("alice")
        reader = await streaming(one, stack)
        await eventually(lambda: last_known(one) is not None)
        before = last_known(one)
        await one.steer("clock/advance", days=40)
        await eventually(
            lambda: (
                (known := last_known(one)) is not None and known is not before and known.at(one.clock()).tier == "pro"
            )
        )
        await one.upstream.visits[0].say(chunk(b"data: 2\n\n"))
        assert await reader.chunk() == b"data: 2\n\n"


async def test_a_stream_goes_on_while_nobody_can_say_whether_it_was_paid(tmp_path: Path) -> None:
    async with house(tmp_path, webhooks=False, script=forever) as one, AsyncExitStack() as stack:
        await one.buy("alice")
        reader = await streaming(one, stack)
        await eventually(lambda: last_known(one) is not None)
        await one.steer("faults", api="500", count=1000)
        await one.steer("clock/advance", days=40)
        assert (await one.get("/pro/x", token_for())).status_code == 503
        await asyncio.sleep(1.5)
        await one.upstream.visits[0].say(chunk(b"data: 2\n\n"))
        assert await reader.chunk() == b"data: 2\n\n"


async def test_without_the_ledger_a_stream_goes_on_to_the_end_of_its_span_and_no_further(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, script=forever) as one, AsyncExitStack() as stack:
        await one.grant("alice", "pro", until="30d")
        reader = await streaming(one, stack)
        await eventually(lambda: last_known(one) is not None)
        one.lose_the_ledger()
        one.process.gateway._resolver._memory.forget("alice")
        one.process.gateway.streams.changed(None)
        await eventually(lambda: all(known.deciding is None for known in customers(one)))
        await one.upstream.visits[0].say(chunk(b"data: 2\n\n"))
        assert await reader.chunk() == b"data: 2\n\n"
        assert (await one.get("/pro/x", token_for())).status_code == 503  # a request is not admitted from nothing
        one.clock.offset = 31 * 86400
        assert (await reader.problem("payment-required"))["status"] == 402


async def test_a_revoked_api_key_ends_the_streams_that_were_opened_with_it(tmp_path: Path) -> None:
    auth = "  api_keys: {enabled: true}"
    async with house(tmp_path, stripe=False, script=forever, auth=auth) as one, AsyncExitStack() as stack:
        made = await one.operate("POST", "/api/keys/alice", json={"name": "ci"})
        assert made.status_code == 201, made.text
        by_token = await streaming(one, stack, path="/mine")
        by_key = await opened(one, stack, "/mine", f"X-API-Key: {made.json()['key']}")
        assert await by_key.chunk() == FIRST
        revoked = await one.operate("POST", f"/api/key/{made.json()['id']}/revoke", json={})
        assert revoked.status_code == 200, revoked.text
        problem = await by_key.problem("access-ended")
        assert (problem["status"], problem["reason"]) == (401, "token_invalid")
        await one.upstream.visits[0].say(chunk(b"data: 2\n\n"))
        assert await by_token.chunk() == b"data: 2\n\n"


async def test_over_http2_a_stream_ends_alone_with_its_problem_and_its_neighbour_goes_on(tmp_path: Path) -> None:
    async def events(stream: Stream) -> None:
        stream.say_head(200, ("content-type", "text/event-stream"))
        await stream.say(FIRST)
        seen.append(stream)

    seen: list[Stream] = []
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(http2_upstream(events))
        one = await stack.enter_async_context(
            house(tmp_path, stripe=False, upstream_url=upstream.url, upstream_settings="    http2: true")
        )
        await one.grant("alice", "pro")
        await one.grant("bob", "pro")
        alice = await streaming(one, stack)
        bob = await streaming(one, stack, token_for("bob"))
        await eventually(lambda: len(seen) == 2)
        await revoke(one)
        assert (await alice.problem("payment-required"))["reason"] == "tier_required"
        await asyncio.wait_for(seen[0].over.wait(), 10)
        assert seen[0].reset_with == ErrorCodes.CANCEL
        assert not seen[1].over.is_set()
        await seen[1].say(b"data: 2\n\n", end=True)
        assert await bob.chunk() == b"data: 2\n\n"
        assert await bob.rest() == (b"", True)
        assert seen[0].number == seen[1].number, "they shared a connection"


async def test_a_stream_whose_route_has_become_public_ends_for_nothing_about_its_caller(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, script=forever) as one, AsyncExitStack() as stack:
        reader = await streaming(one, stack, path="/mine")
        await eventually(lambda: last_known(one) is not None)
        file = tmp_path / "gateway.yaml"
        file.write_text(file.read_text(encoding="utf-8").replace("access: authenticated", "access: public"))
        loaded = load_file(file, {})
        assert isinstance(loaded, LoadedFile)
        assert loaded.ready is not None
        gateway = one.process.gateway
        gateway.plan = replace(gateway.plan, routes=loaded.ready[1])
        (under_way,) = gateway.streams._customers["alice"].open
        under_way.caller = replace(under_way.caller, expires_at=1)
        await block(one)
        gateway.streams.changed("alice")
        await eventually(lambda: all(known.deciding is None for known in customers(one)))
        assert under_way.route.is_open
        await one.upstream.visits[0].say(chunk(b"data: 2\n\n"))
        assert await reader.chunk() == b"data: 2\n\n"
        assert gateway.streams._customers["alice"].credential_ends_at == math.inf, "or each tick would decide again"


async def test_whoever_leaves_is_forgotten(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, script=forever) as one:
        streams = one.process.gateway.streams
        await one.grant("alice", "pro")
        async with AsyncExitStack() as stack:
            for number in range(30):
                await streaming(one, stack, token_for("alice" if number % 2 else f"c{number}"), "/mine")
            await eventually(lambda: bool(streams._customers))
            assert len(streams) == 30
        await eventually(lambda: len(streams) == 0 and not streams._customers)


async def test_a_thousand_streams_end_by_a_thousand_revocations(tmp_path: Path) -> None:
    settings = "    max_connections: 1100"
    async with (
        house(tmp_path, stripe=False, script=forever, upstream_settings=settings) as one,
        AsyncExitStack() as stack,
    ):
        ledger: Ledger = inspect.getclosurevars(one.process.readiness.ledger_answers).nonlocals["ledger"]
        names = [f"c{number}" for number in range(1000)]
        for name in names:
            await ledger.customers.grant(name, "pro", None, "a test", "us", time.time())
        readers = [await streaming(one, stack, token_for(name)) for name in names]
        await eventually(lambda: len(customers(one)) == 1000)
        for name in names:
            await ledger.customers.revoke(name, "us", "a test", time.time())
        for reader in readers:
            assert (await reader.problem("payment-required"))["status"] == 402
        await eventually(lambda: len(one.process.gateway.streams) == 0)
        await eventually(lambda: one.process.gateway.plan.upstreams.state("api").targets[0].pending == 0)
