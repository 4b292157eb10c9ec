"""Commands in the manual: each exists with its options, each address leads somewhere, and the tour is the demo's."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import typer
from fastapi import FastAPI
from typer.testing import CliRunner

from admin.operator.api import OperatorPorts, build_operator_app
from admin.operator.explain import Explain, mount_explain
from admin.operator.reload import Reload, mount_reload
from admin.public.app import build_public_app
from admin.public.ports import Billing, PublicPorts
from admin.simulator import Simulator
from gateway.cli import app
from gateway.demo import _tour
from gateway.loading import LoadedFile, load_file
from policies.paths import Target, read_target
from policies.routes import RouteTable
from policies.schema import Config
from tests.docs.manual import (
    OPERATING,
    README,
    ROOT,
    Block,
    blocks,
    blocks_of,
    command_lines,
    commands,
    mentioned_commands,
    reference,
    rows,
    section,
)

CLI = typer.main.get_command(app)
SIMULATOR = "http://127.0.0.1:12111"
IN_THE_IMAGE = "/etc/gateway/gateway.yaml"


def verbs(command: Any = CLI, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every verb by its words, groups that do something of their own included."""
    found: dict[str, Any] = {}
    if path and (not hasattr(command, "commands") or command.invoke_without_command):
        found[" ".join(path)] = command
    for name, inner in getattr(command, "commands", {}).items():
        found |= verbs(inner, (*path, name))
    return found


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("-")}


def verb_of(words: list[str]) -> str:
    """The longest verb that these words begin with; empty for none."""
    known = verbs()
    candidates = (" ".join(words[1 : 1 + length]) for length in (2, 1))
    return next((candidate for candidate in candidates if candidate in known), "")


