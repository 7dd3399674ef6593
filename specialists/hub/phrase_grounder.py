"""What grounders that see have in common: the phrases to find, which of a model's boxes are theirs, and triplets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias

from pydantic import Field

from engine.protocols import Image, Sample
from engine.records import DETAILS, GROUNDED, Decision, Detail, Phrase, Region, Text, Triplet
from engine.vocabulary import Vocabulary
from specialists.hub.detector import Share
from specialists.hub.linking import Found, Linking, Sight
from specialists.hub.specialist import HubSpecialist
from specialists.naming import singular
from specialists.reference import refers

Answer: TypeAlias = Region | Triplet | Decision


class Wanted(NamedTuple):
    """The phrases of a text that are to be found in its image."""

    text: Text
    phrases: Sequence[Phrase]


@dataclass
class PhraseGrounder(HubSpecialist):
    """Finds the noun phrases of texts. A subclass says where its model sees them.

    Which phrases there are a text's parse says; those are left out that name nothing there ("no dog") or leave open
    what ("another dog"). A phrase of a number gets that many boxes at most, one for "a dog"; any other `max_boxes`.

    A triplet's phrase score is that of the surest of its boxes, its box score the lowest of theirs. The expression
    around a phrase ("a dog on a leash") has a triplet of its own with the same regions, if the model is sure enough of
    all of it at the surest box. A new region's box score is the model's.

    Of each text it has looked at it has an opinion: the share of the phrases that it found, with the reason "grounded".
    """

    name: str = "grounder"
    details: Annotated[tuple[Detail, ...], Field(description="granularities of the texts that it looks at")] = DETAILS
    min_phrase: Annotated[Share, Field(description="boxes that it finds less of the phrase in are not reported")] = 0.25
    min_box: Annotated[Share, Field(description="boxes that it is less sure of are not reported")] = 0.3
    iou: Annotated[Share, Field(description="of a phrase's boxes that overlap more, one is reported")] = 0.7
    max_boxes: Annotated[int, Field(ge=1, le=10_000, description="of a phrase without a number at most")] = 20
    same_iou: Annotated[
        float, Field(gt=0, le=1, description="lowest IoU with which a box shows what a region shows")
    ] = 0.7
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    code: ClassVar[tuple[str, ...]] = ("specialists.naming", "specialists.reference")

    def setup(self) -> None:
        singular("cups")  # loads the rules
        super().setup()

    def annotate(self, batch: Sequence[Sample]) -> list[list[Answer]]:
        wanted = [list(self._wanted(sample)) for sample in batch]
        found = self._look([sample.image for sample in batch], wanted)
        return [
            [*Linking(sample, some, self).annotations(), *self._opinions(texts, some)]
            for sample, texts, some in zip(batch, wanted, found, strict=True)
        ]

    def _look(self, images: Sequence[Image], wanted: Sequence[Sequence[Wanted]]) -> list[list[Found]]:
        """What is found of it in each image; nothing of a phrase that can't be asked for. Of a subclass."""
        raise NotImplementedError

    def _wanted(self, sample: Sample) -> Iterator[Wanted]:
        parses = {parse.text_id: parse for parse in sample.standing.parses}
        for text in sample.standing.texts:
            if text.detail in self.details and text.id in parses:
                phrases = [phrase for phrase in parses[text.id].phrases if refers(phrase, text.text)]
                if phrases:
                    yield Wanted(text, phrases)

    def _sights(self, phrase: Phrase, boxes: Any, scores: Any, expression: Any | None, box_scores: Any) -> list[Sight]:
        """The phrase's among `boxes` [n, 4]; the scores, [n] each, are of the phrase, its expression and the boxes."""
        from torchvision.ops import box_area, nms

        good = (scores >= self.min_phrase) & (box_scores >= self.min_box) & (box_area(boxes) > 0)
        good = good.nonzero()[:, 0]
        best = good[nms(boxes[good], scores[good], self.iou)]
        most = self.max_boxes if phrase.count is None else min(phrase.count, self.max_boxes)
        return [
            Sight(
                box=tuple(boxes[n].tolist()),
                phrase=scores[n].item(),
                expression=None if expression is None else expression[n].item(),
                score=box_scores[n].item(),
            )
            for n in best[:most]
        ]

    def _opinions(self, wanted: Sequence[Wanted], found: Sequence[Found]) -> Iterator[Decision]:
        for text, phrases in wanted:
            located = sum(bool(one.sights) for one in found if one.text.id == text.id)
            share = located / len(phrases)
            yield Decision(annotation_id=text.id, action="keep", by=self.name, reason=GROUNDED, value=share)


def is_longer(phrase: Phrase) -> bool:
    """Whether the phrase's expression says more than the phrase."""
    return (phrase.expression_start, phrase.expression_stop) != (phrase.start, phrase.stop)
