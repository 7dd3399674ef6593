"""Phrases of a caption, and the boxes of what they speak of: recall as Flickr30k Entities has it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from florence2.evaluation.boxes import Boxes, boxes_of, ious
from florence2.evaluation.result import Numbers, Result, ratio

IOU = 0.5
RANKS = (1, 5, 10)
PROTOCOLS = ("ANY", "MERGED")


@dataclass(frozen=True)
class Grounded:
    """A phrase. truth: [n, 4] all boxes of what it names; found: [m, 4], the surest first; none is a wrong answer.

    Boxes are x0, y0, x1, y1 in pixels. `kinds` are what recall is given apart for, such as people and vehicles.
    """

    truth: npt.ArrayLike
    found: npt.ArrayLike = ()
    kinds: Sequence[str] = ()
    name: str = ""  # by which an error speaks of it


def recall(phrases: Sequence[Grounded]) -> Result:
    """R@1, R@5 and R@10 at IoU 0.5 by both protocols: how many phrases have a right box among their first k.

    ANY: right is what overlaps any of the phrase's boxes. MERGED: what overlaps the one box around them all.
    Phrases without a box of truth can't be found, and are counted apart. Florence2Error for boxes that are none.
    """
    hits = [hits_of(phrase) for phrase in phrases]
    scored = [(phrase, own) for phrase, own in zip(phrases, hits, strict=True) if own is not None]
    by_kind: dict[str, list[Numbers]] = defaultdict(list)
    for phrase, own in scored:
        for kind in dict.fromkeys(phrase.kinds):
            by_kind[kind].append(own)
    return Result(
        averaged([own for _, own in scored]),
        {
            "phrases": len(scored),
            "phrases without truth": len(phrases) - len(scored),
            "phrases without answer": sum(not np.size(phrase.found) for phrase, _ in scored),
        },
        f"Flickr30k Entities: share of phrases with one of the first k boxes at IoU >= {IOU} with any of their own "
        "(ANY) or with the one box around all of them (MERGED); phrases without boxes left out; no answer is wrong",
        {kind: averaged(rows) for kind, rows in sorted(by_kind.items())},
    )


def hits_of(phrase: Grounded) -> Numbers | None:
    """1 or 0 for each measure; None for a phrase that can't be found."""
    truth, found = boxes_of(phrase.truth, phrase.name), boxes_of(phrase.found, phrase.name)
    if not len(truth):
        return None
    best = {"ANY": ious(found, truth).max(axis=1), "MERGED": ious(found, around(truth))[:, 0]}
    return {f"R@{k} {protocol}": float((best[protocol][:k] >= IOU).any()) for protocol in PROTOCOLS for k in RANKS}


def around(boxes: Boxes) -> Boxes:
    """[1, 4]: the smallest box that holds them all."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None]


def averaged(rows: Sequence[Numbers]) -> Numbers:
    names = [f"R@{k} {protocol}" for protocol in PROTOCOLS for k in RANKS]
    return {name: ratio(sum(row[name] or 0.0 for row in rows), len(rows)) for name in names}
