"""What the command line says and how it ends: sentences to stderr, results to stdout, never a traceback.

| exit code | |
|---|---|
| 0 | done, or answered |
| 1 | the answer is no: problems were found, or what was named isn't there |
| 2 | wrong usage: the command line can't be right, whatever the file and the ledger hold |
| 3 | it could not be done: the file, the ledger, Stripe, a port or a gateway, which it takes, can't be had |
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import typer

from gateway.loading import Unreadable, load_file
from gateway.reloading import Candidate
from policies.diagnostics import render
from policies.routes import RouteTable
from policies.schema import Config

PROBLEMS: Final = 1
USAGE: Final = 2
COULD_NOT_START: Final = 3

_NOT_WRITTEN: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO}

ConfigOption: Final = typer.Option(
    "--config",
    "-c",
    help="The gateway.yaml to work on.",
    metavar="FILE",
    readable=False,  # whether it can be read is seen, and said, when it is
)


def fail(detail: str, code: int = COULD_NOT_START) -> NoReturn:
    """End with a sentence that says what, where and what to do."""
    sys.stderr.write(f"gateway: {detail}\n")
    raise typer.Exit(code)


@contextmanager
def have_places_to_write() -> Iterator[None]:
    """Around a whole command: what was closed by who started it swallows what is written, and a full disk is a sentence."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # `>&-`
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _NOT_WRITTEN:
            raise
        # What is left in the buffer goes nowhere, or Python would try once more at its end, and say so in its own way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr.write(f"gateway: what it says can't be written: {error.strerror}.\n")
        sys.exit(COULD_NOT_START)


def load_or_fail(path: Path, code: int = COULD_NOT_START, *, quiet: bool = False) -> tuple[Config, RouteTable]:
    """The configuration at `path`; problems go to stderr, and an error among them ends the command with `code`.

    A file that can't be read at all is no answer, whatever an error in one is: it ends with 3.
    """
    candidate = load_candidate(path, code, quiet=quiet)
    return candidate.config, candidate.routes


def load_candidate(path: Path, code: int = COULD_NOT_START, *, quiet: bool = False) -> Candidate:
    """As `load_or_fail`, with what it was made from."""
    loaded = load_file(path, os.environ)
    if isinstance(loaded, Unreadable):
        fail(loaded.detail, COULD_NOT_START)
    if loaded.diagnostics and not (quiet and loaded.ready):
        sys.stderr.write(render(loaded.diagnostics).rstrip("\n") + "\n")
    if loaded.ready is None:
        raise typer.Exit(code)
    return Candidate(*loaded.ready, loaded.source)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for people on a terminal, tab-separated lines for programs."""
    if not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write("\t".join(row) + "\n")
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # an id that is cut off can't be copied
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@contextmanager
def bar_on_stderr(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr where that is a terminal. Moved by how much is done, and of how many if that is known."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
