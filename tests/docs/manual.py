"""The manual as its tests read it: which files it is, and the blocks, tables and commands that stand in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
CONFIGURATION: Final = ROOT / "docs" / "configuration.md"
ANSWERS: Final = ROOT / "docs" / "answers.md"
OPERATING: Final = ROOT / "docs" / "operating.md"
POLICIES: Final = ROOT / "docs" / "policies.md"
STRIPE: Final = ROOT / "docs" / "stripe.md"
SIMULATOR: Final = ROOT / "docs" / "simulator.md"
API_KEYS: Final = ROOT / "docs" / "api-keys.md"
# What is meant to be, not only what is: its commands and settings are not all there yet, so it is no page of the manual.
DESIGN: Final = ROOT / "docs" / "design.md"
REFERENCE: Final = (README, CONFIGURATION, ANSWERS, OPERATING, POLICIES, STRIPE, SIMULATOR, API_KEYS)
PAGES: Final = (
    *REFERENCE,
    ROOT / "CONTRIBUTING.md",
    ROOT / "docs" / "campaign.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
)

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ENVIRONMENT: Final = re.compile(r"[A-Z_]+=")
_OPERATORS: Final = frozenset({"&&", "||", "|", ";"})
_IN_A_CONTAINER: Final = ["docker", "compose", "exec", "-T"]


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block, and where it stands."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Every block of the manual in one of these languages."""
    return [block for page in PAGES for block in blocks_of(page) if block.language in languages]


def blocks_of(page: Path) -> list[Block]:
    """Every block of one page."""
    text = page.read_text(encoding="utf-8")
    return [Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in _FENCE.finditer(text)]


def reference() -> str:
    """The text of README and docs."""
    return "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE)


def section(page: Path, heading: str) -> str:
    """The text below a heading of the second level, up to the next."""
    _, found, rest = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    assert found, f"{page.name} has no section '{heading}'"
    return rest.partition("\n## ")[0]


def prose_of(text: str) -> str:
    """The text without its blocks."""
    return _FENCE.sub("", text)


def rows(page: Path) -> Iterator[list[str]]:
    """The cells of every row of every table, less the rule below its head."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            cells = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
            yield [cell.strip().replace("\\|", "|") for cell in cells]


def words_of(cell: str) -> list[str]:
    """What stands in a cell as code."""
    return re.findall(r"`([^`]+)`", cell)


def command_lines(block: Block) -> list[str]:
    """The lines that a reader would type: of a console block, those behind the prompt."""
    lines = [line for line in block.text.splitlines() if line.strip()]
    if block.language == "console":
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in lines if not line.lstrip().startswith("#")]


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each single command: assignments before it left out, pipes and substitutions taken apart.

    What a container is told to run is the command itself.
    """
    for line in command_lines(block):
        yield from commands_in(line)


def commands_in(line: str) -> Iterator[list[str]]:
    """The words of each single command in one line."""
    inside = re.search(r"\$\((.*)\)$", line)
    lexer = shlex.shlex(inside[1] if inside else line, posix=True, punctuation_chars="|;")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    command: list[str] = []
    for word in [*lexer, ";"]:
        if word not in _OPERATORS:
            command.append(word)
            continue
        while command and _ENVIRONMENT.match(command[0]):
            command.pop(0)
        if command[: len(_IN_A_CONTAINER)] == _IN_A_CONTAINER:
            del command[: len(_IN_A_CONTAINER) + 1]
        if command:
            yield command
        command = []


def mentioned_commands(program: str) -> list[tuple[str, list[str]]]:
    """Every use of `program` in the manual, in blocks and in running text, with where it stands."""
    found = [
        (str(block), words) for block in blocks("sh", "console") for words in commands(block) if words[0] == program
    ]
    for page in PAGES:
        text = prose_of(page.read_text(encoding="utf-8"))
        codes = re.findall(rf"(?<!`)`({program} [^`]+)`", text)
        found.extend((page.name, shlex.split(code)) for code in codes)
    return found
