"""A mask as one polygon, for formats that hold no pixels.

Its points are the outermost pixels, as OpenCV's contours have them, drawn apart until they reach the edges of the mask:
a polygon through the middles of pixels would be one pixel too narrow. Who cuts the fractions off and fills it gets
the mask back, but for the seams; who takes it for an outline gets half a pixel more or less along the edge, and who
rounds the fractions a pixel more at the right and below: of a disc of 40 px that is 6 % of its area, of 120 px 2 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from engine.errors import RecordError
from engine.geometry import check_runs

MOST_RINGS = 100  # the largest ones: masks of noise have thousands
SAMPLED = 500  # points of a ring among which the nearest one is looked for
MARGIN = 0.01  # px between a point and the next pixel: more than digits and float32 lose
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
Points = npt.NDArray[np.float64]


def polygon(counts: bytes, size: tuple[int, int]) -> tuple[Points, int]:
    """The points [n, 2] of a mask of `size` (height, width), x and y in pixels of its image, and how many rings it has,
    parts and holes, which are joined by seams without width. No points if there is no pixel; what is one pixel wide has
    the corners of its box."""
    import cv2

    try:
        check_runs(counts, size)
    except ValueError as error:
        raise RecordError(f"a mask of size {size} can't be read: {error}") from error
    runs = {"size": list(size), "counts": counts}
    x, y, width, height = (int(value) for value in coco.toBbox(runs))
    if not width or not height:
        return np.zeros((0, 2)), 0
    pixels = np.ascontiguousarray(coco.decode(runs)[y : y + height, x : x + width])
    contours, _ = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    largest = sorted(contours, key=cv2.contourArea, reverse=True)[:MOST_RINGS]
    points = _joined([contour[:, 0].astype(np.float64) for contour in largest])
    corner, extent = np.array([x, y]) + MARGIN, np.array([width, height])
    if min(width, height) == 1 or len(points) < 3:
        return corner + CORNERS * (extent - 2 * MARGIN), len(contours)
    return corner + points + points / (extent - 1) * (1 - 2 * MARGIN), len(contours)


def _joined(rings: Sequence[Points]) -> Points:
    """One ring that goes to each of the others and back again from where they are close."""
    whole = rings[0]
    for ring in rings[1:]:
        at, to = _nearest(whole, ring)
        around = np.roll(ring, -to, axis=0)
        whole = np.concatenate([whole[: at + 1], around, around[:1], whole[at:]])
    return whole


def _nearest(some: Points, others: Points) -> tuple[int, int]:
    """Two points that are close to one another, one of each."""
    step, other_step = (-(-len(points) // SAMPLED) for points in (some, others))
    apart = some[::step, None] - others[None, ::other_step]
    place, other = np.unravel_index(np.square(apart).sum(axis=2).argmin(), apart.shape[:2])
    return int(place) * step, int(other) * other_step
