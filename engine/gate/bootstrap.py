"""What of a difference may be chance: a paired bootstrap over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """A measure over images that is a sum over a sum: `above` and `below` have one number an image."""

    above: Numbers
    below: Numbers

    @property
    def value(self) -> float | None:
        """None where there is nothing to measure."""
        total = float(self.below.sum())
        return float(self.above.sum()) / total if total else None


@dataclass(frozen=True)
class Interval:
    """Of the difference of a measure, after minus before."""

    low: float
    high: float


def interval(before: Ratio, after: Ratio, samples: int, confidence: float, seed: int) -> Interval | None:
    """The percentile interval (Efron 1979) of the difference, images drawn with replacement, the same for both.

    Draws in which one of the two has nothing to measure are left out. None where all are.
    """
    images = len(before.above)
    rng = np.random.default_rng(seed)
    differences: list[Numbers] = []
    for _ in range(0, samples, _AT_ONCE):
        drawn = rng.multinomial(images, np.full(images, 1 / images), size=_AT_ONCE).astype(np.float64)
        below = [drawn @ one.below for one in (before, after)]
        known = (below[0] > 0) & (below[1] > 0)
        values = [(drawn @ one.above)[known] / b[known] for one, b in zip((before, after), below, strict=True)]
        differences.append(values[1] - values[0])
    drawn_differences = np.concatenate(differences)[:samples]
    if not len(drawn_differences):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn_differences, [tail, 1 - tail]).tolist()
    return Interval(low, high)


_AT_ONCE = 500  # draws: 500 x images numbers are in memory
