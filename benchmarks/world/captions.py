"""Captions of three granularities by a small grammar, with the things that their phrases name, and what they state.

    brief          A red star, two blue rings and a green cross.
    detailed       The picture shows a red striped star left of a green cross and two blue rings.
    more_detailed  The picture shows a large red striped star left of a small green cross and two small blue rings.
                   The word "stop" is at the top left. The background is plain.

Things that are described by the same words are told together, the largest first. A brief caption names the four largest
kinds; the other two name all. Of things that are alone of their kind, two at a time stand in a relation; what is left
over, or too near its neighbour's place, has its own place in the picture told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.world.picture import Picture, Shape
from engine.geometry import quad_box
from engine.records import DETAILS, Box, Detail

# What a caption states, each by itself: ("thing", "2", "red striped star"), ("left of", "red star", "blue ring"),
# ("above", ...), ("at", "red star", "top left"), ("size", "red star", "large"), ("word", "stop"),
# ("at", '"stop"', "middle"), ("background", "plain").
Fact: TypeAlias = tuple[str, ...]
Group: TypeAlias = tuple[str, tuple[int, ...]]  # a description, and the shapes that it fits

COUNTS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OPPOSITE = {"right of": "left of", "below": "above"}
KINDS = 4  # that a brief caption names
SMALL, LARGE = (
    0.16,
    0.36,
)  # square root of a shape's share of the picture's pixels, below and above which it is called so
APART = 0.1  # of the picture's side, between the centres of two things, for one to be left of the other, or above it


@dataclass(frozen=True)
class Noun:
    """A noun phrase: its words, the shapes that it names, and what depends on it behind them.

    `bonds` are what else hangs on its head in a dependency tree, or what it hangs on: its parent, what is listed next
    to it, and an "and".
    """

    article: str
    modifiers: tuple[str, ...]
    head: str
    count: int = 1
    shapes: tuple[int, ...] = ()
    tail: tuple[str | Noun, ...] = ()
    bonds: int = 1

    @property
    def words(self) -> str:
        head = self.head if self.count == 1 else plural(self.head)
        return " ".join([self.article, *self.modifiers, head])

    @property
    def degree(self) -> int:
        """Of its head, in the tree taken as an undirected graph."""
        return 1 + len(self.modifiers) + bool(self.tail) + self.bonds


@dataclass(frozen=True)
class Span:
    """Where a noun phrase stands in a text, and its expression: the phrase with all that depends on it."""

    noun: Noun
    start: int
    stop: int
    expression_stop: int


@dataclass(frozen=True)
class Told:
    """A caption: its text, its noun phrases in their order, and what it states. `attributes` are adjectives that belong
    to no noun phrase ("is plain"), `actions` the degrees of its verbs."""

    detail: Detail
    text: str
    spans: tuple[Span, ...]
    facts: frozenset[Fact]
    attributes: int = 0
    actions: tuple[int, ...] = ()


def tell(picture: Picture) -> tuple[Told, ...]:
    """The three captions of a picture with a shape in it, or without one the empty ones."""
    return tuple(_told(picture, detail) for detail in DETAILS) if picture.shapes else ()


def description(shape: Shape, detail: Detail = "detailed") -> str:
    """Colour, texture and kind, without an article; a brief one leaves the texture away. What has none is plain."""
    texture = "" if detail == "brief" or shape.texture == "plain" else f"{shape.texture} "
    return f"{shape.colour} {texture}{shape.label}"


def phrase(shape: Shape) -> str:
    """What a region's text says: "an orange dotted star"."""
    return f"{_article(1, shape.colour)} {description(shape)}"


def groups(picture: Picture, detail: Detail) -> list[Group]:
    """The shapes by their description, the largest first, and so their groups."""
    order = sorted(range(len(picture.shapes)), key=lambda n: (-picture.shapes[n].area, n))
    found: dict[str, tuple[int, ...]] = {}
    for n in order:
        name = description(picture.shapes[n], detail)
        found[name] = (*found.get(name, ()), n)
    return list(found.items())


def holds(picture: Picture, detail: Detail) -> frozenset[Fact]:
    """All that a caption of this granularity could state and would be right: more than the grammar's own does."""
    there = groups(picture, detail)
    found: set[Fact] = {("thing", str(len(members)), name) for name, members in there}
    if detail == "brief":
        return frozenset(found)
    single = [(name, picture.shapes[members[0]].box) for name, members in there if len(members) == 1]
    found |= {("at", name, place(box, picture)) for name, box in single}
    for a, first in single:
        for b, second in single:
            found |= {(relation, a, b) for relation, gap in _gaps(first, second, picture) if gap >= APART}
    if detail == "more_detailed":
        found |= {("size", name, size) for name, members in there if (size := _size(picture, members))}
        found |= {fact for word in picture.words for fact in _word_facts(picture, word.text, quad_box(word.quad))}
        found.add(("background", picture.background))
    return frozenset(found)


def place(box: Box, picture: Picture) -> str:
    """The ninth of the picture that a box's centre lies in: "top left", "top", ..., "middle"."""
    (x, y), (width, height) = _centre(box), picture.world.size
    column, row = (min(int(3 * at / side), 2) for at, side in ((x, width), (y, height)))
    return " ".join(filter(None, (("top", "", "bottom")[row], ("left", "", "right")[column]))) or "middle"


def plural(head: str) -> str:
    return head + ("es" if head.endswith("s") else "s")


