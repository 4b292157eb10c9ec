"""Callers who send requests one after the other, some at once, leave whenever they like, and check what they get."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.faults.upstream import NO_ANSWER, SPOILT_BEHIND, TORN, WHOLE, body_of, fault_of
from tests.support.rawclient import RawAnswer, RawClient


@dataclass(slots=True)
class Seen:
    """What came of all requests; `wrong` must stay empty."""

    outcomes: Counter[str] = field(default_factory=Counter)
    posts: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


def _request(path: bytes, number: str, method: bytes, dice: random.Random) -> bytes:
    head = b"%b %b HTTP/1.1\r\nHost: a\r\nX-Number: %b\r\n" % (method, path, number.encode())
    if method != b"POST":
        return head + b"\r\n"
    body = body_of(number, dice.choice([1, 10, 3000, 20_000]))
    if dice.random() < 0.5:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    cut = dice.randrange(1, len(body) + 1)
    pieces = [piece for piece in (body[:cut], body[cut:]) if piece]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def _judged(answer: RawAnswer, number: str, method: bytes) -> str:
    """What it was, or why it must not have been, which begins with `wrong`."""
    fault = fault_of(number)
    if answer.one("x-gateway-reason") is not None:
        reason = f"{answer.status} {answer.one('x-gateway-reason')}"
        is_due = fault in NO_ANSWER or fault in TORN or answer.status in {503, 504}  # what trickles may be late
        # A connection that the API spoilt or closed may still be found out only when it is used, by a POST as well.
        return reason if is_due or method == b"POST" else f"wrong: {reason} for {fault.__name__} to {method!r}"
    if answer.one("x-echo") != number:
        return f"wrong: the answer to {answer.one('x-echo')} went to {number}"
    if answer.body != body_of(number, len(answer.body) // (len(number) + 1) + 1)[: len(answer.body)]:
        return f"wrong: {fault.__name__} gave another body: {answer.body[:80]!r}"
    if method == b"HEAD" or fault in WHOLE or fault in SPOILT_BEHIND:
        return "whole" if answer.whole else "broken off"
    if fault in NO_ANSWER:
        return f"wrong: an answer where {fault.__name__} gave none: {answer}"[:400]
    return "wrong: what was torn looks whole" if answer.whole else "torn"


async def _visit(address: tuple[str, int], path: bytes, name: str, dice: random.Random, seen: Seen) -> None:
    """One connection with up to three requests on it, at once or one by one."""
    numbers = [f"{name}-{index}" for index in range(dice.choice([1, 1, 2, 3]))]
    requests = []
    for number in numbers:
        method = dice.choice([b"GET", b"GET", b"HEAD", b"POST"])
        if method == b"POST":
            seen.posts.add(number)
        requests.append((number, method, _request(path, number, method, dice)))
    client = await RawClient.connect(address)
    leaves = dice.random() < 0.3
    try:
        if dice.random() < 0.3:
            everything = b"".join(request for _, _, request in requests)
            await client.send(everything[: dice.randrange(len(everything))] if leaves else everything)
            sent_before = True
        else:
            sent_before = False
        for number, method, request in requests:
            if not sent_before:
                await client.send(request[: dice.randrange(len(request))] if leaves else request)
            if leaves:
                await asyncio.sleep(dice.random() * 0.02)
                if dice.random() < 0.5:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(client.reader.read(dice.randrange(1, 30_000)), dice.random() * 0.2)
                seen.outcomes["left"] += 1
                return
            answer = await client.answer(to_head=method == b"HEAD")
            outcome = _judged(answer, number, method)
            seen.outcomes[outcome.partition(":")[0]] += 1
            if outcome.startswith("wrong"):
                seen.wrong.append(f"{number} {outcome}")
            if not answer.whole or answer.one("connection") == "close":
                return
    except (ConnectionError, asyncio.IncompleteReadError):
        seen.outcomes["the connection ended"] += 1
    except TimeoutError:
        seen.wrong.append(f"{name}: no answer came at all")
    finally:
        if dice.random() < 0.5 and not client.writer.is_closing():
            client.reset()
        else:
            await client.close()


async def attack(
    address: tuple[str, int], path: bytes, *, seed: int, callers: int, visits: int, seconds: float = 3600
) -> Seen:
    """So many visits, as long as there is time."""
    seen = Seen()
    until = time.monotonic() + seconds
    left = iter(range(visits))

    async def caller() -> None:
        for visit in left:
            if time.monotonic() > until or len(seen.wrong) > 20:
                return
            await _visit(address, path, f"{seed}-{visit}", random.Random(f"{seed} {visit}"), seen)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return seen
