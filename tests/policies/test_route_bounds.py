"""`timeouts` and `max_body` of a route, from the file to the table and back."""

from __future__ import annotations

import pytest

from policies.effective import effective, effective_yaml
from policies.load import load
from policies.routes import compile_routes
from policies.units import format_size, parse_size

HEAD = "version: 1\nupstreams: {api: {targets: ['http://127.0.0.1:9000'], timeouts: {connect: 1s, response: 7s}}}\nroutes:\n"


@pytest.mark.parametrize("text", ["0B", "1B", "1023B", "64KiB", "10MiB", "3GiB", "1025KiB"])
def test_a_size_is_written_as_it_is_read(text: str) -> None:
    assert format_size(parse_size(text)) == text


def test_a_route_has_its_own_timeouts_where_it_names_them_and_its_upstreams_elsewhere() -> None:
    text = HEAD + (
        "  - {path: /a, access: public, timeouts: {response: 100ms}, max_body: 10MiB}\n  - {path: /b, access: public}\n"
    )
    loaded = load(text, file="gateway.yaml", environ={}, read_file=lambda _: "")
    assert loaded.config is not None, loaded.diagnostics

    table = compile_routes(loaded.config).table

    assert table is not None
    first, second = table.routes
    assert first.timeouts is not None
    assert (first.timeouts.connect, first.timeouts.response, first.timeouts.idle) == (1.0, 0.1, 300.0)
    assert (first.max_body, second.timeouts, second.max_body) == (10 << 20, None, None)
    shown = effective(loaded.config)["routes"]
    assert (shown[0]["timeouts"], shown[0]["max_body"]) == ({"response": "100ms"}, "10MiB")
    again = load(effective_yaml(loaded.config), file="gateway.yaml", environ={}, read_file=lambda _: "")
    assert again.config == loaded.config


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ("max_body: 10", "bad-value"), ("max_body: 10 apples", "bad-value"), ("max_body: -1B", "bad-value"),
        ("max_body: [1B]", "wrong-type"), ("timeouts: {response: 0s}", "out-of-range"), ("timeouts: {connect: 11m}", "out-of-range"),
        ("timeouts: {response: 5}", "bad-value"), ("timeouts: {total: 5s}", "unknown-key"), ("timeouts: 5s", "wrong-type"),
    ],
)  # fmt: skip
def test_a_slip_in_a_bound_is_told_at_its_line(setting: str, code: str) -> None:
    text = HEAD + f"  - path: /a\n    access: public\n    {setting}\n"
    loaded = load(text, file="gateway.yaml", environ={}, read_file=lambda _: "")
    assert [(found.code, found.line) for found in loaded.diagnostics] == [(code, 6)]


def test_failing_open_where_nothing_is_looked_up_is_warned_of() -> None:
    text = HEAD + "  - path: /a\n    access: public\n    on_unavailable: allow\n"
    loaded = load(text, file="gateway.yaml", environ={}, read_file=lambda _: "")
    assert [(found.code, found.line, found.column) for found in loaded.diagnostics] == [("no-effect", 6, 5)]
    assert loaded.config is not None
