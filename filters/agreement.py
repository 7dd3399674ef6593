"""Agreement of detectors that know nothing of each other: what one of them alone has found, it may have made up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from engine.geometry import iou
from engine.records import AnyAnnotation, Decision, Kind, Record, Region
from filters.region import Fraction


@dataclass(frozen=True)
class Agreement:
    """Rejects regions of `sources` that nobody else confirms, unless their own source is sure enough of them.

    A region is confirmed by one of the same kind and label in the same place: from any source, a person's too, but of
    another family, as models that were trained together make the same mistakes. What derives from the region, or the
    region from it, confirms nothing. Nor does a triplet: grounders look for what stands by then.

    `sources` are the detectors that were run. That one of them found nothing in an image is evidence, so it counts
    against what the others found. With fewer than two families there is nobody to agree, and nothing falls.
    """

    name: str = "agreement"
    sources: Annotated[tuple[str, ...], Field(description="source keys of the detectors that are to agree")] = ()
    kinds: Annotated[tuple[Kind, ...], Field(description="kinds of region that it looks at")] = ("object",)
    iou: Annotated[float, Field(gt=0, le=1, description="lowest IoU with which two boxes are the same")] = 0.5
    sure: Annotated[
        dict[str, Fraction],
        Field(description="source key -> lowest score that stands unconfirmed; of a source not listed none does"),
    ] = field(default_factory=dict)
    families: Annotated[
        dict[str, str], Field(description="source key -> its family of models; a source not listed is its own")
    ] = field(default_factory=dict)

    def decide(self, record: Record) -> Iterator[Decision]:
        if len({self._family(source) for source in self.sources}) < 2:
            return
        for region in record.standing.regions:
            if region.kind in self.kinds and region.source in self.sources and not self._is_sure(region):
                overlap = max((iou(region.box, other.box) for other in self._others(region, record)), default=0.0)
                if overlap < self.iou:
                    yield record.reject(region, self.name, "unconfirmed", overlap, self.iou)

    def _is_sure(self, region: Region) -> bool:
        lowest = self.sure.get(region.source)
        return lowest is not None and region.score is not None and region.score >= lowest

    def _others(self, region: Region, record: Record) -> Iterator[Region]:
        """What shows the same, wherever it is, and comes from somebody else."""
        for other in record.standing.regions:
            if (other.kind, other.label) == (region.kind, region.label) and self._is_independent(other, region, record):
                yield other

    def _is_independent(self, one: AnyAnnotation, region: Region, record: Record) -> bool:
        if self._family(one.source) == self._family(region.source):
            return False
        return region.id not in _ancestors(one, record) and one.id not in _ancestors(region, record)

    def _family(self, source: str) -> str:
        return self.families.get(source, source)


def _ancestors(annotation: AnyAnnotation, record: Record) -> set[str]:
    """Ids of all that an annotation was made from, and these from."""
    found: set[str] = set()
    waiting = list(annotation.derived_from)
    while waiting:
        id_ = waiting.pop()
        if id_ not in found:
            found.add(id_)
            made_from = record.by_id.get(id_)
            waiting += made_from.derived_from if made_from else ()
    return found
