"""Histograms with edges, of numbers that come shard by shard."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise, repeat
from typing import Any

import numpy as np

MOST_BINS = 20


@dataclass(frozen=True)
class Histogram:
    """How many values there are in [edge, next edge) of each bin. The last edge is None where the last bin has none."""

    edges: tuple[float | None, ...]
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.counts)


def bin_of(values: Any, edges: Any) -> Any:
    """In which bin each value is; those beyond the edges are in the outermost ones."""
    return (np.searchsorted(edges, values, side="right") - 1).clip(0, len(edges) - 2)


def counted(values: Any, edges: Any) -> Any:
    """How many values are in each bin."""
    return np.bincount(bin_of(values, edges), minlength=len(edges) - 1)


def tally(values: Any) -> Counter[int]:
    """How often each whole number comes."""
    there, counts = np.unique(np.asarray(values), return_counts=True)
    return Counter(dict(zip(there.tolist(), counts.tolist(), strict=True)))


def of_whole_numbers(counts: Counter[int]) -> Histogram:
    """A histogram of whole numbers from 0; its bins have a round width, and the last one takes the highest 1 %."""
    if not counts:
        return Histogram((0, 1), (0,))
    width = _width(_high(counts) + 1)
    bins = _high(counts) // width + 1
    filled: Counter[int] = Counter()
    for value, number in counts.items():
        filled[min(value // width, bins - 1)] += number
    edges = [n * width for n in range(bins)] + [max(bins * width, max(counts) + 1)]
    return Histogram(tuple(edges), tuple(filled[n] for n in range(bins)))


def bin_names(histogram: Histogram, whole: bool = False) -> list[str]:
    """What each bin holds, in words; of whole numbers "3" and "5 to 9"."""
    return [_bin_name(low, high, whole) for low, high in pairwise(histogram.edges)]


def _bin_name(low: float | None, high: float | None, whole: bool) -> str:
    if high is None:
        return f"{low:.3g} or more"
    if whole:
        return f"{low:,}" if low == high - 1 else f"{low:,} to {high - 1:,}"
    return f"{low:.3g} to {high:.3g}"


def _high(counts: Counter[int]) -> int:
    """The least number that 99 % don't exceed."""
    ordered: Iterable[int] = sorted(counts)
    below = accumulate(counts[value] for value in ordered)
    return next(value for value, so_far in zip(ordered, below, strict=True) if so_far >= 0.99 * counts.total())


def _width(values: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, ... that makes at most MOST_BINS bins."""
    widths = (digit * power for power in accumulate(repeat(10), operator.mul, initial=1) for digit in (1, 2, 5))
    return next(width for width in widths if values <= width * MOST_BINS)
