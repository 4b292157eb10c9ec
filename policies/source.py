"""The text of gateway.yaml as a tree in which every key and value knows its line and column.

It decides which YAML is understood: one document of mappings, lists and scalars, and scalars stay as they are
written. Nothing here turns ``no`` into a boolean, ``010`` into eight or ``1.10`` into 1.1 (YAML 1.1 does): the schema
knows what a setting wants. Anchors, aliases, tags and merge keys are refused, so no small file grows into a large tree.
It must never raise, whatever it is fed, and never read anything but the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from policies.diagnostics import Findings, Mark, quoted
from policies.tree import START, Mapping, Node, Scalar, Sequence, says_nothing

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_FILE_BYTES: Final = 4 << 20
"""Ten thousand routes take about 0.6 MiB."""

DEEPEST_NESTING: Final = 32
"""The schema is 6 deep."""


class _Stop(Exception):  # noqa: N818 - it carries no error: the finding is noted already
    """The rest of the text can't be read."""


def read_tree(text: str | bytes, findings: Findings) -> Mapping | None:
    """The tree of `text`, or None when there is none; every problem goes to `findings`."""
    decoded = _decoded(text, findings)
    if decoded is None:
        return None
    try:
        root = _Reader(decoded, findings).document()
    except _Stop:
        return None
    if root is None or (isinstance(root, Scalar) and says_nothing(root)):
        findings.error("empty-file", START, "the file is empty; it needs at least 'version' and 'upstreams'")
        return None
    if not isinstance(root, Mapping):
        kind = "a list" if isinstance(root, Sequence) else "a single value"
        findings.error(
            "not-a-mapping", root.mark, f"the file is {kind}; it must be keys with values, from 'version: 1' on"
        )
        return None
    return root


def _decoded(text: str | bytes, findings: Findings) -> str | None:
    if len(text) > LARGEST_FILE_BYTES:
        findings.error("too-large", START, f"the file is larger than {LARGEST_FILE_BYTES >> 20} MiB")
        return None
    if isinstance(text, bytes):
        if text.startswith((b"\xff\xfe", b"\xfe\xff")):
            findings.error("not-utf-8", START, "the file is UTF-16; save it as UTF-8")
            return None
        try:
            text = text.decode()
        except UnicodeDecodeError as problem:
            mark = _mark_after(problem.object[: problem.start].decode())
            findings.error(
                "not-utf-8", mark, f"byte 0x{problem.object[problem.start]:02x} is not UTF-8; save the file as UTF-8"
            )
            return None
    if text.startswith("\ufeff"):
        findings.error("byte-order-mark", START, "the file begins with a byte order mark; save it as UTF-8 without BOM")
        return None
    return text


