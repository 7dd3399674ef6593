"""The kit's records: what an image may have by the time that a specialist or a filter sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine.geometry import encode_mask
from engine.records import (
    ALT,
    DETAILS,
    GROUNDED,
    HUMAN,
    AnyAnnotation,
    Box,
    Decision,
    Item,
    ItemError,
    Kind,
    Mask,
    Parse,
    Phrase,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
    Triplet,
)
from engine.rounds import added
from engine.testing.hostile import hostile, size_of

CAPTIONS = (
    "A disc beside a square.",
    "A round disc hangs beside a square above a white sign.",
    'A round disc and a square are above a white sign that says "OPEN". Behind them the background is shaded.',
)
PHRASES = ("A disc", "A round disc", "a square", "a white sign")


def records() -> list[Record]:
    """For filters: records as specialists leave them, empty, hostile, of an image without size, and of a later round,
    of which a filter sees what is new: it speaks of annotations that aren't there, and has opinions of them."""
    empty = Record(Item(Item.id_of("/contract-kit/empty.png"), "/contract-kit/empty.png", width=120, height=80))
    unread = Record(
        Item(Item.id_of("/contract-kit/unread.png"), "/contract-kit/unread.png"),
        error=ItemError("decode", "missing", "there is no such file"),
    )
    before = replace(later(empty), round=2)
    after = before.append(_about(before))
    return [
        empty,
        annotated(empty),
        hostile(empty),
        crowded(empty),
        unread,
        annotated(unread),
        later(empty),
        added(after.decide(_opinions(after)), before),
    ]


def annotated(record: Record) -> Record:
    """With annotations of every kind, by people and by models, and opinions of them; in proportion to the image, so
    that any size will do."""
    for said in (_given, _found, _said, _doubtful):
        record = record.append(said(record))
    return record.decide(_opinions(record))


def later(record: Record) -> Record:
    """The same as a second round finds it, when some of it has fallen."""
    made = annotated(record)
    longest = next(text for text in made.texts if text.detail == "more_detailed")
    fallen: list[AnyAnnotation] = [next(r for r in made.regions if r.source == "kit_detector"), longest]
    made = made.decide(made.reject(one, "kit_filter", "low_score", 0.1, 0.5) for one in fallen)
    return replace(made, round=1)


def crowded(record: Record) -> Record:
    """With more regions than anybody draws, most of them on one another."""
    ids = record.ids("kit_detector")
    random = np.random.default_rng(0)
    new = []
    for number, (x, y) in enumerate(random.uniform(0, 40, (300, 2)).tolist()):
        new.append(
            Region(
                id=next(ids),
                source="kit_detector",
                kind="proposal" if number % 2 else "object",
                box=(x, y, x + 30, y + 20),
                label=None if number % 2 else "dog",
                scores=Scores(label=x / 40, box=y / 40),
            )
        )
    return record.append(new)


def _given(record: Record) -> Iterator[AnyAnnotation]:
    """What people annotated, and the text of a web page."""
    ids = record.ids(HUMAN)
    width, height = size_of(record)
    disc = _region(record, next(ids), HUMAN, (0.1, 0.2, 0.5, 0.6), label="disc")
    yield disc
    yield _region(record, next(ids), HUMAN, (0, 0, 1, 0.3), label="cloud", crowd=True)
    pixels = np.zeros((height, width), bool)
    pixels[int(height * 0.2) : max(int(height * 0.6), 1), int(width * 0.1) : max(int(width * 0.5), 1)] = True
    yield Mask(id=next(ids), source=HUMAN, region_id=disc.id, size=(height, width), counts=encode_mask(pixels))
    text = Text(id=next(ids), source=HUMAN, text=CAPTIONS[0], detail="brief")
    yield text
    yield Triplet(id=next(ids), source=HUMAN, text_id=text.id, start=0, stop=6, region_ids=(disc.id,))
    yield Text(id=next(record.ids(ALT)), source=ALT, text="IMG_2041.JPG BUY POSTERS ONLINE", detail="brief")


def _found(record: Record) -> Iterator[AnyAnnotation]:
    """What a detector and a reader found."""
    source = "kit_detector"
    ids = record.ids(source)
    for label, box, score in (
        ("disc", (0.1, 0.2, 0.48, 0.6), 0.9),
        ("ball", (0.12, 0.2, 0.5, 0.62), 0.4),
        ("square", (0.5, 0.15, 0.9, 0.55), 0.8),
        ("square", (0.52, 0.15, 0.9, 0.57), 0.6),
    ):
        yield _region(record, next(ids), source, box, raw_label=label, label=label, scores=Scores(label=score))
    for box, score in (((0.1, 0.2, 0.5, 0.6), 0.7), ((0, 0, 1, 1), 0.3)):
        yield _region(record, next(ids), source, box, "proposal", scores=Scores(box=score))
    reader, says = "kit_reader", {"text": "OPEN", "scores": Scores(label=0.95)}
    sign = _region(record, next(record.ids(reader)), reader, (0.1, 0.7, 0.9, 0.95), "text", **says)
    x0, y0, x1, y1 = sign.box
    yield replace(sign, quad=(x0, y0, x1, y0, x1, y1, x0, y1))


