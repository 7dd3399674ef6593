"""One input of an image set: where it is, and what came along with it, in the words of whoever made the set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from engine.records import HUMAN, Box, ItemError

MOST_KEPT = 100
# As COCO has them: polygons [[x, y, x, y, ...], ...], run lengths {"size": [height, width], "counts": list or string},
# or as Open Images has them: a PNG that is white where the thing is, of any size.
Segmentation: TypeAlias = list[Any] | dict[str, Any] | Path
# By which others refer to something given: the document that it is in, and its id there.
Key: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class GivenText:
    """A text about the whole image; its granularity goes by its length where it is not said. `where` says to a person
    in which line or object of which file it was. What has a `key` is taken to the character: spans count them. A
    `composed` one was made of the regions that it is `derived_from`."""

    text: str
    source: str = HUMAN
    where: str = ""
    detail: str | None = None
    key: Key | None = None
    composed: bool = False
    derived_from: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class GivenRegion:
    """An object: its box (x0, y0, x1, y1) in pixels of `size` (height, width) where that is known, else of the upright
    image; in fractions of the image, as its polygons then are, if `relative`. With a `text` it is a line of text,
    unless `kind` says otherwise. `score` is what whoever made it says of its own certainty. Nothing in it is checked
    yet."""

    label: str | None
    box: Box
    relative: bool = False
    size: tuple[int, int] | None = None
    segmentation: Segmentation | None = None
    description: str | None = None
    crowd: bool = False
    where: str = ""
    text: str | None = None
    key: Key | None = None
    kind: str | None = None
    quad: Sequence[float] | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class GivenRegionText:
    """A text about a region that was given before: there may be several of one."""

    region: Key | None
    text: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class GivenMask:
    """The pixels of a region that was given before."""

    region: Key | None
    segmentation: Segmentation
    where: str = ""


@dataclass(frozen=True, slots=True)
class GivenTriplet:
    """The characters [start, stop) of a text that was given before, which are `phrase` if that is said, and the regions
    that they name."""

    text: Key | None
    start: int
    stop: int
    regions: tuple[Key | None, ...]
    phrase: str | None = None
    score: float | None = None
    where: str = ""


Given: TypeAlias = GivenText | GivenRegion | GivenRegionText | GivenMask | GivenTriplet


def said(given: Given) -> str | None:
    """What something given says, in words."""
    if isinstance(given, GivenRegion):
        return given.label
    if isinstance(given, GivenTriplet):
        return given.phrase
    return None if isinstance(given, GivenMask) else given.text


@dataclass(frozen=True, slots=True)
class Fault:
    """What came along and could not be taken as it was: where it was, a word to group by, and a sentence."""

    where: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One input. `error` is what its list already knows to be wrong with it, such as an archive that ends in it.

    `given` fetches what came along, when the entry's shard is written: a million entries are listed together.
    """

    uri: str
    dataset: str | None = None
    licence: str | None = None
    labels: tuple[str, ...] = ()
    error: ItemError | None = None
    given: Callable[[], Sequence[Given]] = field(default=tuple, compare=False)


@dataclass
class Faults:
    """Faults of a list itself, that are no image's: counted by kind, and the first ones kept to be shown."""

    counts: Counter[str] = field(default_factory=Counter)
    first: list[Fault] = field(default_factory=list)

    def add(self, where: str, kind: str, message: str) -> None:
        self.counts[kind] += 1
        if len(self.first) < MOST_KEPT:
            self.first.append(Fault(where, kind, message))
