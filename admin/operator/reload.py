"""`POST /api/reload`: load gateway.yaml anew, and say what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel


class Reloaded(BaseModel):
    """What came of it: `problems` are errors where it was refused, else warnings, a line each."""

    detail: str
    generation: int | None
    problems: str


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """`generation` None: it was refused, and nothing has changed."""

    detail: str
    generation: int | None
    problems: str


Reload = Callable[[], Awaitable[ReloadOutcome]]


def mount_reload(app: FastAPI, reload: Reload) -> None:
    """Add it to the operator's API."""

    @app.post("/api/reload", responses={422: {"model": Reloaded}})
    async def reloaded() -> Reloaded:
        """Load gateway.yaml anew: all of it is in force afterwards, or nothing has changed (422)."""
        outcome = await reload()
        told = Reloaded(detail=outcome.detail, generation=outcome.generation, problems=outcome.problems)
        if outcome.generation is None:
            return JSONResponse(told.model_dump(), status_code=422)  # type: ignore[return-value] # FastAPI passes it on
        return told
