"""Losses over steps, and where they are drawn: lines and dots in per cent of a plot, for the page to draw as SVG."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MOST_POINTS = 150  # of a line: each is the mean of its steps, which smooths
MOST_DOTS = 150
RECENT = 50  # steps that the recent loss of training is the mean of
APART = 15  # per cent of the height, between the labels at the ends of two lines

Floats = npt.NDArray[np.float64]


@dataclass
class Series:
    """Losses by step: 16 bytes each, as a log may have millions."""

    _steps: array[int] = field(default_factory=lambda: array("q"))
    _losses: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, loss: float) -> None:
        self._steps.append(step)
        self._losses.append(loss)

    def points(self, start: int = 0, stop: float = math.inf) -> tuple[Floats, Floats]:
        """Steps and losses from step `start` to before `stop`, in order of steps."""
        steps, losses = np.array(self._steps, np.float64), np.array(self._losses, np.float64)
        order = np.argsort(steps, kind="stable")
        order = order[(steps[order] >= start) & (steps[order] < stop)]
        return steps[order], losses[order]

    def recent(self, start: int = 0, stop: float = math.inf) -> float | None:
        """The mean of the last RECENT of them."""
        _, losses = self.points(start, stop)
        return float(losses[-RECENT:].mean()) if len(losses) else None


@dataclass(frozen=True)
class Tick:
    at: float
    value: float


@dataclass(frozen=True)
class Dot:
    """A loss on held-out images. One that is `chosen` is the least of its phase."""

    x: float
    y: float
    step: int
    loss: float
    chosen: bool


@dataclass(frozen=True)
class Curve:
    """`lines` has a path for each phase, in a box of 100 by 100 with its origin above; all else is in per cent of it.

    `ends` are the recent value of the line and the last of the dots, None where there is none, and the heights at which
    they are written.
    """

    lines: tuple[str, ...]
    dots: tuple[Dot, ...]
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    boundaries: tuple[float, ...]
    ends: tuple[Tick | None, Tick | None]


def curve(learned: Series, judged: Series, starts: Sequence[int], last: int, chosen: int | None, rows: int) -> Curve:
    """The plot of a loss in training and of that on held-out images.

    Phases begin at the steps `starts`, the first of them at 0; `last` is the last step, `chosen` that of the best
    judgement, and `rows` about how many lines of its grid are wanted.
    """
    segments = list(_smoothed(learned, starts, last))
    steps, losses = judged.points()
    heights = np.concatenate([losses, *(means for _, means in segments)])
    up = Scale.over(heights.min(initial=math.inf), heights.max(initial=-math.inf), rows)
    along = Scale(0, max(last, 1), max(_round_width(max(last, 1), 5), 1))
    shown = _thinned(steps, losses, chosen)
    recent = learned.recent()
    line_end = None if recent is None else up.tick(recent)
    dot_end = up.tick(losses[-1]) if len(losses) else None
    return Curve(
        lines=tuple(_path(along.at(xs), 100 - up.at(ys)) for xs, ys in segments),
        dots=tuple(
            Dot(float(along.at(s)), float(100 - up.at(y)), int(s), float(y), int(s) == chosen) for s, y in shown
        ),
        rows=tuple(up.tick(value) for value in up.ticks()),
        columns=tuple(Tick(float(along.at(value)), value) for value in along.ticks()),
        boundaries=tuple(float(along.at(start)) for start in starts),
        ends=_parted(line_end, dot_end),
    )


def _smoothed(series: Series, starts: Sequence[int], last: int) -> Iterator[tuple[Floats, Floats]]:
    """For each phase the steps and losses of a line: means over as many steps everywhere."""
    width = max(last // MOST_POINTS, 1)
    for start, stop in zip(starts, [*starts[1:], math.inf], strict=True):
        steps, losses = series.points(start, stop)
        if len(steps):
            # From the end on, so that no stub is the last point.
            _, bins, counts = np.unique(-((steps[-1] - steps) // width), return_inverse=True, return_counts=True)
            yield np.bincount(bins, steps) / counts, np.bincount(bins, losses) / counts


def _thinned(steps: Floats, losses: Floats, chosen: int | None) -> Iterator[tuple[float, float]]:
    """MOST_DOTS of them or a few more, the last and the chosen one among them."""
    every = len(steps) // MOST_DOTS + 1
    for n, (step, loss) in enumerate(zip(steps.tolist(), losses.tolist(), strict=True)):
        if (len(steps) - 1 - n) % every == 0 or step == chosen:
            yield step, loss


@dataclass(frozen=True)
class Scale:
    """Values as per cent of the way from low to high; ticks are multiples of `width`."""

    low: float
    high: float
    width: float

    @classmethod
    def over(cls, low: float, high: float, ticks: int) -> Scale:
        """A scale that begins at a tick."""
        if not high - low > 1e-9 * max(abs(low), abs(high), 1):  # one value, or none
            middle = low if math.isfinite(low) else 0.0
            reach = abs(middle) / 10 if abs(middle) > 1e-6 else 1.0
            low, high = middle - reach, middle + reach
        width = _round_width(high - low, ticks)
        return cls(math.floor(low / width) * width, high, width)

    def at(self, value: Floats | float) -> Floats:
        return np.asarray((value - self.low) / (self.high - self.low) * 100)

    def tick(self, value: float) -> Tick:
        """A height, from above."""
        return Tick(float(100 - self.at(value)), float(value))

    def ticks(self) -> list[float]:
        count = math.floor((self.high - self.low) / self.width + 1e-6) + 1
        return [round(self.low + n * self.width, 12) for n in range(count)]


def _round_width(span: float, most: int) -> float:
    """The smallest of ..., 0.1, 0.2, 0.5, 1, 2, 5, ... of which at most `most` go into the span."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(digit * power for digit in (1, 2, 5, 10) if span <= digit * power * most * (1 + 1e-9))


def _path(xs: Floats, ys: Floats) -> str:
    """A line; one of a single point goes to itself, and is drawn as a dot."""
    points = list(zip(xs.round(2).tolist(), ys.round(2).tolist(), strict=True))
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in (points if len(points) > 1 else points * 2))


def _parted(one: Tick | None, other: Tick | None) -> tuple[Tick | None, Tick | None]:
    """Two labels so far from each other that both can be read."""
    if one is None or other is None or abs(one.at - other.at) >= APART:
        return one, other
    upper = min(max((one.at + other.at - APART) / 2, 0), 100 - APART)
    first, second = (upper, upper + APART) if one.at < other.at else (upper + APART, upper)
    return Tick(first, one.value), Tick(second, other.value)
