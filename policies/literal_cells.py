"""Requests whose slashes one route takes literally and another would read as its own path, for `policies.access_cells`.

It decides which of them have to be compared: the route that takes `%2F` or `//` literally asks for no less than any route
that an upstream may come to once it decodes or merges them (`policies.literal_slashes`). So a route that comes, goes or
asks for more changes what such a request meets, though no request for its own path shows that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

Shape = tuple[str | None, ...]
"""A path of one length; None is any segment."""

_SLASH: Final = "\0"
"""Between what is joined by `%2F`; no segment of a pattern holds it."""


@dataclass(frozen=True, slots=True)
class Taker:
    """A route by its literal prefix and parameters; `has_below` for a final `/**`."""

    shape: Shape
    host: str | None
    has_below: bool
    keeps_encoded_slash: bool
    keeps_double_slash: bool


@dataclass(frozen=True, slots=True)
class LiteralRequest:
    """A path in segments as they are sent; one may be empty, one may hold several that are joined by `%2F`."""

    segments: tuple[tuple[str | None, ...], ...]
    host: str | None

    def path(self, fresh: str) -> str:
        """As it stands in a request line; `fresh` is a segment that no route names. Literals are percent-encoded by `quoted`."""
        return "".join("/" + "%2F".join(fresh if one is None else one for one in joined) for joined in self.segments)


def literal_requests(takers: Iterable[Taker], others: Iterable[Taker]) -> Iterator[LiteralRequest]:
    """For each route that takes slashes literally, how each other one may be meant by such a request to it."""
    reached = [(shape, other.host) for other in others for shape in _shapes(other)]
    for taker in takers:
        for shape, host in reached:
            if taker.host is None or host is None or taker.host == host:
                for segments in _sent(taker, shape):
                    yield LiteralRequest(segments, taker.host or host)


def _shapes(other: Taker) -> tuple[Shape, ...]:
    return (other.shape, (*other.shape, None)) if other.has_below else (other.shape,)


def _sent(taker: Taker, shape: Shape) -> Iterator[tuple[tuple[str | None, ...], ...]]:
    """Ways to spell a path of `shape` so that the taker's pattern fits it as it is sent."""
    own = len(taker.shape)
    for at in range(len(shape)):
        if at < own and taker.shape[at] is not None:
            continue  # a literal holds no slash
        before = tuple((one,) for one in shape[:at])
        if taker.keeps_double_slash:
            yield from _fitting(taker, (*before, ("",), *((one,) for one in shape[at:])))
        if taker.keeps_encoded_slash:
            for end in dict.fromkeys((at + 2, at + 1 + len(shape) - own, len(shape))):
                if at + 2 <= end <= len(shape):
                    yield from _fitting(taker, (*before, shape[at:end], *((one,) for one in shape[end:])))


def _fitting(taker: Taker, sent: tuple[tuple[str | None, ...], ...]) -> Iterator[tuple[tuple[str | None, ...], ...]]:
    own = len(taker.shape)
    if not (len(sent) == own or (taker.has_below and len(sent) > own)):
        return
    met: list[tuple[str | None, ...]] = []
    for mine, theirs in zip(taker.shape, sent, strict=False):
        if mine is None:
            met.append(theirs)
        elif len(theirs) == 1 and (theirs[0] is None or theirs[0].lower() == mine.lower()):
            met.append((mine,))
        else:
            return
    yield (*met, *sent[own:])
