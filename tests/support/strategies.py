"""Hypothesis strategies for records and their parts. `records()` gives what passes the checks of `Record.append`.

The strategies for single annotations take their `id`, `source` and `derived_from`, so that tests can build on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from pycocotools import mask as coco

from engine.records import (
    ACTIONS,
    DETAILS,
    KINDS,
    AnyAnnotation,
    Box,
    Decision,
    Item,
    ItemError,
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

# All of Unicode that has a UTF-8 form: control characters, right to left, combining, emoji, outside the first plane.
words = st.text(st.characters(codec="utf-8"), max_size=12)
sources = st.sampled_from(["detector", "ocr", "human", "a", "0", "a.b", "0.a", "Größe", "検出"])
digests = st.binary(min_size=16, max_size=16)
coordinates = st.floats(-200, 5000)  # float64: most have no float32 of their own
numbers = st.floats(allow_nan=False, allow_infinity=False)
scores = st.builds(Scores, **dict.fromkeys(Scores.__slots__, st.none() | numbers))
errors = st.builds(ItemError, stage=words, kind=words, message=words)


@st.composite
def items(draw: st.DrawFn, quarantined: st.SearchStrategy[bool] = st.booleans()) -> Item:  # noqa: B008
    """Read and with a size, or in quarantine with an error and what was known by then."""
    uri, error = draw(words), draw(errors) if draw(quarantined) else None
    unread = error is not None and draw(st.booleans())
    return Item(
        item_id=Item.id_of(uri),
        uri=uri,
        content_id=None if unread else draw(digests),
        duplicate_of=draw(st.none() | digests),
        width=None if unread else draw(st.integers(1, 3000)),
        height=None if unread else draw(st.integers(1, 3000)),
        dataset=draw(st.none() | words),
        licence=draw(st.none() | words),
        labels=tuple(draw(st.lists(words, max_size=3))),
        error=error,
    )


@st.composite
def boxes(draw: st.DrawFn, values: st.SearchStrategy[float] = coordinates) -> Box:
    """Inside and outside the image, without width or height too."""
    x0, x1 = sorted((draw(values), draw(values)))
    y0, y1 = sorted((draw(values), draw(values)))
    return x0, y0, x1, y1


def texts(**annotation: Any) -> st.SearchStrategy[Text]:
    return st.builds(Text, **_given(annotation), text=words, detail=st.sampled_from(DETAILS))


def regions(**annotation: Any) -> st.SearchStrategy[Region]:
    """Of every kind, each with any of the fields that another kind would have."""
    return st.builds(
        Region,
        **_given(annotation),
        kind=st.sampled_from(KINDS),
        box=boxes(),
        quad=st.none() | st.tuples(*[coordinates] * 8),
        **dict.fromkeys(("raw_label", "label", "text"), st.none() | words),
        crowd=st.booleans(),
    )


def region_texts(region_id: str, **annotation: Any) -> st.SearchStrategy[RegionText]:
    return st.builds(RegionText, **_given(annotation, region_id=region_id), text=words)


def masks(region_id: str, size: tuple[int, int], **annotation: Any) -> st.SearchStrategy[Mask]:
    """Masks of `size` (height, width), the empty and the full one among them."""
    fixed = _given(annotation, region_id=region_id, size=size)
    return st.builds(Mask, **fixed, counts=run_lengths(size))


@st.composite
def run_lengths(draw: st.DrawFn, size: tuple[int, int]) -> bytes:
    """COCO compressed counts: runs of zeros and ones in turn, of which only the first may be empty."""
    pixels = size[0] * size[1]
    changes = sorted(draw(st.sets(st.integers(0, pixels - 1), max_size=12)))
    runs = [stop - start for start, stop in pairwise([0, *changes, pixels])]
    counts: bytes = coco.frPyObjects({"size": list(size), "counts": runs}, *size)["counts"]
    return counts


@st.composite
def phrases(draw: st.DrawFn, length: int) -> Phrase:
    """Any phrase of a text of `length` characters."""
    wide = sorted(draw(st.lists(st.integers(0, length), min_size=2, max_size=2, unique=True)))
    start = draw(st.integers(wide[0], wide[1] - 1))
    return Phrase(
        start=start,
        stop=draw(st.integers(start + 1, wide[1])),
        head=draw(words),
        modifiers=tuple(draw(st.lists(words, max_size=2))),
        count=draw(st.none() | st.integers(0, 99)),
        expression_start=wide[0],
        expression_stop=wide[1],
    )


def parses(text: Text, **annotation: Any) -> st.SearchStrategy[Parse]:
    """Any parse of `text`, with phrases if it has characters."""
    counted = ("objects", "attributes", "actions", "proper_nouns", "max_object_complexity", "max_action_complexity")
    complexities = dict.fromkeys(("object_complexity", "action_complexity"), st.floats(0, 50))
    found = st.lists(phrases(len(text.text)), max_size=3).map(tuple) if text.text else st.just(())
    fixed = _given(annotation, text_id=text.id)
    return st.builds(Parse, **fixed, **dict.fromkeys(counted, st.integers(0, 99)), **complexities, phrases=found)


def triplets(text: Text, region_ids: Sequence[str] = (), **annotation: Any) -> st.SearchStrategy[Triplet]:
    """Any span of `text`, which must not be empty, with some of the regions, or none."""
    spans = st.lists(st.integers(0, len(text.text)), min_size=2, max_size=2, unique=True).map(sorted)
    chosen = _some(region_ids)
    fixed = _given(annotation, text_id=text.id)
    return st.tuples(spans, chosen).flatmap(
        lambda drawn: st.builds(Triplet, **fixed, **_fixed(start=drawn[0][0], stop=drawn[0][1], region_ids=drawn[1]))
    )


@st.composite
def annotations(draw: st.DrawFn, record: Record) -> list[AnyAnnotation]:
    """What one specialist might append to `record`; its references may lead to what an earlier one appended."""
    source = draw(sources)
    ids = record.ids(source)
    known = list(record.by_id)

    def new(strategy: Any, *args: Any) -> Any:
        annotation = draw(strategy(*args, id=next(ids), source=source, derived_from=draw(_some(known))))
        known.append(annotation.id)
        return annotation

    new_texts = [new(texts) for _ in range(draw(st.integers(0, 3)))]
    new_regions = [new(regions) for _ in range(draw(st.integers(0, 4)))]
    region_ids = [region.id for region in (*record.regions, *new_regions)]
    size = (record.item.height or 7, record.item.width or 5)
    new_region_texts = [new(region_texts, region_id) for region_id in draw(_some(region_ids))]
    new_masks = [new(masks, region_id, size) for region_id in draw(_some(region_ids))]
    spoken = [text for text in (*record.texts, *new_texts) if text.text]
    new_parses = [new(parses, text) for text in (*record.texts, *new_texts)[-2:]]
    new_triplets = [new(triplets, text, region_ids) for text in spoken[-2:]]
    return [*new_texts, *new_parses, *new_regions, *new_region_texts, *new_masks, *new_triplets]


@st.composite
def decisions(draw: st.DrawFn, record: Record) -> list[Decision]:
    """Decisions on some annotations of `record`; one may be decided on twice."""
    known = list(record.by_id)
    if not known:
        return []
    decision = st.builds(
        Decision,
        annotation_id=st.sampled_from(known),
        action=st.sampled_from(ACTIONS),
        by=words,
        reason=words,
        value=st.none() | numbers,
        threshold=st.none() | numbers,
        against=st.none() | st.sampled_from(known),
        round=st.just(record.round),
    )
    return draw(st.lists(decision, max_size=4))


@st.composite
def records(draw: st.DrawFn, max_rounds: int = 2) -> Record:
    """Records as the engine makes them: `max_rounds` rounds at most, in each specialists first, then decisions."""
    fate = draw(st.sampled_from(["annotated"] * 6 + ["annotating failed", "quarantined"]))
    record = Record(item=draw(items(st.just(fate == "quarantined"))))
    if fate == "annotating failed":
        record = dataclasses.replace(record, error=draw(errors))
    elif fate == "annotated":
        hash_ = draw(st.none() | st.binary(min_size=8, max_size=8))
        record = dataclasses.replace(record, perceptual_hash=hash_)
    for round in range(draw(st.integers(1, max_rounds)) if fate == "annotated" else 0):
        record = dataclasses.replace(record, round=round)
        for _ in range(draw(st.integers(1, 2))):
            record = record.append(draw(annotations(record)))
        record = record.decide(draw(decisions(record)))
    return record


def _given(annotation: dict[str, Any], **fields: Any) -> dict[str, st.SearchStrategy[Any]]:
    """The fields that every annotation has, and further ones, fixed."""
    common = {"id": "0.a.0", "source": "a", "derived_from": (), **annotation, **fields}
    return {"scores": scores, **_fixed(**common)}


def _fixed(**values: Any) -> dict[str, st.SearchStrategy[Any]]:
    return {name: st.just(value) for name, value in values.items()}


def _some(values: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    if not values:
        return st.just(())
    return st.lists(st.sampled_from(list(values)), max_size=3, unique=True).map(tuple)
