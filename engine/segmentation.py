"""Segmentations as people give them, polygons, run lengths and PNGs, become COCO's compressed run lengths.

pycocotools trusts what it gets: it reads behind strings that end early, leaves memory as it finds it behind runs that
do, and takes memory for every pixel that a polygon's outline passes, inside the image or not. So all is checked before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from pycocotools import mask as coco

from engine.entry import Segmentation
from engine.errors import ImageError
from engine.geometry import encode_mask, runs_of
from engine.images import decode
from engine.reading import read
from engine.untrusted import numbers, shown
from engine.uris import uri_of

LONGEST_OUTLINE = 2_000_000  # px; pycocotools takes 100 bytes for each
MOST_BYTES = 64_000_000  # of a mask's file
Point = tuple[float, float]


class Unusable(Exception):
    """Why something given is turned down: a word to group by, and a sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def run_lengths(segmentation: Segmentation, size: tuple[int, int]) -> bytes:
    """COCO's compressed counts, as in `engine.records.Mask`, for an image of `size` (height, width).

    The part of it inside the image. Raises Unusable for what is no mask, or one without a pixel.
    """
    if isinstance(segmentation, Path):
        return _of_file(segmentation, size)
    if isinstance(segmentation, dict):
        return _compressed(_runs_of(segmentation, size), size)
    if isinstance(segmentation, list | tuple):
        return _compressed(_runs_of_string(_of_polygons(segmentation, size)), size)
    raise Unusable("bad_mask", f"a mask is polygons or run lengths, not a {type(segmentation).__name__}")


def _of_file(path: Path, size: tuple[int, int]) -> bytes:
    """Open Images' masks are PNGs, often smaller than their image."""
    height, width = size
    try:
        pixels = decode(read(uri_of(str(path)), max_bytes=MOST_BYTES), max_pixels=4 * height * width + 2**24)
    except ImageError as error:
        raise Unusable("mask_missing" if error.kind == "missing" else "bad_mask", f"{path.name}: {error}") from None
    white = Pillow.fromarray((pixels.max(axis=2) >= 128).astype(np.uint8))
    mask = np.asarray(white.resize((width, height), Pillow.Resampling.NEAREST), dtype=bool)
    if not mask.any():
        raise Unusable("bad_mask", f"{path.name} is a mask without a pixel")
    return encode_mask(mask)


def _runs_of(given: dict[str, Any], size: tuple[int, int]) -> list[int]:
    counts, there = given.get("counts"), given.get("size")
    if not isinstance(there, list | tuple) or list(there) != list(size):
        raise Unusable("mask_size", f"a mask of size {shown(there)} (height, width) for an image of {list(size)}")
    if isinstance(counts, str | bytes):
        runs = _runs_of_string(counts.encode(errors="replace") if isinstance(counts, str) else counts)
    elif isinstance(counts, list | tuple):
        runs = [run if isinstance(run, int) else -1 for run in counts]
    else:
        raise Unusable("bad_mask", f"run lengths are a list or a string, not a {type(counts).__name__}")
    if sum(runs) != size[0] * size[1] or min(runs) < 0:
        raise Unusable("bad_mask", f"its run lengths don't add up to the {size[0] * size[1]} pixels of the image")
    return runs


def _runs_of_string(counts: bytes) -> list[int]:
    try:
        return runs_of(counts)
    except ValueError as error:
        raise Unusable("bad_mask", str(error)) from None


def _compressed(runs: Iterable[int], size: tuple[int, int]) -> bytes:
    """The one string that stands for a mask: without empty runs, but for the first."""
    merged = [0]
    for number, run in enumerate(runs):
        if run and number % 2 == len(merged) % 2:
            merged.append(run)
        else:
            merged[-1] += run
    if len(merged) == 1:
        raise Unusable("bad_mask", "a mask without a pixel")
    counts: bytes = coco.frPyObjects({"size": list(size), "counts": merged}, *size)["counts"]
    return counts


def _of_polygons(rings: Sequence[Any], size: tuple[int, int]) -> bytes:
    """Rings without area, of fewer than three points, are left away: there are such in COCO."""
    height, width = size
    outlines = []
    for ring in rings:
        values = numbers(ring) if isinstance(ring, list | tuple) else None
        if values is None or len(values) % 2:
            raise Unusable("bad_mask", f"a polygon is a list of x, y, x, y, x, y, not {shown(ring)}")
        outlines.append(_near(list(zip(values[::2], values[1::2], strict=True)), width, height))
    kept = [points for points in outlines if len(points) > 2]
    if not kept:
        raise Unusable("bad_mask", "a mask without a pixel: it has no polygon of three points in the image")
    outline = sum(max(abs(x1 - x0), abs(y1 - y0)) for p in kept for (x0, y0), (x1, y1) in pairwise([*p, p[0]]))
    if outline > LONGEST_OUTLINE:
        raise Unusable("bad_mask", f"a polygon whose outline has {outline:.0f} px, more than {LONGEST_OUTLINE}")
    encoded = coco.frPyObjects([[value for point in points for value in point] for points in kept], height, width)
    counts: bytes = coco.merge(encoded)["counts"]
    return counts


def _near(points: list[Point], width: int, height: int) -> list[Point]:
    """The polygon, cut to the image and as much again on each side; one that lies within that stays as it is.

    By Sutherland and Hodgman's clipping: the seams that it leaves are on the edges of that larger rectangle.
    """
    for axis, size in ((0, width), (1, height)):
        for edge, side in ((-size, 1), (2 * size, -1)):
            points = _cut(points, axis, edge, side)
    return points


def _cut(points: list[Point], axis: int, edge: float, side: int) -> list[Point]:
    """The part of a polygon where side * (coordinate - edge) is not negative."""
    if all(side * (point[axis] - edge) >= 0 for point in points):
        return points
    kept: list[Point] = []
    for a, b in zip([points[-1], *points], points, strict=False):
        inside = side * (b[axis] - edge) >= 0
        if inside != (side * (a[axis] - edge) >= 0):
            share = (edge - a[axis]) / (b[axis] - a[axis])
            crossing = [(1 - share) * from_ + share * to for from_, to in zip(a, b, strict=True)]
            crossing[axis] = edge
            kept.append((crossing[0], crossing[1]))
        if inside:
            kept.append(b)
    return kept