@pytest.mark.parametrize(
    ("where", "words"),
    mentioned_commands("gateway"),
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_every_gateway_command_of_the_manual_exists_with_its_options(where: str, words: list[str]) -> None:
    verb = verb_of(words)
    assert verb, f"{where}: there is no 'gateway {words[1]}'"
    command = verbs()[verb]
    given = words[1 + len(verb.split()) :]
    # A mention in running text may leave arguments out; what it names must be understood.
    assert {word for word in given if word.startswith("-")} <= options_of(command) | {"--help"}


@pytest.mark.parametrize(
    ("where", "words"),
    [(str(block), words) for block in blocks("sh") for words in commands(block) if words[0] == "gateway"],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_every_gateway_command_in_a_block_parses_as_it_stands(where: str, words: list[str]) -> None:
    verb = verb_of(words)
    given = words[1 + len(verb.split()) :]
    command = verbs()[verb]

    # A usage error is raised here; nothing of the command itself is run.
    context = command.make_context(verb, given)

    assert context.command is command, where


def test_a_command_that_does_not_exist_would_be_found() -> None:
    assert verb_of(["gateway", "polish"]) == ""
    assert CliRunner().invoke(app, ["grant", "alice"]).exit_code == 2


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_shows_its_help(verb: str) -> None:
    shown = CliRunner().invoke(app, [*verb.split(), "--help"])

    assert shown.exit_code == 0
    assert "Usage" in shown.stdout


def test_the_reference_has_every_verb_with_every_option_and_no_other() -> None:
    listed = {}
    for cells in rows(OPERATING):
        if cells[0].startswith("`gateway ") and len(cells) == 3:
            verb = verb_of(cells[0].strip("`").split())
            listed[verb] = set(re.findall(r"--[a-z-]+", cells[1]))

    expected = {
        verb: {name for name in options_of(command) if name.startswith("--")} - {"--help"}
        for verb, command in verbs().items()
    }
    assert listed == expected


@pytest.mark.parametrize("target", sorted({words[1] for _, words in mentioned_commands("make")}))
def test_every_make_target_of_the_manual_is_in_the_makefile(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE)


def test_the_manual_names_every_habit_of_the_makefile_that_a_reader_needs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    habits = set(re.findall(r"^([a-z.-]+):.*## ", makefile, re.MULTILINE)) - {"clean"}

    assert habits <= {words[1] for _, words in mentioned_commands("make")}


def blocks_in_section(page: Path, heading: str) -> list[Block]:
    text = section(page, heading)
    return [block for block in blocks_of(page) if block.text in text]


@pytest.fixture(scope="module")
def demo() -> tuple[Config, RouteTable]:
    loaded = load_file(ROOT / "gateway.yaml", {})
    assert isinstance(loaded, LoadedFile)
    assert loaded.ready is not None
    return loaded.ready


@cache
def served_at(port: int) -> list[tuple[str, re.Pattern[str]]]:
    """Method and path of everything that a listener's app serves."""
    app = {8080: public_app, 8081: operator_app, 12111: simulator_app}[port]()
    described = [(method.upper(), path) for path, operations in app.openapi()["paths"].items() for method in operations]
    plain = [
        (method, path)
        for route in app.routes
        for path in [getattr(route, "path", "")]
        for method in getattr(route, "methods", None) or ()
    ]
    return [
        (method, re.compile(re.sub(r"\{[a-z_]+:path\}", ".+", re.sub(r"\{[a-z_]+\}", "[^/]+", path))))
        for method, path in [*described, *plain]
        if not path.endswith("/{rest:path}")
    ]


def public_app() -> FastAPI:
    """Only asked for its routes: nothing behind it is ever reached."""
    return build_public_app(cast("PublicPorts", None), cast("Billing", None))


def operator_app() -> FastAPI:
    app = build_operator_app(cast("OperatorPorts", None), "0")
    mount_explain(app, cast("Explain", None))
    mount_reload(app, cast("Reload", None))
    return app


def simulator_app() -> FastAPI:
    return Simulator(wall_clock=lambda: 0.0, webhook=[], public_base=SIMULATOR).asgi


def leads_somewhere(method: str, url: str, routes: RouteTable) -> bool:
    """Whether somebody of the house serves this address."""
    place = urlsplit(re.sub(r"\$[A-Z]+", "x", url))
    if place.port == 8080 and not place.path.startswith("/_gateway"):
        target = read_target(place.path.encode())
        return isinstance(target, Target) and hasattr(routes.match(method, place.netloc, target), "route")
    if place.port == 8081 and place.path in {"/livez", "/readyz", "/metrics"}:
        return method == "GET"
    return any(served == method and path.fullmatch(place.path) for served, path in served_at(place.port or 0))


def calls() -> list[tuple[str, str, str]]:
    """Where, method and address of every curl in the manual that names its address."""
    found = []
    for block in blocks("sh", "console"):
        for words in commands(block):
            urls = [word for word in words if word.startswith("http")]
            if words[0] != "curl" or not urls:
                continue
            has_body = "-d" in words
            method = words[words.index("-X") + 1] if "-X" in words else "POST" if has_body else "GET"
            found.append((str(block), method, urls[0]))
    return found


@pytest.mark.parametrize(("where", "method", "url"), calls(), ids=lambda value: value)
def test_every_curl_of_the_manual_calls_something_that_is_served(
    where: str, method: str, url: str, demo: tuple[Config, RouteTable]
) -> None:
    assert leads_somewhere(method, url, demo[1]), where


def test_a_curl_that_leads_nowhere_would_be_found(demo: tuple[Config, RouteTable]) -> None:
    assert not leads_somewhere("GET", "http://localhost:8080/_gateway/moon", demo[1])
    assert not leads_somewhere("POST", "http://127.0.0.1:8081/api/customers", demo[1])
    assert not leads_somewhere("POST", f"{SIMULATOR}/_sim/clock", demo[1])
    assert not leads_somewhere("GET", "http://localhost:8080/nothing", demo[1])


def endpoints_in(page: Path) -> set[tuple[str, str]]:
    """Method and path of the tables' rows that begin with them."""
    return {
        (match[1], match[2])
        for cells in rows(page)
        if (match := re.match(r"`(GET|POST|DELETE) (/[^`]*)`", cells[0])) is not None
    }


def test_the_readme_lists_every_endpoint_under_the_reserved_prefix_and_no_other() -> None:
    served = {
        (method, str(getattr(route, "path", "")))
        for route in public_app().routes
        for method in (getattr(route, "methods", None) or set()) - {"HEAD"}
    }

    assert endpoints_in(README) == served


def test_the_manual_lists_everything_on_the_operators_listener_and_nothing_else() -> None:
    described = operator_app().openapi()["paths"]
    served = {
        (method.upper(), path.replace(":path", "")) for path, operations in described.items() for method in operations
    }

    assert endpoints_in(OPERATING) == served | {
        ("GET", "/livez"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/docs")
    }  # fmt: skip


def tour_commands(text: str) -> list[str]:
    """What is to be typed, without comments, and with one token for all."""
    lines = [line.strip() for line in text.splitlines()]
    return [re.sub(r"^TOKEN=.*", "TOKEN=", line) for line in lines if line and not line.startswith("#")]


def test_the_readmes_tour_is_the_one_that_the_demo_prints(demo: tuple[Config, RouteTable]) -> None:
    printed = _tour(demo[0], SIMULATOR, "a-token", ("127.0.0.1", 9000))
    told = printed[printed.index("  TOKEN=") : printed.index("The simulated Stripe")]

    shown = [line for block in blocks_in_section(README, "The 60-second run") for line in command_lines(block)]
    shown = shown[shown.index("make run") + 1 :]

    assert tour_commands("\n".join(shown)) == tour_commands(told)


@pytest.mark.parametrize("file", ["Dockerfile", "docker-compose.yml", "LICENSE", ".ci/run", "gateway.yaml"])
def test_the_files_that_the_manual_speaks_of_are_there(file: str) -> None:
    assert file in reference() + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8") or file == "LICENSE"
    assert (ROOT / file).is_file()


def test_what_the_readme_says_of_the_compose_file_is_in_it() -> None:
    import yaml

    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))

    assert {"gateway", "postgres", "redis", "simulator", "httpbin"} <= set(compose["services"])
    assert compose["services"]["gateway"]["read_only"] is True
    assert "127.0.0.1:8081:8081" in compose["services"]["gateway"]["ports"]


def test_what_compose_runs_and_what_the_readme_types_into_it_read_the_same_mounted_gateway_yaml() -> None:
    import yaml

    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    for service in ("gateway", "migrate", "simulator"):
        assert services[service]["volumes"] == [f"./gateway.yaml:{IN_THE_IMAGE}:ro"]
        assert services[service]["env_file"] == [".env"]  # a gateway.yaml of one's own names variables of one's own

    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert f"COPY gateway.yaml {IN_THE_IMAGE}\n" in dockerfile
    assert IN_THE_IMAGE in re.findall(r'"([^"]+)"', dockerfile.partition("\nCMD ")[2])

    typed = [words for block in blocks_in_section(README, "Docker") for words in commands(block)]
    verbs_typed = [words for words in typed if words[0] == "gateway"]
    assert verbs_typed
    assert all(words[words.index("--config") + 1] == IN_THE_IMAGE for words in verbs_typed)


def test_every_variable_that_the_docker_section_sets_is_one_that_compose_reads() -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    lines = [line for block in blocks_in_section(README, "Docker") for line in command_lines(block)]
    set_for_compose = {
        name for line in lines if line.endswith("docker compose up") for name in re.findall(r"([A-Z_]+)=", line)
    }

    assert {"UPSTREAM", "STRIPE_API_BASE", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"} <= set_for_compose
    assert set_for_compose <= set(re.findall(r"\$\{([A-Z_]+)", compose))
