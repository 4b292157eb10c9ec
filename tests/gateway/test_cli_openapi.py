"""`gateway openapi`: what is drafted loads and lets no more through, and what no route covers is named."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from admin.operator.api import build_operator_app
from gateway import openapi_document
from gateway.cli import app
from tests.support.httpbin import httpbin_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from admin.operator.api import OperatorPorts

MINIMAL = """
version: 1
upstreams: {api: {targets: ["http://127.0.0.1:9000"]}}
auth:
  issuers: [{issuer: "https://i.test/", audience: api, algorithms: [RS256], jwks_url: "https://i.test/jwks"}]
tiers: [{name: free}, {name: pro, prices: [price_pro]}]
"""


def gateway(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def saved(directory: Path, document: object) -> Path:
    path = directory / "openapi.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def of_paths(paths: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": paths, **rest}


def drafted(directory: Path, document: object, *words: object, code: int = 0) -> list[dict[str, Any]]:
    """The routes of the draft, which has been pasted into a minimal gateway.yaml, is good, and covers what it is from."""
    path = saved(directory, document)
    result = gateway("openapi", path, *words)
    assert result.exit_code == code, result.stderr
    config = directory / "gateway.yaml"
    config.write_text(MINIMAL + result.stdout, encoding="utf-8")
    checked = gateway("check", "--config", config)
    assert checked.exit_code == 0, checked.output
    routes: list[dict[str, Any]] = yaml.safe_load(result.stdout)["routes"]
    if code == 0:
        covered = gateway(
            "openapi", path, "--config", config, *[word for word in words if word not in {"--tier", "pro"}]
        )
        assert (covered.exit_code, covered.stdout) == (0, "")
    return routes


ROUTES_OF_HTTPBIN = """
import json, re
from httpbin import app
def template(rule):
    return re.sub(r"<(?:([a-z]+)(?:[(][^)]*[)])?:)?([a-z_0-9]+)>", lambda m: "{%s%s}" % (m[2], ":path" if m[1] == "path" else ""), rule)
paths = {}
for rule in app.url_map.iter_rules():
    paths.setdefault(template(rule.rule), {}).update((method.lower(), {}) for method in rule.methods - {'TRACE'})
