"""Non-maximum suppression: of boxes that show the same thing, the one its source is surest of stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pydantic import Field

from engine.records import Box, Decision, Kind, Record, Region
from filters.region import Fraction

# Boxes of a group up to which plain Python is faster than torch, which takes 0.3 ms for its calls, whatever the boxes.
PLAIN = 100
TOGETHER = 256  # lost boxes that are held against all kept ones at once: 20 MB with 10,000 of these

Loss: TypeAlias = tuple[int, int, float]  # the rank that lost, the better one that it overlaps most, and their IoU


@dataclass(frozen=True)
class Nms:
    """Rejects regions that overlap a region with a higher score, of the same source, kind and label.

    Never across kinds: text stands on a sign. Never across sources: their scores can't be compared, and whether
    they agree is the merge's business. Of equal scores the earlier region stands; one without score always does, and
    one that derives from another region, to which it gives another label in the same box.
    """

    name: str = "nms"
    kinds: Annotated[tuple[Kind, ...], Field(description="kinds of region that it looks at")] = ("object",)
    iou: Annotated[Fraction, Field(description="highest IoU with which both boxes stand")] = 0.6
    per_label: Annotated[bool, Field(description="false: boxes of different labels suppress each other too")] = True

    def decide(self, record: Record) -> Iterator[Decision]:
        groups: dict[tuple[str, Kind, str | None], list[tuple[float, Region]]] = {}
        for region in record.standing.regions:
            score = region.score
            if region.kind in self.kinds and score is not None and not region.derived_from:
                key = (region.source, region.kind, region.label if self.per_label else None)
                groups.setdefault(key, []).append((score, region))
        for scored in groups.values():
            ranked = [region for _, region in sorted(scored, key=lambda pair: pair[0], reverse=True)]
            yield from self._suppress(ranked, record)

    def _suppress(self, ranked: Sequence[Region], record: Record) -> Iterator[Decision]:
        """Decisions about the regions of one group, best first."""
        boxes = [region.box for region in ranked]
        for lost, winner, overlap in (_plain if len(boxes) <= PLAIN else _kernel)(boxes, self.iou):
            yield record.reject(ranked[lost], self.name, "duplicate_box", overlap, self.iou, ranked[winner].id)


def _plain(boxes: Sequence[Box], threshold: float) -> Iterator[Loss]:
    """What is lost of `boxes` with the best first. IoU is `engine.geometry.iou`, written out: it is all that costs."""
    kept: list[tuple[int, float, float, float, float, float]] = []
    for rank, (x0, y0, x1, y1) in enumerate(boxes):
        area = (x1 - x0) * (y1 - y0)
        highest, winner = 0.0, -1
        for other, u0, v0, u1, v1, size in kept:
            width = (x1 if x1 < u1 else u1) - (x0 if x0 > u0 else u0)
            if width > 0:
                height = (y1 if y1 < v1 else v1) - (y0 if y0 > v0 else v0)
                if height > 0:
                    inter = width * height
                    overlap = inter / (size + area - inter)
                    if overlap > highest:
                        highest, winner = overlap, other
        if highest > threshold:
            yield rank, winner, highest
        else:
            kept.append((rank, x0, y0, x1, y1, area))


def _kernel(boxes: Sequence[Box], threshold: float) -> Iterator[Loss]:
    """The same by torchvision, in float64, where its IoU is exactly `engine.geometry.iou`'s.

    A group at a time, because `batched_nms` tells groups apart by moving their boxes, which rounds them: one box far
    outside and no group suppresses anything any more.
    """
    import torch  # here, because the driver builds filters and must not wait for torch
    from torchvision.ops import box_iou, nms

    corners = torch.tensor(boxes, dtype=torch.float64)
    kept = nms(corners, torch.arange(len(boxes), 0, -1, dtype=torch.float64), threshold)
    is_lost = torch.ones(len(boxes), dtype=torch.bool)
    is_lost[kept] = False
    for some in is_lost.nonzero().flatten().split(TOGETHER):
        overlaps = box_iou(corners[some], corners[kept])
        overlaps[kept > some[:, None]] = 0  # only a better box wins; the first of equals, as max gives it
        highest, winners = overlaps.max(dim=1)
        yield from zip(some.tolist(), kept[winners].tolist(), highest.tolist(), strict=True)
