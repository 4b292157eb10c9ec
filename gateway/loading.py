"""gateway.yaml from disk to a configuration with its routes compiled, or every problem with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from gateway.credentials.issuers import issuer_problems
from policies.diagnostics import Diagnostic, Severity
from policies.draft import Positions
from policies.expectations import unmet_expectations
from policies.load import load
from policies.routes import RouteTable, compile_routes
from policies.schema import Config
from policies.tree import START
from policies.tree import Mapping as Tree

LARGEST_FILE: Final = 64 * 1024
_RELATIVE_SQLITE: Final = "sqlite:///"


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """`ready` is None exactly when one of `diagnostics` is an error."""

    ready: tuple[Config, RouteTable] | None
    diagnostics: tuple[Diagnostic, ...]
    positions: Positions = field(default_factory=lambda: Positions(Tree(START)), repr=False)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """There is no such file, or it can't be read."""

    detail: str


def load_file(path: Path, environ: Mapping[str, str], *, run_tests: bool = False) -> LoadedFile | Unreadable:
    """Read and compile `path`; `${file:…}` is read relative to the working directory.

    A relative SQLite file is beside `path`, wherever the command is run: two commands on one gateway.yaml that each made
    a ledger of their own would both say "done", and one of them would have done nothing.

    With `run_tests`, or where the file says `run_tests_at_load`, a test of the file that fails is an error like others.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Unreadable(f"there is no {path}. Name your configuration with --config FILE.")
    except OSError as error:
        return Unreadable(f"can't read {path}: {error.strerror}.")
    loaded = load(text, file=str(path), environ=environ, read_file=_read_text)
    if loaded.config is None:
        return LoadedFile(None, loaded.diagnostics)
    compiled = compile_routes(loaded.config)
    found: set[Diagnostic] = set()
    for problem in compiled.problems:
        where = ("default",) if problem.route_index is None else ("routes", problem.route_index)
        mark = loaded.positions.value(*where)
        message = problem.message
        if problem.other_index is not None:
            message += f" (the other is at line {loaded.positions.value('routes', problem.other_index).line})"
        found.add(Diagnostic(str(path), mark.line, mark.column, problem.severity, problem.code, message))
    for issuer in issuer_problems(loaded.config.auth):
        mark = loaded.positions.value("auth", "issuers", issuer.index, issuer.key)
        found.add(Diagnostic(str(path), mark.line, mark.column, Severity.ERROR, "bad-key", issuer.message))
    if compiled.table is not None and (run_tests or loaded.config.run_tests_at_load):
        for unmet in unmet_expectations(loaded.config, compiled.table):
            mark = loaded.positions.value("tests", unmet.index)
            found.add(Diagnostic(str(path), mark.line, mark.column, Severity.ERROR, "failed-test", unmet.message))
    diagnostics = tuple(sorted({*loaded.diagnostics, *found}))
    if compiled.table is None or any(one.severity is Severity.ERROR for one in diagnostics):
        return LoadedFile(None, diagnostics)
    return LoadedFile((_with_ledger_beside(loaded.config, path), compiled.table), diagnostics, loaded.positions)


def _with_ledger_beside(config: Config, path: Path) -> Config:
    url = config.database.get_secret_value()
    if not url.startswith(_RELATIVE_SQLITE) or url.startswith(f"{_RELATIVE_SQLITE}/") or url == _RELATIVE_SQLITE:
        return config
    file = path.resolve().parent / url.removeprefix(_RELATIVE_SQLITE)
    return config.model_copy(update={"database": SecretStr(f"{_RELATIVE_SQLITE}{file}")})


def _read_text(path: str) -> str:
    """What `${file:…}` stands for. Raises OSError or ValueError; never reads without end, whatever the path names."""
    if not Path(path).is_file():  # a FIFO would wait for ever, a device might never end
        Path(path).stat()
        raise ValueError("it is no regular file")
    with Path(path).open(encoding="utf-8") as file:
        text = file.read(LARGEST_FILE + 1)
    if len(text) > LARGEST_FILE:
        raise ValueError("it is larger than a secret or a key ever is")
    return text
