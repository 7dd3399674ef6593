"""What people annotated comes first: a specialist's box for the same thing says nothing new, or is mistaken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from engine.geometry import iou
from engine.records import HUMAN, Decision, Kind, Record, Region
from filters.region import Fraction


@dataclass(frozen=True)
class HumanFirst:
    """Rejects specialists' regions that show what a region of a person's shows.

    Of the same label, or where the boxes are so much alike that the label is contested. A person's crowd contests
    nothing.
    """

    name: str = "human_first"
    kinds: Annotated[tuple[Kind, ...], Field(description="kinds of region that it looks at")] = ("object",)
    iou: Annotated[Fraction, Field(description="highest IoU with which both stand, of one label")] = 0.5
    iou_contested: Annotated[Fraction, Field(description="highest IoU with which both stand, of two labels")] = 0.8

    def decide(self, record: Record) -> Iterator[Decision]:
        regions = [region for region in record.standing.regions if region.kind in self.kinds]
        human = [region for region in regions if region.source == HUMAN and not region.crowd]
        for region in regions:
            if region.source != HUMAN:
                yield from self._faults(region, [other for other in human if other.kind == region.kind], record)

    def _faults(self, region: Region, human: list[Region], record: Record) -> Iterator[Decision]:
        overlaps = [(iou(region.box, other.box), other) for other in human]
        for overlap, rival in sorted(overlaps, key=lambda pair: pair[0], reverse=True):
            same = region.label == rival.label
            limit = self.iou if same else self.iou_contested
            if overlap > limit:
                yield record.reject(region, self.name, "human_box" if same else "human_label", overlap, limit, rival.id)
                return
