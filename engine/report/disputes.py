"""What an image's sources and filters were at odds about: by it the pictures of a report are ordered.

It is computed on columns for every image of a set, and by the same functions for the cards of those that are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.records import MERGE, Box, Decision

SAME_PLACE = 0.5  # IoU from which on two boxes are about one thing
CLOSE = 0.1  # of a threshold: a value that is nearer to it might as well have gone the other way
MOST_COMPARED = 500  # objects of an image


class Thing(NamedTuple):
    """An object's region, as far as disputes go: its box in pixels, and the source's word for it."""

    id: str
    source: str
    label: str
    box: Box


class Fell(NamedTuple):
    """A decision by which an annotation fell, light: its fields are those of `Decision`."""

    annotation_id: str
    action: str
    by: str
    reason: str
    value: float | None
    threshold: float | None
    against: str | None
    round: int


@dataclass(frozen=True)
class Dispute:
    """How many annotations of an image were at odds, and in what way."""

    named: int = 0  # objects that another source calls differently
    close: int = 0  # that fell by less than a tenth of the threshold
    overruled: int = 0  # that stood in one round, and fell in a later one

    @property
    def value(self) -> int:
        return self.named + self.close + self.overruled

    @property
    def told(self) -> str:
        """In words; empty if there is nothing."""
        said = ((self.named, "named differently"), (self.close, "close calls"), (self.overruled, "overruled later"))
        return ", ".join(
            f"{count} {what if count > 1 else what.replace('calls', 'call')}" for count, what in said if count
        )


def dispute(things: Sequence[Thing], falls: Sequence[Fell | Decision], labels: Mapping[str, str]) -> Dispute:
    """Of one image: its objects, what fell but proposals, and the labels of its regions by id."""
    disputed = {id_ for pair in named_differently(things, falls) for id_ in pair}
    return Dispute(
        named=len(disputed),
        close=len({fell.annotation_id for fell in falls if is_close(fell.value, fell.threshold)}),
        overruled=len({fell.annotation_id for fell in falls if _is_overruled(fell, labels)}),
    )


def named_differently(things: Sequence[Thing], falls: Sequence[Fell | Decision]) -> list[tuple[str, str]]:
    """Ids of each two objects at one place that independent sources call differently.

    What merging made is no source of its own. What fell for itself alone, as by a low score, is out; what fell for
    another's sake is the dispute.
    """
    alone = {fell.annotation_id for fell in falls if fell.action == "reject" and not fell.against}
    there = [thing for thing in things if thing.label and thing.source != MERGE and thing.id not in alone]
    if len({thing.source for thing in there[:MOST_COMPARED]}) < 2:
        return []
    return [(there[one].id, there[other].id) for one, other in _pairs(there[:MOST_COMPARED])]


def _pairs(there: Sequence[Thing]) -> Iterator[tuple[int, int]]:
    boxes = np.array([thing.box for thing in there], np.float64)
    corner = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    sides = (np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corner).clip(min=0)
    shared = sides[..., 0] * sides[..., 1]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    union = areas[:, None] + areas[None, :] - shared
    for one, other in np.argwhere(np.triu((shared >= SAME_PLACE * union) & (shared > 0), 1)).tolist():
        if there[one].source != there[other].source and there[one].label != there[other].label:
            yield one, other


def is_close(value: float | None, threshold: float | None) -> bool:
    return value is not None and threshold is not None and abs(value - threshold) <= CLOSE * abs(threshold)


def round_of(annotation_id: str) -> int:
    """The round that an annotation was made in, which its id begins with (`Record.ids`); 0 for other ids."""
    number = re.match(r"([0-9]{1,6})\.", annotation_id)
    return int(number[1]) if number else 0


def _is_overruled(fell: Fell | Decision, labels: Mapping[str, str]) -> bool:
    """What gives way to another of the same label is no dispute, nor is what can't stand without something else."""
    if fell.by == "cascade" or fell.round <= round_of(fell.annotation_id):
        return False
    label = labels.get(fell.annotation_id)
    return fell.action == "reject" or label is None or label != labels.get(fell.against or "")
