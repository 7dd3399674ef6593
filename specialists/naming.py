"""What a noun phrase may call the thing that it speaks of, and which labels mean that."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from engine.records import Phrase, Region
from engine.vocabulary import Vocabulary

if TYPE_CHECKING:
    import inflect


def meant(regions: Sequence[Region], phrase: Phrase, text: str, vocabulary: Vocabulary) -> list[Region]:
    """The regions whose label is what the phrase of the text is about, or a synonym of it."""
    for words in phrase.names(text):
        found = [region for region in regions if region.label and _means(words, region.label, vocabulary)]
        if found or vocabulary.knows(words):  # a hot dog is no dog, though there be one
            return found
    return []


def _means(words: str, label: str, vocabulary: Vocabulary) -> bool:
    canonical = vocabulary.canonical(label)
    things = {vocabulary.canonical(word) for word in (words, singular(words))}
    return not things.isdisjoint((canonical, singular(canonical)))  # the label of a ski may be "skis"


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
