"""From a record to what the page shows of it: the picture, its regions by number, its texts, and what fell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from engine.report.shapes import TAG_HEIGHT, Frame, mask_outline, outline, tag_places, thumbnail
from engine.report.spans import Span, Token, tokens

COMPOSER = "composer"  # the source key of texts that are put together from what was found
HUES = 8  # colours that a person can tell apart; report.css has them
# What a picture shows at most, for the page to be of some size whatever is in a record.
MOST_REGIONS, MOST_TEXTS, MOST_SPANS, MOST_FALLEN = 200, 30, 60, 100
LONGEST_TEXT = 1500  # characters


@dataclass(frozen=True)
class ShownRegion:
    """A region, its number in the picture, and where it is drawn. `hue` is None for what has no class."""

    number: int
    kind: str
    source: str
    hue: int | None
    word: str
    score: float | None
    fallen: bool
    area: float
    path: str
    tag: tuple[float, float]
    texts: tuple[RegionText, ...]


@dataclass(frozen=True)
class ShownMask:
    number: int
    source: str
    hue: int | None
    fallen: bool
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
class Picture:
    """All that a card of the page shows. `frame` is None where nothing can be drawn."""

    item: Item
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
        return sorted(self.regions, key=lambda region: (not region.fallen, -region.area))


def picture_of(record: Record, ingest: Ingest, downloads: Path) -> Picture:
    """What the page shows of `record`. An image that can't be opened any more has its reason among the faults."""
    image, frame, faults = _open(record, ingest, downloads)
    regions = _regions(record, frame)
    masks, more_faults = _masks(record, regions, frame)
    texts = sorted(record.standing.texts, key=lambda text: DETAILS.index(text.detail))
    falls = _falls(record, regions)
    return Picture(
        item=record.item,
        name=record.item.uri.rstrip("/").rpartition("/")[2] or record.item.uri,
        alt=_alt(record),
        error=record.error or record.item.error,
        thumbnail=image,
        frame=frame,
        faults=(*faults, *more_faults),
        regions=tuple(regions.values()),
        masks=masks,
        texts=tuple(_text(text, record, regions) for text in texts[:MOST_TEXTS]),
        falls=falls[:MOST_FALLEN],
        made=len(record.by_id),
        standing=len(record.standing.by_id),
        left_out=tuple(_left_out(len(record.regions), len(texts), len(falls))),
    )


def is_composed(text: Text, record: Record) -> bool:
    """Whether a text was put together from regions, rather than written by somebody who saw the image."""
    return text.source == COMPOSER or any(isinstance(record.by_id.get(id_), Region) for id_ in text.derived_from)


def _open(record: Record, ingest: Ingest, downloads: Path) -> tuple[str | None, Frame | None, tuple[str, ...]]:
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
    return thumbnail(image, frame), frame, ()


def _regions(record: Record, frame: Frame | None) -> dict[str, ShownRegion]:
    """Region id -> what is shown of it, numbered: first what stands, objects before texts before proposals."""
    ranked = sorted(record.regions, key=lambda region: (region.id in record.fallen, KINDS.index(region.kind)))
    ranked = ranked[:MOST_REGIONS]
    hues: dict[str, int] = {}
    for region in ranked:
        if region.kind == "object":
            hues.setdefault(_word(region), len(hues) % HUES)
    places = _tags(ranked, frame) if frame else [(0, 0)] * len(ranked)
    texts: dict[str, list[RegionText]] = {}
    for text in record.standing.region_texts:
        texts.setdefault(text.region_id, []).append(text)
    return {
        region.id: ShownRegion(
            number=number,
            kind=region.kind,
            source=region.source,
            hue=hues[_word(region)] if region.kind == "object" else None,
            word=_word(region),
            score=region.score,
            fallen=region.id in record.fallen,
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
    widths = [60 + 6.5 * min(len(_word(region)), 20) if region.kind == "object" else 20 for region in regions]
    return tag_places(corners, widths, frame)


def _word(region: Region) -> str:
    """What a region is called: what a text says, an object's label."""
    return (region.kind == "text" and region.text) or region.label or region.raw_label or region.kind


def _masks(
    record: Record, regions: dict[str, ShownRegion], frame: Frame | None
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
        shown.append(ShownMask(region.number, mask.source, region.hue, mask.id in record.fallen, path))
    return tuple(shown), tuple(faults)


def _text(text: Text, record: Record, regions: dict[str, ShownRegion]) -> ShownText:
    said = text.text[:LONGEST_TEXT]
    return ShownText(
        detail=text.detail,
        source=text.source,
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
        named = {id_: region for id_, region in named.items() if not region.fallen}
        numbers = tuple(sorted(region.number for region in named.values()))
        hue = next((region.hue for region in named.values() if region.hue is not None), None)
        sources = tuple(dict.fromkeys(triplet.source for triplet in some))
        spans.append(Span(start, stop, Phrase(numbers, hue, sources)))
    return spans


def _falls(record: Record, regions: dict[str, ShownRegion]) -> tuple[Fall, ...]:
    """Each annotation that fell, by the first decision that it fell by."""
    decisions: dict[str, Decision] = {}
    for decision in record.decisions:
        if decision.action in ("reject", "supersede") and decision.annotation_id in record.by_id:
            decisions.setdefault(decision.annotation_id, decision)
    return tuple(
        Fall(id_, *_about(record.by_id[id_], record), _number(record.by_id[id_], regions), decision)
        for id_, decision in decisions.items()
    )


def _number(annotation: AnyAnnotation, regions: dict[str, ShownRegion]) -> int | None:
    region_id = annotation.region_id if isinstance(annotation, Mask | RegionText) else annotation.id
    region = regions.get(region_id)
    return region.number if region else None


def _about(annotation: AnyAnnotation, record: Record) -> tuple[str, str]:
    """What an annotation is called and what it says."""
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
            return "parse", f"of {annotation.text_id}"
        case Mask():
            return "mask", f"of {annotation.region_id}"


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
    words = dict.fromkeys(_word(region) for region in record.standing.regions if region.kind == "object")
    return f"Image with {', '.join(list(words)[:10])}"[:300] if words else "Image in which no object was found"
