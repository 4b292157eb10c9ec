"""gateway.yaml from disk to a configuration with its routes compiled, or every problem with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.credentials.issuers import issuer_problems
from policies.diagnostics import Diagnostic, Severity
from policies.expectations import unmet_expectations
from policies.load import load
from policies.routes import RouteTable, compile_routes
from policies.schema import Config


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """`ready` is None exactly when one of `diagnostics` is an error."""

    ready: tuple[Config, RouteTable] | None
    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """There is no such file, or it can't be read."""

    detail: str


def load_file(path: Path, environ: Mapping[str, str], *, run_tests: bool = False) -> LoadedFile | Unreadable:
    """Read and compile `path`; `${file:…}` is read relative to the working directory.

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
        found.add(Diagnostic(str(path), mark.line, mark.column, problem.severity, problem.code, problem.message))
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
    return LoadedFile((loaded.config, compiled.table), diagnostics)


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
