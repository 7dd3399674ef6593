"""Phrases over a text: spans that nest or overlap, as marks that only nest, as HTML has them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Span(Generic[T]):
    """The characters [start, stop) of a text, and what is said of them."""

    start: int
    stop: int
    value: T


@dataclass(frozen=True, slots=True)
class Token(Generic[T]):
    """One of three: some text; a mark that opens, with its span's value; the innermost open mark closes.

    `goes_on` says of a mark that opens that another one goes on with its span behind it.
    """

    text: str = ""
    opens: T | None = None
    goes_on: bool = False
    closes: bool = False


def tokens(text: str, spans: Iterable[Span[T]]) -> Iterator[Token[T]]:
    """The text with a mark around every span: the longer outside, and one that overlaps another's end in two parts.

    What of a span lies behind the end of the text is left out. The tokens' texts, joined, are `text`.
    """
    # Sorted by start, then the longest first. The number keeps values from being compared.
    waiting = [(span.start, -min(span.stop, len(text)), n, span.value) for n, span in enumerate(spans)]
    heapq.heapify(waiting)
    stops: list[int] = []  # of the open marks, the innermost last
    at = 0
    while waiting or stops:
        if stops and (not waiting or stops[-1] <= waiting[0][0]):
            yield from _text(text, at, stops[-1])
            yield Token(closes=True)
            at = stops.pop()
            continue
        start, minus_stop, n, value = heapq.heappop(waiting)
        stop = -minus_stop
        if start >= stop:
            continue
        yield from _text(text, at, start)
        at = start
        overlaps = bool(stops) and stop > stops[-1]
        if overlaps:
            heapq.heappush(waiting, (stops[-1], -stop, n, value))
        yield Token(opens=value, goes_on=overlaps)
        stops.append(stops[-1] if overlaps else stop)
    yield from _text(text, at, len(text))


def _text(text: str, start: int, stop: int) -> Iterator[Token[T]]:
    if start < stop:
        yield Token(text[start:stop])
