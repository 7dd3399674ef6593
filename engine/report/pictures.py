"""From a record to what the page shows of it: the picture, its regions by number, its texts, and what fell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from engine.annotate import open_image
from engine.config import Ingest
from engine.errors import ImageError, RecordError
from engine.geometry import area
from engine.records import (
    DETAILS,
    KINDS,
    AnyAnnotation,
    Decision,
    Item,
    ItemError,
    Mask,
    Parse,
    Record,
    Region,
    RegionText,
    Text,
    Triplet,
)
from engine.report.disputes import Dispute, Thing, dispute, named_differently, round_of
from engine.report.shapes import TAG_HEIGHT, Frame, jpeg, mask_outline, outline, tag_places
from engine.report.spans import Span, Token, tokens

COMPOSER = "composer"  # the source key of texts that are put together from what was found
HUES = 8  # colours that a person can tell apart; report.css has them
# What a picture shows at most, for the page to be of some size whatever is in a record.
MOST_REGIONS, MOST_TEXTS, MOST_SPANS, MOST_FALLEN = 200, 30, 60, 100
MOST_ODDS = 12
LONGEST_TEXT = 1500  # characters

# Keeps a JPEG, and says where the page finds it.
Keep: TypeAlias = Callable[[bytes], str]


@dataclass(frozen=True)
class ShownRegion:
    """A region, its number in the picture, and where it is drawn. `hue` is None for what has no class.

    `round` is the one that it was made in, `fell` the one that it fell in, None if it stands.
    """

    number: int
    kind: str
    source: str
    hue: int | None
    word: str
    score: float | None
    round: int
    fell: int | None
    area: float
    path: str
    tag: tuple[float, float]
    texts: tuple[RegionText, ...]


@dataclass(frozen=True)
class ShownMask:
    number: int
    source: str
    hue: int | None
    round: int
    fell: int | None
    path: str


@dataclass(frozen=True)
class Phrase:
    """What a marked phrase names: numbers of regions, and the colour of the first of them."""

    numbers: tuple[int, ...]
    hue: int | None
    sources: tuple[str, ...]


@dataclass(frozen=True)
class ShownText:
    detail: str
    source: str
    round: int
    composed: bool
    tokens: tuple[Token[Phrase], ...]
    length: int
    cut: bool


@dataclass(frozen=True)
class Fall:
    """An annotation that fell: what it is and said, and the decision. `number` is its region's, if that is drawn."""

    id: str
    what: str
    says: str
    number: int | None
    decision: Decision


@dataclass(frozen=True)
class Odds:
    """Two regions at one place that independent sources call differently: the number, word and source of each."""

    one: ShownRegion
    other: ShownRegion


@dataclass(frozen=True)
class Picture:
    """All that a card of the page shows. `frame` is None where nothing can be drawn; `thumbnail` is its address."""

    item: Item
    number: int
    dispute: Dispute
    odds: tuple[Odds, ...]
    name: str
    alt: str
    error: ItemError | None
    thumbnail: str | None
    frame: Frame | None
    faults: tuple[str, ...]
    regions: tuple[ShownRegion, ...]
    masks: tuple[ShownMask, ...]
    texts: tuple[ShownText, ...]
    falls: tuple[Fall, ...]
    made: int
    standing: int
    left_out: tuple[str, ...]

    @property
    def drawn(self) -> list[ShownRegion]:
        """The regions in the order in which they are drawn: what fell lies below, then the large."""
        return sorted(self.regions, key=lambda region: (region.fell is None, -region.area))


