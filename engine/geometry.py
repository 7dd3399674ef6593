"""Areas and overlaps of boxes, boxes around quads, and masks to and from COCO's run lengths.

Pixels of the upright image, boxes as (x0, y0, x1, y1) with x1, y1 exclusive edges; see `engine.records`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from engine.errors import RecordError
from engine.records import Box, Mask, Quad

MaskArray = npt.NDArray[np.bool_]


def area(box: Box) -> float:
    """Square pixels; 0 for a box without width or height."""
    x0, y0, x1, y1 = box
    return max(x1 - x0, 0.0) * max(y1 - y0, 0.0)


def intersection(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Box, b: Box) -> float:
    """Intersection over union; 0 where the union has no area."""
    inter = intersection(a, b)
    return inter / (area(a) + area(b) - inter) if inter else 0.0


def clip(box: Box, width: float, height: float) -> Box:
    """The part of `box` inside the image; a box outside becomes one without area on the image's edge."""
    x0, y0, x1, y1 = box
    return min(max(x0, 0.0), width), min(max(y0, 0.0), height), min(max(x1, 0.0), width), min(max(y1, 0.0), height)


def inside_fraction(box: Box, width: float, height: float) -> float:
    """The share of the box's area inside the image, in [0, 1]; for a line its length counts, for a point its place."""
    x0, y0, x1, y1 = box
    return _inside(x0, x1, width) * _inside(y0, y1, height)


def quad_box(quad: Quad) -> Box:
    """The smallest box around four corners."""
    xs, ys = quad[0::2], quad[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def encode_mask(mask: MaskArray, corner: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None) -> bytes:
    """COCO compressed run lengths, as in `Mask.counts`, of a mask [height, width].

    `corner` (x, y) is where the mask's top left lies in an image of `size` (height, width); around it there is none.
    The image is not made for it: 20 masks of a 200 MP photo would be 4 GB.
    """
    (x, y), (height, width) = corner, size or mask.shape
    # COCO counts down the columns: positions in the image at which a run begins (1) or has ended (-1).
    edges = np.diff(np.pad(mask, ((1, 1), (0, 0))).T.astype(np.int8), axis=1)
    columns, rows = np.nonzero(edges)
    bounds = (columns + x) * height + rows + y
    # A run that ends where the next column's begins is one run.
    seams = np.flatnonzero(bounds[1:-1:2] == bounds[2::2]) * 2 + 1
    bounds = np.delete(bounds, np.concatenate([seams, seams + 1]))
    counts = np.diff(np.concatenate([[0], bounds, [height * width]])).tolist()
    # The last run is left away if it is empty, as pycocotools does.
    runs = {"size": [height, width], "counts": counts if counts[-1] or len(counts) == 1 else counts[:-1]}
    compressed: bytes = coco.frPyObjects(runs, height, width)["counts"]
    return compressed


def runs_of(counts: bytes) -> list[int]:
    """The runs in COCO's compressed string: 5 bits a character, the lowest first; from the fourth run on they are
    differences from the run before the last (pycocotools, maskApi.c, rleFrString). ValueError for what is none."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("its compressed run lengths aren't COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its compressed run lengths end early")
    return runs


def check_runs(counts: bytes, size: tuple[int, int]) -> None:
    """ValueError for run lengths that do not fill a mask of `size`: pycocotools writes behind it where there are more,
    and leaves memory as it finds it where they end early."""
    runs = runs_of(counts)
    if sum(runs) != size[0] * size[1] or min(runs, default=-1) < 0:
        raise ValueError("the runs do not fill it")


def decode_mask(mask: Mask) -> MaskArray:
    """The mask's pixels, [height, width]. Raises RecordError when its counts aren't those of a mask of its size."""
    try:
        check_runs(mask.counts, mask.size)
        pixels: npt.NDArray[np.uint8] = coco.decode(_run_lengths(mask))
        if encode_mask(pixels != 0) != mask.counts:
            raise ValueError("some runs are empty")
    except ValueError as error:
        raise RecordError(f"mask {mask.id}: counts are no COCO run lengths of size {mask.size}: {error}") from error
    return pixels.astype(bool)


def mask_area(mask: Mask) -> int:
    """Pixels in the mask, without decoding it."""
    return int(coco.area(_run_lengths(mask)))


def mask_iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks of one size; 0 of masks of different sizes, and of empty ones."""
    if a.size != b.size:
        return 0.0
    return float(coco.iou([_run_lengths(a)], [_run_lengths(b)], [0])[0][0])


def _inside(start: float, stop: float, size: float) -> float:
    if start == stop:
        return float(0 <= start <= size)
    return max(min(stop, size) - max(start, 0.0), 0.0) / (stop - start)


def _run_lengths(mask: Mask) -> dict[str, object]:
    return {"size": list(mask.size), "counts": mask.counts}
