"""Filters that look at triplets: a phrase of a text, how sure its source is of it, and what other phrases there are.

What isn't known decides nothing. A triplet whose text or whose regions all fell is left to the cascade.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from pydantic import Field

from engine.geometry import iou
from engine.records import Box, Decision, Record, Text, Triplet
from filters.region import Fraction

Words = tuple[str, ...]


def _words_in(lines: str) -> Words:
    return tuple(lines.split())


# What Florence-2's own post-processor strikes out (`processing_florence2.py`), word for word.
MICROSOFT: Words = (
    *_words_in("""
        it I me mine you your yours he him his she her hers they them their theirs one oneself we us our ours its myself
        yourself himself herself itself ourselves yourselves themselves this that these those who whom whose which what
        all another any anybody anyone anything each everybody everyone everything few many nobody none several some
        somebody someone something image images the a an lots
    """),
    *("each other", "one another", "the image", "a group", "other objects", "a set"),
)
# Nouns of which no part of an image is an instance. The first three are GrIT's (Kosmos-2, 2.1), the rest ours: what the
# image is and how it was taken, its time and air, and words that only lead to another noun.
ABSTRACT: Words = _words_in("""
    time love freedom
    background foreground view scene shot close-up setting atmosphere perspective angle
    day daytime night nighttime morning afternoon evening season weather
    way kind sort type variety amount part example
    action activity event fun happiness beauty idea
""")
# Words that name nothing by themselves: of a phrase of these alone nobody knows what it shows. Places are among them,
# since "a red top" is clothing and "the top left" is not, pictures, since "a framed photo" hangs on a wall, and what
# a compound makes a thing: "a parking lot", "a phone number".
STOP_WORDS: Words = _words_in("""
    left right side top bottom middle center centre front back corner edge end distance
    picture photo photograph number lot
    it i me mine my you your yours he him his she her hers they them their theirs we us our ours its one ones
    this that these those who whom whose which what there here all another any each few many much more most
    several some such other others same own both either neither every no none not only else various
    a an the of in on at by to from with and or two three four