print(json.dumps({"swagger": "2.0", "paths": paths}))
"""


@pytest.mark.parametrize("tier", [[], ["--tier", "pro"]])
def test_every_route_of_httpbin_becomes_one_that_loads(tmp_path: Path, tier: list[str]) -> None:
    """Its /spec.json needs a library that the environment has not, so the document is made of the routes it has, but for TRACE."""
    python = httpbin_environment() / "bin" / "python"
    told = subprocess.run([python, "-c", ROUTES_OF_HTTPBIN], capture_output=True, check=True).stdout
    routes = drafted(tmp_path, json.loads(told.splitlines()[-1]), *tier)
    assert len(routes) > 40
    headers = next(route for route in routes if route["path"] == "/headers")
    assert headers.items() >= ({"tier": "pro"} if tier else {"access": "authenticated"}).items()
    assert "/anything/**" in [route["path"] for route in routes]


def test_the_documents_of_fastapi_and_of_the_operators_api_become_routes_that_load(tmp_path: Path) -> None:
    made = FastAPI(servers=[{"url": "/api/{v}", "variables": {"v": {"default": "v2"}}}])
    made.get("/items/{item_id}", tags=["items"])(lambda item_id: item_id)
    made.get("/files/{path:path}", name="read")(lambda path: path)
    made.delete("/files/{path:path}", name="remove")(lambda path: path)
    routes = drafted(tmp_path, made.openapi(), "--catch-all", "path", "--tier", "pro")
    assert [route["path"] for route in routes] == ["/api/v2/items/{item_id}", "/api/v2/files/**"]
    own = build_operator_app(cast("OperatorPorts", None), "1")
    assert "/api/customers/{customer}" in [route["path"] for route in drafted(tmp_path, own.openapi())]


def test_what_is_open_stays_open_and_where_two_meet_the_stricter_decides(tmp_path: Path) -> None:
    paths = {
        "/a/{x}": {"get": {"security": []}, "post": {}},
        "/a/{y}": {"get": {}},
        "/open": {"get": {"security": []}},
        "/maybe": {"get": {"security": [{}]}},
        "/pet": {"get": {}, "options": {}},
        "/Pet/": {"get": {}, "put": {}},
    }
    routes = drafted(tmp_path, of_paths(paths, security=[{"key": []}]), "--tier", "pro")
    assert routes == [
        {"path": "/a/{x}", "methods": ["GET", "POST"], "tier": "pro"},
        {"path": "/open", "methods": ["GET"], "access": "public"},
        {"path": "/maybe", "methods": ["GET"], "tier": "pro"},
        {"path": "/pet", "methods": ["GET", "OPTIONS", "PUT"], "tier": "pro"},
    ]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/v1/{id}.json", "inside a segment"),
        ("/a/{rest+}/b", "before its end"),
        ("/_gateway/me", "the gateway's own"),
        ("/a//b", "empty segment"),
        ("/x?action=y", "'?'"),
        ("/a/../b", "bad_path"),
        ("/a%2Fb", "once it is decoded"),
        ("/a/%7Bid%7D", "once it is decoded"),
        ("/a/%2A%2a", "'**'"),
        ("/\u001b[2Jx", "can't be printed"),
    ],
)
def test_a_path_that_no_route_can_express_is_named_and_left_out(tmp_path: Path, path: str, why: str) -> None:
    document = of_paths({path: {"get": {}}, "/fine": {"get": {}, "trace": {}}})
    assert drafted(tmp_path, document, code=1) == [{"path": "/fine", "methods": ["GET"], "access": "authenticated"}]
    result = gateway("openapi", tmp_path / "openapi.json")
    assert why in result.stderr
    assert "TRACE" in result.stderr
    assert "\u001b" not in result.output


def test_nothing_in_a_document_is_read_as_yaml_or_as_a_variable(tmp_path: Path) -> None:
    paths = {
        "/$metadata": {"get": {"tags": ["a\n  - path: /**\n    access: public #"]}},
        "/${HOME}": {"get": {}},
        '/q"x': {"get": {}},
    }
    routes = drafted(tmp_path, of_paths(paths), code=1)
    assert [route["path"] for route in routes] == ["/$$metadata", '/q"x']


def test_an_old_document_in_yaml_with_references_and_aliases_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(
        "swagger: 2.0\nbasePath: /v1/\nx-one: &one {get: {tags: [t]}}\nx-loop: {$ref: '#/x-loop'}\npaths:\n"
        "  /a: *one\n  /b: {$ref: '#/x-one'}\n  /c: {$ref: '#/x-loop'}\n  /d: {$ref: 'http://127.0.0.1:9/x'}\n",
        encoding="utf-8",
    )
    result = gateway("openapi", path)
    assert result.exit_code == 1
    assert [route["path"] for route in yaml.safe_load(result.stdout)["routes"]] == ["/v1/a", "/v1/b"]
    assert result.stderr.count("leads nowhere") == 2


def test_what_no_route_covers_is_named_with_the_reason(tmp_path: Path) -> None:
    document = of_paths(
        {"/a": {"get": {}, "post": {}}, "/b": {"get": {}}, "/v2/c": {"get": {}}, "/f/{p*}": {"get": {}}}
    )
    config = tmp_path / "gateway.yaml"
    config.write_text(
        MINIMAL + "default: authenticated\nroutes:\n"
        "  - {path: /a, methods: [GET], tier: pro}\n  - {path: '/f/{p}', tier: pro}\n"
        "  - {path: '/x/c', strip_prefix: /x, add_prefix: /v2, tier: pro}\n  - {path: /extra, tier: pro}\n",
        encoding="utf-8",
    )
    result = gateway("openapi", saved(tmp_path, document), "--config", config)
    assert result.exit_code == 1
    lines = [line.split("\t")[:2] for line in result.stdout.splitlines()]
    assert lines == [
        ["uncovered", "POST /a"],
        ["uncovered", "GET /b"],
        ["uncovered", "GET /f/{p*}"],
        ["unmatched", "/extra"],
    ]
    assert "2 of 5 operations" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "x", "{", "{}", "paths: {}", '{"openapi": "4.0"}', '{"openapi": "3.0.0", "paths": []}', "\x00", "a: &a [*a]",
        "[" * 5000, '{"a":' * 5000, "openapi: !!python/object/apply:os.system [true]", "a: b: c",
        "a: &a [x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{f'*{chr(97 + n)},' * 9}]\n" for n in range(20)),
    ],
    ids=range(15),
)  # fmt: skip
def test_what_is_no_document_ends_with_3_and_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "document"
    path.write_text(text, encoding="utf-8")
    result = gateway("openapi", path)
    assert result.exit_code == 3
    assert "no OpenAPI document" in result.stderr


@pytest.fixture
def redirecting() -> Iterator[str]:
    """A server that redirects `/moved` and else sends a document with a server of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(of_paths({"/a": {"get": {}}}, servers=[{"url": "v9"}])).encode()
            self.send_response(302 if self.path.startswith("/moved") else 200)
            self.send_header("Location", "/docs/openapi.json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_document_is_fetched_and_its_servers_are_relative_to_it_and_redirects_are_not_followed(
    redirecting: str,
) -> None:
    fetched = gateway("openapi", f"{redirecting}/docs/openapi.json")
    assert yaml.safe_load(fetched.stdout)["routes"][0]["path"] == "/docs/v9/a"
    moved = gateway("openapi", f"{redirecting}/moved?token=swordfish")
    assert moved.exit_code == 3
    assert "redirect" in moved.stderr
    assert "swordfish" not in moved.stderr
    assert gateway("openapi", "http://127.0.0.1:1/x").exit_code == 3


