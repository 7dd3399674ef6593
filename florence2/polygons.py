"""A mask to outlines that few tokens can write.

Vertices lie on the EDGES of pixels: pixel (column, row) is the square from (column, row) to (column + 1, row + 1), so
that a mask of a rectangle has the rectangle's own corners. Only exterior rings can be written; what is lost with holes,
small parts and simplification is measured, and too much of it makes no outline at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, floor

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from florence2.errors import Florence2Error
from florence2.locations import Size
from florence2.run_lengths import runs_of
from florence2.scene import Mask
from florence2.tasks import Box

Ring = tuple[float, ...]  # x, y, x, y, ...
Pixels = npt.NDArray[np.uint8]  # [height, width], 0 or 1
Contour = npt.NDArray[np.int32]  # [vertices, 2], x and y

SMOOTH = 0.75  # pixels of the mask: the stairs of a slanted edge are up to 0.71 deep
GROWTH = 1.3  # of the tolerance from one try to the next
LEAST = 3  # vertices of a ring
MEASURED = 256  # pixels a side, at least, at which an overlap is measured
ROUNDING = 1e-6  # of a pixel


@lru_cache(maxsize=64)  # two tasks ask for the outlines of each thing of an image
def rings_of(
    mask: Mask,
    size: Size,
    *,
    max_vertices: int = 64,
    max_locs: int = 400,
    min_ring: float = 0.01,
    min_iou: float = 0.9,
) -> tuple[Ring, ...] | None:
    """Outlines x, y, x, y, ... of the mask's parts in a scene of `size` (width, height), the largest first.

    Each goes clockwise from its top left, is simplified to `max_vertices` at most and all to `max_locs` coordinates;
    parts below `min_ring` of the mask's area are left out. None if nothing lies in the scene, or if the IoU of the
    rings with the exact mask, holes and small parts included, is below `min_iou`. Florence2Error for counts that are no
    run lengths of the mask's size.
    """
    pixels, corner = cropped(mask, size)
    if not pixels.size:
        return None
    least = min_ring * np.count_nonzero(pixels)
    outer = sorted((ring for ring in traced(pixels) if area(ring) >= least), key=area, reverse=True)
    for start in (SMOOTH, 0.0):  # smoothing may take too much of a small thing
        rings = simplified(outer, start, max_vertices, max_locs // 2)
        if rings and overlap(rings, pixels) >= min_iou:
            return tuple(placed(ring + corner, mask, size) for ring in rings)
    return None


def box_of(mask: Mask, size: Size) -> Box | None:
    """The smallest box around what lies in the scene of the mask's own box; None if nothing does. Traces nothing."""
    try:
        x, y, width, height = coco.toBbox({"size": list(mask.size), "counts": mask.counts}).tolist()
    except (ValueError, TypeError) as error:
        raise Florence2Error(f"expected COCO run lengths of size (height, width) {mask.size}: {error}") from error
    x0, y0, x1, y1 = mask.placement.points((x, y, x + width, y + height))
    (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
    box = max(x0, 0.0), max(y0, 0.0), min(x1, size[0]), min(y1, size[1])
    return box if box[0] < box[2] and box[1] < box[3] else None


def decoded(mask: Mask) -> Pixels:
    """pycocotools writes behind an image where runs are longer, and leaves memory as it finds it where they end early:
    they are checked before, and what doesn't encode as it was is refused."""
    try:
        runs = runs_of(mask.counts)
        if sum(runs) != mask.size[0] * mask.size[1] or min(runs, default=-1) < 0:
            raise ValueError("the runs do not fill it")
        pixels: Pixels = coco.decode({"size": list(mask.size), "counts": mask.counts})
        if coco.encode(pixels)["counts"] == mask.counts:
            return pixels
        problem = "some runs are empty"
    except (ValueError, TypeError) as error:
        problem = str(error)
    raise Florence2Error(f"expected COCO run lengths of size (height, width) {mask.size}: {problem}")


def cropped(mask: Mask, size: Size) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """The part of the mask in the scene, of pixels at its edge the whole; and the x, y at which it begins."""
    place = mask.placement
    columns = seen(size[0], place.scale_x, place.shift_x)
    rows = seen(size[1], place.scale_y, place.shift_y)
    pixels = decoded(mask)[rows, columns]
    x, y, width, height = cv2.boundingRect(pixels) if pixels.size else (0, 0, 0, 0)
    return pixels[y : y + height, x : x + width], np.array([columns.start + x, rows.start + y])


def seen(side: float, scale: float, shift: float) -> slice:
    """The pixels of an original that reach into [0, side) of the scene."""
    start, stop = sorted(((0 - shift) / scale, (side - shift) / scale))
    return slice(max(floor(start + ROUNDING), 0), max(ceil(stop - ROUNDING), 0))


def traced(pixels: Pixels) -> list[Contour]:
    """The exterior outlines along the edges of pixels. Pixels that touch at a corner are one part."""
    # OpenCV goes from centre to centre of pixels. With two pixels for each, those on the edge tell which edge it is.
    contours, _ = cv2.findContours(enlarged(pixels, 2), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [(contour[:, 0] + 1) // 2 for contour in contours]


def enlarged(pixels: Pixels, scale: int) -> Pixels:
    """`scale` x `scale` pixels for each."""
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def simplified(outer: Sequence[Contour], start: float, max_vertices: int, max_all: int) -> list[Contour]:
    """The rings by Douglas and Peucker, with the smallest tolerance tried, from `start` up, that leaves few enough.

    A ring of which nothing would be left is left out.
    """
    tolerance = start
    while True:
        rings = [cv2.approxPolyDP(ring, tolerance, closed=True)[:, 0] for ring in outer]
        rings = [ring for ring in rings if len(ring) >= LEAST and area(ring) > 0]
        if sum(map(len, rings)) <= max_all and max(map(len, rings), default=0) <= max_vertices:
            return rings
        tolerance = max(tolerance, 0.25) * GROWTH


def area(ring: Contour) -> float:
    """Square pixels."""
    return float(cv2.contourArea(ring))


def overlap(rings: Sequence[Contour], pixels: Pixels) -> float:
    """IoU of all that the rings go around with the mask, as COCO measures it; a small mask is enlarged for it."""
    scale = ceil(MEASURED / max(pixels.shape))
    exact = coco.encode(np.asfortranarray(enlarged(pixels, scale)))
    filled = coco.merge(coco.frPyObjects([(ring * float(scale)).ravel().tolist() for ring in rings], *exact["size"]))
    return float(coco.iou([filled], [exact], [False])[0, 0])


def placed(ring: npt.NDArray[np.int64], mask: Mask, size: Size) -> Ring:
    """A ring of the mask's pixels where it lies in the scene: clockwise to the eye (y goes down) from its top left."""
    points = np.reshape(mask.placement.points(ring.ravel().tolist()), (-1, 2)).clip(0, size)
    x, y = points.T
    if np.dot(x, np.roll(y, -1)) < np.dot(np.roll(x, -1), y):  # twice the area is below 0
        points = points[::-1]
    first = min(range(len(points)), key=lambda n: (points[n].sum(), points[n][1]))
    return tuple(np.roll(points, -first, axis=0).ravel().tolist())
