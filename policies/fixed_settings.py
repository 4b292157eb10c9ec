"""Which settings a running gateway can't change, since something is built on them that lives as long as the process.

A reload that would change one is refused as a whole: half of a file is no configuration that anybody wrote (P10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.schema import Config

FIXED: Final = (
    ("server", "listen"),
    ("server", "operator"),
    ("server", "workers"),
    ("database",),
    ("redis",),
    ("cache",),
    ("billing", "stripe", "secret_key"),
    ("billing", "stripe", "api_base"),
)


def changed_fixed_settings(old: Config, new: Config) -> Iterator[tuple[str, ...]]:
    """Those of `FIXED` that `new` would change."""
    for setting in FIXED:
        if _at(old, setting) != _at(new, setting):
            yield setting


def _at(config: Config, setting: tuple[str, ...]) -> Any:
    value: Any = config
    for name in setting:
        value = getattr(value, name)
    return value
