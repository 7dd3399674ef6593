"""A mask to outlines that few tokens can write.

Vertices lie on the EDGES of pixels: pixel (column, row) is the square from (column, row) to (column + 1, row + 1), so
that a mask of a rectangle has the rectangle's own corners. Only exterior rings can be written; what is lost with holes,
small parts and simplification is measured, and too much of it makes no outline at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import shapely  # type: ignore[import-untyped]
from pycocotools import mask as coco
from shapely import LinearRing, Polygon
from shapely.geometry.base import BaseGeometry  # type: ignore[import-untyped]

from florence2.errors import Florence2Error
from florence2.locations import Size
from florence2.scene import Mask
from florence2.tasks import Box

Ring = tuple[float, ...]  # x, y, x, y, ...

SMOOTH = 0.75  # pixels of the mask: the stairs of a slanted edge are up to 0.71 deep
GROWTH = 1.3  # of the tolerance from one try to the next
LEAST = 3  # vertices of a ring


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
    exact = placed(mask, size)
    parts = [part for part in polygons(exact) if part.area >= min_ring * exact.area]
    outer = [part.exterior for part in sorted(parts, key=lambda part: -part.area)]
    place = mask.placement
    pixel = min(abs(place.scale_x), abs(place.scale_y))
    for start in (SMOOTH * pixel, 0.0):  # smoothing may take too much of a small thing
        rings = simplified(outer, start, pixel, max_vertices, max_locs // 2)
        if rings and overlap(rings, exact) >= min_iou:
            return tuple(map(clockwise, rings))
    return None


def box_of(mask: Mask, size: Size) -> Box | None:
    """The smallest box around what lies in the scene of the mask's own box; None if nothing does. Traces nothing."""
    try:
        x, y, width, height = coco.toBbox({"size": list(mask.size), "counts": mask.counts}).tolist()
    except (ValueError, TypeError) as error:
        raise Florence2Error(f"expected COCO run lengths of size {mask.size}: {error}") from error
    x0, y0, x1, y1 = mask.placement.points((x, y, x + width, y + height))
    (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
    box = max(x0, 0.0), max(y0, 0.0), min(x1, size[0]), min(y1, size[1])
    return box if box[0] < box[2] and box[1] < box[3] else None


def placed(mask: Mask, size: Size) -> BaseGeometry:
    """The mask exactly, where it lies in the scene, clipped to that."""
    pixels = decoded(mask)
    # Runs down the columns, as rectangles one pixel wide; their union has the pixels' edges for outlines.
    edges = np.diff(np.pad(pixels, ((1, 1), (0, 0))).T.astype(np.int8), axis=1)
    columns, starts = np.nonzero(edges == 1)
    _, stops = np.nonzero(edges == -1)
    runs = shapely.box(columns, starts, columns + 1, stops)
    place = mask.placement
    scale, shift = (place.scale_x, place.scale_y), (place.shift_x, place.shift_y)
    exact = shapely.transform(shapely.union_all(runs), lambda points: points * scale + shift)
    return shapely.intersection(exact, shapely.box(0, 0, *size))


def decoded(mask: Mask) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Pixels [height, width], 0 or 1. Behind runs that end early pycocotools leaves memory as it finds it: refused."""
    lengths = {"size": list(mask.size), "counts": mask.counts}
    try:
        pixels: np.ndarray[tuple[int, int], np.dtype[np.uint8]] = coco.decode(lengths)
        if int(coco.area(lengths)) == np.count_nonzero(pixels == 1) == np.count_nonzero(pixels):
            return pixels
        problem = "the runs don't add up"
    except (ValueError, TypeError) as error:
        problem = str(error)
    raise Florence2Error(f"expected COCO run lengths of size (height, width) {mask.size}: {problem}")


def simplified(
    outer: Sequence[LinearRing], start: float, pixel: float, max_vertices: int, max_all: int
) -> list[LinearRing]:
    """The rings by Douglas and Peucker, with the smallest tolerance tried, from `start` up, that leaves few enough.

    A ring of which nothing would be left is left out.
    """
    tolerance = start
    while True:
        rings = [shapely.simplify(ring, tolerance, preserve_topology=False) for ring in outer]
        rings = [ring for ring in rings if vertices(ring)]
        if sum(map(vertices, rings)) <= max_all and max(map(vertices, rings), default=0) <= max_vertices:
            return rings
        tolerance = max(tolerance, pixel / 4) * GROWTH


def vertices(ring: LinearRing) -> int:
    """0 for a ring without an area."""
    corners: int = shapely.get_num_coordinates(ring) - 1
    return corners if corners >= LEAST and Polygon(ring).area > 0 else 0


def clockwise(ring: LinearRing) -> Ring:
    """Its vertices, clockwise to the eye (y goes down) from its top left."""
    points = shapely.get_coordinates(ring)[:-1]
    x, y = points.T
    if np.dot(x, np.roll(y, -1)) < np.dot(np.roll(x, -1), y):  # twice the area is below 0
        points = points[::-1]
    first = min(range(len(points)), key=lambda n: (points[n].sum(), points[n][1]))
    return tuple(np.roll(points, -first, axis=0).ravel().tolist())


def overlap(rings: Sequence[LinearRing], exact: BaseGeometry) -> float:
    """IoU of the rings' insides, together, with the exact geometry. A ring may cross itself: what it winds around."""
    filled = shapely.union_all([shapely.make_valid(Polygon(ring)) for ring in rings])
    inter = shapely.intersection(filled, exact).area
    return float(inter / (filled.area + exact.area - inter))


def polygons(geometry: BaseGeometry) -> Iterator[Polygon]:
    """Those of any geometry; clipping may leave lines and points beside them."""
    if isinstance(geometry, Polygon):
        yield from [] if geometry.is_empty else [geometry]
    elif hasattr(geometry, "geoms"):
        for part in geometry.geoms:
            yield from polygons(part)
