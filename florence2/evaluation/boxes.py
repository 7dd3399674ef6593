"""Overlaps of boxes, as COCO's tools measure them, and what is a box at all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from florence2.errors import Florence2Error

Boxes = npt.NDArray[np.float64]  # [n, 4]: x0, y0, x1, y1 in pixels


def boxes_of(given: npt.ArrayLike, where: object = "") -> Boxes:
    """[n, 4] of what has as many. Florence2Error for another shape, for NaN, infinity and corners the wrong way round.

    `where` is what the message begins with.
    """
    try:
        boxes: Boxes = np.asarray(given, np.float64)
        boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    except (TypeError, ValueError, OverflowError):
        boxes = np.empty(0)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise Florence2Error(f"{where}: expected boxes [n, 4] (x0, y0, x1, y1), got {given!r:.200}")
    wrong = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    if wrong.any():
        first = boxes[wrong][0].tolist()
        raise Florence2Error(f"{where}: expected boxes of finite x0 <= x1, y0 <= y1; got {first}")
    return boxes


def ious(a: Boxes, b: Boxes) -> npt.NDArray[np.float64]:
    """[n, m]: intersection over union of each of a [n, 4] with each of b [m, 4]; 0 where neither has an area."""
    both = intersections(a, b)
    either = areas(a)[:, None] + areas(b) - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def intersections(a: Boxes, b: Boxes) -> npt.NDArray[np.float64]:
    """[n, m] square pixels."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    overlap: npt.NDArray[np.float64] = (high - low).clip(min=0).prod(axis=2)
    return overlap


def areas(boxes: Boxes) -> npt.NDArray[np.float64]:
    sides: npt.NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return sides
