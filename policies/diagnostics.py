"""What is wrong with a gateway.yaml, and where: one value per problem, rendered for people, programs and CI.

A message is a whole sentence about what was read and what is allowed. It must never hold the value of a secret or of
anything that came from the environment or a file: those are named as the file writes them, ``${NAME}``.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_QUOTE: Final = 80


class Severity(StrEnum):
    """An error keeps the file from being used; a warning is for a person to judge."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in the file, both counted from 1, as editors show them."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One problem. Sorting puts problems in the order of the file."""

    file: str
    line: int
    column: int
    severity: Severity
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.severity}[{self.code}]: {self.message}"

    def as_dict(self) -> dict[str, str | int]:
        """For ``--format json``."""
        return asdict(self)

    def as_github_annotation(self) -> str:
        """A workflow command, so that the problem stands beside its line in a pull request."""
        return (
            f"::{self.severity} file={_property(self.file)},line={self.line},col={self.column},"
            f"title={_property(self.code)}::{_data(self.message)}"
        )


@dataclass(slots=True)
class Findings:
    """Collects the problems of one file while it is read."""

    file: str
    _found: set[Diagnostic] = field(default_factory=set)

    def error(self, code: str, mark: Mark, message: str) -> None:
        """Note a problem that keeps the file from being used."""
        self._found.add(Diagnostic(self.file, mark.line, mark.column, Severity.ERROR, code, message))

    def warning(self, code: str, mark: Mark, message: str) -> None:
        """Note something that is allowed and probably not meant."""
        self._found.add(Diagnostic(self.file, mark.line, mark.column, Severity.WARNING, code, message))

    @property
    def has_errors(self) -> bool:
        """Whether the file can't be used."""
        return any(found.severity is Severity.ERROR for found in self._found)

    def in_order(self) -> tuple[Diagnostic, ...]:
        """Every problem once, in the order of the file."""
        return tuple(sorted(self._found))


def render(diagnostics: Iterable[Diagnostic]) -> str:
    """One line each; what ``gateway check`` prints."""
    return "".join(f"{diagnostic}\n" for diagnostic in diagnostics)


def quoted(text: str) -> str:
    """`text` in quotes on one line, cut where it gets too long to read."""
    return repr(text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 1]}…")


def listed(words: Iterable[str], joint: str = "or") -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    words = list(words)
    return f" {joint} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def nearest_word(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` is probably a slip of."""
    by_lower_case = {candidate.lower(): candidate for candidate in candidates}
    # Cut, because a word of any length would cost difflib the square of it.
    near = difflib.get_close_matches(word[:LONGEST_QUOTE].lower(), by_lower_case, n=1, cutoff=0.6)
    return by_lower_case[near[0]] if near else None


def nearest(word: str, candidates: Iterable[str]) -> str:
    """``; did you mean 'tier'?``, or nothing when no candidate is near."""
    near = nearest_word(word, candidates)
    return f"; did you mean {near!r}?" if near is not None else ""


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
