"""What comes along with images becomes annotations: checked against its image, clipped to it or turned down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from engine.entry import (
    Fault,
    Given,
    GivenMask,
    GivenRegion,
    GivenRegionText,
    GivenText,
    GivenTriplet,
    Key,
    Segmentation,
)
from engine.geometry import area, clip
from engine.records import (
    DETAILS,
    HUMAN,
    KINDS,
    AnyAnnotation,
    Box,
    Detail,
    Item,
    Kind,
    Mask,
    Quad,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
    Triplet,
)
from engine.segmentation import Unusable, run_lengths
from engine.untrusted import LONGEST_NAME, LONGEST_TEXT, numbers, shown, too_long
from engine.vocabulary import Vocabulary

ROUNDING = 1.0  # px that a box may lie outside without a word: COCO's own do
# Words up to which a text is brief, or detailed: the geometric means between the averages of FLD-5B's three
# granularities, 8, 32 and 71 tokens (Florence-2, table 3).
BRIEF, DETAILED = 16, 47


@dataclass
class Intake:
    """What came along with one image, as annotations, and what was wrong with it. `source` signs what would be
    human: whoever made the set may be a model."""

    item: Item
    source: str = HUMAN
    made: list[AnyAnnotation] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _ids: dict[str, Iterator[str]] = field(default_factory=dict)
    _known: dict[Key, Text | Region] = field(default_factory=dict)

    def take(self, given: Given) -> None:
        try:
            if self.item.error is not None:
                raise Unusable("unread_image", "its image can't be read")
            if isinstance(given, GivenText):
                self._take_text(given)
            elif isinstance(given, GivenRegion):
                self._take_region(given)
            elif isinstance(given, GivenRegionText):
                self._take_region_text(given)
            elif isinstance(given, GivenMask):
                self._take_mask(self._region(given.region), given.segmentation)
            else:
                self._take_triplet(given)
        except Unusable as error:
            self._fault(given, error.kind, f"{error}; it was left out")

    def _take_text(self, given: GivenText) -> None:
        words = _words(given.text, whole=given.key is not None)
        if words is None:
            raise Unusable("empty_text", "an empty text")
        self._check_new(given.key)
        known = (self._known.get(key) for key in given.derived_from)
        regions = tuple(one.id for one in known if isinstance(one, Region))
        if given.composed and not regions:
            raise Unusable("composed", "a text that was composed of regions, and none of them is there")
        source = self.source if given.source == HUMAN else given.source
        detail = next((detail for detail in DETAILS if detail == given.detail), detail_of(words))
        text = Text(id=self._id(source), source=source, derived_from=regions, text=words, detail=detail)
        self._make(text, given.key)

    def _take_region(self, given: GivenRegion) -> None:
        box, outside = _box(given, self.item)
        self._check_new(given.key)
        whole = given.key is not None
        line = _words(given.text, whole)
        kind = _kind(given.kind) or ("text" if line else "object")
        if outside:
            self._fault(given, "box_clipped", f"its box lies {outside:.0f} px outside the image; it was clipped")
        region = Region(
            id=self._id(self.source),
            source=self.source,
            kind=kind,
            box=box,
            quad=self._quad(given),
            raw_label=None if line and given.kind is None else self._said(given, given.label, whole, LONGEST_NAME),
            text=line,
            crowd=given.crowd,
            scores=Scores(**{"box" if kind == "proposal" else "label": self._score(given)}),
        )
        self._make(region, given.key)
        if description := self._said(given, given.description):
            self._add_text(region, description)
        if given.segmentation is not None:
            try:
                self._take_mask(region, _in_pixels(given.segmentation, given, self.item))
            except Unusable as error:
                self._fault(given, error.kind, f"{error}; its box stays, without a mask")

    def _said(self, given: Given, text: str | None, whole: bool = False, most: int = LONGEST_TEXT) -> str | None:
        """The words of a region that is there without them, too; None, and a fault, for too many."""
        try:
            return _words(text, whole, most)
        except Unusable as error:
            self._fault(given, error.kind, f"{error}; its region stays, without it")
            return None

    def _take_region_text(self, given: GivenRegionText) -> None:
        region, words = self._region(given.region), _words(given.text, whole=True)
        if words is None:
            raise Unusable("empty_text", "an empty text")
        self._add_text(region, words)

    def _take_mask(self, region: Region, segmentation: Segmentation) -> None:
        assert self.item.width is not None and self.item.height is not None
        size = (self.item.height, self.item.width)
        counts, of = run_lengths(segmentation, size), region.id
        id_ = self._id(self.source)
        self.made.append(Mask(id=id_, source=self.source, region_id=of, derived_from=(of,), size=size, counts=counts))

    def _take_triplet(self, given: GivenTriplet) -> None:
        text = self._known.get(given.text) if given.text else None
        if not isinstance(text, Text):
            raise Unusable("unknown_text", f"a phrase of {_named(given.text)}, which is no text that is there")
        regions = tuple(self._region(key).id for key in given.regions)
        start, stop = given.start, given.stop
        whole = isinstance(start, int) and isinstance(stop, int)
        if not whole or not 0 <= start < stop <= len(text.text):
            span = f"[{shown(start)}, {shown(stop)})"
            raise Unusable("bad_span", f"the characters {span} of a text that has {len(text.text)}")
        if given.phrase is not None and text.text[start:stop] != _encodable(given.phrase):
            there = shown(text.text[start:stop])
            raise Unusable("bad_span", f"{shown(given.phrase)}, and at its place in the text stands {there}")
        triplet = Triplet(
            id=self._id(self.source),
            source=self.source,
            text_id=text.id,
            start=start,
            stop=stop,
            region_ids=regions,
            scores=Scores(phrase=self._score(given)),
        )
        self.made.append(triplet)

    def _add_text(self, region: Region, words: str) -> None:
        self.made.append(RegionText(id=self._id(self.source), source=self.source, region_id=region.id, text=words))

    def _make(self, annotation: Text | Region, key: Key | None) -> None:
        self.made.append(annotation)
        if key is not None:
            self._known[key] = annotation

    def _check_new(self, key: Key | None) -> None:
        if key in self._known:
            raise Unusable("repeated_id", "its id stands for another one already")

    def _region(self, key: Key | None) -> Region:
        region = self._known.get(key) if key else None
        if not isinstance(region, Region):
            raise Unusable("unknown_region", f"it is of {_named(key)}, which is no region that is there")
        return region

    def _quad(self, given: GivenRegion) -> Quad | None:
        """The quad inside the image; None, and a fault, for what is none."""
        if given.quad is None:
            return None
        assert self.item.width is not None and self.item.height is not None
        values = numbers(given.quad) if isinstance(given.quad, list | tuple) else None
        if values is None or len(values) != 8:
            message = f"a quad has eight finite numbers, not {shown(given.quad)}; its box stays, without a quad"
            self._fault(given, "bad_quad", message)
            return None
        sides = (self.item.width, self.item.height) * 4
        scales = sides if given.relative else (1,) * 8
        quad = [value * scale for value, scale in zip(values, scales, strict=True)]
        clipped = [min(max(value, 0.0), side) for value, side in zip(quad, sides, strict=True)]
        outside = max(abs(there - here) for there, here in zip(quad, clipped, strict=True))
        if outside > ROUNDING:
            self._fault(given, "quad_clipped", f"its quad lies {outside:.0f} px outside the image; it was clipped")
        x0, y0, x1, y1, x2, y2, x3, y3 = clipped
        return x0, y0, x1, y1, x2, y2, x3, y3

    def _score(self, given: GivenRegion | GivenTriplet) -> float | None:
        """Its score; None, and a fault, for what is none."""
        if given.score is None:
            return None
        values = None if isinstance(given.score, bool) else numbers([given.score])
        if values is None:
            self._fault(given, "bad_score", f"a score is a finite number, not {shown(given.score)}; it stays without")
            return None
        return values[0]

    def _id(self, source: str) -> str:
        """A fresh id, to be taken once it is sure that there is something to have it."""
        return next(self._ids.setdefault(source, Record(self.item).ids(source)))

    def _fault(self, given: Given, kind: str, message: str) -> None:
        self.faults.append(Fault(_encodable(given.where)[:500], kind, _encodable(message)[:1000]))


def take(item: Item, given: Sequence[Given], source: str = HUMAN) -> tuple[Record, tuple[Fault, ...]]:
    """The record of `item` with what came along with it, signed by `source` where nobody else is named, and a fault for
    all that is not as it was given.

    Of an image that can't be read nothing is taken: neither its size nor what it shows is known.
    """
    intake = Intake(item, source)
    for one in given:
        intake.take(one)
    return Record(item).append(intake.made), tuple(intake.faults)


def canonical(record: Record, vocabulary: Vocabulary) -> Record:
    """`record` with the vocabulary's word for every region's raw label."""
    regions = tuple(
        replace(r, label=vocabulary.canonical(r.raw_label) if r.raw_label else None) for r in record.regions
    )
    return replace(record, regions=regions)


def detail_of(text: str) -> Detail:
    """The granularity of a text that comes without one, by the number of its words."""
    words = len(text.split())
    return "brief" if words <= BRIEF else "detailed" if words <= DETAILED else "more_detailed"


def _kind(word: str | None) -> Kind | None:
    if word is None:
        return None
    kind = next((kind for kind in KINDS if kind == word), None)
    if kind is None:
        raise Unusable("bad_kind", f"a region is of one of the kinds {', '.join(KINDS)}, not {shown(word)}")
    return kind


def _named(key: Key | None) -> str:
    return "nothing" if key is None else shown(key[1])


def _words(text: str | None, whole: bool = False, most: int = LONGEST_TEXT) -> str | None:
    """The text with what no column can hold replaced, and without white space around it unless it is wanted `whole`;
    None if nothing is left. Raises Unusable if it is too long."""
    if not isinstance(text, str):
        return None
    if wrong := too_long(text, most):
        raise Unusable("too_long", wrong)
    if not text.strip():
        return None
    return _encodable(text) if whole else _encodable(text).strip()


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _box(given: GivenRegion, item: Item) -> tuple[Box, float]:
    """The box inside the image, and by how many pixels it lay outside, 0 if not by more than ROUNDING."""
    assert item.width is not None and item.height is not None
    values = numbers(given.box)
    if values is None or len(values) != 4:
        raise Unusable("bad_box", f"a box has four finite numbers, not {shown(given.box)}")
    _check_size(given, item)
    x, y = (item.width, item.height) if given.relative else (1, 1)
    box = (values[0] * x, values[1] * y, values[2] * x, values[3] * y)
    if box[2] <= box[0] or box[3] <= box[1]:
        raise Unusable("bad_box", f"a box without width or height: {_rounded(box)}")
    clipped = clip(box, item.width, item.height)
    if not area(clipped):
        raise Unusable("box_outside", f"its box {_rounded(box)} lies outside the {item.width} x {item.height} image")
    outside = max(abs(there - here) for there, here in zip(box, clipped, strict=True))
    return clipped, outside if outside > ROUNDING else 0.0


def _check_size(given: GivenRegion, item: Item) -> None:
    if given.size is not None and tuple(given.size) != (item.height, item.width):
        height, width = given.size
        raise Unusable(
            "image_size",
            f"it is for an image of {shown(width)} x {shown(height)}, and this one has {item.width} x {item.height}",
        )


def _in_pixels(segmentation: Segmentation, given: GivenRegion, item: Item) -> Segmentation:
    """Polygons are in the frame of the box."""
    assert item.width is not None and item.height is not None
    if not given.relative or not isinstance(segmentation, list):
        return segmentation
    rings = [numbers(ring) if isinstance(ring, list | tuple) else None for ring in segmentation]
    sides = (item.width, item.height)
    return [ring and [value * sides[n % 2] for n, value in enumerate(ring)] for ring in rings]


def _rounded(box: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in box) + ")"
