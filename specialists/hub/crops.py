"""What is cut out of an image: the regions that a model is to see by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.geometry import area, clip
from engine.protocols import Image, Sample
from engine.records import Region
from specialists.hub.pixels import crop


@dataclass(frozen=True)
class Crops:
    """The crops of the largest objects of an image. `margin` is a share of the box's sides, `min_side` in px."""

    most: int
    margin: float
    min_side: int

    def of(self, sample: Sample) -> list[tuple[Region, Image]]:
        """The standing regions with their pixels, the largest first."""
        cut = [(region, crop(sample.image, region.box, self.margin)) for region in self._chosen(sample)]
        return [(region, pixels) for region, pixels in cut if pixels.size]

    def _chosen(self, sample: Sample) -> Sequence[Region]:
        height, width = sample.image.shape[:2]
        inside = [(clip(r.box, width, height), r) for r in sample.standing.regions if r.kind == "object"]
        large = [(area(box), r) for box, r in inside if min(box[2] - box[0], box[3] - box[1]) >= self.min_side]
        return [region for _, region in sorted(large, key=lambda pair: -pair[0])[: self.most]]
