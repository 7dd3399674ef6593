"""Objects: COCO's average precision of boxes or masks, what is left of it without scores, and the best F1.

AP rewards a model for being sure in the right places; AP with constant scores and F1 say what it finds besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from florence2.errors import Florence2Error
from florence2.evaluation.boxes import Boxes, areas, boxes_of, intersections
from florence2.evaluation.masks import Rle, mask_areas, mask_ious, masks_of
from florence2.evaluation.result import Numbers, Result, f_measure

Id = TypeVar("Id", int, str)  # of an image; all of one kind, they are put in order
Label = int | str
Key = TypeVar("Key", int, str)
Rows = npt.NDArray[np.int64]
Column = npt.NDArray[np.float64]
MAX_DETECTIONS = 100  # of a class in an image, the surest
F1_IOU = 0.5
SIZES = ("small", "medium", "large")  # COCO's: below 32², below 96² and from there, by the area of the mask


@dataclass(frozen=True)
class Objects:
    """What is, or was found, in an image: n objects.

    labels: n keys of the categories. boxes: [n, 4], x0, y0, x1, y1 in pixels; not needed where masks are measured.
    masks: n COCO run lengths. scores: n, None for those without one; None: no object has one.
    crowd (of the truth): n, whether it is a crowd, in which any number may be found and nothing has to be.
    areas (of the truth): n areas in pixels that make an object small or large, in COCO the mask's; default the mask's,
    or the box's.
    """

    labels: Sequence[Label]
    boxes: npt.ArrayLike = ()
    masks: Sequence[Rle] | None = None
    scores: Sequence[float | None] | None = None
    crowd: Sequence[bool] | None = None
    areas: Sequence[float] | None = None


NOTHING = Objects(())


def average_precision(
    truth: Mapping[Id, Objects],
    found: Mapping[Id, Objects],
    categories: Mapping[Key, str],
    *,
    masks: bool = False,
    score: str = "as given",
) -> Result:
    """COCO's AP, AP50, AP75, AP small, medium and large and AR@100; AP with constant scores; the best F1 at IoU 0.5.

    truth: every image that counts, also without objects. What was found in others is left out, and counted.
    categories: what can be found, key and name. `score` says what kind of score it is, for the protocol.
    Florence2Error, naming the image, for an object of no category, without the mask that is to be measured, or whose
    numbers are none.
    """
    if not truth or not categories:
        raise Florence2Error(f"expected images and categories; got {len(truth)} and {len(categories)}")
    ids = sorted(truth)
    there, seen = columns(ids, truth, categories, masks), columns(ids, found, categories, masks)
    if masks:
        same_sizes(ids, there, seen)
    precision, recall = coco(there, seen, seen.scores, len(ids), len(categories))
    constant, _ = coco(there, seen, np.ones(len(seen.scores)), len(ids), len(categories))
    return Result(
        {
            "AP": mean(precision[:, :, :, 0]),
            "AP50": mean(precision[0, :, :, 0]),
            "AP75": mean(precision[5, :, :, 0]),
            **{f"AP {size}": mean(precision[:, :, :, at]) for at, size in enumerate(SIZES, 1)},
            "AR@100": mean(recall[:, :, 0]),
            "AP constant scores": mean(constant[:, :, :, 0]),
            **best_f1(there, seen),
        },
        {
            "images": len(ids),
            "images without objects": len(ids) - len(np.unique(there.images)),
            "objects": int((~there.crowd).sum()),
            "crowds": int(there.crowd.sum()),
            "found": len(seen.images),
            "found without score": int((~seen.scored).sum()),
            "images without truth": sum(id not in truth for id in found),
        },
        f"COCO's AP of {'masks' if masks else 'boxes'} by faster-coco-eval: IoU 0.50:0.95, at most {MAX_DETECTIONS} "
        "found of a class in an image, crowds ignored, images without objects kept; equal scores in order of image id "
        f"and answer; score: {score}, those without one last. F1, precision and recall of all classes together at IoU "
        f"{F1_IOU}, at the threshold of the score that has the best F1",
        {
            name: {"AP": mean(precision[:, :, at, 0]), "AP50": mean(precision[0, :, at, 0])}
            for at, name in enumerate(categories.values())
        },
    )


class Columns(NamedTuple):
    """Objects of all images, in order of image id; images and labels as places, from 0."""

    images: Rows
    labels: Rows
    boxes: Boxes
    masks: list[Rle]  # none, where boxes are measured
    scores: Column  # those without one below all others
    scored: npt.NDArray[np.bool_]
    crowd: npt.NDArray[np.bool_]
    areas: Column


def columns(ids: Sequence[Id], given: Mapping[Id, Objects], categories: Mapping[Key, str], masks: bool) -> Columns:
    places = {label: at for at, label in enumerate(categories)}
    rows = [row(at, id, given.get(id, NOTHING), places, masks) for at, id in enumerate(ids)]
    images, labels, boxes, scores, scored, crowd, sizes = (
        np.concatenate([getattr(one, name) for one in rows]) for name in Columns._fields if name != "masks"
    )
    scores[~scored] = -np.inf
    return Columns(images, labels, boxes, [mask for one in rows for mask in one.masks], scores, scored, crowd, sizes)


def row(at: int, id: int | str, given: Objects, places: Mapping[Any, int], masks: bool) -> Columns:
    """The columns of the `at`-th image."""
    where, count = f"image {id}", len(given.labels)
    if unknown := [label for label in given.labels if label not in places]:
        raise Florence2Error(f"{where}: expected labels that are categories, got {unknown[0]!r}")
    own_masks = masks_of(given.masks or (), where) if masks else []
    boxes = boxes_of(np.zeros((count, 4)) if masks else given.boxes, where)
    if (there := len(own_masks if masks else boxes)) != count:
        raise Florence2Error(f"{where}: expected {count} {'masks' if masks else 'boxes'}, one a label; got {there}")
    scores = [None] * count if given.scores is None else given.scores
    sizes = mask_areas(own_masks) if masks else areas(boxes)
    return Columns(
        np.full(count, at),
        np.array([places[label] for label in given.labels], np.int64),
        boxes,
        own_masks,
        finite([0.0 if score is None else score for score in scores], count, f"{where}: scores"),
        np.array([score is not None for score in scores], np.bool_),
        finite([0] * count if given.crowd is None else given.crowd, count, f"{where}: crowd").astype(np.bool_),
        finite(sizes if given.areas is None else given.areas, count, f"{where}: areas"),
    )


def finite(given: npt.ArrayLike, count: int, what: str) -> Column:
    values = np.asarray(given, np.float64)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise Florence2Error(f"{what}: expected {count} finite numbers, got {given!r:.200}")
    return values


def same_sizes(ids: Sequence[int | str], truth: Columns, found: Columns) -> None:
    """pycocotools overlaps no masks of different sizes, and says nothing."""
    for image in np.intersect1d(truth.images, found.images):
        one, other = (own.masks[int(own.images.searchsorted(image))]["size"] for own in (truth, found))
        if one != other:
            raise Florence2Error(
                f"image {ids[image]}: expected masks of one size (height, width), got {one} and {other}"
            )


# Average precision


def coco(truth: Columns, found: Columns, scores: Column, images: int, categories: int) -> tuple[Column, Column]:
    """Precision [10 IoUs, 101 recalls, categories, 4 sizes] and recall [10, categories, 4]; -1 where nothing is."""
    from faster_coco_eval.core import COCO, COCOeval_faster

    masks = bool(truth.masks or found.masks)
    # Of images of run lengths their own size counts.
    every = [{"id": at, "height": 1, "width": 1} for at in range(images)]
    shared = {"images": every, "categories": [{"id": at} for at in range(categories)]}
    sides = [
        COCO(shared | {"annotations": entries(given, own)}) for given, own in ((truth, truth.scores), (found, scores))
    ]
    evaluation = COCOeval_faster(*sides, "segm" if masks else "bbox")
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]


def entries(given: Columns, scores: Column) -> list[dict[str, Any]]:
    """As COCO's files have them; ids from 1, as 0 stands for none in its code."""
    sides = np.concatenate([given.boxes[:, :2], given.boxes[:, 2:] - given.boxes[:, :2]], axis=1).tolist()
    places = [{"segmentation": mask} for mask in given.masks] if given.masks else [{"bbox": side} for side in sides]
    columns = (given.images, given.labels, given.crowd, given.areas, scores)
    return [
        {"id": n, "image_id": image, "category_id": label, "iscrowd": int(crowd), "area": area, "score": score, **place}
        for n, (image, label, crowd, area, score, place) in enumerate(
            zip(*(column.tolist() for column in columns), places, strict=True), 1
        )
    ]


