"""Curves against scikit-learn, classes that are worse than their like, and boxes that are off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from engine.calibration import PRIOR, Calibration, Curve, Sample, calibrated, curve
from engine.merge.edges import NO_EDGES, SURE, Edges, Offsets, edges, fused, offsets

CLOSE, WIDE = ("detector", "small"), ("detector",)
pairs = st.lists(st.tuples(st.integers(-50, 0).map(lambda n: n / 10), st.booleans()), min_size=1, max_size=60)


@given(pairs)
def test_a_curve_is_scikit_learns(samples: list[tuple[float, bool]]) -> None:
    values, correct = [v for v, _ in samples], [c for _, c in samples]
    fitted = curve(values, correct)
    other = IsotonicRegression(out_of_bounds="clip").fit(values, np.array(correct, float))
    asked = np.linspace(-6, 1, 71)
    assert [fitted(v) for v in asked] == pytest.approx(list(other.predict(asked)), abs=1e-9)


@given(pairs)
def test_a_curve_never_falls_and_is_right_on_average(samples: list[tuple[float, bool]]) -> None:
    values, correct = [v for v, _ in samples], [c for _, c in samples]
    fitted = curve(values, correct)
    told = [fitted(value) for value in sorted(values)]
    assert all(a <= b + 1e-12 for a, b in pairwise(told))
    assert sum(told) == pytest.approx(sum(correct))


def test_no_samples_make_no_curve() -> None:
    with pytest.raises(ValueError, match="needs samples"):
        curve([], [])


def samples(
    count: int, right: float, label: str = "dog", strata: Sequence[tuple[str, ...]] = (CLOSE, WIDE)
) -> list[Sample]:
    return [Sample(tuple(strata), label, -1.0, n < right * count) for n in range(count)]


def test_too_few_samples_leave_it_to_what_is_less_close() -> None:
    made = calibrated([*samples(299, 0.5), *samples(1, 1, strata=[WIDE])], least=300)
    assert set(made.curves) == {WIDE}
    assert made.precision((CLOSE, WIDE), "dog", -1.0) == pytest.approx(0.5, abs=0.01)
    assert made.precision((CLOSE,), "dog", -1.0) is None
    assert made.precision((WIDE,), "dog", None) is None
    assert Calibration().precision((CLOSE, WIDE), "dog", -1.0) is None


def test_a_class_that_is_always_wrong_is_known_by_it() -> None:
    made = calibrated([*samples(400, 0.9), *samples(100, 0.0, "zebra")], least=300)
    stratum = 360 / 500
    assert made.precision((WIDE,), "zebra", -1.0) == pytest.approx(stratum * (PRIOR / (100 + PRIOR)))
    k = PRIOR * stratum
    assert made.precision((WIDE,), "dog", -1.0) == pytest.approx(stratum * (360 + k) / (400 * stratum + k))
    assert made.precision((WIDE,), "unheard of", -1.0) == pytest.approx(stratum)


def test_the_expected_calibration_error_is_small_where_scores_lie() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 1, 4000)
    correct = rng.uniform(0, 1, 4000) < scores**3  # far too sure of itself
    strata = (WIDE,)
    made = calibrated(
        [Sample(strata, "dog", v, bool(c)) for v, c in zip(scores[:2000], correct[:2000], strict=True)], 300
    )
    told = np.array([made.precision(strata, "dog", value) for value in scores[2000:]])
    errors = [abs(told[b].mean() - correct[2000:][b].mean()) for b in np.array_split(np.argsort(told), 10)]
    before = [abs(scores[2000:][b].mean() - correct[2000:][b].mean()) for b in np.array_split(np.argsort(told), 10)]
    assert np.mean(errors) < 0.05 < np.mean(before)


def shifted(count: int, bias: Offsets, deviation: float) -> list[tuple[tuple[tuple[str, ...], ...], Offsets]]:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, deviation, (count, 4)) + np.array(bias)
    return [((CLOSE, WIDE), tuple(row)) for row in noise.tolist()]


def test_bias_and_deviation_are_found() -> None:
    made = edges(shifted(500, (0.1, 0.0, -0.05, 0.0), 0.04), least=300)[CLOSE]
    assert made.bias == pytest.approx((0.1, 0, -0.05, 0), abs=0.01)
    assert made.bias[1] == made.bias[3] == 0.0, "what is not sure is none"
    assert made.deviation == pytest.approx((0.04,) * 4, abs=0.006)
    assert edges(shifted(299, (0.1, 0, 0, 0), 0.04), least=300) == {}


def test_what_may_be_chance_is_no_bias() -> None:
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.2, (300, 4))
        made = edges([((WIDE,), tuple(row)) for row in noise.tolist()], least=300)[WIDE]
        assert sum(map(bool, made.bias)) <= 1, f"{SURE} standard errors"


def test_wrong_neighbours_do_not_count() -> None:
    rows = shifted(300, (0.05, 0, 0, 0), 0.02) + [((CLOSE, WIDE), (5.0, 5.0, 5.0, 5.0))] * 60
    assert edges(rows, least=300)[WIDE].bias[0] == pytest.approx(0.05, abs=0.015)


def test_offsets_are_taken_back() -> None:
    true, found = (10.0, 20.0, 50.0, 40.0), (12.0, 19.0, 49.0, 44.0)
    off = offsets(found, true)
    assert off == pytest.approx((2 / 37, -1 / 25, -1 / 37, 4 / 25))
    assert Edges(bias=off).corrected(found) == pytest.approx(true)
    assert Edges(bias=(-1.0, 0, 1.0, 0)).corrected((0.0, 0.0, 10.0, 10.0)) == (0.0, 0.0, 10.0, 10.0), (
        "turned inside out"
    )


def test_fusing_is_the_mean_by_inverse_variance() -> None:
    """scipy's and everybody's formula: sum(x / s^2) / sum(1 / s^2)."""
    boxes = [(10.0, 10.0, 30.0, 30.0), (14.0, 10.0, 34.0, 30.0)]
    of = [Edges(deviation=(0.1,) * 4), Edges(deviation=(0.2,) * 4)]
    s = np.array([0.1 * 20, 0.2 * 20])
    weight = 1 / s**2
    expected = float((np.array([10.0, 14.0]) * weight).sum() / weight.sum())
    assert fused(boxes, of, [1, 1], (64, 64))[0] == pytest.approx(expected)
    assert fused(boxes, [NO_EDGES, NO_EDGES], [1.0, 1.0], (64, 64)) == pytest.approx((12, 10, 32, 30))
    assert fused(boxes, [NO_EDGES, NO_EDGES], [3.0, 1.0], (32, 64)) == pytest.approx((11, 10, 31, 30))
    assert math.isfinite(sum(fused([(0.0, 0.0, 0.0, 0.0)], [NO_EDGES], [1.0], (4, 4))))


def test_a_curve_is_level_beyond_its_ends() -> None:
    made = Curve((0.0, 1.0), (0.2, 0.8), 2)
    assert [made(value) for value in (-9, 0.5, 9)] == pytest.approx([0.2, 0.5, 0.8])
