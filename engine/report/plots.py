"""Bars: what their lengths are, as shares of the longest, for the page to draw as SVG."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.stats.histograms import Histogram, bin_names


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


def histogram(name: str, histogram: Histogram, whole: bool = False, note: str = "") -> Plot:
    """Of whole numbers the bins are named otherwise."""
    names = bin_names(histogram, whole)
    return Plot(name, bars(zip(names, histogram.counts, histogram.counts, strict=True)), note=note)
