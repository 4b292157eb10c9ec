"""Reads gateway.yaml: text in, a configuration or every problem out.

It decides whether a file may be used at all. A configuration comes out only when nothing in it is wrong (P10), and
whatever is fed in, the answer is a value: nothing raises. The environment and other files are reached only through the
two arguments. The way is: tree (`source`), values (`interpolation`), types (`shape`), sense (`crosschecks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.crosschecks import cross_check
from policies.crosschecks.issuers import DEMO_TOKEN_SECRET
from policies.diagnostics import Diagnostic, Findings, Severity
from policies.draft import Positions
from policies.interpolation import Interpolation
from policies.shape import shape
from policies.source import read_tree
from policies.tree import START
from policies.tree import Mapping as Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from policies.schema import Config

__all__ = ["DEMO_TOKEN_SECRET", "Loaded", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """`config` is None exactly when one of `diagnostics` is an error. `positions` and `draft` are for checks made afterwards.

    `draft` is what could be read of a file that has errors: to be looked at, never used.
    """

    config: Config | None
    diagnostics: tuple[Diagnostic, ...]
    positions: Positions
    draft: Config | None = None

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """What keeps the file from being used."""
        return tuple(found for found in self.diagnostics if found.severity is Severity.ERROR)


def load(text: str | bytes, *, file: str, environ: Mapping[str, str], read_file: Callable[[str], str]) -> Loaded:
    """The configuration in `text`. `read_file` raises OSError or ValueError for what can't be read."""
    findings = Findings(file)
    tree = read_tree(text, findings)
    if tree is None:
        return Loaded(None, findings.in_order(), Positions(Tree(START)))
    Interpolation(environ, read_file, findings).apply(tree)
    draft = shape(tree, findings)
    if draft is not None:
        cross_check(draft, findings)
    config = draft.config if draft is not None and not findings.has_errors else None
    return Loaded(config, findings.in_order(), Positions(tree), None if draft is None else draft.config)
