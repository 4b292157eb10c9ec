"""Servers that nobody here wrote and that speak HTTP/2 in the clear: nginx, Caddy and Envoy, each in front of an API of a test's.

nginx comes with Debian's package; the other two are those that `make bench` installs. Whichever is absent is not there to be started.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.stack import free_port, plain_environment

BENCH_VENV: Final = Path(os.environ.get("BENCH_VENV", ".venv-bench"))
NGINX: Final = """\
daemon off;
worker_processes 1;
worker_shutdown_timeout 20s;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;
  uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port} http2;
    keepalive_requests 100;
    location / {{
      proxy_pass http://127.0.0.1:{api}; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off;
    }}
  }}
}}
"""
CADDY: Final = """\
{{
  admin off
  auto_https off
  servers {{
    protocols h1 h2c
  }}
}}
http://127.0.0.1:{port} {{
  reverse_proxy 127.0.0.1:{api} {{
    flush_interval -1
  }}
}}
"""


def binary(name: str) -> str | None:
    """Where it is installed, if it is."""
    place = (BENCH_VENV / "bin" / name).absolute()
    return str(place) if place.exists() else shutil.which(name) or shutil.which(name, path="/usr/sbin")


def _envoy(port: int, api: int) -> str:
    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    route = {
        "name": "all",
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "api", "timeout": "0s"}}],
            }
        ],
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "codec_type": "HTTP2",
        "common_http_protocol_options": {"max_requests_per_connection": 100},
        "route_config": route,
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    cluster = {
        "name": "api",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "api",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(api)}}]}],
        },
    }
    listener = {"name": "in", "address": address(port), "filter_chains": [{"filters": filters}]}
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


@dataclass(slots=True)
class Http2Server:
    """One that is running."""

    url: str
    process: subprocess.Popen[bytes]

    def reload(self) -> None:
        """As its operator would: new workers take what comes, the old ones say goodbye. nginx alone."""
        self.process.send_signal(signal.SIGHUP)


def _started(name: str, directory: Path, port: int, api: int) -> subprocess.Popen[bytes]:
    path = binary(name)
    assert path is not None
    directory.mkdir()
    config = directory / "config"
    if name == "nginx":
        config.write_text(NGINX.format(directory=directory, port=port, api=api))
        command = [path, "-e", str(directory / "error.log"), "-c", str(config)]
    elif name == "caddy":
        config.write_text(CADDY.format(port=port, api=api))
        command = [path, "run", "--adapter", "caddyfile", "--config", str(config)]
    else:
        config = directory / "config.json"
        config.write_text(_envoy(port, api))
        command = [path, "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]
    with (directory / "said").open("wb") as said:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=plain_environment())


@asynccontextmanager
async def http2_server(name: str, directory: Path, api: int) -> AsyncIterator[Http2Server]:
    """In front of the API on this port of 127.0.0.1, until the block ends."""
    port = free_port()
    process = _started(name, directory, port, api)
    try:
        async with asyncio.timeout(20):
            while not await _listens(port):  # nobody tells of it
                assert process.poll() is None, (directory / "said").read_text()
                await asyncio.sleep(0.05)
        yield Http2Server(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)


async def _listens(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False