def picture_of(record: Record, number: int, ingest: Ingest, downloads: Path, keep: Keep) -> Picture:
    """What the page shows of `record`. An image that can't be opened any more has its reason among the faults."""
    image, frame, faults = _open(record, ingest, downloads, keep)
    decisions = [
        d for d in record.decisions if d.annotation_id in record.fallen and d.action in ("reject", "supersede")
    ]
    falls = list({decision.annotation_id: decision for decision in reversed(decisions)}.values())[::-1]
    fell = {decision.annotation_id: decision.round for decision in falls}
    regions = _regions(record, frame, fell)
    masks, more_faults = _masks(record, regions, frame, fell)
    texts = sorted(record.standing.texts, key=lambda text: DETAILS.index(text.detail))
    things, labels = _things(record)
    odds = named_differently(things, decisions)
    proposals = {region.id for region in record.regions if region.kind == "proposal"}
    argued = [decision for decision in decisions if decision.annotation_id not in proposals]
    return Picture(
        item=record.item,
        number=number,
        dispute=dispute(things, argued, labels),
        odds=tuple(Odds(regions[a], regions[b]) for a, b in odds if a in regions and b in regions)[:MOST_ODDS],
        name=name_of(record.item),
        alt=_alt(record),
        error=record.error or record.item.error,
        thumbnail=image,
        frame=frame,
        faults=(*faults, *more_faults),
        regions=tuple(regions.values()),
        masks=masks,
        texts=tuple(_text(text, record, regions) for text in texts[:MOST_TEXTS]),
        falls=tuple(
            shown_fall(fall, record, regions) for fall in falls[:MOST_FALLEN] if fall.annotation_id in record.by_id
        ),
        made=len(record.by_id),
        standing=len(record.standing.by_id),
        left_out=tuple(_left_out(len(record.regions), len(texts), len(falls))),
    )


def is_composed(text: Text, record: Record) -> bool:
    """Whether a text was put together from regions, rather than written by somebody who saw the image."""
    return text.source == COMPOSER or any(isinstance(record.by_id.get(id_), Region) for id_ in text.derived_from)


def name_of(item: Item) -> str:
    """The last part of its path or URL."""
    return item.uri.rstrip("/").rpartition("/")[2] or item.uri


def called(region: Region) -> str:
    """What a region is called: what a text says, an object's label."""
    return (region.kind == "text" and region.text) or region.label or region.raw_label or region.kind


def _things(record: Record) -> tuple[list[Thing], dict[str, str]]:
    """The objects, and the labels of all regions by id, as disputes are about them."""
    labels = {region.id: (region.label or region.raw_label or "").casefold() for region in record.regions}
    objects = [region for region in record.regions if region.kind == "object"]
    return [Thing(region.id, region.source, labels[region.id], region.box) for region in objects], labels


def _open(
    record: Record, ingest: Ingest, downloads: Path, keep: Keep
) -> tuple[str | None, Frame | None, tuple[str, ...]]:
    """Thumbnail, frame and faults. What annotating failed on is not opened again: it may have ended its worker."""
    item = record.item
    frame = Frame.of(item.width, item.height) if item.width and item.height else None
    if record.error or item.error:
        return None, frame, ()
    try:
        image = open_image(item, ingest, downloads)
    except ImageError as error:
        return None, frame, (f"This image can't be opened any more ({error.kind}): {error.message}",)
    height, width = image.shape[:2]
    frame = Frame.of(width, height)
    return keep(jpeg(image, frame)), frame, ()


def _regions(record: Record, frame: Frame | None, fell: Mapping[str, int]) -> dict[str, ShownRegion]:
    """Region id -> what is shown of it, numbered: first what stands, objects before texts before proposals."""
    ranked = sorted(record.regions, key=lambda region: (region.id in fell, KINDS.index(region.kind)))
    ranked = ranked[:MOST_REGIONS]
    hues: dict[str, int] = {}
    for region in ranked:
        if region.kind == "object":
            hues.setdefault(called(region), len(hues) % HUES)
    places = _tags(ranked, frame) if frame else [(0, 0)] * len(ranked)
    texts: dict[str, list[RegionText]] = {}
    for text in record.standing.region_texts:
        texts.setdefault(text.region_id, []).append(text)
    return {
        region.id: ShownRegion(
            number=number,
            kind=region.kind,
            source=region.source,
            hue=hues[called(region)] if region.kind == "object" else None,
            word=called(region),
            score=region.score,
            round=round_of(region.id),
            fell=fell.get(region.id),
            area=area(region.box),
            path=outline(region, frame) if frame else "",
            tag=place,
            texts=tuple(texts.get(region.id, ())[:MOST_TEXTS]),
        )
        for number, (region, place) in enumerate(zip(ranked, places, strict=True), 1)
    }


def _tags(regions: Sequence[Region], frame: Frame) -> list[tuple[float, float]]:
    """Above the box where there is room, else inside it; those of objects say a word, the others their number."""
    corners, height = [], TAG_HEIGHT / frame.enlarged
    for region in regions:
        x, y = frame.placed(region.box[:2])
        corners.append((x, y - height if y >= height else y))
    widths = [60 + 6.5 * min(len(called(region)), 20) if region.kind == "object" else 20 for region in regions]
    return tag_places(corners, widths, frame)


