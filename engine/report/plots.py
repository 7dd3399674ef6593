"""Bars: what their lengths are, as shares of the longest, for the page to draw as SVG."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, repeat

MOST_BINS = 20


@dataclass(frozen=True)
class Bar:
    """A count and the part of it that is drawn darker, in per cent of the longest bar of its plot."""

    name: str
    value: int
    part: int
    length: float
    part_length: float


@dataclass(frozen=True)
class Plot:
    """`threshold` is where a line is drawn, in per cent of the width; `note` says what the bars don't."""

    name: str
    bars: tuple[Bar, ...]
    threshold: float | None = None
    note: str = ""

    @property
    def said(self) -> str:
        """The plot in words, for those who can't see it."""
        return f"{self.name}: " + ", ".join(f"{bar.name}: {bar.value}" for bar in self.bars if bar.value)


def bars(rows: Iterable[tuple[str, int, int]]) -> tuple[Bar, ...]:
    """Bars of rows (name, value, part of it)."""
    listed = list(rows)
    longest = max((value for _, value, _ in listed), default=0) or 1
    return tuple(
        Bar(name, value, part, round(100 * value / longest, 2), round(100 * part / longest, 2))
        for name, value, part in listed
    )


def histogram(name: str, counts: Counter[int], note: str = "") -> Plot:
    """A histogram of whole numbers from 0; its bins have a round width, and the last one takes the highest 1 %."""
    total, below, high = counts.total(), 0, 0
    for value in sorted(counts):
        high = value
        below += counts[value]
        if below >= 0.99 * total:
            break
    width = _width(high + 1)
    bins = high // width + 1
    filled: Counter[int] = Counter()
    for value, number in counts.items():
        filled[min(value // width, bins - 1)] += number
    highest = max(counts, default=0)
    names = [_bin_name(n * width, width) for n in range(bins)]
    if highest >= bins * width:
        names[-1] = f"{(bins - 1) * width} to {highest}"
    return Plot(name, bars((names[n], filled[n], filled[n]) for n in range(bins)), note=note)


def _width(values: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, ... that makes at most MOST_BINS bins."""
    widths = (digit * power for power in accumulate(repeat(10), operator.mul, initial=1) for digit in (1, 2, 5))
    return next(width for width in widths if values <= width * MOST_BINS)


def _bin_name(start: int, width: int) -> str:
    return str(start) if width == 1 else f"{start} to {start + width - 1}"
