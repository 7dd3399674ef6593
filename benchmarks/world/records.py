"""The truth about a picture as a record of the engine: annotations by people."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.world.captions import Told, phrase, tell
from benchmarks.world.picture import Picture
from engine.geometry import quad_box
from engine.near import perceptual_hash
from engine.records import HUMAN, AnyAnnotation, Item, Mask, Parse, Phrase, Record, Region, RegionText, Text, Triplet


def record_of(picture: Picture, item: Item) -> Record:
    """Everything that is true of the image `item`, which shows the picture, in round 0."""
    record = Record(item, perceptual_hash=perceptual_hash(picture.pixels))
    return record.append(_annotations(picture, record.ids(HUMAN)))


def _annotations(picture: Picture, ids: Iterator[str]) -> Iterator[AnyAnnotation]:
    width, height = picture.world.size
    regions = []
    for shape in picture.shapes:
        region = Region(
            id=next(ids), source=HUMAN, kind="object", box=shape.box, raw_label=shape.label, label=shape.label
        )
        regions.append(region.id)
        yield region
        yield RegionText(id=next(ids), source=HUMAN, region_id=region.id, text=phrase(shape))
        yield Mask(id=next(ids), source=HUMAN, region_id=region.id, size=(height, width), counts=shape.mask)
    for word in picture.words:
        box = quad_box(word.quad)
        yield Region(id=next(ids), source=HUMAN, kind="text", box=box, quad=word.quad, text=word.text)
    for told in tell(picture):
        text = Text(id=next(ids), source=HUMAN, text=told.text, detail=told.detail)
        yield text
        yield _parse(told, next(ids), text.id)
        for span in told.spans:
            if span.noun.shapes:
                named = tuple(regions[n] for n in span.noun.shapes)
                yield Triplet(
                    id=next(ids), source=HUMAN, text_id=text.id, start=span.start, stop=span.stop, region_ids=named
                )


def _parse(told: Told, id_: str, text_id: str) -> Parse:
    """What the grammar knows of its own sentences. The word that a sign says, in quotes, is no object of its own."""
    degrees = [span.noun.degree for span in told.spans]
    # Beside adjectives, a count from two on modifies its noun, too.
    attributes = told.attributes + sum(len(s.noun.modifiers) + (s.noun.count > 1) for s in told.spans)
    return Parse(
        id=id_,
        source=HUMAN,
        derived_from=(text_id,),
        text_id=text_id,
        objects=len(degrees),
        attributes=attributes,
        actions=len(told.actions),
        proper_nouns=0,
        object_complexity=sum(degrees) / len(degrees),
        action_complexity=sum(told.actions) / max(len(told.actions), 1),
        max_object_complexity=max(degrees),
        max_action_complexity=max(told.actions, default=0),
        phrases=tuple(
            Phrase(
                start=span.start,
                stop=span.stop,
                head=span.noun.head,
                modifiers=span.noun.modifiers,
                count=span.noun.count,
                expression_start=span.start,
                expression_stop=span.expression_stop,
            )
            for span in told.spans
        ),
    )
