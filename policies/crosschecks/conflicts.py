"""Routes that tie or shadow each other, in a file that has other errors, too.

A whole file is told of these when its table is made (`gateway.loading`). It must never compare a route of which a part
was left out as broken: that part may be what tells the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.diagnostics import Severity
from policies.draft import Positions, find
from policies.routes import RouteProblem, compile_routes
from policies.tree import Mapping, Sequence

if TYPE_CHECKING:
    from policies.diagnostics import Findings
    from policies.draft import Draft
    from policies.tree import Node


def check(draft: Draft, findings: Findings) -> None:
    """`routes` among themselves, where no table will be made."""
    if not findings.has_errors:
        return
    for problem in compile_routes(draft.config).problems:
        at = (problem.route_index, problem.other_index)
        # One entry that names a path twice is told so by itself.
        if (
            None in at
            or at[0] == at[1]
            or any(_has_losses(find(draft.positions.tree, ("routes", index or 0))) for index in at)
        ):
            continue
        report = findings.error if problem.severity is Severity.ERROR else findings.warning
        report(problem.code, draft.positions.value("routes", problem.route_index or 0), told(problem, draft.positions))


def told(problem: RouteProblem, positions: Positions) -> str:
    """The sentence, with the line of the other party."""
    if problem.other_index is None:
        return problem.message
    return f"{problem.message} (the other is at line {positions.value('routes', problem.other_index).line})"


def _has_losses(node: Node | None) -> bool:
    if isinstance(node, Mapping):
        return bool(node.lost_keys) or any(_has_losses(child) for child in node.values.values())
    return isinstance(node, Sequence) and (node.lost_items or any(map(_has_losses, node.items)))
