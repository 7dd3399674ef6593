"""Strips, folded like text into the rows of a page, for models that see pages: banners, panoramas, long screenshots.

An image of ordinary shape is a page of one row. The page is no larger than that of any other image, so that a strip
costs no more; what doesn't fit is made smaller first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.protocols import Image

Points = npt.NDArray[np.float64]

STRIP = 6  # times as long as wide, or more, is a strip
GAP = 16  # px of grey between rows, so that nothing is read across them
GREY = 127


@dataclass(frozen=True)
class Page:
    """`pixels` [height, width, 3] is the page. Everything else says how to get back to the image.

    Along the strip, row k begins at `starts[k]` in the strip's pixels after it was made smaller. Neighbours overlap by
    twice the strip's short side if there is room, and each owns what lies on its side of the overlap's middle.
    """

    pixels: Image
    starts: tuple[int, ...]
    length: int  # px of a row along the strip
    breadth: int  # px of a row across the strip
    scale: tuple[float, float]  # page px per image px, along and across the strip
    tall: bool  # the strip runs down, and its rows stand side by side

    def owner(self, points: Points) -> int | None:
        """The row in which `points` [n, 2] (x, y) of the page lie, if it owns them: their middle counts."""
        along, across = self._turned(points).mean(axis=0)
        row = min(max(int(across // (self.breadth + GAP)), 0), len(self.starts) - 1)
        at = self.starts[row] + along
        first = -math.inf if row == 0 else self._border(row - 1)
        last = math.inf if row == len(self.starts) - 1 else self._border(row)
        return row if first <= at < last else None

    def unfolded(self, points: Points, row: int) -> Points:
        """`points` [n, 2] (x, y) of the page that belong to `row`, in the image; moved to its edge if outside it."""
        inside = np.clip(self._turned(points) - (0, row * (self.breadth + GAP)), 0, (self.length, self.breadth))
        return self._turned(np.add(inside, (self.starts[row], 0)) / self.scale)

    def _turned(self, points: Points) -> Points:
        return points[:, ::-1] if self.tall else points

    def _border(self, row: int) -> float:
        return (self.starts[row] + self.length + self.starts[row + 1]) / 2


def fold(image: Image, side: int) -> Page:
    """The page, at most `side` px wide and high, of an image [height, width, 3]."""
    import cv2

    tall = image.shape[0] > image.shape[1]
    strip = image.transpose(1, 0, 2) if tall else image
    scale, rows = _layout(strip.shape[0], strip.shape[1], side)
    size = max(round(strip.shape[0] * scale), 1), max(round(strip.shape[1] * scale), 1)
    if size != strip.shape[:2]:
        strip = cv2.resize(strip, size[::-1], interpolation=cv2.INTER_AREA)
    length = min(size[1], side) if rows > 1 else size[1]
    starts = tuple(round(n * (size[1] - length) / max(rows - 1, 1)) for n in range(rows))
    pixels = _stacked([strip[:, start : start + length] for start in starts])
    scales = (size[1] / (image.shape[0] if tall else image.shape[1]), size[0] / min(image.shape[:2]))
    return Page(pixels.transpose(1, 0, 2) if tall else pixels, starts, length, size[0], scales, tall)


def _layout(short: int, long: int, side: int) -> tuple[float, int]:
    """How much smaller the strip must become, and in how many rows it then fits."""
    if long <= STRIP * short:
        return min(side / long, 1.0), 1
    scale = 1.0
    while True:
        overlap = min(2 * short * scale, side / 2)
        rows = max(math.ceil((long * scale - overlap) / (side - overlap)), 1)
        if rows * (short * scale + GAP) <= side + GAP:
            return scale, rows
        scale *= 0.95


def _stacked(rows: Sequence[Image]) -> Image:
    if len(rows) == 1:
        return rows[0]
    gap = np.full((GAP, rows[0].shape[1], 3), GREY, dtype=np.uint8)
    return np.concatenate([part for row in rows for part in (row, gap)][:-1])
