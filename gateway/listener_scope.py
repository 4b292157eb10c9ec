"""What ASGI is told of a request (https://asgi.readthedocs.io/en/latest/specs/www.html), and the gateway's own words in it."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from gateway.upstream.outcome import DEPARTURE_KEY, STOP_KEY, TARGET_KEY

if TYPE_CHECKING:
    from gateway.listener_cycle import Connection, GatewayCycle
    from gateway.upstream.outcome import Scope


def scope_of(connection: Connection, cycle: GatewayCycle) -> Scope:
    """The scope of a request on its connection. Its headers are a list of its own, which an app may change."""
    raw_path, _, query = cycle.target.partition(b"?")
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": connection.asgi_version, "spec_version": "2.3"},
        "http_version": cycle.version,
        "method": cycle.method,
        "scheme": connection.scheme,
        "path": urllib.parse.unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": list(cycle.fields.headers),
        "client": connection.client,
        "server": connection.server,
        "state": connection.app_state.copy(),
        TARGET_KEY: cycle.target,
        DEPARTURE_KEY: cycle.on_departure,
        STOP_KEY: cycle.on_stop,
    }
