"""A stream of a real gateway ends by what another process commits, and through a client that nobody here wrote."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.support.recorder import running_recorder
from tests.support.stack import bearer, eventually, running_gateway

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: 1\n\n\r\n"


def test_a_stream_ends_by_the_word_of_another_process_and_its_upstream_is_let_go(tmp_path: Path) -> None:
    with running_recorder() as recorder, running_gateway(tmp_path, upstream=recorder.url) as gateway:
        for customer in ("anna", "bert"):
            gateway.grant(customer)
        # The recorder says this and then waits on the connection, as a server of events does.
        recorder.answers["/pro/stream"] = HEAD + EVENT
        begun = {"anna": threading.Event(), "bert": threading.Event()}

        def listen(customer: str) -> list[str]:
            with gateway.http.stream("GET", f"{gateway.base}/pro/stream", headers=bearer(customer)) as answer:
                return list(lines_of(answer, begun[customer]))

        with ThreadPoolExecutor(2) as threads:
            anna, bert = threads.submit(listen, "anna"), threads.submit(listen, "bert")
            assert all(event.wait(10) for event in begun.values())
            gateway.verb("revoke", "anna", "--reason", "over")
            first, blank, event, data, *_ = anna.result(15)
            assert (first, blank, event) == ("data: 1", "", "event: payment-required")
            problem = json.loads(data.removeprefix("data: "))
            assert (problem["status"], problem["reason"]) == (402, "tier_required")
            assert not bert.done()
            gateway.verb("block", "bert", "--reason", "abuse")
            assert bert.result(15)[2] == "event: access-ended"
        lines = [json.loads(line) for line in eventually(lambda: logged(gateway.running.logged, 2))]
        assert {(line["customer"], line["reason"], line["status"]) for line in lines} == {
            ("anna", "tier_required", 200),
            ("bert", "blocked", 200),
        }
        assert "Traceback" not in gateway.running.said


def lines_of(answer: httpx.Response, begun: threading.Event) -> list[str]:
    """Every line, as httpx reads them; raises where the answer doesn't end as it should."""
    lines: list[str] = []
    for line in answer.iter_lines():
        lines.append(line)
        begun.set()
    return lines


def logged(text: str, count: int) -> list[str]:
    """The lines about the streams, once there are so many."""
    lines = [line for line in text.splitlines() if '"/pro/stream"' in line]
    return lines if len(lines) == count else []
