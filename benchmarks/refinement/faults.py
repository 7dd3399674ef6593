"""What became of the specialists' faults: of each kind apart, since independent ones average away by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from benchmarks.refinement.faulty import Fault
from benchmarks.world import Picture, Shape
from engine.geometry import iou, quad_box
from engine.records import Record, Region

IOU = 0.5


def repaired(before: Sequence[Record], after: Sequence[Record], pictures: Sequence[Picture]) -> dict[str, int]:
    """Of the true objects that had a region with a wrong label before: what stands in their places afterwards."""
    counts: Counter[str] = Counter()
    for old, new, picture in zip(before, after, pictures, strict=True):
        for shape in picture.shapes:
            wrong = {r.label for r in _at(old, shape)} - {shape.label}
            if not wrong or any(r.label == shape.label for r in _at(old, shape)):
                continue
            labels = {r.label for r in _at(new, shape)}
            right, copied = shape.label in labels, bool(wrong & labels)
            counts[
                "repaired" if right and not copied else "copied" if copied else "gone" if not labels else "other"
            ] += 1
    return dict(counts)


def by_fault(
    records: Sequence[Record], pictures: Sequence[Picture], faults: Sequence[Sequence[Fault | None]]
) -> dict[str, float]:
    """The share of objects that have a region with the right label, by what the detector had done to them."""
    right: dict[str, list[bool]] = {}
    for record, picture, its in zip(records, pictures, faults, strict=True):
        for shape, fault in zip(picture.shapes, its, strict=True):
            is_right = any(region.label == shape.label for region in _at(record, shape))
            right.setdefault(f"right if {fault or 'no fault'}", []).append(is_right)
    return {name: float(np.mean(values)) for name, values in right.items()}


def off(records: Sequence[Record], pictures: Sequence[Picture]) -> float | None:
    """By how much boxes of what is right reach too far to the right and below: the median, as a share of the side."""
    found: list[float] = []
    for record, picture in zip(records, pictures, strict=True):
        for shape in picture.shapes:
            x0, y0, x1, y1 = shape.box
            for region in _at(record, shape):
                if region.label == shape.label:
                    found += [(region.box[2] - x1) / (x1 - x0), (region.box[3] - y1) / (y1 - y0)]
    return float(np.median(found)) if found else None


def letters(records: Sequence[Record], pictures: Sequence[Picture], confused: Collection[str]) -> dict[str, float]:
    """The shares of letters read right, of those that readers always confuse, and of others: in words for which there
    is a line of as many letters."""
    right: dict[str, list[bool]] = {}
    for record, picture in zip(records, pictures, strict=True):
        lines = [region for region in record.standing.regions if region.kind == "text" and region.text]
        for word in picture.words:
            there = (one for one in lines if iou(one.box, quad_box(word.quad)) >= IOU)
            text = next((one.text for one in there if one.text and len(one.text) == len(word.text)), "")
            for read, letter in zip(text, word.text, strict=False):
                name = "confused letters right" if letter in confused else "other letters right"
                right.setdefault(name, []).append(read == letter)
    return {name: float(np.mean(values)) for name, values in right.items()}


def _at(record: Record, shape: Shape) -> list[Region]:
    return [r for r in record.standing.regions if r.kind == "object" and iou(r.box, shape.box) >= IOU]
