"""What a text names is held against the annotations that it was made of: what none of them speaks of was made up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from pydantic import Field, NonNegativeInt

from engine.records import AnyAnnotation, Decision, Phrase, Record, Region, RegionText, Text
from engine.vocabulary import Vocabulary
from filters.phrase import ABSTRACT, MICROSOFT, STOP_WORDS, WORD, Words

# Beside the words of the filter `phrases`: how many there are, how large and of what look, what stands for any thing,
# and writing, of which it is the words that count.
NAMELESS: Words = tuple(
    WORD.findall("""
    group pair couple set row column series stack pile bunch cluster collection array piece bit handful rest
    half third quarter fifth tenth dozen five six seven eight nine ten eleven twelve hundred thousand
    width height length size area portion section space surface position place direction middle upper lower
    colour color shade tone pattern shape style look appearance detail contrast presence arrangement
    object item thing stuff element subject figure content nothing frame viewer camera
    text word lettering letter writing inscription title line digit
    """)
)
IRREGULAR = {
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "mice": "mouse",
    "people": "person",
    "teeth": "tooth",
}
PLURALS = (("men", "man"), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""))
NO_PLURALS = ("ss", "us")  # a glass, a bus
LONGEST_NAME = 4  # words


@dataclass(frozen=True)
class Supported:
    """Rejects texts that name things which none of the annotations speaks of that they derive from.

    It looks at the texts of `sources`, which must be such as know nothing else: who has seen the image may name more.
    A thing is named by the head of a noun phrase, and spoken of by a label, a word of a text or region text, or what
    was read, that stands, if it is the same word, in singular or plural, or one of the same class. Each is counted
    once. A text without a parse stands, and so does one that derives from nothing.
    """

    name: str = "supported"
    sources: Annotated[tuple[str, ...], Field(description="whose texts it looks at")] = ("aggregator",)
    max_unsupported: Annotated[
        NonNegativeInt, Field(description="most things without support with which one stands")
    ] = 0
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    def decide(self, record: Record) -> Iterator[Decision]:
        parses = {parse.text_id: parse for parse in record.standing.parses}
        stands = record.standing.by_id
        for text in record.standing.texts:
            inputs = [stands[id_] for id_ in text.derived_from if id_ in stands]
            if text.source in self.sources and text.id in parses and text.derived_from:
                known = self._known(inputs, record)
                made_up = {
                    self.vocabulary.canonical(phrase.head)
                    for phrase in parses[text.id].phrases
                    if not self._is_supported(phrase, text.text, known)
                }
                if len(made_up) > self.max_unsupported:
                    yield record.reject(text, self.name, "unsupported_objects", len(made_up), self.max_unsupported)

    def _is_supported(self, phrase: Phrase, text: str, known: frozenset[str]) -> bool:
        """Whether a phrase names nothing, or something known."""
        words = _words(text[phrase.start : phrase.stop])
        heads = {phrase.head, *words[-1:]}
        if not heads or not self._nameless.isdisjoint(heads):
            return True
        # "two geese walk": what parsers take for a compound of a walk is a verb behind its subject.
        subject = [word for word in words[-2:-1] if len(forms(word)) > 1]
        names = {name for name in phrase.names(text) if self.vocabulary.knows(name)}
        meant = {form for word in (*heads, *subject) for form in forms(word)}
        return not known.isdisjoint(meant | {self.vocabulary.canonical(name) for name in names | meant})

    def _known(self, inputs: Iterable[AnyAnnotation], record: Record) -> frozenset[str]:
        """The words that annotations have, in singular and plural, and the classes that these are names of."""
        said = [words for annotation in inputs for words in _said(annotation)]
        ids = {annotation.id for annotation in inputs}
        said += [phrase.head for parse in record.parses if parse.text_id in ids for phrase in parse.phrases]
        known: set[str] = set()
        for sequence in map(_words, said):
            known.update(form for word in sequence for form in forms(word))
            known.update(map(self.vocabulary.canonical, filter(self.vocabulary.knows, _names_in(sequence))))
        return frozenset(known)

    @cached_property
    def _nameless(self) -> frozenset[str]:
        return frozenset(map(str.casefold, (*NAMELESS, *ABSTRACT, *STOP_WORDS, *MICROSOFT)))


def forms(word: str) -> frozenset[str]:
    """A word, and what it may be the plural of; there are words among these that don't exist."""
    if word.endswith(NO_PLURALS):
        return frozenset({word})
    singular = {word.removesuffix(ending) + stem for ending, stem in PLURALS if word.endswith(ending)}
    return frozenset({word, *singular, IRREGULAR.get(word, word)} - {""})


def _said(annotation: AnyAnnotation) -> Sequence[str]:
    if isinstance(annotation, Region):
        return [words for words in (annotation.label, annotation.raw_label, annotation.text) if words]
    return [annotation.text] if isinstance(annotation, Text | RegionText) else []


def _words(text: str) -> list[str]:
    """Words as the parser has them, and those with hyphens whole, too: "t-shirt" and its "shirt"."""
    found = [word.replace("\u2019", "'").removesuffix("'s") for word in WORD.findall(text.casefold())]
    return [part for word in found for part in ([*word.split("-"), word] if "-" in word else [word])]


def _names_in(words: Sequence[str]) -> Iterator[str]:
    """All runs of words that may be a name, the last also in the singular."""
    for start in range(len(words)):
        for stop in range(start + 1, min(start + LONGEST_NAME, len(words)) + 1):
            *before, last = words[start:stop]
            yield from (" ".join([*before, form]) for form in forms(last))