def _masks(
    record: Record, regions: dict[str, ShownRegion], frame: Frame | None, fell: Mapping[str, int]
) -> tuple[tuple[ShownMask, ...], tuple[str, ...]]:
    """The masks of the regions that are shown, the large ones first, and what is wrong with those that can't be."""
    shown, faults = [], []
    boxes = {region.id: area(region.box) for region in record.regions}
    for mask in sorted(record.masks, key=lambda mask: -boxes.get(mask.region_id, 0)):
        region = regions.get(mask.region_id)
        if region is None or frame is None:
            continue
        try:
            path = mask_outline(mask, frame)
        except RecordError as error:
            faults.append(str(error))
            continue
        made = round_of(mask.id)
        shown.append(ShownMask(region.number, mask.source, region.hue, made, fell.get(mask.id), path))
    return tuple(shown), tuple(faults)


def _text(text: Text, record: Record, regions: dict[str, ShownRegion]) -> ShownText:
    said = text.text[:LONGEST_TEXT]
    return ShownText(
        detail=text.detail,
        source=text.source,
        round=round_of(text.id),
        composed=is_composed(text, record),
        tokens=tuple(tokens(said, _spans(text, record.standing.triplets, regions))),
        length=len(text.text),
        cut=len(text.text) > LONGEST_TEXT,
    )


def _spans(text: Text, triplets: Iterable[Triplet], regions: dict[str, ShownRegion]) -> list[Span[Phrase]]:
    """The phrases of a text; those with the same characters are one, of the regions of all."""
    together: dict[tuple[int, int], list[Triplet]] = {}
    for triplet in triplets:
        if triplet.text_id == text.id:
            together.setdefault((triplet.start, triplet.stop), []).append(triplet)
    spans = []
    for (start, stop), some in list(together.items())[:MOST_SPANS]:
        named = {id_: regions[id_] for triplet in some for id_ in triplet.region_ids if id_ in regions}
        named = {id_: region for id_, region in named.items() if region.fell is None}
        numbers = tuple(sorted(region.number for region in named.values()))
        hue = next((region.hue for region in named.values() if region.hue is not None), None)
        sources = tuple(dict.fromkeys(triplet.source for triplet in some))
        spans.append(Span(start, stop, Phrase(numbers, hue, sources)))
    return spans


def shown_fall(decision: Decision, record: Record, regions: Mapping[str, ShownRegion]) -> Fall:
    """What fell by a decision."""
    annotation = record.by_id[decision.annotation_id]
    return Fall(annotation.id, *about(annotation, record), _number(annotation, regions), decision)


def _number(annotation: AnyAnnotation, regions: Mapping[str, ShownRegion]) -> int | None:
    region_id = annotation.region_id if isinstance(annotation, Mask | RegionText) else annotation.id
    region = regions.get(region_id)
    return region.number if region else None


def about(annotation: AnyAnnotation, record: Record) -> tuple[str, str]:
    """What an annotation is called and what it says, or what that says that it is of."""
    match annotation:
        case Region():
            return annotation.kind, annotation.label or annotation.raw_label or annotation.text or ""
        case Text():
            return f"{annotation.detail.replace('_', ' ')} text", annotation.text
        case RegionText():
            return "region text", annotation.text
        case Triplet():
            text = record.by_id.get(annotation.text_id)
            return "phrase", text.text[annotation.start : annotation.stop] if isinstance(text, Text) else ""
        case Parse():
            text = record.by_id.get(annotation.text_id)
            return "parse", text.text if isinstance(text, Text) else ""
        case Mask():
            region = record.by_id.get(annotation.region_id)
            return "mask", called(region) if isinstance(region, Region) else ""


def _left_out(regions: int, texts: int, falls: int) -> Iterator[str]:
    most = (
        ("regions", regions, MOST_REGIONS),
        ("texts", texts, MOST_TEXTS),
        ("annotations that fell", falls, MOST_FALLEN),
    )
    for what, count, limit in most:
        if count > limit:
            yield f"{count - limit} more {what} are not shown"


def _alt(record: Record) -> str:
    """The brief text that stands, or else what was found."""
    for text in sorted(record.standing.texts, key=lambda text: DETAILS.index(text.detail)):
        if text.text.strip():
            return text.text[:300]
    words = dict.fromkeys(called(region) for region in record.standing.regions if region.kind == "object")
    return f"Image with {', '.join(list(words)[:10])}"[:300] if words else "Image in which no object was found"
