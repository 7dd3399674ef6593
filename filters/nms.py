"""Non-maximum suppression: of boxes that show the same thing, the one its source is surest of stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from engine.geometry import iou
from engine.records import Box, Decision, Kind, Record, Region
from filters.region import Fraction, score_of


@dataclass(frozen=True)
class Nms:
    """Rejects regions that overlap a region with a higher score, of the same source, kind and label.

    Never across kinds: text stands on a sign. Never across sources: their scores can't be compared, and whether
    they agree is the merge's business. Of equal scores the earlier region stands; one without score always does.
    """

    name: str = "nms"
    kinds: Annotated[tuple[Kind, ...], Field(description="kinds of region that it looks at")] = ("object",)
    iou: Annotated[Fraction, Field(description="highest IoU with which both boxes stand")] = 0.6
    per_label: Annotated[bool, Field(description="false: boxes of different labels suppress each other too")] = True

    def decide(self, record: Record) -> Iterator[Decision]:
        groups: dict[tuple[str, Kind, str | None], list[tuple[float, Region]]] = {}
        for region in record.standing.regions:
            score = score_of(region)
            if region.kind in self.kinds and score is not None:
                key = (region.source, region.kind, region.label if self.per_label else None)
                groups.setdefault(key, []).append((score, region))
        for scored in groups.values():
            ranked = [region for _, region in sorted(scored, key=lambda pair: pair[0], reverse=True)]
            yield from self._suppress(ranked, record)

    def _suppress(self, ranked: Sequence[Region], record: Record) -> Iterator[Decision]:
        """Decisions about the regions of one group, best first."""
        kept = _nms([region.box for region in ranked], self.iou)
        for lost in sorted(set(range(len(ranked))).difference(kept)):
            overlaps = {winner: iou(ranked[winner].box, ranked[lost].box) for winner in kept if winner < lost}
            winner = max(overlaps, key=lambda rank: overlaps[rank])
            rival = ranked[winner].id
            yield record.reject(ranked[lost], self.name, "duplicate_box", overlaps[winner], self.iou, rival)


def _nms(boxes: Sequence[Box], threshold: float) -> list[int]:
    """Indices of the boxes that are kept, in order, of `boxes` with the best first.

    In float64, where the kernel's IoU is exactly `iou`'s. A group at a time, because `batched_nms` tells groups apart
    by moving their boxes, which rounds them: one box far outside and no group suppresses anything any more.
    """
    if len(boxes) < 2:
        return list(range(len(boxes)))
    import torch  # here, because the driver builds filters and must not wait for torch
    from torchvision.ops import nms

    ranks = torch.arange(len(boxes), 0, -1, dtype=torch.float64)
    kept: list[int] = nms(torch.tensor(boxes, dtype=torch.float64), ranks, threshold).tolist()
    return kept
