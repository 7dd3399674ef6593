"""Which annotations of several sources are of the same thing: one to one, by the overlap of their boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from engine.geometry import iou
from engine.records import Region


def pairs(some: Sequence[Region], others: Sequence[Region], least: float) -> list[tuple[int, int]]:
    """Places of the pairs, one to one, that overlap by an IoU of `least` or more (the Hungarian method).

    As many as possible have one label; of these choices it is the one with the largest sum of IoU.
    """
    if not some or not others:
        return []
    overlaps = np.array([[iou(one.box, other.box) for other in others] for one in some])
    same: npt.NDArray[np.bool_] = np.array([[one.label == other.label for other in others] for one in some])
    worth = np.where(overlaps >= least, overlaps + same * len(some), 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [(int(a), int(b)) for a, b in zip(rows, columns, strict=True) if worth[a, b] > 0]


def clusters(groups: Sequence[Sequence[Region]], least: float) -> list[list[Region]]:
    """Regions that are of one thing, of each group one at most; every region is in one cluster.

    Groups come in their order: what the first ones see is where the others are looked for. The order inside a group
    does not count.
    """
    found: list[list[Region]] = []
    for group in groups:
        ordered = sorted(group, key=lambda region: region.id)
        matched = {b: a for a, b in pairs([cluster[0] for cluster in found], ordered, least)}
        for place, region in enumerate(ordered):
            if place in matched:
                found[matched[place]].append(region)
            else:
                found.append([region])
    return found
