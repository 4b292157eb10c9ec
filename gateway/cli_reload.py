"""`gateway reload`: ask the running gateway of this gateway.yaml to load it anew, and say what came of it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.console import COULD_NOT_START, PROBLEMS, ConfigOption, fail, load_or_fail

if TYPE_CHECKING:
    from policies.schema import Config

RELOAD_SECONDS = 60.0
_ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}


def add_reload_verb(app: typer.Typer) -> None:
    """Add it to `app`."""
    app.command()(reload)


def reload(config: Annotated[Path, ConfigOption] = Path("gateway.yaml")) -> None:
    """Have the running gateway load gateway.yaml anew; exit code 1 if it was refused, and nothing has changed."""
    loaded, _ = load_or_fail(config, PROBLEMS, quiet=True)
    token = loaded.server.operator_token.get_secret_value() or asyncio.run(_kept_token(loaded))
    if not token:
        fail("no gateway has run on this ledger yet, so there is none to ask.", COULD_NOT_START)
    status, told = _ask(loaded.server.operator, token)
    problems = str(told.get("problems") or "")
    if problems:
        sys.stderr.write(problems + "\n")
    if status == 200:
        sys.stdout.write(f"{told['detail']}\n")
        return
    if status == 401:
        fail("the gateway that runs has another operator token: was it changed? Send it SIGHUP.", COULD_NOT_START)
    fail(f"not reloaded, nothing has changed: {told['detail']}", PROBLEMS)


def _ask(operator: str, token: str) -> tuple[int, dict[str, Any]]:
    import httpx  # noqa: PLC0415

    host, _, port = operator.rpartition(":")
    place = f"http://{_ANYWHERE.get(host, host)}:{port}"
    try:
        with httpx.Client(trust_env=False, timeout=RELOAD_SECONDS) as client:
            answer = client.post(f"{place}/api/reload", headers={"Authorization": f"Bearer {token}"})
            told = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        fail(_unanswered(place, error), COULD_NOT_START)
    if not isinstance(told, dict) or "detail" not in told or answer.status_code in {404, 405}:
        fail(f"what answers at {place} (server.operator) is no gateway.", COULD_NOT_START)
    return answer.status_code, told


def _unanswered(place: str, error: Exception) -> str:
    """The address is the file's: a gateway that was started with another one is still where it was."""
    import httpx  # noqa: PLC0415

    if isinstance(error, httpx.ConnectError):
        return (
            f"no gateway answers at {place}, where server.operator of this file says that it is. Either none runs, or it "
            "was started with another address: server.operator only changes with a restart."
        )
    if isinstance(error, httpx.HTTPError):
        return f"what is at {place} (server.operator) did not answer ({type(error).__name__}); the log of the gateway says more."
    return f"what answers at {place} (server.operator) is no gateway."


async def _kept_token(config: Config) -> str | None:
    from gateway.ledger_session import SessionProblem, open_session  # noqa: PLC0415

    async with open_session(config) as session:
        if isinstance(session, SessionProblem):
            fail(session.detail, COULD_NOT_START)
        return await session.operator_token()