def _told(picture: Picture, detail: Detail) -> Told:
    there = groups(picture, detail)
    if detail == "brief":
        nouns = [_noun(picture, group, detail) for group in there[:KINDS]]
        facts = {_thing(group) for group in there[:KINDS]}
        return _laid(detail, [*_listed(nouns, root=True), "."], facts)
    nouns, facts = _related(picture, there, detail)
    # "shows" has a subject and an object.
    parts: list[str | Noun] = [Noun("the", (), "picture"), " shows ", *_listed(nouns, root=False), "."]
    if detail == "detailed":
        return _laid(detail, parts, facts, actions=(2,))
    for word in picture.words:
        box = quad_box(word.quad)
        # What the word is called hangs on it.
        parts += [" ", Noun("the", (), "word", bonds=2), f' "{word.text}" is', *_at(place(box, picture)), "."]
        facts |= _word_facts(picture, word.text, box)
    parts += [" ", Noun("the", (), "background"), f" is {picture.background}."]
    return _laid(detail, parts, facts | {("background", picture.background)}, attributes=1, actions=(2,))


def _related(picture: Picture, there: Sequence[Group], detail: Detail) -> tuple[list[Noun], set[Fact]]:
    """A noun phrase for each group but those told in the tail of the one before, and what is stated."""
    nouns, facts = [], {_thing(group) for group in there}
    if detail == "more_detailed":
        facts |= {("size", name, size) for name, members in there if (size := _size(picture, members))}
    waiting = list(there)
    while waiting:
        group = waiting.pop(0)
        name, members = group
        other = next((other for other in waiting if len(other[1]) == 1), None)
        tail: tuple[str | Noun, ...] = ()
        if len(members) == 1:
            box = picture.shapes[members[0]].box
            relation = _relation(box, picture.shapes[other[1][0]].box, picture) if other else None
            if other and relation:
                waiting.remove(other)
                tail = (f" {relation} ", _noun(picture, other, detail))
                facts.add(related(relation, name, other[0]))
            else:
                tail = tuple(_at(place(box, picture)))
                facts.add(("at", name, place(box, picture)))
        nouns.append(_noun(picture, group, detail, tail))
    return nouns, facts


def related(relation: str, a: str, b: str) -> Fact:
    """A relation as it is stated, or the opposite one the other way round."""
    return (OPPOSITE[relation], b, a) if relation in OPPOSITE else (relation, a, b)


def _noun(picture: Picture, group: Group, detail: Detail, tail: tuple[str | Noun, ...] = ()) -> Noun:
    name, members = group
    *modifiers, head = name.split()
    size = _size(picture, members) if detail == "more_detailed" else None
    modifiers = [size, *modifiers] if size else modifiers
    return Noun(_article(len(members), modifiers[0]), tuple(modifiers), head, len(members), members, tail)


def _thing(group: Group) -> Fact:
    return ("thing", str(len(group[1])), group[0])


def _word_facts(picture: Picture, text: str, box: Box) -> set[Fact]:
    return {("word", text), ("at", f'"{text}"', place(box, picture))}


def _article(count: int, next_word: str) -> str:
    return "an" if count == 1 and next_word[0] in "aeiou" else COUNTS[count]


def _size(picture: Picture, members: Sequence[int]) -> str | None:
    """What all of them are, if they are alike and neither is in between."""
    width, height = picture.world.size
    shares = [(picture.shapes[n].area / (width * height)) ** 0.5 for n in members]
    return "small" if max(shares) < SMALL else "large" if min(shares) > LARGE else None


def _at(place: str) -> Iterator[str | Noun]:
    *modifiers, head = place.split()
    yield " in " if head == "middle" else " at "
    yield Noun("the", tuple(modifiers), head)


def _gaps(a: Box, b: Box, picture: Picture) -> Iterator[tuple[str, float]]:
    """How far a is to the left of b, and above it, by their centres, of the picture's sides."""
    for relation, here, there, side in zip(
        ("left of", "above"), _centre(a), _centre(b), picture.world.size, strict=True
    ):
        yield relation, (there - here) / side


def _relation(a: Box, b: Box, picture: Picture) -> str | None:
    """How a lies to b, by the larger of the two gaps; None if neither is large enough."""
    relation, gap = max(_gaps(a, b, picture), key=lambda found: abs(found[1]))
    if abs(gap) < APART:
        return None
    return relation if gap > 0 else {"left of": "right of", "above": "below"}[relation]


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _listed(nouns: Sequence[Noun], *, root: bool) -> Iterator[str | Noun]:
    """A, B and C: each but the first hangs on the one before, and the "and" on the last but one."""
    last = len(nouns) - 1
    for n, noun in enumerate(nouns):
        if n:
            yield " and " if n == last else ", "
        bonds = (not (root and n == 0)) + (n < last) + (n == last - 1)
        yield Noun(noun.article, noun.modifiers, noun.head, noun.count, noun.shapes, noun.tail, bonds)


def _laid(
    detail: Detail,
    parts: Sequence[str | Noun],
    facts: set[Fact],
    attributes: int = 0,
    actions: tuple[int, ...] = (),
) -> Told:
    """The text that the parts make, and where in it each noun phrase stands."""
    spans: list[Span] = []
    text = _lay(parts, "", spans)
    return Told(detail, text, tuple(sorted(spans, key=lambda s: s.start)), frozenset(facts), attributes, actions)


def _lay(parts: Sequence[str | Noun], text: str, spans: list[Span]) -> str:
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        start = len(text)
        # A sentence begins with a capital letter.
        text += part.words if text and not text.endswith(". ") else part.words[0].upper() + part.words[1:]
        stop = len(text)
        text = _lay(part.tail, text, spans)
        spans.append(Span(part, start, stop, len(text)))
    return text
