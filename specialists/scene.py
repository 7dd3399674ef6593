"""What a record says is in the image, sorted for telling: things by label, where they are, and what can be read.

Boxes here are in shares of the image's width and height, clipped to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

from engine.geometry import area, clip
from engine.protocols import Image
from engine.records import Box, Mask, Record, Region
from specialists.appearance import Tone, colour_around, colour_of, tone_of
from specialists.distinct import distinct
from specialists.nouns import MANY, Noun, speakable, visible

LARGE, SMALL, FILLING = 0.25, 0.01, 0.6  # shares of the image
LONGEST_QUOTE = 40  # characters
ABBREVIATION = re.compile(r"\w\.\w\.$")  # p.m.


@dataclass(frozen=True)
class Thing:
    """An object region that can be named. Its colour is None if it has none, or if it isn't measured."""

    region: Region
    label: str
    box: Box
    colour: str | None = None

    @property
    def share(self) -> float:
        return area(self.box)

    @property
    def weight(self) -> float:
        return self.share * _certainty(self.region)


@dataclass(frozen=True)
class Group:
    """All things of a label, the weightiest first."""

    things: tuple[Thing, ...]

    @cached_property
    def noun(self) -> Noun:
        return Noun(self.things[0].label, None if self.crowd or len(self.things) >= MANY else len(self.things))

    @cached_property
    def crowd(self) -> bool:
        """Whether there are more things than regions."""
        return any(thing.region.crowd for thing in self.things)

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        return tuple(thing.box for thing in self.things)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(thing.region.id for thing in self.things)

    @property
    def weight(self) -> float:
        return sum(thing.weight for thing in self.things)

    @property
    def fills(self) -> bool:
        return len(self.things) == 1 and self.things[0].share >= FILLING

    @property
    def adjectives(self) -> tuple[str, ...]:
        """Size and colour, if all the things have them; neither of people: they'd be said of their bodies."""
        if self.noun.human:
            return ()
        found = {_size(thing) for thing in self.things}, {thing.colour for thing in self.things}
        return tuple(next(iter(values)) or "" for values in found if len(values) == 1)


@dataclass(frozen=True)
class Quote:
    """What can be read in a text region. `cut` if that is only its beginning."""

    region: Region
    words: str
    box: Box
    cut: bool


@dataclass(frozen=True)
class Scene:
    """What there is to tell of an image. Groups and quotes have the most prominent first."""

    groups: tuple[Group, ...]
    quotes: tuple[Quote, ...]
    tone: Tone

    @cached_property
    def sayings(self) -> tuple[Quote, ...]:
        """The quotes without those that say what a larger one says."""
        said = {quote.words.casefold(): quote for quote in reversed(self.quotes)}
        return tuple(quote for quote in self.quotes if said[quote.words.casefold()] is quote)

    @property
    def things(self) -> list[Thing]:
        """The weightiest first."""
        return sorted((t for group in self.groups for t in group.things), key=lambda t: t.weight, reverse=True)


def look(image: Image, record: Record, max_coloured: int) -> Scene:
    """The scene of `record`, all of which stands. The colours of the `max_coloured` weightiest things are measured."""
    height, width = image.shape[:2]
    tone = tone_of(image)
    masks = {mask.region_id: mask for mask in reversed(record.masks)}
    found: list[Thing] = []
    for region in distinct(record.regions):
        label, box = speakable(region.label), _relative(region.box, width, height)
        if region.kind == "object" and label and area(box) > 0:
            found.append(Thing(region, label, box))
    found.sort(key=lambda thing: thing.weight, reverse=True)
    groups: dict[str, list[Thing]] = {}
    for number, thing in enumerate(found):
        if number < max_coloured:
            colour = _colour(image, thing, masks.get(thing.region.id), tone)
            thing = Thing(thing.region, thing.label, thing.box, colour)
        groups.setdefault(thing.label, []).append(thing)
    ranked = sorted((Group(tuple(things)) for things in groups.values()), key=lambda g: g.weight, reverse=True)
    return Scene(tuple(ranked), tuple(_quotes(record.regions, width, height)), tone)


def relation(one: Group, other: Group) -> tuple[str, bool] | None:
    """Where `one` is as seen from `other`, and whether they are close; None where their boxes don't say it.

    "left", "right", "above" or "below"; of a pair with one on each hand "either side"; from within one "between".
    """
    if one.crowd or other.crowd:
        return None
    found = [_between(a, b) for a in one.boxes for b in other.boxes]
    sides, close = {side for side, _ in found}, all(near for _, near in found)
    if len(sides) == 1:
        (side,) = sides
        return (side, close) if side else None
    if sides == {"left", "right"} and sorted((len(one.boxes), len(other.boxes))) == [1, 2]:
        return ("either side" if len(one.boxes) == 2 else "between"), close
    return None


