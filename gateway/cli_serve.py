"""The verbs that serve until they are stopped: run, simulator, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.collecting import loading_to_stay
from gateway.console import COULD_NOT_START, USAGE, ConfigOption, fail, load_candidate, load_or_fail
from policies.addresses import parse_http_url, parse_listen


def add_serving_verbs(app: typer.Typer) -> None:
    """Add them to `app`."""
    app.command()(run)
    app.command()(simulator)
    app.command()(demo)


def run(
    config: Annotated[Path, ConfigOption] = Path("gateway.yaml"),
    watch: Annotated[bool, typer.Option("--watch", help="Reload when the file changes.")] = False,
) -> None:
    """Run the gateway in front of the API that gateway.yaml names."""
    candidate = load_candidate(config)  # before all that serves: who has a mistake in it shouldn't wait
    with loading_to_stay():
        from gateway.logs import configure_logging  # noqa: PLC0415
        from gateway.serve import run_gateway  # noqa: PLC0415
        from gateway.serving import CannotStart, run_loop  # noqa: PLC0415
        from gateway.supervising import run_supervisor  # noqa: PLC0415

    configure_logging()
    work = run_gateway if candidate.config.server.workers == 1 else run_supervisor
    ended = run_loop(work(candidate, watch=watch))
    if isinstance(ended, CannotStart):
        fail(ended.detail, COULD_NOT_START)


def simulator(
    listen: Annotated[
        str | None, typer.Option(help="Where the simulated Stripe listens; by default where gateway.yaml looks for it.")
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="Where its events go; by default the gateway's webhook.")] = None,
    public_url: Annotated[
        str | None, typer.Option("--public-url", help="How a browser reaches it, where that is another address.")
    ] = None,
    config: Annotated[Path, ConfigOption] = Path("gateway.yaml"),
) -> None:
    """Run a local Stripe that sells the tiers of gateway.yaml, with a clock that can be moved."""
    if listen is not None and isinstance(problem := parse_listen(listen), str):
        fail(f"--listen {listen} can't be used: it {problem}.", USAGE)
    for option, url in (("--webhook", webhook), ("--public-url", public_url)):
        if url is not None and isinstance(wrong := parse_http_url(url), str):
            fail(f"{option} {url} can't be used: it {wrong}.", USAGE)
    loaded, _ = load_or_fail(config, quiet=True)
    with loading_to_stay():
        from gateway.logs import configure_logging  # noqa: PLC0415
        from gateway.serving import CannotStart, run_loop  # noqa: PLC0415
        from gateway.simulating import run_simulator  # noqa: PLC0415

    configure_logging()
    ended = run_loop(run_simulator(loaded, listen, webhook, public_url))
    if isinstance(ended, CannotStart):
        fail(ended.detail, COULD_NOT_START)


def demo(
    config: Annotated[Path, ConfigOption] = Path("gateway.yaml"),
    upstream: Annotated[
        str | None, typer.Option(help="An API of yours instead of httpbin, such as http://127.0.0.1:9000.")
    ] = None,
) -> None:
    """Run the gateway, a local Stripe and httpbin together, and print what to try."""
    with loading_to_stay():
        from gateway.demo import prepare_demo, run_demo  # noqa: PLC0415
        from gateway.logs import configure_logging  # noqa: PLC0415
        from gateway.serving import CannotStart, run_loop  # noqa: PLC0415

    httpbin = prepare_demo(upstream)
    candidate = load_candidate(config, quiet=True)
    configure_logging()
    ended = run_loop(run_demo(candidate, httpbin=httpbin))
    if isinstance(ended, CannotStart):
        fail(ended.detail, COULD_NOT_START)
