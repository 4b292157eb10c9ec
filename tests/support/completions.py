"""A server that answers chat completions as OpenAI's API does: JSON, or events of which each waits to be released.

What it does follows from the model that is asked for: `talks` ends by itself, `waits` says one piece and then waits for
its caller to leave, `busy` answers 429 in OpenAI's own shape.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUSY = {"error": {"message": "Rate limit reached", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}


@dataclass(slots=True)
class Completions:
    """`release` lets one more event go; `left` says that a caller went away while being waited for."""

    url: str = ""
    release: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    left: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)


def _chunk(model: str, text: str | None) -> bytes:
    delta = {} if text is None else {"role": "assistant", "content": text}
    reason = "stop" if text is None else None
    choices = [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


@contextmanager
def running_completions() -> Iterator[Completions]:
    """It listens while the block lasts."""
    completions = Completions()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            completions.asked.append(body)
            model = body["model"]
            if model == "busy":
                self._answer(429, json.dumps(BUSY).encode(), ("x-request-id", "req_of_the_api"), ("retry-after", "7"))
            elif not body.get("stream"):
                message = {"role": "assistant", "content": "Hello there."}
                choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
                whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model}
                self._answer(200, json.dumps({**whole, "choices": choices}).encode())
            else:
                self._stream(model)

        def _answer(self, status: int, body: bytes, *more: tuple[str, str]) -> None:
            self.send_response(status)
            for name, value in (*more, ("Content-Type", "application/json"), ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, model: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._event(_chunk(model, "Hello"))
            if model == "waits":
                if not self.connection.recv(1):
                    completions.left.set()
                self.close_connection = True
                return
            for event in (_chunk(model, " there"), _chunk(model, "."), _chunk(model, None), b"data: [DONE]\n\n"):
                completions.release.acquire(timeout=20)
                self._event(event)
            self.wfile.write(b"0\r\n\r\n")

        def _event(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        completions.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield completions
        finally:
            server.shutdown()
            thread.join(5)
