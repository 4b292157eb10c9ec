"""Puts the tree of gateway.yaml into the types of the schema, and says in our own sentences what does not fit.

What does not fit is reported and left out, then the rest is tried again, until a draft remains. It must never guess a
value in place of a broken one: a draft with losses is only ever looked at, never used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import ValidationError

from policies.diagnostics import Findings, listed, nearest, quoted
from policies.draft import Draft, Location, Positions, find, within
from policies.scalars import Plain
from policies.schema import Config, Issuer, Model, Tier, Upstream
from policies.tree import Mapping, Node, Scalar, Sequence, says_nothing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

_STAND_INS: Final[dict[str, Any]] = {"version": 1, "upstreams": {"-": {"targets": ("http://127.0.0.1",)}}}
"""Let the rest of a file be judged that lacks what every file must have; the lack itself is an error already.

`_stand_in` does the same for an issuer, a tier or an upstream.
"""

_UNREAD: Final = "…"
"""What messages show of a stand-in."""

_KINDS: Final = {
    "model_type": "keys with values",
    "dict_type": "keys with values",
    "tuple_type": "a list",
    "string_type": "a text",
}


def shape(tree: Mapping, findings: Findings) -> Draft | None:
    """The draft of `tree`, which is cut down to what fits. None only where nothing is left to look at."""
    lost: set[tuple[str, ...]] = set()
    _cut(tree, sorted(_valueless(tree, (), findings), reverse=True), lost)
    absent: dict[str, Any] = {}
    while True:
        try:
            config = Config.model_validate(absent | _plain(tree))
        except ValidationError as problems:
            broken: set[Location] = set()
            stands_in: set[Location] = set()
            found = problems.errors(include_url=False, include_input=False)
            faulty = {problem["loc"][:end] for problem in found for end in range(len(problem["loc"]))}
            for problem in found:
                if problem["type"] == "too_short" and problem["loc"] in faulty:
                    continue  # it isn't empty: its entries don't fit, and each says so itself
                location = _report(tree, problem, findings)
                if problem["type"] == "missing" and _stand_in(tree, problem["loc"]):
                    stands_in.add(location)
                else:
                    broken.add(location)
            for name in (name for name in _STAND_INS if (name,) in broken and find(tree, (name,)) is None):
                absent[name] = _STAND_INS[name]
                lost.add((name,))
            if () in broken:
                return None
            for location in stands_in:
                parent = find(tree, location[:-1])
                if isinstance(parent, Sequence):
                    parent.lost_items = True
                lost.add(_names(location))
            _cut(tree, sorted(broken, reverse=True), lost)
        else:
            return Draft(config, Positions(tree), frozenset(lost))


def _valueless(node: Node, location: Location, findings: Findings) -> Iterator[Location]:
    """Where no value stands: broken by substitution, or nothing was written."""
    if isinstance(node, Scalar):
        if node.value is None:
            yield location
        elif says_nothing(node):
            name = _name(location)
            findings.error(
                "no-value",
                node.mark,
                f"{name} has no value; write one ('' or [] for an empty one), or leave it out",
            )
            yield location
    else:
        children = node.values.items() if isinstance(node, Mapping) else enumerate(node.items)
        for step, child in children:
            yield from _valueless(child, (*location, step), findings)


def _cut(tree: Mapping, locations: list[Location], lost: set[tuple[str, ...]]) -> None:
    """Leave out what is at `locations`, the last first, so that the indexes of the others still hold."""
    for location in locations:
        parent = find(tree, location[:-1])
        step = location[-1]
        if isinstance(parent, Mapping) and isinstance(step, str):
            parent.values.pop(step, None)
            parent.keys.pop(step, None)
            parent.lost_keys.add(step)
        elif isinstance(parent, Sequence) and isinstance(step, int):
            del parent.items[step]
            parent.lost_items = True
        lost.add(_names(location))


def _names(location: Location) -> tuple[str, ...]:
    return tuple(step for step in location if isinstance(step, str))


def _stand_in(tree: Mapping, location: Location) -> bool:
    """Put something in the place of what an issuer, a tier or an upstream lacks, so that the rest of it is judged."""
    *holder, key = location
    node, model = find(tree, tuple(holder)), _model_at(tuple(holder))
    if not isinstance(node, Mapping) or model is None:
        return False
    hashes = "secret" in node.values or "secret" in node.lost_keys
    value = {
        (Issuer, "issuer"): f"https://line-{node.mark.line}-{node.mark.column}.invalid",
        (Issuer, "audience"): "-",
        (Issuer, "algorithms"): ("HS256" if hashes else "RS256",),
        (Upstream, "targets"): ("http://127.0.0.1:9",),
        (Tier, "name"): f"line-{node.mark.line}-{node.mark.column}",
    }.get((model, str(key)))
    if value is None:
        return False

    def scalar(text: str) -> Scalar:
        return Scalar(node.mark, _UNREAD, text, is_plain=False, is_substituted=True)

    node.keys[str(key)] = node.mark
    node.values[str(key)] = scalar(value) if isinstance(value, str) else Sequence(node.mark, [*map(scalar, value)])
    node.lost_keys.add(str(key))
    return True


def _plain(node: Node) -> Any:
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.values.items()}
    if isinstance(node, Sequence):
        return tuple(_plain(item) for item in node.items)
    return Plain(node.value) if node.is_plain else node.value


def _report(tree: Mapping, problem: ErrorDetails, findings: Findings) -> Location:
    """Say what is wrong, and return the location of what to leave out."""
    location = problem["loc"]
    kind = problem["type"]
    positions = Positions(tree)
    if kind == "missing":
        holder, key = location[:-1], str(location[-1])
        node = find(tree, holder)
        if not (isinstance(node, Mapping) and key in node.lost_keys):
            findings.error("missing-key", positions.value(*holder), f"{_thing(holder)} lacks {quoted(key)}")
        return holder or location
    location = within(tree, location)
    if kind == "extra_forbidden":
        findings.error("unknown-key", positions.key(*location), _unknown_key(location))
        return location
    node = find(tree, location)
    if kind == "too_short":
        if not (isinstance(node, Sequence) and node.lost_items) and not (isinstance(node, Mapping) and node.lost_keys):
            findings.error(
                "empty", positions.value(*location), f"{_name(location)} is empty; it needs at least one entry"
            )
        return location
    code, message = _misfit(kind, node, location, problem)
    findings.error(code, positions.value(*location), message)
    return location


def _misfit(kind: str, node: Node | None, location: Location, problem: ErrorDetails) -> tuple[str, str]:
    """Code and message for a value that is there and does not fit."""
    context = problem.get("ctx", {})
    subject = _subject(location, node)
    if kind in _KINDS:
        example = ""
        if kind == "tuple_type" and isinstance(node, Scalar) and not node.is_substituted and "\n" not in node.written:
            example = f"; write [{node.written}]"
        return "wrong-type", f"{_name(location)} must be {_KINDS[kind]}; {_kind(node)} stands here{example}"
    if not isinstance(node, Scalar):
        return "wrong-type", f"{_name(location)} must be a single value; {_kind(node)} stands here"
    if kind == "literal_error":
        allowed = [str(value) for value in _allowed(location)] or [str(context.get("expected"))]
        near = "" if node.is_substituted else nearest(node.value or "", allowed)
        if location[-1] == "access" and not near:
            near = "; a tier is asked for with 'tier'"
        return "bad-value", f"{subject} must be {listed(allowed)}{near}"
    if kind == "string_too_short":
        return "bad-value", f"{_name(location)} is empty"
    if kind == "string_pattern_mismatch":
        return (
            "bad-name",
            f"{subject} must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'",
        )
    if kind in {"greater_than_equal", "less_than_equal"}:
        bound = f"at least {context['ge']}" if "ge" in context else f"at most {context['le']}"
        return "out-of-range", f"{subject} must be {bound}"
    if kind == "value_error":
        return "bad-value", f"{subject} {context['error']}"
    return "bad-value", f"{subject} does not fit: {problem['msg']}"


def _subject(location: Location, node: Node | None) -> str:
    """``'workers' (2x)``: the name with what was read, or with what is written where a variable gave it."""
    if not isinstance(node, Scalar) or node.value is None:
        return _name(location)
    return f"{_name(location)}, which reads {quoted(node.written if node.is_substituted else node.value)},"


def _kind(node: Node | None) -> str:
    if isinstance(node, Mapping):
        return "a mapping"
    return "a list" if isinstance(node, Sequence) else "a single value"


def _name(location: Location) -> str:
    """What a message calls the value at `location`."""
    *holder, last = location or ("the file",)
    if isinstance(last, str):
        return quoted(last) if location else last
    list_name = next((step for step in reversed(holder) if isinstance(step, str)), "the list")
    return f"entry {last + 1} of {quoted(list_name)}"


def _thing(location: Location) -> str:
    model = _model_at(location)
    return model.called if model is not None else _name(location)


def _unknown_key(location: Location) -> str:
    key = str(location[-1])
    model = _model_at(location[:-1])
    if model is None:
        return f"{quoted(key)} is not a known key"
    message = f"{quoted(key)} is not a key of {model.called}"
    near = nearest(key, model.model_fields)
    if near:
        return message + near
    elsewhere = [other.called for other in Model.__subclasses__() if key in other.model_fields]
    known = listed(model.model_fields, "and") if not elsewhere else ""
    return f"{message}; it is a key of {listed(elsewhere)}" if elsewhere else f"{message}, which has {known}"


def _model_at(location: Location) -> type[Model] | None:
    """The type that holds the keys at `location`."""
    annotation: Any = Config
    for step in location:
        if isinstance(annotation, type) and issubclass(annotation, Model):
            declared = annotation.model_fields.get(str(step))
            annotation = declared.annotation if declared is not None else None
        else:  # tuple[X, ...] or dict[str, X]
            arguments = [argument for argument in get_args(annotation) if argument is not Ellipsis]
            annotation = arguments[-1] if arguments else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, Model) else None


def _allowed(location: Location) -> tuple[Any, ...]:
    """The words that a setting made of alternatives takes."""
    names = [step for step in location if isinstance(step, str)]
    holder = next((location[:end] for end in range(len(location), -1, -1) if _model_at(location[:end]) is not None), ())
    model = _model_at(holder)
    declared = model.model_fields.get(names[-1]) if model is not None else None
    return tuple(_words(declared.annotation)) if declared is not None else ()


def _words(annotation: Any) -> Iterator[Any]:
    for argument in get_args(annotation):
        if get_args(argument):
            yield from _words(argument)
        elif argument is not None and argument is not Ellipsis and not isinstance(argument, type):
            yield argument