""")
ARTICLES = ("a", "an", "the")
WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")  # with its apostrophes and hyphens


@dataclass(frozen=True)
class Phrases:
    """Rejects triplets whose span is no phrase of their text, or whose phrase names nothing that an image could show.

    Case and punctuation don't count. A phrase falls if it is on the blacklist, as it is or without its article ("an
    image" for "image"; but "the group" is not "a group"), if the noun that it is about is among `nouns`, or if each of
    its words is among `empty_words`. That noun is its head, where a parse has the phrase or an expression with that
    span; else its last word, with or without its "s".
    """

    name: str = "phrases"
    blacklist: Annotated[Words, Field(description="phrases that never stand")] = MICROSOFT
    nouns: Annotated[Words, Field(description="nouns of which no phrase stands, whatever describes them")] = ABSTRACT
    empty_words: Annotated[Words, Field(description="words of which alone no phrase stands")] = STOP_WORDS

    def decide(self, record: Record) -> Iterator[Decision]:
        heads = _heads(record)
        for triplet in record.standing.triplets:
            if triplet.text_id in record.fallen:
                continue
            words = _words(record, triplet)
            if not words:
                yield record.reject(triplet, self.name, "span_not_in_text")
            elif self.is_listed(words, heads.get((triplet.text_id, *_span(triplet)))):
                yield record.reject(triplet, self.name, "blacklisted_phrase")

    def is_listed(self, words: Sequence[str], head: str | None) -> bool:
        """Whether a phrase of these words, casefolded, about this noun names nothing."""
        bare = words[1:] if words[0] in ARTICLES else words
        if not {" ".join(words), " ".join(bare)}.isdisjoint(self._phrases) or self._empty.issuperset(words):
            return True
        nouns = (head,) if head else (words[-1], words[-1].removesuffix("s"))
        return not self._nouns.isdisjoint(nouns)

    @cached_property
    def _phrases(self) -> frozenset[str]:
        return frozenset(" ".join(phrase.casefold().split()) for phrase in self.blacklist)

    @cached_property
    def _nouns(self) -> frozenset[str]:
        return frozenset(map(str.casefold, self.nouns))

    @cached_property
    def _empty(self) -> frozenset[str]:
        return frozenset(map(str.casefold, self.empty_words))


@dataclass(frozen=True)
class PhraseScore:
    """Rejects triplets that their source is too unsure of: of the phrase, or of the boxes. Both must pass."""

    name: str = "phrase_score"
    min_phrase: Annotated[
        dict[str, Fraction],
        Field(description="source key -> lowest phrase score that stands; whatever is not listed stands"),
    ] = field(default_factory=dict)
    min_box: Annotated[
        dict[str, Fraction],
        Field(description="source key -> lowest box score that stands; whatever is not listed stands"),
    ] = field(default_factory=dict)

    def decide(self, record: Record) -> Iterator[Decision]:
        for triplet in record.standing.triplets:
            phrase, lowest_phrase = triplet.scores.phrase, self.min_phrase.get(triplet.source)
            box, lowest_box = triplet.scores.box, self.min_box.get(triplet.source)
            if phrase is not None and lowest_phrase is not None and phrase < lowest_phrase:
                yield record.reject(triplet, self.name, "low_phrase_score", phrase, lowest_phrase)
            elif box is not None and lowest_box is not None and box < lowest_box:
                yield record.reject(triplet, self.name, "low_box_score", box, lowest_box)


@dataclass(frozen=True)
class Contained:
    """Rejects a phrase inside a longer one with the same boxes, and one that repeats another with the same boxes.

    "dog" in "dog house" stands if its boxes are others. Boxes are the same if each has its partner in the other phrase,
    best pairs first, and none is left over. The longest phrase is kept first, of equal spans the earlier; only what is
    kept suppresses. A span that cuts a word of the longer phrase is not inside it: "cat" in "cattle". A triplet without
    a region that stands is not compared.
    """

    name: str = "contained"
    iou: Annotated[float, Field(gt=0, le=1, description="lowest IoU with which two boxes are the same")] = 0.9

    def decide(self, record: Record) -> Iterator[Decision]:
        stands = record.standing
        texts = {text.id: text.text for text in stands.texts}
        regions = {region.id: region.box for region in stands.regions}
        kept: dict[str, list[tuple[Triplet, list[Box]]]] = {id_: [] for id_ in texts}
        for triplet in sorted(stands.triplets, key=lambda triplet: triplet.start - triplet.stop):
            boxes = [regions[id_] for id_ in triplet.region_ids if id_ in regions]
            if not boxes or triplet.text_id not in texts:
                continue
            rivals, text = kept[triplet.text_id], texts[triplet.text_id]
            overlaps = ((_agreement(boxes, theirs), rival) for rival, theirs in rivals if _is_in(triplet, rival, text))
            lowest, rival = next(((value, rival) for value, rival in overlaps if value >= self.iou), (0.0, None))
            if rival is None:
                rivals.append((triplet, boxes))
                continue
            reason = "repeats_phrase" if _span(triplet) == _span(rival) else "inside_longer_phrase"
            yield record.reject(triplet, self.name, reason, lowest, self.iou, rival.id)


def _heads(record: Record) -> dict[tuple[str, int, int], str]:
    """The nouns that phrases and expressions are about, by text and span; of a span that is both the phrase's."""
    phrases = [(parse.text_id, phrase) for parse in record.standing.parses for phrase in parse.phrases]
    heads = {(id_, p.expression_start, p.expression_stop): p.head.casefold() for id_, p in phrases}
    return heads | {(id_, p.start, p.stop): p.head.casefold() for id_, p in phrases}


def _words(record: Record, triplet: Triplet) -> list[str]:
    """The words of a triplet's phrase, casefolded; none if its text isn't there or ends before the phrase does."""
    text = record.by_id.get(triplet.text_id)
    if not isinstance(text, Text) or triplet.stop > len(text.text):
        return []
    return WORD.findall(text.text[triplet.start : triplet.stop].casefold())


def _span(triplet: Triplet) -> tuple[int, int]:
    return triplet.start, triplet.stop


def _is_in(triplet: Triplet, rival: Triplet, text: str) -> bool:
    """Whether a triplet's span is its rival's, or lies in it and cuts none of its words."""
    if _span(triplet) == _span(rival):
        return True
    return (
        rival.start <= triplet.start
        and triplet.stop <= rival.stop
        and not any(_cuts(text, at) for at in _span(triplet))
    )


def _cuts(text: str, at: int) -> bool:
    return 0 < at < len(text) and _in_word(text[at - 1]) and _in_word(text[at])


def _in_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def _agreement(some: Sequence[Box], others: Sequence[Box]) -> float:
    """The lowest IoU of the boxes with their partners, one to one, best pairs first; 0 if one is left over."""
    if len(some) != len(others):
        return 0.0
    overlaps = [(1.0 if a == b else iou(a, b), i, j) for i, a in enumerate(some) for j, b in enumerate(others)]
    lowest, left, right = 1.0, set(range(len(some))), set(range(len(others)))
    for overlap, i, j in sorted(overlaps, key=lambda pair: pair[0], reverse=True):
        if i in left and j in right:
            left.remove(i)
            right.remove(j)
            lowest = overlap
    return lowest
