"""What a region says, that there is such a thing in such a place, with the evidence for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.config import Merge
from engine.geometry import area
from engine.merge.case import Case
from engine.merge.matching import clusters
from engine.records import HUMAN, Kind, Region

Role = Literal["agreed", "contested", "alone", "renamed"]
Size = Literal["small", "medium", "large"]
LEAST_SCORE = 1e-6  # a score of 0 has no logarithm


@dataclass(frozen=True)
class Claim:
    """A region among those of other sources that are of the same thing.

    Its role says how they stand to it: one has the same label ("agreed"), all have others ("contested"), or there is
    none ("alone"); or it only gives one of them another label ("renamed"), and then is nobody else's witness. Who goes
    back to the same model families has nothing to say beside it, nor has who learned the image, beside anybody.
    `drawn_by` is the source of its box.

    `value` is what it is ranked by among its like: the mean of the logarithms of its own score and of the probability
    that a model which was kept from the image gives its label (in nats a token), or the one of the two that there is.
    """

    region: Region
    new: bool
    role: Role
    size: Size
    value: float | None
    is_judged: bool
    drawn_by: str

    @property
    def strata(self) -> tuple[tuple[str, ...], ...]:
        """What it is calibrated with, the closest first: isotonic per source, kind and size."""
        of = (self.region.source, self.region.kind, self.role, "judged" if self.is_judged else "own score")
        return (*of, self.size), of


def size_of(region: Region, width: int, height: int, bounds: tuple[float, float]) -> Size:
    """By the square root of its share of the image: below the first bound small, below the second medium."""
    side = math.sqrt(area(region.box) / max(width * height, 1))
    return "small" if side < bounds[0] else "medium" if side < bounds[1] else "large"


def clusters_of(case: Case, kind: Kind, least: float) -> list[list[Region]]:
    """The standing regions of a kind by the thing that they are of: people's first in each, then old, then new ones,
    and at last those that give another label to one of them."""
    groups: dict[tuple[bool, bool, str], list[Region]] = {}
    names: list[tuple[Region, Region]] = []
    for region in case.regions(kind):
        if rival := case.rival(region):
            names.append((region, rival))
        else:
            groups.setdefault((region.source != HUMAN, case.is_new(region), region.source), []).append(region)
    found = clusters([groups[key] for key in sorted(groups)], least)
    of_region = {region.id: cluster for cluster in found for region in cluster}
    for region, rival in sorted(names, key=lambda pair: (case.is_new(pair[0]), pair[0].id)):
        while further := case.rival(rival):
            rival = further
        of_region[rival.id].append(region)
    return found


def claims_of(case: Case, cluster: Sequence[Region], config: Merge) -> list[Claim]:
    """The claims of a cluster, in its order."""
    item = case.record.item
    width, height = item.width or 1, item.height or 1
    return [
        Claim(
            region,
            case.is_new(region),
            role_of(region, cluster, case, config.families),
            size_of(region, width, height, config.sizes),
            value_of(case, region),
            case.opinion(region) is not None,
            case.drawn_by(region),
        )
        for region in cluster
    ]


def role_of(region: Region, cluster: Sequence[Region], case: Case, families: Mapping[str, str]) -> Role:
    if case.rival(region):
        return "renamed"
    mine = families_of(case.witnesses(region), families)
    others = [one for one in cluster if not case.rival(one) and families_of(case.witnesses(one), families) - mine]
    if not mine or not others:
        return "alone"
    return "agreed" if region.label in {one.label for one in others} else "contested"


def families_of(sources: frozenset[str], families: Mapping[str, str]) -> frozenset[str]:
    """A source that `families` does not name is a family of its own."""
    return frozenset(families.get(source, source) for source in sources)


def value_of(case: Case, region: Region) -> float | None:
    score = region.scores.calibrated if region.scores.calibrated is not None else region.score
    known = [] if score is None else [math.log(max(score, LEAST_SCORE))]
    opinion = case.opinion(region)
    known += [] if opinion is None else [opinion]
    return sum(known) / len(known) if known else None
