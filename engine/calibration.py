"""What scores are worth: the share of what has such a score that is right, by images that people labelled.

Scores of different sources don't compare; precisions do. A curve is isotonic regression (pool adjacent violators),
which assumes only that what scores higher is right at least as often.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import isotonic_regression

PRIOR = 20.0  # samples' worth of belief that a class is like the others of its source, kind and size

Stratum = tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """One thing whose score and correctness are known. `strata` are what it is like, the closest first."""

    strata: tuple[Stratum, ...]
    label: str
    value: float
    correct: bool


@dataclass(frozen=True)
class Curve:
    """Precision by value: straight between the knots, level beyond them. `count` samples made it."""

    values: tuple[float, ...]
    precisions: tuple[float, ...]
    count: int

    def __call__(self, value: float) -> float:
        return float(np.interp(value, self.values, self.precisions))


@dataclass(frozen=True)
class Calibration:
    """`curves` by stratum, and by stratum and class how much better or worse the class is than its stratum's curve."""

    curves: Mapping[Stratum, Curve] = field(default_factory=dict)
    factors: Mapping[tuple[Stratum, str], float] = field(default_factory=dict)

    def precision(self, strata: Sequence[Stratum], label: str, value: float | None) -> float | None:
        """The chance to be right, by the closest stratum that has a curve; None where none has: uncalibrated."""
        stratum = next((one for one in strata if one in self.curves), None)
        if stratum is None or value is None:
            return None
        return min(1.0, self.curves[stratum](value) * self.factors.get((stratum, label), 1.0))


def curve(values: Sequence[float], correct: Sequence[bool]) -> Curve:
    """Isotonic regression of `correct` on `values`. Raises ValueError without any sample."""
    if not len(values):
        raise ValueError("a curve needs samples")
    knots, places, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    shares = np.bincount(places, np.asarray(correct, np.float64)) / counts
    fitted = isotonic_regression(shares, weights=counts).x
    # Of a level stretch its ends say all.
    inner = np.r_[False, (fitted[1:-1] == fitted[:-2]) & (fitted[1:-1] == fitted[2:]), False][: len(knots)]
    return Curve(tuple(knots[~inner].tolist()), tuple(fitted[~inner].tolist()), len(values))


def calibrated(samples: Iterable[Sample], least: int) -> Calibration:
    """Curves of all strata with `least` samples or more. A class' factor is observed over expected hits, drawn to 1 by
    PRIOR samples: (hits + k) / (sum of its precisions by the curve + k), with k = PRIOR x the stratum's precision."""
    by_stratum: dict[Stratum, list[Sample]] = {}
    for sample in samples:
        for stratum in sample.strata:
            by_stratum.setdefault(stratum, []).append(sample)
    curves: dict[Stratum, Curve] = {}
    factors: dict[tuple[Stratum, str], float] = {}
    for stratum, group in sorted(by_stratum.items()):
        if len(group) >= least:
            curves[stratum] = curve([s.value for s in group], [s.correct for s in group])
            factors.update({(stratum, label): factor for label, factor in _factors(group, curves[stratum])})
    return Calibration(curves, factors)


def _factors(group: Sequence[Sample], fitted: Curve) -> Iterable[tuple[str, float]]:
    belief = PRIOR * sum(sample.correct for sample in group) / len(group)
    by_label: dict[str, list[Sample]] = {}
    for sample in group:
        by_label.setdefault(sample.label, []).append(sample)
    for label, its in sorted(by_label.items()):
        expected = sum(fitted(sample.value) for sample in its)
        hits = sum(sample.correct for sample in its)
        yield label, (hits + belief) / (expected + belief) if expected + belief else 1.0