def arrangement(group: Group) -> str | None:
    """ "row" or "column" if the things stand in one, each near the next."""
    if group.crowd or len(group.things) < 2:
        return None
    for name, axis in (("row", 0), ("column", 1)):
        boxes = sorted(group.boxes, key=lambda box: box[axis] + box[axis + 2])
        lined = all(_overlap(a, b, 1 - axis) >= 0.5 for a, b in combinations(boxes, 2))
        if lined and all(-1 <= _overlap(a, b, axis) <= 0.25 for a, b in pairwise(boxes)):
            return name
    return None


def zone(box: Box) -> tuple[int, int]:
    """Column and row, each 0 to 2, of the third of the image in which the box's centre lies."""
    return min(int((box[0] + box[2]) * 1.5), 2), min(int((box[1] + box[3]) * 1.5), 2)


def _between(a: Box, b: Box) -> tuple[str | None, bool]:
    """The side of `b` on which `a` is, where they share half of the lower one's height, or of the narrower's width."""
    for axis, before, after in ((0, "left", "right"), (1, "above", "below")):
        along, across = _overlap(a, b, axis), _overlap(a, b, 1 - axis)
        if along <= 0.25 and across >= 0.5:
            return (before if a[axis] + a[axis + 2] < b[axis] + b[axis + 2] else after), along >= -0.5
    return None, False


def _overlap(a: Box, b: Box, axis: int) -> float:
    """How far two boxes overlap along an axis, in sides of the shorter; below 0 how far they are apart."""
    overlap = min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis])
    return overlap / min(a[axis + 2] - a[axis], b[axis + 2] - b[axis])


def _size(thing: Thing) -> str | None:
    """A crowd's box says nothing of the size of its members; what fills the image is said to do so."""
    if thing.region.crowd:
        return None
    return "large" if LARGE <= thing.share < FILLING else "small" if thing.share <= SMALL else None


def _colour(image: Image, thing: Thing, mask: Mask | None, tone: Tone) -> str | None:
    """The colour, if it says something of the thing: nothing of people, no greys of a black-and-white image, no black
    of a dark one, nothing of what is between a crowd, or around a thing; and there are no orange oranges."""
    if tone.black_and_white or Noun(thing.label, 1).human or (thing.region.crowd and mask is None):
        return None
    colour = colour_of(image, thing.region, mask)
    if (colour == "black" and tone.light == "dark") or colour in thing.label.casefold().split():
        return None
    return None if mask is None and colour == colour_around(image, thing.region) else colour


def _quotes(regions: Sequence[Region], width: int, height: int) -> list[Quote]:
    """What is legible, the largest letters first: they are as high as the lower side of their box."""
    quotes: list[tuple[float, Quote]] = []
    for region in regions:
        words, box = _legible(region.text or ""), _relative(region.box, width, height)
        if region.kind == "text" and words and area(box) > 0:
            letters = min((box[2] - box[0]) * width, (box[3] - box[1]) * height)
            quote = Quote(region, _beginning(words), box, len(words) > LONGEST_QUOTE)
            quotes.append((letters * _certainty(region), quote))
    return [quote for _, quote in sorted(quotes, key=lambda pair: pair[0], reverse=True)]


def _legible(text: str) -> str:
    """A text on one line, without control characters and double quotes; empty unless it has two letters at least, and
    these are half of it."""
    words = " ".join("".join(c for c in visible(text) if c not in '"“”„').split())
    letters = sum(c.isalpha() for c in words)
    return words if letters >= 2 and letters * 2 >= len(words.replace(" ", "")) else ""


def _beginning(words: str) -> str:
    """As much as is quoted, up to the end of a word, and without the mark behind it: the sentence has its own."""
    if len(words) > LONGEST_QUOTE:
        words = words[: LONGEST_QUOTE + 1].rpartition(" ")[0] or words[:LONGEST_QUOTE]
    return words if ABBREVIATION.search(words) else words.rstrip(" .,:;")


def _certainty(region: Region) -> float:
    score = region.scores.label
    return 1.0 if score is None else min(max(score, 0.0), 1.0)


def _relative(box: Box, width: int, height: int) -> Box:
    x0, y0, x1, y1 = clip(box, width, height)
    return x0 / width, y0 / height, x1 / width, y1 / height
