"""``${VAR}``, ``${VAR:-default}``, ``${file:/run/secrets/x}`` and ``$$`` in the scalars of gateway.yaml.

It works on the parsed tree, so no value of a variable can add a key or a line to the file, and what was put in isn't
looked at again. It reads the environment and files only through what it is handed, and must never show a value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from policies.diagnostics import quoted
from policies.tree import Mapping, Node, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping as Environ

    from policies.diagnostics import Findings

_PIECE: Final = re.compile(r"\$\$|\$\{|\$(?=[A-Za-z_])")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_WITH_DEFAULT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):-(.*)", re.ASCII | re.DOTALL)


class Interpolation:
    """One pass over one tree."""

    def __init__(self, environ: Environ[str, str], read_file: Callable[[str], str], findings: Findings) -> None:
        self._environ = environ
        self._read_file = read_file
        self._findings = findings

    def apply(self, node: Node) -> None:
        """Put values into every scalar below `node`; one that has none becomes broken and is reported."""
        if isinstance(node, Mapping):
            for value in node.values.values():
                self.apply(value)
        elif isinstance(node, Sequence):
            for item in node.items:
                self.apply(item)
        elif node.value is not None and "$" in node.value:
            self._substitute(node)

    def _substitute(self, scalar: Scalar) -> None:
        text = scalar.written
        pieces: list[str] = []
        is_broken = False
        position = 0
        while (match := _PIECE.search(text, position)) is not None:
            pieces.append(text[position : match.start()])
            position = match.end()
            if match[0] == "$$":
                pieces.append("$")
                continue
            if match[0] == "$":
                self._findings.warning(
                    "lone-dollar",
                    scalar.mark,
                    "a '$' that begins no ${…} is kept as it stands; write ${NAME} for a variable, or $$ to mean a dollar",
                )
                pieces.append("$")
                continue
            end = text.find("}", position)
            if end < 0:
                self._findings.error(
                    "unterminated", scalar.mark, "a '${' is never closed; write ${NAME}, or $${ to mean the characters"
                )
                is_broken = True
                break
            value = self._value(text[position:end], scalar)
            scalar.is_substituted = True
            is_broken = is_broken or value is None
            pieces.append(value or "")
            position = end + 1
        pieces.append(text[position:])
        scalar.value = None if is_broken else "".join(pieces)

    def _value(self, expression: str, scalar: Scalar) -> str | None:
        """What stands for one ``${expression}``, or None and a finding."""
        if expression.startswith("file:"):
            return self._of_file(expression.removeprefix("file:"), scalar)
        if _NAME.fullmatch(expression):
            value = self._environ.get(expression)
            if value is None:
                self._findings.error(
                    "unset-variable",
                    scalar.mark,
                    f"{expression} is not set; set it, or give a default: ${{{expression}:-default}}",
                )
            return value
        with_default = _WITH_DEFAULT.fullmatch(expression)
        if with_default is None:
            self._findings.error(
                "bad-substitution",
                scalar.mark,
                f"{quoted('${' + expression + '}')} is not understood; write ${{NAME}}, ${{NAME:-default}} or ${{file:/path}}",
            )
            return None
        name, default = with_default.groups()
        if "${" in default:
            self._findings.error(
                "bad-substitution", scalar.mark, f"the default of {name} holds another '${{', which is not understood"
            )
            return None
        # As in a shell, ':-' also replaces a variable that is set to nothing: compose files pass those on.
        return self._environ.get(name) or default

    def _of_file(self, path: str, scalar: Scalar) -> str | None:
        try:
            content = self._read_file(path)
        except OSError as problem:
            reason = problem.strerror or type(problem).__name__
        except UnicodeDecodeError:
            reason = "it is not UTF-8"
        except ValueError:
            reason = "this is not the name of a file"
        else:
            # Editors and `echo` end a file with a newline that is no part of a secret.
            return content.removesuffix("\n").removesuffix("\r") if content.endswith("\n") else content
        self._findings.error("unreadable-file", scalar.mark, f"the file {quoted(path)} can't be read: {reason}")
        return None
