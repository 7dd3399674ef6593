"""One thing that an expression singles out: was it found, by its box (REC) or its mask (RES)?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from florence2.errors import Florence2Error
from florence2.evaluation.boxes import areas, boxes_of, intersections
from florence2.evaluation.masks import Rle, masks_of, overlap
from florence2.evaluation.result import Numbers, Result, ratio

IOU = 0.5


def referred_boxes(
    truth: Sequence[Sequence[float]], found: Sequence[Sequence[float] | None], names: Sequence[str] = ()
) -> Result:
    """Accuracy at IoU 0.5, mIoU and oIoU of boxes (x0, y0, x1, y1 in pixels), one for each expression; None is wrong.

    `names` are by which an error speaks of an expression; default their number. Florence2Error for boxes that are none.
    """
    named = names_of(truth, found, names)
    pairs = []
    for name, one, other in zip(named, truth, found, strict=True):
        there = boxes_of([one], name)
        seen = there[:0] if other is None else boxes_of([other], name)
        both = float(intersections(there, seen).sum())
        pairs.append((both, float(areas(there).sum() + areas(seen).sum()) - both))
    return result(pairs, found, "boxes")


def referred_masks(truth: Sequence[Rle], found: Sequence[Rle | None], names: Sequence[str] = ()) -> Result:
    """The same of masks, COCO run lengths of one size for each expression; an empty mask or None is wrong."""
    named = names_of(truth, found, names)
    pairs = []
    for name, one, other in zip(named, truth, found, strict=True):
        masks = masks_of([one] if other is None else [one, other], name)
        both, either = overlap(masks[0], masks[-1])
        pairs.append((0.0 if other is None else both, either))
    return result(pairs, found, "masks")


def names_of(truth: Sequence[object], found: Sequence[object], names: Sequence[str]) -> Sequence[str]:
    if len(truth) != len(found) or (names and len(names) != len(truth)):
        raise Florence2Error(f"expected an answer for each of {len(truth)} expressions, got {len(found)}")
    return names or [f"expression {n}" for n in range(len(truth))]


def result(pairs: Sequence[tuple[float, float]], found: Sequence[object], kind: str) -> Result:
    """Of the intersection and union of each expression."""
    both, either = np.array(pairs, np.float64).reshape(-1, 2).T
    each = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    numbers: Numbers = {
        f"accuracy@{IOU}": ratio(int((each >= IOU).sum()), len(pairs)),
        "mIoU": ratio(float(each.sum()), len(pairs)),
        "oIoU": ratio(float(both.sum()), float(either.sum())),
    }
    return Result(
        numbers,
        {"expressions": len(pairs), "expressions without answer": sum(one is None for one in found)},
        f"per expression, {kind}: accuracy is the share with IoU >= {IOU}, mIoU the mean IoU, oIoU the sum of all "
        "intersections over the sum of all unions; no answer is wrong, of IoU 0",
    )