def _said(record: Record) -> Iterator[AnyAnnotation]:
    """Texts at each granularity, their parses (but for one text), and what they name."""
    objects = [region for region in record.regions if region.kind == "object"]
    texts, parses, triplets = (record.ids(f"kit_{role}") for role in ("captioner", "parser", "grounder"))
    for detail, words in zip(DETAILS, CAPTIONS, strict=True):
        text = Text(id=next(texts), source="kit_captioner", text=words, detail=detail)
        yield text
        spans = [(words.find(phrase), phrase) for phrase in PHRASES if phrase in words]
        if detail != "more_detailed":
            yield parse(text, next(parses), spans)
        for start, phrase in spans:
            yield Triplet(
                id=next(triplets),
                source="kit_grounder",
                derived_from=(text.id,),
                text_id=text.id,
                start=start,
                stop=start + len(phrase),
                region_ids=tuple(r.id for r in objects if r.label == phrase.split()[-1])[:2],
                scores=Scores(phrase=0.6, box=0.5),
            )
    for region in objects[2:4]:
        words = f"the {region.label} in the picture"
        yield RegionText(id=next(texts), source="kit_captioner", region_id=region.id, text=words)


def _doubtful(record: Record) -> Iterator[AnyAnnotation]:
    """What filters are there for: things that one detector alone has found, one of them too flat; a word inside a
    phrase, with its boxes; another text of each region that has one; and a plain text that speaks of nothing that it
    was made of."""
    other = "kit_second_detector"
    ids = record.ids(other)
    yield _region(record, next(ids), other, (0, 0.6, 0.2, 0.9), label="square", scores=Scores(label=0.5))
    yield _region(record, next(ids), other, (0, 0.96, 1, 0.98), label="line", scores=Scores(label=0.3))
    phrase = next(triplet for triplet in record.triplets if triplet.source == "kit_grounder")
    inside = phrase.start + len("A ")
    yield replace(phrase, id=next(record.ids(phrase.source)), start=inside, scores=Scores(phrase=0.3, box=0.5))
    ids = record.ids("kit_captioner")
    for one in record.region_texts:
        yield replace(one, id=next(ids), text="something round")
    source, words = "kit_aggregator", "A dog on a sofa."
    square = next(region for region in record.regions if region.label == "square")
    text = next(text for text in record.texts if text.source == "kit_captioner")
    made_up = Text(
        id=next(record.ids(source)), source=source, text=words, detail="brief", derived_from=(square.id, text.id)
    )
    yield made_up
    found = parse(made_up, next(record.ids("kit_parser")), [(0, "A dog"), (words.index("a sofa"), "a sofa")])
    yield replace(found, object_complexity=0.5, max_object_complexity=1)


def _opinions(record: Record) -> Iterator[Decision]:
    """What a judge thinks of texts, each better than the one before it, and that a grounder found nothing of a text."""
    judged: tuple[AnyAnnotation, ...] = (*record.texts, *record.region_texts)
    for number, one in enumerate(judged):
        yield _opinion(record, one, "kit_judge", "similarity", number / 10)
    for text in record.texts:
        if text.source == "kit_aggregator":
            yield _opinion(record, text, "kit_grounder", GROUNDED, 0.0)


def _opinion(record: Record, annotation: AnyAnnotation, by: str, reason: str, value: float) -> Decision:
    return Decision(annotation_id=annotation.id, action="keep", by=by, reason=reason, value=value, round=record.round)


def parse(text: Text, id_: str, spans: Sequence[tuple[int, str]]) -> Parse:
    found = []
    for start, phrase in spans:
        _, *modifiers, head = phrase.split()
        stop = start + len(phrase)
        found.append(
            Phrase(
                start=start,
                stop=stop,
                head=head,
                modifiers=tuple(modifiers),
                count=1,
                expression_start=start,
                expression_stop=stop,
            )
        )
    return Parse(
        id=id_,
        source="kit_parser",
        derived_from=(text.id,),
        text_id=text.id,
        objects=len(spans),
        attributes=sum(len(phrase.modifiers) for phrase in found),
        actions=1,
        proper_nouns=0,
        object_complexity=1.5,
        action_complexity=2.0,
        max_object_complexity=3,
        max_action_complexity=2,
        phrases=tuple(found),
    )


def _about(record: Record) -> Iterator[AnyAnnotation]:
    """What a later round says of annotations of the rounds before."""
    source = "kit_later"
    ids = record.ids(source)
    region, text = record.regions[0], record.texts[0]
    width, height = size_of(record)
    counts = encode_mask(np.ones((height, width), bool))
    yield replace(region, id=next(ids), source=source, label="orb", derived_from=(region.id,), scores=Scores(label=0.7))
    yield RegionText(id=next(ids), source=source, region_id=region.id, text="a round thing")
    yield Mask(id=next(ids), source=source, region_id=region.id, size=(height, width), counts=counts)
    yield Triplet(id=next(ids), source=source, text_id=text.id, start=0, stop=6, region_ids=(region.id,))
    yield replace(parse(text, next(ids), [(0, "A disc")]), source=source)
    yield Text(id=next(ids), source=source, text=CAPTIONS[1], detail="brief", derived_from=(region.id, text.id))


def _region(record: Record, id_: str, source: str, shares: Box, kind: Kind = "object", **fields: Any) -> Region:
    """One whose box is in shares of the image's sides."""
    width, height = size_of(record)
    x0, y0, x1, y1 = shares
    box = (x0 * width, y0 * height, x1 * width, y1 * height)
    return Region(id=id_, source=source, kind=kind, box=box, **fields)
