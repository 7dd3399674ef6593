"""Texts held against the image: how much of what a text names was found there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from engine.records import GROUNDED, Decision, Detail, Phrase, Record, Text, Triplet
from filters.phrase import WORD, Phrases
from filters.region import Fraction

NAMING = Phrases()


@dataclass(frozen=True)
class Grounded:
    """Rejects texts of whose noun phrases too small a share was found in the image: grounding recall.

    Phrases that name nothing an image could show don't count. One is found if a triplet of `by` stands for it, in its
    own words or in the last of them ("dog" of "a brown dog"), or for the whole expression around it; so the filters of
    triplets come before this one. What a grounder doesn't ask for ("no dog") counts as not found.

    Judged is a text that has a parse and that one of `by` has looked at: it says so by an opinion of the text, or has
    given a triplet of it, be it one that fell. The last text of a granularity falls like any other: nothing is better
    than a text about something else.
    """

    name: str = "grounded"
    by: Annotated[tuple[str, ...], Field(description="source keys of the grounders")] = ("grounder",)
    # data-juicer's: a text with less was written for another image. What a good grounder misses is no reason to fall.
    min_recall: Annotated[
        dict[Detail, Fraction],
        Field(description="granularity -> smallest share of phrases found that stands; what is not listed stands"),
    ] = field(default_factory=lambda: {"brief": 0.1, "detailed": 0.1, "more_detailed": 0.1})

    def decide(self, record: Record) -> Iterator[Decision]:
        seen = self._seen(record)
        parses = {parse.text_id: parse for parse in record.standing.parses}
        for text in record.standing.texts:
            lowest = self.min_recall.get(text.detail)
            if lowest is None or text.id not in seen or text.id not in parses:
                continue
            phrases = [phrase for phrase in parses[text.id].phrases if _is_groundable(phrase, text)]
            if not phrases:
                continue
            triplets = [triplet for triplet in self._located(record) if triplet.text_id == text.id]
            recall = sum(_is_found(phrase, triplets) for phrase in phrases) / len(phrases)
            if recall < lowest:
                yield record.reject(text, self.name, "low_grounding_recall", recall, lowest)

    def _located(self, record: Record) -> Iterator[Triplet]:
        """The grounders' triplets that stand, and a region of them does."""
        for triplet in record.standing.triplets:
            if triplet.source in self.by and not record.fallen.issuperset(triplet.region_ids):
                yield triplet

    def _seen(self, record: Record) -> set[str]:
        """Ids of the texts that a grounder has looked at."""
        opinions = {d.annotation_id for d in record.decisions if d.by in self.by and d.reason == GROUNDED}
        return opinions | {triplet.text_id for triplet in record.triplets if triplet.source in self.by}


def _is_groundable(phrase: Phrase, text: Text) -> bool:
    words = WORD.findall(text.text[phrase.start : phrase.stop].casefold())
    return bool(words) and not NAMING.is_listed(words, phrase.head.casefold())


def _is_found(phrase: Phrase, triplets: Sequence[Triplet]) -> bool:
    expression = phrase.expression_start, phrase.expression_stop
    return any(
        (triplet.start, triplet.stop) == expression or (phrase.start <= triplet.start and triplet.stop == phrase.stop)
        for triplet in triplets
    )
