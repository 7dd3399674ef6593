"""What phrases name, as regions: what stands in the place already, or else a new proposal, one for all phrases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from engine.geometry import iou
from engine.protocols import Sample
from engine.records import Box, Phrase, Region, Scores, Text, Triplet
from specialists.naming import meant

if TYPE_CHECKING:
    from specialists.hub.phrase_grounder import PhraseGrounder


class Sight(NamedTuple):
    """Where a phrase was seen, with the model's scores of the phrase, of its expression (None if that is no longer than
    the phrase, or can't be scored) and of the box."""

    box: Box
    phrase: float
    expression: float | None
    score: float


class Found(NamedTuple):
    """A phrase of a text, and where it was seen, the surest of the phrase first."""

    text: Text
    phrase: Phrase
    sights: Sequence[Sight]


@dataclass
class Linking:
    """What was found in an image, as regions and triplets."""

    sample: Sample
    found: Sequence[Found]
    settings: PhraseGrounder

    def annotations(self) -> Iterator[Region | Triplet]:
        ids = self.sample.record.ids(self.settings.name)
        new = [self._region(seen, next(ids)) for seen in self._things]
        regions = {id(sight): region.id for seen, region in zip(self._things, new, strict=True) for _, sight in seen}
        regions |= {id(sight): region.id for sight, region in self._standing}
        yield from new
        for one in self.found:
            if one.sights:
                yield from self._triplets(one, tuple(dict.fromkeys(regions[id(sight)] for sight in one.sights)), ids)

    @cached_property
    def _standing(self) -> list[tuple[Sight, Region]]:
        """What was seen where a region stands."""
        places = [
            (sight, self._nearest(sight.box, candidates))
            for one in self.found
            for candidates in [self._candidates(one)]
            for sight in one.sights
        ]
        return [(sight, region) for sight, region in places if region]

    def _candidates(self, found: Found) -> tuple[list[Region], list[Region]]:
        """The regions that may show what a phrase names: the objects that are called so, and proposals. What is called
        otherwise may be another thing: a shirt fills the box of who wears it."""
        regions = [region for region in self.sample.standing.regions if not region.crowd]
        objects = [region for region in regions if region.kind == "object"]
        named = meant(objects, found.phrase, found.text.text, self.settings.vocabulary)
        return named, [region for region in regions if region.kind == "proposal"]

    def _nearest(self, box: Box, candidates: Iterable[Sequence[Region]]) -> Region | None:
        for regions in candidates:
            overlaps = [iou(box, region.box) for region in regions]
            if overlaps and max(overlaps) >= self.settings.same_iou:
                return regions[overlaps.index(max(overlaps))]
        return None

    @cached_property
    def _things(self) -> list[list[tuple[Text, Sight]]]:
        """What was seen where nothing stands, by the thing; of each and of all the surest box first."""
        known = {id(sight) for sight, _ in self._standing}
        new = [(one.text, sight) for one in self.found for sight in one.sights if id(sight) not in known]
        things: list[list[tuple[Text, Sight]]] = []
        for text, sight in sorted(new, key=lambda pair: -pair[1].score):
            overlaps = [iou(sight.box, thing[0][1].box) for thing in things]
            if overlaps and max(overlaps) >= self.settings.same_iou:
                things[overlaps.index(max(overlaps))].append((text, sight))
            else:
                things.append([(text, sight)])
        return things

    def _region(self, seen: Sequence[tuple[Text, Sight]], id_: str) -> Region:
        surest = seen[0][1]
        return Region(
            id=id_,
            source=self.settings.name,
            derived_from=tuple(dict.fromkeys(text.id for text, _ in seen)),
            kind="proposal",
            box=surest.box,
            scores=Scores(box=surest.score),
        )

    def _triplets(self, found: Found, region_ids: tuple[str, ...], ids: Iterator[str]) -> Iterator[Triplet]:
        phrase, best = found.phrase, found.sights[0]
        spans = [(phrase.start, phrase.stop, best.phrase)]
        if best.expression is not None and best.expression >= self.settings.min_phrase:
            spans.append((phrase.expression_start, phrase.expression_stop, best.expression))
        for start, stop, score in spans:
            yield Triplet(
                id=next(ids),
                source=self.settings.name,
                derived_from=(found.text.id,),
                text_id=found.text.id,
                start=start,
                stop=stop,
                region_ids=region_ids,
                scores=Scores(phrase=score, box=min(sight.score for sight in found.sights)),
            )
