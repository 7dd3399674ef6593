"""How far the boxes of a source are off, by images that people labelled: which way, and by how much.

All in shares of the box's own width and height, in the order x0, y0, x1, y1. A source whose edges scatter less counts
more where boxes are fused (inverse variance), and one that is off the same way each time is put right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.calibration import Stratum
from engine.geometry import clip
from engine.records import Box

Offsets = tuple[float, float, float, float]
SURE = 3.0  # standard errors from 0 at which a bias is one
LEAST_BIAS = 0.01  # of the side: below that nothing is put right
LEAST_DEVIATION = 0.005


@dataclass(frozen=True)
class Edges:
    """`bias` is found minus true, 0 where it is not sure; `deviation` what is left around it."""

    bias: Offsets = (0.0, 0.0, 0.0, 0.0)
    deviation: Offsets = (1.0, 1.0, 1.0, 1.0)

    @property
    def is_biased(self) -> bool:
        return any(self.bias)

    def corrected(self, box: Box) -> Box:
        """The box as its source would have it, were it not biased; at least a pixel is left of it."""
        width, height = box[2] - box[0], box[3] - box[1]
        x0, y0, x1, y1 = (at - off * side for at, off, side in zip(box, self.bias, (width, height) * 2, strict=True))
        return (x0, y0, x1, y1) if x1 - x0 >= 1 and y1 - y0 >= 1 else box


NO_EDGES = Edges()


def offsets(found: Box, true: Box) -> Offsets:
    width, height = max(found[2] - found[0], 1e-9), max(found[3] - found[1], 1e-9)
    a, b, c, d = ((f - t) / side for f, t, side in zip(found, true, (width, height) * 2, strict=True))
    return a, b, c, d


def edges(samples: Iterable[tuple[tuple[Stratum, ...], Offsets]], least: int) -> dict[Stratum, Edges]:
    """Of all strata with `least` samples or more. By medians, since a box that is matched to a wrong neighbour says
    nothing; 1.4826 times the median deviation is a normal distribution's standard deviation."""
    by_stratum: dict[Stratum, list[Offsets]] = {}
    for strata, off in samples:
        for stratum in strata:
            by_stratum.setdefault(stratum, []).append(off)
    return {stratum: _edges(group) for stratum, group in sorted(by_stratum.items()) if len(group) >= least}


def _edges(group: Sequence[Offsets]) -> Edges:
    off = np.array(group)
    middle = np.median(off, axis=0)
    deviation = np.maximum(1.4826 * np.median(np.abs(off - middle), axis=0), LEAST_DEVIATION)
    error = 1.2533 * deviation / np.sqrt(len(off))  # of a median
    sure = (np.abs(middle) > SURE * error) & (np.abs(middle) > LEAST_BIAS)
    a, b, c, d = np.where(sure, middle, 0.0).tolist()
    e, f, g, h = deviation.tolist()
    return Edges((a, b, c, d), (e, f, g, h))


def fused(boxes: Sequence[Box], of: Sequence[Edges], weights: Sequence[float], size: tuple[int, int]) -> Box:
    """The mean of the boxes, each put right and weighted by its reliability (weighted box fusion, Solovyev et al.
    2021, with an edge's inverse variance beside the box's weight), inside an image of `size` (width, height)."""
    edges_in = np.array([one.corrected(box) for box, one in zip(boxes, of, strict=True)])
    sides = np.array([[box[2] - box[0], box[3] - box[1]] * 2 for box in boxes])
    spread = np.maximum(np.array([one.deviation for one in of]) * sides, 1e-6)
    weight = np.array(weights)[:, None] / spread**2
    x0, y0, x1, y1 = ((edges_in * weight).sum(axis=0) / weight.sum(axis=0)).tolist()
    return clip((x0, y0, x1, y1), *size)


def of(known: Mapping[Stratum, Edges], strata: Sequence[Stratum]) -> Edges:
    """By the closest stratum that is known."""
    return next((known[stratum] for stratum in strata if stratum in known), NO_EDGES)
