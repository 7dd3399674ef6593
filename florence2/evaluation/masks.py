"""Masks as COCO's run lengths, {"size": [height, width], "counts": text or bytes}: overlaps, and masks of polygons.

pycocotools trusts what it gets, and reads and writes memory that isn't a mask's where run lengths don't fill it: they
are checked before.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from florence2.errors import Florence2Error
from florence2.run_lengths import runs_of

Rle = dict[str, Any]
Size = tuple[int, int]  # height, width: run lengths' order
LARGEST = 2**28  # pixels


def masks_of(given: Sequence[Rle], where: object = "") -> list[Rle]:
    """As pycocotools takes them. Florence2Error, which begins with `where`, for what is no mask or of another size."""
    masks = [checked(mask, where) for mask in given]
    if others := [mask["size"] for mask in masks if mask["size"] != masks[0]["size"]]:
        raise Florence2Error(f"{where}: expected masks of one size; got {masks[0]['size']} and {others[0]}")
    return masks


def checked(mask: Rle, where: object) -> Rle:
    try:
        height, width = (int(side) for side in mask["size"])
        counts = mask["counts"].encode() if isinstance(mask["counts"], str) else bytes(mask["counts"])
        runs = runs_of(counts)
    except (KeyError, TypeError, ValueError, AttributeError):
        runs, height, width = [-1], 0, 0
    if min(*runs, height - 1, width - 1) < 0 or sum(runs) != height * width or height * width > LARGEST:
        raise Florence2Error(f"{where}: expected COCO's compressed run lengths that fill their size; got {mask!r:.200}")
    return {"size": [height, width], "counts": counts}


def mask_of(rings: Sequence[Sequence[float]], size: Size, where: object = "") -> Rle:
    """The mask, in an image of `size`, of all that polygons x, y, x, y, ... in pixels go around; empty without any.

    Florence2Error for a ring of less than three points, of what is no number, or far outside of its image.
    """
    height, width = size
    for ring in rings:
        fits = len(ring) >= 6 and len(ring) % 2 == 0 and all(isinstance(v, int | float) and isfinite(v) for v in ring)
        sides = (width, height)
        # Memory goes by the length of the outline, inside the image or not.
        if not fits or any(not -sides[n % 2] <= value <= 2 * sides[n % 2] for n, value in enumerate(ring)):
            raise Florence2Error(
                f"{where}: expected polygons x, y, x, y, x, y, ... in {width} x {height} pixels; got {ring!r:.200}"
            )
    if not rings:
        empty: Rle = coco.encode(np.zeros(size, np.uint8, order="F"))
        return empty
    merged: Rle = coco.merge(coco.frPyObjects([[float(value) for value in ring] for ring in rings], height, width))
    return merged


def mask_of_runs(runs: Sequence[int], size: Size, where: object = "") -> Rle:
    """The mask of uncompressed run lengths, as COCO has crowds. Florence2Error if they don't fill the size."""
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise Florence2Error(f"{where}: expected run lengths that fill {size[0]} x {size[1]}; got {runs!r:.200}")
    mask: Rle = coco.frPyObjects({"size": list(size), "counts": list(runs)}, *size)
    return mask


def mask_areas(masks: Sequence[Rle]) -> npt.NDArray[np.float64]:
    """[n] pixels of what `masks_of` gave."""
    return np.array([coco.area(mask) for mask in masks], np.float64)


def mask_ious(
    a: Sequence[Rle], b: Sequence[Rle], crowd: Sequence[bool] | npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """[n, m] of a [n] with b [m]; where b is a crowd, the share of a that is in it. All of one size."""
    found: npt.NDArray[np.float64] = np.asarray(coco.iou(list(a), list(b), [bool(c) for c in crowd])).reshape(
        len(a), len(b)
    )
    return found


def overlap(a: Rle, b: Rle) -> tuple[float, float]:
    """Pixels of the intersection and of the union of two masks of one size."""
    both = float(coco.area(coco.merge([a, b], intersect=True)))
    return both, float(coco.area(a)) + float(coco.area(b)) - both