@pytest.fixture
def endless() -> Iterator[str]:
    """Sends for as long as anybody reads."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b" " * 65536)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/openapi.json?token=swordfish"
        server.shutdown()
        thread.join()


def test_no_more_is_read_of_a_document_than_one_may_hold(endless: str, tmp_path: Path) -> None:
    fetched = gateway("openapi", endless)
    assert (fetched.exit_code, fetched.stdout) == (3, "")
    assert "larger than 16 MiB" in fetched.stderr
    assert "swordfish" not in fetched.stderr
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    for path, length in ((whole, openapi_document.LARGEST_DOCUMENT), (cut, openapi_document.LARGEST_DOCUMENT + 1)):
        document = json.dumps(of_paths({"/a": {"get": {}}}))
        path.write_text(document + " " * (length - len(document)), encoding="utf-8")
    assert gateway("openapi", whole).exit_code == 0
    opened = gateway("openapi", cut)
    assert opened.exit_code == 3
    assert "larger than 16 MiB" in opened.stderr


def test_a_document_that_does_not_come_whole_in_time_is_given_up(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi_document, "FETCH_SECONDS", 0.0)
    fetched = gateway("openapi", endless)
    assert (fetched.exit_code, fetched.stdout) == (3, "")
    assert "did not come whole within 0 s" in fetched.stderr


def test_wrong_usage_ends_with_2(tmp_path: Path) -> None:
    assert gateway("openapi").exit_code == 2
    assert gateway("openapi", saved(tmp_path, of_paths({})), "--tier", "pro", "--config", "x").exit_code == 2


def test_an_encoded_slash_of_the_document_is_asked_for_as_one(tmp_path: Path) -> None:
    document = saved(tmp_path, of_paths({"/v1/a%2Fb": {"get": {}}}))
    config = tmp_path / "gateway.yaml"
    for literal, code in (("", 1), (", encoded_slash: literal", 0)):
        routes = f"  - {{path: '/v1/{{x}}', tier: pro{literal}}}\n  - {{path: /v1/a/b, tier: pro}}\n"
        config.write_text(f"{MINIMAL}routes:\n{routes}", encoding="utf-8")
        assert gateway("openapi", document, "--config", config).exit_code == code
