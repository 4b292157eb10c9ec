"""A configuration under examination: what could be read of it, where each part stands, and what was too broken to keep.

Checks across the file work on this, so that a slip in one corner doesn't hide the problems of another, and what was
left out as broken isn't reported a second time as missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.diagnostics import Mark, quoted
from policies.tree import START, Mapping, Node, Scalar, Sequence

if TYPE_CHECKING:
    from policies.schema import Config

Location = tuple[str | int, ...]
"""The way to a value from the top of the file: ``("routes", 2, "tier")``."""


def find(tree: Mapping, location: Location) -> Node | None:
    """The node at `location`, None where there is none."""
    node: Node | None = tree
    for step in location:
        if isinstance(node, Mapping) and isinstance(step, str):
            node = node.values.get(step)
        elif isinstance(node, Sequence) and isinstance(step, int) and 0 <= step < len(node.items):
            node = node.items[step]
        else:
            return None
    return node


def within(tree: Mapping, location: Location) -> Location:
    """The longest beginning of `location` that exists."""
    while find(tree, location) is None:
        location = location[:-1]
    return location


@dataclass(frozen=True, slots=True)
class Positions:
    """Where things stand in the file."""

    tree: Mapping

    def value(self, *location: str | int) -> Mark:
        """Where the value at `location` begins, or the nearest thing around it that exists."""
        node = find(self.tree, within(self.tree, location))
        return node.mark if node is not None else START

    def key(self, *location: str | int) -> Mark:
        """Where the key at `location` begins; for an entry of a list, the entry."""
        location = within(self.tree, location)
        parent = find(self.tree, location[:-1]) if location else None
        if isinstance(parent, Mapping) and isinstance(location[-1], str):
            return parent.keys[location[-1]]
        return self.value(*location)


@dataclass(frozen=True, slots=True)
class Draft:
    """`config` holds what could be kept; `lost` names what could not, without the indexes of lists."""

    config: Config
    positions: Positions
    lost: frozenset[tuple[str, ...]]

    def is_whole(self, *names: str) -> bool:
        """Nothing of this name, and nothing that holds it, was left out: what isn't there was never written."""
        return not any(names[: len(lost)] == lost for lost in self.lost)

    def is_lost(self, *location: str | int) -> bool:
        """Whether the file says something here that was too broken to keep."""
        parent = find(self.positions.tree, location[:-1])
        return isinstance(parent, Mapping) and location[-1] in parent.lost_keys

    def is_given(self, *location: str | int) -> bool:
        """Whether the file says anything here, right or wrong."""
        return find(self.positions.tree, location) is not None or self.is_lost(*location)

    def lost_keys(self, *location: str | int) -> frozenset[str]:
        """The keys of the mapping at `location` that are unknown or too broken to keep."""
        node = find(self.positions.tree, location)
        return frozenset(node.lost_keys) if isinstance(node, Mapping) else frozenset()

    def has_losses(self, *location: str | int) -> bool:
        """Whether something directly inside the list or mapping at `location` was left out."""
        node = find(self.positions.tree, location)
        return (isinstance(node, Sequence) and node.lost_items) or (isinstance(node, Mapping) and bool(node.lost_keys))

    def is_literal(self, *location: str | int) -> bool:
        """Whether the value stands in the file itself, so that a message may take it apart."""
        node = find(self.positions.tree, location)
        return isinstance(node, Scalar) and not node.is_substituted

    def shown(self, *location: str | int) -> str:
        """The value in quotes, or, where a variable or file gave it, as it is written. Not for secrets."""
        node = find(self.positions.tree, location)
        if not isinstance(node, Scalar):
            return quoted(str(location[-1]))
        return quoted(node.written if node.is_substituted or node.value is None else node.value)
