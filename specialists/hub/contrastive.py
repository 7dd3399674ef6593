"""The contrastive model, the role of the paper's Florence-1: which text of a region is the closest to what it shows,
and how close texts and region texts are to their pixels. Filters decide by it (`filters.opinion`), and merging may."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from engine.protocols import Image, Sample
from engine.records import HUMAN, Decision, Kind, Region, RegionText, Text
from engine.versions import digest_of_json
from specialists.hub.pixels import crop
from specialists.hub.similarity import ContrastiveModel
from specialists.parser import Parser

if TYPE_CHECKING:  # merging waits for scipy
    from engine.merge.choosing import Candidate, Pixels

SIMILARITY = "similarity"  # the reason of its opinions


class View(NamedTuple):
    """What is looked at, the image or a region of it, with what is said of it and what else could be."""

    pixels: Image
    said: Sequence[Text | RegionText]
    region: Region | None = None
    candidates: Sequence[Candidate] = ()

    @property
    def texts(self) -> list[str]:
        return [one.text for one in (*self.said, *self.candidates)]


@dataclass
class Contrastive(ContrastiveModel):
    """Opinions of all texts that stand, held against the image, and of all region texts, held against their region.

    Where a region's category, or a noun phrase of what is said of it, is closer to it than all that is said, it is
    added as a region text; not where a person has written of the region. An opinion's value is the similarity.
    """

    name: str = "contrastive"
    kinds: Annotated[tuple[Kind, ...], Field(description="kinds of region that it looks at")] = ("object",)
    max_regions: Annotated[int, Field(ge=0, le=100_000, description="of an image, the surest so many")] = 50
    min_side: Annotated[int, Field(ge=1, description="px: regions with a shorter side show too little to say")] = 16
    code: ClassVar[tuple[str, ...]] = ("engine.merge.choosing",)
    _parser: Parser = field(default_factory=Parser, init=False, repr=False, compare=False)

    @property
    def version(self) -> str:
        return digest_of_json([super().version, self._parser.version])

    def setup(self) -> None:
        super().setup()
        self._parser.setup()

    def annotate(self, batch: Sequence[Sample]) -> list[list[RegionText | Decision]]:
        views = [list(self._views(sample)) for sample in batch]
        found = iter(self.similarities([(view.pixels, view.texts) for some in views for view in some]))
        return [
            list(self._answers(sample.record.ids(self.name), [(view, next(found)) for view in some]))
            for sample, some in zip(batch, views, strict=True)
        ]

    def _views(self, sample: Sample) -> Iterator[View]:
        """The image if it has texts, and the regions that have any or a label; the surest first, those without a score
        as if they were sure."""
        standing = sample.standing
        if standing.texts:
            yield View(sample.image, standing.texts)
        said: dict[str, list[RegionText]] = defaultdict(list)
        for text in standing.region_texts:
            said[text.region_id].append(text)
        regions = [region for region in standing.regions if region.kind in self.kinds]
        regions.sort(key=lambda region: 1.0 if region.score is None else region.score, reverse=True)
        views = (view for region in regions for view in self._of_region(sample.image, region, said[region.id]))
        yield from islice(views, self.max_regions)

    def _of_region(self, image: Image, region: Region, said: Sequence[RegionText]) -> Iterator[View]:
        from engine.merge.choosing import candidates_of

        is_named = bool(region.label and region.label.strip())
        if (said or is_named) and min(crop(image, region.box).shape[:2]) >= self.min_side:
            found = candidates_of(region, said, self._parser.phrases_in)
            candidates = () if any(text.source == HUMAN for text in said) else tuple(found)
            yield View(crop(image, region.box, self.margin), said, region, candidates)

    def _answers(
        self, ids: Iterator[str], judged: Sequence[tuple[View, Mapping[str, float]]]
    ) -> Iterator[RegionText | Decision]:
        for view, values in judged:
            made = list(self._closest(view, values, ids))
            yield from made
            for one in (*view.said, *made):
                if one.text in values:
                    yield Decision(
                        annotation_id=one.id, action="keep", by=self.name, reason=SIMILARITY, value=values[one.text]
                    )

    def _closest(self, view: View, values: Mapping[str, float], ids: Iterator[str]) -> Iterator[RegionText]:
        """The closest candidate, of equals the first, if nobody has said it yet."""
        known = [candidate for candidate in view.candidates if candidate.text in values]
        best = max(known, key=lambda candidate: values[candidate.text], default=None)
        if view.region and best and best.kind != "description":
            origin = (view.region.id,) if best.kind == "category" else (view.region.id, best.of)
            yield RegionText(
                id=next(ids), source=self.name, derived_from=origin, region_id=view.region.id, text=best.text
            )


@dataclass
class ContrastiveChooser(ContrastiveModel):
    """Chooses a region's text when rounds are merged, by similarity. Where a region has no pixels all are equal."""

    name: str = "contrastive"

    @property
    def where(self) -> str:
        return "merge.chooser"

    def choose(self, region: Region, candidates: Sequence[Candidate], pixels: Pixels) -> list[float]:
        shown = crop(np.asarray(pixels(), dtype=np.uint8), region.box, self.margin)
        if not shown.size:
            return [0.0] * len(candidates)
        (values,) = self.similarities([(shown, [candidate.text for candidate in candidates])])
        return [values.get(candidate.text, -1.0) for candidate in candidates]