def mean(values: Column) -> float | None:
    """Of those that are there; COCO has -1 for the others."""
    there = values[values > -1]
    return float(there.mean()) if there.size else None


# F1


def best_f1(truth: Columns, found: Columns) -> Numbers:
    """The best F1 of all thresholds of the score, and that threshold: what has it or more counts as found.

    The threshold is None where the best is to take all, those without a score among them.
    """
    right, counts = judged(truth, found)
    order = np.argsort(-found.scores[counts], kind="stable")
    scores, hits = found.scores[counts][order], right[counts][order].cumsum()
    there = int((~truth.crowd).sum())
    if not len(scores) or not there:
        return {"F1": 0.0 if there else None, "precision": None, "recall": 0.0 if there else None, "threshold": None}
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # those of one score come together
    best = last[np.argmax(2 * hits[last] / (last + 1 + there))]
    threshold = float(scores[best]) if found.scored[counts][order][best] else None
    return f_measure(int(hits[best]), int(best) + 1, there) | {"threshold": threshold}


def judged(truth: Columns, found: Columns) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of each that was found: whether it is right, at IoU 0.5, and whether it counts: not in a crowd, not too many.

    COCO's matching: in order of score, each takes what it overlaps most of what is not taken yet, else a crowd.
    """
    right, counts = np.zeros((2, len(found.images)), np.bool_)
    of_truth, of_found = groups(truth), groups(found)
    for group, own in of_found.items():
        own = own[np.argsort(-found.scores[own], kind="stable")][:MAX_DETECTIONS]
        counts[own] = True
        there = of_truth.get(group)
        if there is None:
            continue
        overlaps, crowd = overlaps_of(found, own, truth, there), truth.crowd[there]
        for n, row in zip(own, overlaps, strict=True):
            free = np.where(crowd, -1, row)
            best = len(free) - 1 - int(free[::-1].argmax())  # COCO's code takes the last of equals
            if free[best] >= F1_IOU:
                right[n] = True
                overlaps[:, best] = -1  # taken
            elif (row[crowd] >= F1_IOU).any():
                counts[n] = False
    return right, counts


def groups(given: Columns) -> dict[tuple[int, int], Rows]:
    """The rows of each image and label."""
    order = np.lexsort((given.labels, given.images))
    keys = np.stack([given.images, given.labels], axis=1)[order]
    starts = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
    parts = np.split(order, starts) if len(order) else []
    return {(int(given.images[rows[0]]), int(given.labels[rows[0]])): rows for rows in parts}


def overlaps_of(a: Columns, at: Rows, b: Columns, there: Rows) -> Column:
    if a.masks:
        return mask_ious([a.masks[n] for n in at], [b.masks[n] for n in there], b.crowd[there])
    own, theirs = a.boxes[at], b.boxes[there]
    both = intersections(own, theirs)
    either = areas(own)[:, None] + np.where(b.crowd[there], 0, areas(theirs) - both)
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)
