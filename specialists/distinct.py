"""Things, not boxes: what two sources found is one thing, and is to be counted and named once."""

from __future__ import annotations

from collections.abc import Sequence

from engine.geometry import iou
from engine.records import Region

SAME_THING = 0.5  # IoU of two boxes of a label, from two sources


def distinct(regions: Sequence[Region]) -> list[Region]:
    """The regions without those of which an earlier one, from another source, shows the same. Two boxes of one source
    are two things: its own doubles are for filters to find."""
    kept: list[Region] = []
    for region in regions:
        if not any(_same(region, other) for other in kept):
            kept.append(region)
    return kept


def _same(one: Region, other: Region) -> bool:
    return (
        one.source != other.source
        and one.kind == other.kind
        and one.label == other.label
        and one.crowd == other.crowd
        and iou(one.box, other.box) > SAME_THING
    )
