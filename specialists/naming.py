"""What a noun phrase may call the thing that it speaks of, and which labels mean that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from engine.records import Phrase, Region
from engine.vocabulary import Vocabulary

if TYPE_CHECKING:
    import inflect


def meant(regions: Sequence[Region], phrase: Phrase, text: str, vocabulary: Vocabulary) -> list[Region]:
    """The regions whose label is what the phrase of the text is about, or a synonym of it."""
    for words in _names(phrase, text):
        found = [region for region in regions if region.label and _means(words, region.label, vocabulary)]
        if found or vocabulary.knows(words):  # a hot dog is no dog, though there be one
            return found
    return []


def _means(words: str, label: str, vocabulary: Vocabulary) -> bool:
    canonical = vocabulary.canonical(label)
    things = {vocabulary.canonical(word) for word in (words, singular(words))}
    return not things.isdisjoint((canonical, singular(canonical)))  # the label of a ski may be "skis"


def _names(phrase: Phrase, text: str) -> Iterator[str]:
    """What the thing may be called, the longest first: "red cell phone", "cell phone", "phone"; as lemmas and as it
    stands in the text, since "people" is a lemma, and that of "glasses" is "glass"."""
    *before, last = text[phrase.start : phrase.stop].casefold().split() or [phrase.head]
    for length in range(len(phrase.modifiers), -1, -1):
        modifiers = phrase.modifiers[len(phrase.modifiers) - length :]
        yield " ".join([*modifiers, phrase.head])
        yield " ".join([*before[len(before) - length :], last])


@cache
def singular(noun: str) -> str:
    """The singular of a noun; what is no plural stays as it is."""
    if noun.endswith(("us", "ss")):  # a bus and a glass: inflect takes them for plurals
        return noun
    return _rules().singular_noun(noun) or noun


@cache
def _rules() -> inflect.engine:
    import inflect

    return inflect.engine()
