"""Filters that look at the texts of an image: their length, characters, repetition, and what their parse says.

What isn't known decides nothing: a text without a parse stands before the filters that ask for one.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, NonNegativeInt

from engine.records import DETAILS, Decision, Detail, Parse, Record, Text

Fraction = Annotated[float, Field(ge=0, le=1)]
Limits = dict[Detail, NonNegativeInt]


@dataclass(frozen=True)
class Length:
    """Rejects texts with too few or too many words for their granularity."""

    name: str = "length"
    min_words: Annotated[Limits, Field(description="granularity -> fewest words that stand")] = field(
        default_factory=lambda: {"brief": 3, "detailed": 8, "more_detailed": 15}
    )
    # FLD-5B's texts have 8, 32 and 71 tokens on average; four times that is another kind of text.
    max_words: Annotated[Limits, Field(description="granularity -> most words that stand")] = field(
        default_factory=lambda: {"brief": 32, "detailed": 128, "more_detailed": 284}
    )

    def decide(self, record: Record) -> Iterator[Decision]:
        for text in record.standing.texts:
            words = len(text.text.split())
            fewest, most = self.min_words.get(text.detail, 0), self.max_words.get(text.detail, words)
            if words < fewest:
                yield record.reject(text, self.name, "too_short", words, fewest)
            elif words > most:
                yield record.reject(text, self.name, "too_long", words, most)


@dataclass(frozen=True)
class Characters:
    """Rejects texts of too few letters: file names, codes, rows of symbols."""

    name: str = "characters"
    min_letters: Annotated[Fraction, Field(description="smallest share of letters and spaces that stands")] = 0.8

    def decide(self, record: Record) -> Iterator[Decision]:
        for text in record.standing.texts:
            share = letters(text.text)
            if share < self.min_letters:
                yield record.reject(text, self.name, "too_few_letters", share, self.min_letters)


@dataclass(frozen=True)
class Repetition:
    """Rejects texts that go round in circles, as language models do when they don't find an end."""

    name: str = "repetition"
    size: Annotated[int, Field(ge=1, description="words that are looked at together")] = 3
    max_share: Annotated[Fraction, Field(description="largest share of repeated runs of words that stands")] = 0.3

    def decide(self, record: Record) -> Iterator[Decision]:
        for text in record.standing.texts:
            share = repetition(text.text, self.size)
            if share > self.max_share:
                yield record.reject(text, self.name, "repetitive", share, self.max_share)


@dataclass(frozen=True)
class RepeatedText:
    """Rejects a text that says what an earlier one of its image says in the same words."""

    name: str = "repeated_text"
    max_similarity: Annotated[
        Fraction, Field(description="largest Jaccard similarity of their words, counted, with which both stand")
    ] = 0.9

    def decide(self, record: Record) -> Iterator[Decision]:
        kept: list[tuple[Text, Counter[str]]] = []
        for text in record.standing.texts:
            words = Counter(_words(text.text))
            similarity, rival = max(
                ((_jaccard(words, other), earlier.id) for earlier, other in kept), default=(0.0, ""), key=lambda p: p[0]
            )
            if similarity > self.max_similarity:
                yield record.reject(text, self.name, "repeats_text", similarity, self.max_similarity, rival)
            else:
                kept.append((text, words))


@dataclass(frozen=True)
class Objects:
    """Rejects texts that name too many objects: lists of tags, and noise (Florence-2, section 4.2)."""

    name: str = "objects"
    max_objects: Annotated[Limits, Field(description="granularity -> most objects that stand")] = field(
        default_factory=lambda: {"brief": 10, "detailed": 35, "more_detailed": 70}
    )

    def decide(self, record: Record) -> Iterator[Decision]:
        for text, parse in _parsed(record):
            most = self.max_objects.get(text.detail)
            if most is not None and parse.objects > most:
                yield record.reject(text, self.name, "too_many_objects", parse.objects, most)


@dataclass(frozen=True)
class Complexity:
    """Rejects texts whose objects stand in too few relations (Florence-2, section 4.2, after DiHT).

    The last text of a granularity that stands never falls for it: a plain text is better than none.
    """

    name: str = "complexity"
    min_objects: Annotated[float, Field(ge=0, description="lowest mean degree of the objects that stands")] = 1.0

    def decide(self, record: Record) -> Iterator[Decision]:
        parsed = list(_parsed(record))
        for detail in DETAILS:
            left = sum(text.detail == detail for text in record.standing.texts)
            found = [(parse.object_complexity, text) for text, parse in parsed if text.detail == detail]
            # The plainest first, so that the best is left.
            for value, text in sorted(found, key=lambda pair: pair[0]):
                if value < self.min_objects and left > 1:
                    left -= 1
                    yield record.reject(text, self.name, "too_simple", value, self.min_objects)


def letters(text: str) -> float:
    """The share of letters, the marks on them, and spaces among the characters; 0 for an empty text."""
    good = sum(unicodedata.category(character)[0] in "LM" or character.isspace() for character in text)
    return good / len(text) if text else 0.0


def repetition(text: str, size: int) -> float:
    """The share of runs of `size` words that the text has said before."""
    words = _words(text)
    runs = [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text.casefold()).split()


def _jaccard(one: Counter[str], other: Counter[str]) -> float:
    union = (one | other).total()
    return (one & other).total() / union if union else 1.0


def _parsed(record: Record) -> Iterator[tuple[Text, Parse]]:
    """The texts that stand, each with its parse, where it has one."""
    parses = {parse.text_id: parse for parse in record.standing.parses}
    return ((text, parses[text.id]) for text in record.standing.texts if text.id in parses)
