"""gateway.yaml from disk to a configuration with its routes compiled, or every problem with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from gateway.credentials.issuers import issuer_problems, key_problems
from policies.crosschecks.conflicts import told
from policies.diagnostics import Diagnostic, Severity
from policies.draft import Positions
from policies.expectations import unmet_expectations
from policies.load import Loaded, load
from policies.routes import RouteTable, compile_routes
from policies.schema import Config
from policies.source import LARGEST_FILE_BYTES

LARGEST_FILE: Final = 64 * 1024
_RELATIVE_SQLITE: Final = "sqlite:///"


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """`ready` is None exactly when one of `diagnostics` is an error. `source` is all that it was made from."""

    ready: tuple[Config, RouteTable] | None
    diagnostics: tuple[Diagnostic, ...]
    positions: Positions = field(repr=False, compare=False)
    source: Source = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of a gateway.yaml, and the text of each file that a `${file:…}` in it stands for. Full of secrets."""

    path: Path
    text: bytes = field(repr=False)
    files: Mapping[str, str] = field(repr=False)


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
        text = read_bounded(path)
    except FileNotFoundError:
        hint = " Name your configuration with --config FILE." if path == Path("gateway.yaml") else ""
        return Unreadable(f"there is no {path}.{hint}")
    except OSError as error:
        return Unreadable(f"can't read {path}: {error.strerror}.")
    files: dict[str, str] = {}

    def read(name: str) -> str:
        files[name] = content = read_text(name)
        return content

    return _compiled(Source(path, text, files), environ, read, run_tests=run_tests)


def load_source(source: Source, environ: Mapping[str, str]) -> LoadedFile:
    """What was read once, compiled again: the same in every process that has the same environment."""

    def read(name: str) -> str:
        try:
            return source.files[name]
        except KeyError:
            raise ValueError("it was not read with the file") from None

    return _compiled(source, environ, read, run_tests=False)


def _compiled(
    source: Source, environ: Mapping[str, str], read_file: Callable[[str], str], *, run_tests: bool
) -> LoadedFile:
    path = source.path
    loaded = load(source.text, file=str(path), environ=environ, read_file=read_file)
    if loaded.config is None:
        told_of = {(one.line, one.column) for one in loaded.diagnostics}
        found = {one for one in _keys_at_fault(loaded, path) if (one.line, one.column) not in told_of}
        return LoadedFile(None, tuple(sorted({*loaded.diagnostics, *found})), loaded.positions, source)
    compiled = compile_routes(loaded.config)
    found = set(_keys_at_fault(loaded, path))
    for problem in compiled.problems:
        where = ("default",) if problem.route_index is None else ("routes", problem.route_index)
        mark = loaded.positions.value(*where)
        message = told(problem, loaded.positions)
        found.add(Diagnostic(str(path), mark.line, mark.column, problem.severity, problem.code, message))
    if compiled.table is not None and (run_tests or loaded.config.run_tests_at_load):
        for unmet in unmet_expectations(loaded.config, compiled.table):
            mark = loaded.positions.value("tests", unmet.index)
            found.add(Diagnostic(str(path), mark.line, mark.column, Severity.ERROR, "failed-test", unmet.message))
    diagnostics = tuple(sorted({*loaded.diagnostics, *found}))
    if compiled.table is None or any(one.severity is Severity.ERROR for one in diagnostics):
        return LoadedFile(None, diagnostics, loaded.positions, source)
    ready = (_with_ledger_beside(loaded.config, path), compiled.table)
    return LoadedFile(ready, diagnostics, loaded.positions, source)


def _keys_at_fault(loaded: Loaded, path: Path) -> Iterator[Diagnostic]:
    """What only those who verify tokens can say of keys; in a file with other errors, of the keys alone."""
    if loaded.draft is None:
        return
    problems = key_problems(loaded.draft.auth) if loaded.config is None else issuer_problems(loaded.draft.auth)
    for issuer in problems:
        mark = loaded.positions.value("auth", "issuers", issuer.index, issuer.key)
        yield Diagnostic(str(path), mark.line, mark.column, Severity.ERROR, "bad-key", issuer.message)


def _with_ledger_beside(config: Config, path: Path) -> Config:
    url = config.database.get_secret_value()
    if not url.startswith(_RELATIVE_SQLITE) or url.startswith(f"{_RELATIVE_SQLITE}/") or url == _RELATIVE_SQLITE:
        return config
    file = path.resolve().parent / url.removeprefix(_RELATIVE_SQLITE)
    return config.model_copy(update={"database": SecretStr(f"{_RELATIVE_SQLITE}{file}")})


def read_bounded(path: Path) -> bytes:
    """The file's bytes, and of one that is too large no more than tells it: `/dev/zero` never ends. Raises OSError."""
    with path.open("rb") as file:
        return file.read(LARGEST_FILE_BYTES + 1)


def read_text(path: str) -> str:
    """What `${file:…}` stands for. Raises OSError or ValueError; never reads without end, whatever the path names."""
    if not Path(path).is_file():  # a FIFO would wait for ever, a device might never end
        Path(path).stat()
        raise ValueError("it is no regular file")
    with Path(path).open(encoding="utf-8") as file:
        text = file.read(LARGEST_FILE + 1)
    if len(text) > LARGEST_FILE:
        raise ValueError("it is larger than a secret or a key ever is")
    return text
