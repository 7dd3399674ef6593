"""Filters that look at one region at a time: its score, shape, place and label.

What isn't known decides nothing: a region without score, or of an image without size, stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from engine.geometry import area, clip, inside_fraction
from engine.records import KINDS, Decision, Kind, Record, Region
from engine.vocabulary import Vocabulary

Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Score:
    """Rejects regions that their source is less sure of than its threshold for their kind."""

    name: str = "score"
    thresholds: Annotated[
        dict[str, dict[Kind, Fraction]],
        Field(description="source key -> kind -> lowest score that stands; whatever is not listed stands"),
    ] = field(default_factory=dict)

    def decide(self, record: Record) -> Iterator[Decision]:
        for region in record.standing.regions:
            score, threshold = region.score, self.thresholds.get(region.source, {}).get(region.kind)
            if score is not None and threshold is not None and score < threshold:
                yield record.reject(region, self.name, "low_score", score, threshold)


@dataclass(frozen=True)
class Size:
    """Rejects regions too small to show anything, or larger than a share of the image."""

    name: str = "size"
    kinds: Annotated[tuple[Kind, ...], Field(description="kinds of region that it looks at")] = KINDS
    min_side: Annotated[float, Field(ge=0, description="shortest side that stands, in pixels")] = 4
    # Florence-2 sees the image at 768 x 768: there 0.0001 of it is 8 x 8 pixels.
    min_area_fraction: Annotated[Fraction, Field(description="smallest share of the image's area that stands")] = 0.0001
    max_area_fraction: Annotated[Fraction, Field(description="largest share that stands; 1: the whole image may")] = 1.0

    def decide(self, record: Record) -> Iterator[Decision]:
        for region in record.standing.regions:
            if region.kind in self.kinds:
                yield from self._faults(region, record)

    def _faults(self, region: Region, record: Record) -> Iterable[Decision]:
        """The one fault of what the image shows of the region, if any; of the whole region if the image has no size."""
        width, height = record.item.width, record.item.height
        box = clip(region.box, width, height) if width and height else region.box
        side = min(box[2] - box[0], box[3] - box[1])
        if side < self.min_side:
            return [record.reject(region, self.name, "too_small", side, self.min_side)]
        if not (width and height):
            return []
        fraction = area(box) / (width * height)
        if fraction < self.min_area_fraction:
            return [record.reject(region, self.name, "too_small", fraction, self.min_area_fraction)]
        if fraction > self.max_area_fraction:
            return [record.reject(region, self.name, "too_large", fraction, self.max_area_fraction)]
        return []


@dataclass(frozen=True)
class Aspect:
    """Rejects regions that are too long for their width, lying or standing."""

    name: str = "aspect"
    # A ski, 1.8 m by 9 cm, has a ratio of 20. A line of text may be as long as it likes.
    max_ratio: Annotated[
        dict[Kind, Annotated[float, Field(ge=1)]],
        Field(description="kind -> largest ratio of the longer to the shorter side; a kind not listed has no limit"),
    ] = field(default_factory=lambda: {"object": 20.0, "proposal": 20.0})

    def decide(self, record: Record) -> Iterator[Decision]:
        for region in record.standing.regions:
            x0, y0, x1, y1 = region.box
            shorter, longer = sorted((x1 - x0, y1 - y0))
            limit = self.max_ratio.get(region.kind)
            # A box without width or height has no ratio; that it is too small, Size says.
            if limit is not None and shorter > 0 and longer / shorter > limit:
                yield record.reject(region, self.name, "extreme_aspect", longer / shorter, limit)


@dataclass(frozen=True)
class Outside:
    """Rejects regions that lie, for the most part, outside the image."""

    name: str = "outside"
    min_inside: Annotated[Fraction, Field(description="smallest share of the box inside the image that stands")] = 0.5

    def decide(self, record: Record) -> Iterator[Decision]:
        width, height = record.item.width, record.item.height
        if width is None or height is None:
            return
        for region in record.standing.regions:
            inside = inside_fraction(region.box, width, height)
            if inside < self.min_inside:
                yield record.reject(region, self.name, "outside_image", inside, self.min_inside)


@dataclass(frozen=True)
class Labels:
    """Rejects regions whose class is on the blacklist, or among those that the vocabulary ignores."""

    name: str = "labels"
    blacklist: Annotated[tuple[str, ...], Field(description="words of which no region stands, synonyms included")] = ()
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    def decide(self, record: Record) -> Iterator[Decision]:
        canonical = self.vocabulary.canonical
        blacklist = {canonical(word) for word in self.blacklist}
        ignored = {canonical(word) for word in self.vocabulary.ignore}
        for region in record.standing.regions:
            word = region.label or region.raw_label
            if word is None:
                continue
            if canonical(word) in blacklist:
                yield record.reject(region, self.name, "blacklisted_label")
            elif canonical(word) in ignored:
                yield record.reject(region, self.name, "ignored_label")
