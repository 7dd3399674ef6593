"""What comes along with images becomes annotations: checked against its image, clipped to it or turned down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from engine.entry import Fault, Given, GivenRegion, GivenText
from engine.geometry import area, clip
from engine.records import DETAILS, HUMAN, AnyAnnotation, Box, Detail, Item, Mask, Record, Region, RegionText, Text
from engine.segmentation import Unusable, run_lengths
from engine.untrusted import numbers, shown
from engine.vocabulary import Vocabulary

ROUNDING = 1.0  # px that a box may lie outside without a word: COCO's own do
# Words up to which a text is brief, or detailed: the geometric means between the averages of FLD-5B's three
# granularities, 8, 32 and 71 tokens (Florence-2, table 3).
BRIEF, DETAILED = 16, 47


@dataclass
class Intake:
    """What came along with one image, as annotations, and what was wrong with it."""

    item: Item
    made: list[AnyAnnotation] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _ids: dict[str, Iterator[str]] = field(default_factory=dict)

    def take(self, given: Given) -> None:
        try:
            if self.item.error is not None:
                raise Unusable("unread_image", "its image can't be read")
            if isinstance(given, GivenText):
                self.made.append(_text(given, self._id(given)))
            else:
                self._take_region(given)
        except Unusable as error:
            self._fault(given, error.kind, f"{error}; it was left out")

    def _take_region(self, given: GivenRegion) -> None:
        box, outside = _box(given, self.item)
        if outside:
            self._fault(given, "box_clipped", f"its box lies {outside:.0f} px outside the image; it was clipped")
        line = _words(given.text)
        region = Region(
            id=next(self._id(given)),
            source=HUMAN,
            kind="text" if line else "object",
            box=box,
            raw_label=None if line else _words(given.label),
            text=line,
            crowd=given.crowd,
        )
        self.made.append(region)
        if description := _words(given.description):
            id_ = next(self._id(given))
            self.made.append(RegionText(id=id_, source=HUMAN, region_id=region.id, text=description))
        if given.segmentation is not None:
            try:
                self.made.append(_mask(given, region, self._id(given), self.item))
            except Unusable as error:
                self._fault(given, error.kind, f"{error}; its box stays, without a mask")

    def _id(self, given: Given) -> Iterator[str]:
        """Fresh ids, to be taken once it is sure that there is something to have them."""
        source = given.source if isinstance(given, GivenText) else HUMAN
        return self._ids.setdefault(source, Record(self.item).ids(source))

    def _fault(self, given: Given, kind: str, message: str) -> None:
        self.faults.append(Fault(_encodable(given.where)[:500], kind, _encodable(message)[:1000]))


def take(item: Item, given: Sequence[Given]) -> tuple[Record, tuple[Fault, ...]]:
    """The record of `item` with what came along with it, and a fault for all that is not as it was given.

    Of an image that can't be read nothing is taken: neither its size nor what it shows is known.
    """
    intake = Intake(item)
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


def _text(given: GivenText, ids: Iterator[str]) -> Text:
    text = _words(given.text)
    if text is None:
        raise Unusable("empty_text", "an empty text")
    detail = next((detail for detail in DETAILS if detail == given.detail), detail_of(text))
    return Text(id=next(ids), source=given.source, text=text, detail=detail)


def _words(text: str | None) -> str | None:
    """The text without white space around it, and with what no column can hold replaced; None if nothing is left."""
    return (_encodable(text).strip() or None) if isinstance(text, str) else None


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


def _mask(given: GivenRegion, region: Region, ids: Iterator[str], item: Item) -> Mask:
    assert item.width is not None and item.height is not None and given.segmentation is not None
    size = (item.height, item.width)
    counts = run_lengths(given.segmentation, size)
    return Mask(id=next(ids), source=HUMAN, region_id=region.id, derived_from=(region.id,), size=size, counts=counts)


def _rounded(box: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in box) + ")"