def _mark_after(text: str) -> Mark:
    return Mark(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _mark(mark: Any) -> Mark:
    """`mark` is PyYAML's, counted from 0; its stubs leave open whether there is one."""
    return Mark(mark.line + 1, mark.column + 1)


class _Reader:
    """Builds the tree from parser events: they are iterative, so depth is ours to bound, and still show tags and aliases."""

    def __init__(self, text: str, findings: Findings) -> None:
        self._text = text
        self._findings = findings
        self._events = self._safe_events()

    def document(self) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._findings.error(
                        "several-documents",
                        _mark(event.start_mark),
                        "a second document begins here; one file is one document",
                    )
                    raise _Stop
            elif isinstance(event, NodeEvent):
                root = self._node(event, depth=1)
        return root

    def _safe_events(self) -> Iterator[Any]:
        try:
            # The pure-Python parser everywhere: libyaml words its problems differently, and 1,000 routes take 0.1 s.
            loader = yaml.SafeLoader(self._text)
        except yaml.reader.ReaderError as problem:
            mark = _mark_after(self._text[: problem.position])
            self._findings.error(
                "bad-character", mark, f"the character U+{ord(self._text[problem.position]):04X} is not allowed in YAML"
            )
            raise _Stop from None
        try:
            while loader.check_event():
                yield loader.get_event()  # type: ignore[no-untyped-call]
        except yaml.MarkedYAMLError as problem:
            self._syntax_error(problem)
            raise _Stop from None
        except (ValueError, OverflowError):
            # PyYAML passes on what chr() and int() say of "\UFFFFFFFF" or of a %YAML version with 5,000 digits.
            self._findings.error("syntax", _mark(loader.get_mark()), "an escape or a number here is out of range")
            raise _Stop from None
        finally:
            loader.dispose()

    def _syntax_error(self, problem: yaml.MarkedYAMLError) -> None:
        at = problem.problem_mark or problem.context_mark
        mark = _mark(at) if at is not None else START
        lines = self._text.splitlines()
        line = lines[mark.line - 1] if mark.line <= len(lines) else ""
        here = line[mark.column - 1 : mark.column]
        before = line[: mark.column - 1]
        if here == "\t" or "\t" in before[: len(before) - len(before.lstrip())]:
            self._findings.error("tab", mark, "a tab stands here; YAML is indented with spaces")
            return
        what = str(problem.problem or problem.context or "this is not YAML").replace("'<scalar>'", "another text")
        hint = ""
        if "${" in f"{before}{here}" and any(bracket in before.replace("${", "") for bracket in "[{"):
            hint = "; inside [ ] and { } a ${…} needs quotes"
        elif here == "{" and "while parsing a flow" in str(problem.context):
            hint = "; inside [ ] and { } a text with a { in it, such as a path, needs quotes"
        elif here in {"@", "`", "%"} or "alias" in str(problem.context):
            hint = "; a text that begins so needs quotes"
        elif "mapping values" in what:
            hint = "; a text with ': ' in it needs quotes, and keys of one mapping begin in one column"
        elif "<block end>" in what:
            what, hint = "this line is indented unlike those beside it", "; keys of one mapping begin in one column"
            problem.context = None
        elif problem.context_mark is not None and "while parsing a flow" in str(problem.context):
            hint = f"; the bracket opened at line {problem.context_mark.line + 1}, column {problem.context_mark.column + 1}"
        context = f"{problem.context}: " if problem.context else ""
        self._findings.error("syntax", mark, f"{context}{what}{hint}")

    def _node(self, event: Any, depth: int) -> Node:
        mark = _mark(event.start_mark)
        if isinstance(event, AliasEvent):
            self._findings.error(
                "alias", mark, f"the alias {quoted(f'*{event.anchor}')} is not understood here; write the value out"
            )
            return Scalar(mark, "", None, is_plain=True)
        if depth > DEEPEST_NESTING:
            self._findings.error("too-deep", mark, f"this is nested deeper than {DEEPEST_NESTING} levels")
            raise _Stop
        if event.anchor is not None:
            self._findings.error(
                "anchor", mark, f"the anchor {quoted(f'&{event.anchor}')} is not understood here; write the value out"
            )
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._findings.error("tag", mark, f"the tag {quoted(tag)} is not understood here; leave it out")
        if isinstance(event, ScalarEvent):
            return self._scalar(event, mark)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(mark, depth)
        return self._mapping(mark, depth)

    def _scalar(self, event: Any, mark: Mark) -> Scalar:
        value: str | None = event.value
        if any("\ud800" <= character <= "\udfff" for character in event.value):
            self._findings.error(
                "bad-character", mark, "an escape in this text is half of a surrogate pair, not a character"
            )
            value = None
        return Scalar(mark, event.value, value, is_plain=event.style is None)

    def _sequence(self, mark: Mark, depth: int) -> Sequence:
        sequence = Sequence(mark)
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                return sequence
            sequence.items.append(self._node(event, depth + 1))
        raise _Stop

    def _mapping(self, mark: Mark, depth: int) -> Mapping:
        mapping = Mapping(mark)
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                return mapping
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            self._entry(mapping, key, value)
        raise _Stop

    def _entry(self, mapping: Mapping, key: Node, value: Node) -> None:
        if not isinstance(key, Scalar):
            kind = "list" if isinstance(key, Sequence) else "mapping"
            self._findings.error(
                "bad-key",
                key.mark,
                f"a {kind} stands where a key belongs; a text that begins with a bracket needs quotes",
            )
        elif key.value is None:
            pass  # noted where it was read
        elif key.is_plain and key.written == "<<":
            self._findings.error("merge-key", key.mark, "merge keys ('<<') are not understood here; write the keys out")
        elif key.value in mapping.keys:
            first = mapping.keys[key.value]
            self._findings.error(
                "duplicate-key", key.mark, f"{quoted(key.value)} is given twice; it stands in line {first.line} already"
            )
        else:
            mapping.keys[key.value] = key.mark
            mapping.values[key.value] = value
