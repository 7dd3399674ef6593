"""Cases for merging: few classes and boxes that often overlap, so that every rule has something to decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from strategies import run_lengths

from engine.merge.case import Case
from engine.records import (
    DETAILS,
    VERIFIED,
    VERIFIED_BLANK,
    AnyAnnotation,
    Box,
    Decision,
    Item,
    Mask,
    Parse,
    Phrase,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
    Triplet,
    cascade,
)

LABELS = ("dog", "cat", "car")
SIZE = (64, 64)
MODEL = "florence2"
ITEM = Item(item_id=b"i" * 16, uri="i.png", content_id=b"c" * 16, width=SIZE[0], height=SIZE[1])
OLD_SOURCES = ("human", "detector", "other")
NEW_SOURCES = (MODEL, "third")
shares = st.floats(0.05, 1).map(lambda value: round(value, 3))


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """On a grid of 8 px, jittered by a pixel or two."""
    x, y = draw(st.integers(0, 4)) * 8, draw(st.integers(0, 4)) * 8
    side = draw(st.sampled_from([8, 16, 24]))
    jitter = [draw(st.integers(-2, 2)) for _ in range(4)]
    return max(x + jitter[0], 0), max(y + jitter[1], 0), x + side + jitter[2], y + side + jitter[3]


@st.composite
def annotations(draw: st.DrawFn, record: Record, source: str) -> list[AnyAnnotation]:
    ids = record.ids(source)
    made: list[AnyAnnotation] = []
    regions = [draw(_regions(next(ids), source)) for _ in range(draw(st.integers(0, 4)))]
    made += regions
    objects = [region for region in regions if region.kind == "object"]
    for region in objects:
        if draw(st.booleans()):
            counts = draw(run_lengths((SIZE[1], SIZE[0])))
            made.append(Mask(id=next(ids), source=source, region_id=region.id, size=(SIZE[1], SIZE[0]), counts=counts))
        if draw(st.booleans()):
            text = draw(st.sampled_from(["a brown dog", "a cat", "a man beside a car"]))
            made.append(RegionText(id=next(ids), source=source, region_id=region.id, text=text))
    for _ in range(draw(st.integers(0, 2))):
        made += draw(_texts(ids, source, [region.id for region in objects]))
    return made


@st.composite
def _regions(draw: st.DrawFn, id_: str, source: str) -> Region:
    kind = draw(st.sampled_from(["object", "object", "object", "text", "proposal"]))
    return Region(
        id=id_,
        source=source,
        kind=kind,  # type: ignore[arg-type]
        box=draw(boxes()),
        label=draw(st.sampled_from(LABELS)) if kind == "object" else None,
        text=draw(st.sampled_from(["stop", "st0p", "shop"])) if kind == "text" else None,
        crowd=kind == "object" and draw(st.integers(0, 9)) == 0,
        scores=Scores(label=draw(st.none() | shares), box=draw(st.none() | shares)),
    )


@st.composite
def _texts(draw: st.DrawFn, ids: Any, source: str, region_ids: Sequence[str]) -> list[AnyAnnotation]:
    label = draw(st.sampled_from(LABELS))
    text = Text(id=next(ids), source=source, text=f"a {label} here", detail=draw(st.sampled_from(DETAILS)))
    made: list[AnyAnnotation] = [text]
    if draw(st.booleans()):
        made.append(parse(next(ids), text, [label]))
    if region_ids:
        some = tuple(draw(st.lists(st.sampled_from(list(region_ids)), min_size=1, max_size=2, unique=True)))
        made.append(
            Triplet(id=next(ids), source=source, text_id=text.id, start=0, stop=len(label) + 2, region_ids=some)
        )
    return made


def parse(id_: str, text: Text, heads: Sequence[str]) -> Parse:
    """As the parser would make it of a text that has the heads in their order, each behind an article."""
    phrases, at = [], 0
    for head in heads:
        start = text.text.index(f"a {head}", at)
        at = start + len(head) + 2
        phrases.append(Phrase(start=start, stop=at, head=head, count=1, expression_start=start, expression_stop=at))
    counts = dict.fromkeys(("objects", "attributes", "actions", "proper_nouns"), 1)
    complexities = dict.fromkeys(("max_object_complexity", "max_action_complexity"), 1)
    return Parse(
        id=id_,
        source="parser",
        text_id=text.id,
        object_complexity=1.0,
        action_complexity=1.0,
        phrases=tuple(phrases),
        **counts,  # type: ignore[arg-type]
        **complexities,  # type: ignore[arg-type]
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A record with what stood before its round and what the round adds, some of it turned down by filters."""
    before = Record(ITEM)
    for source in OLD_SOURCES:
        before = before.append(draw(annotations(before, source)))
    before = before.append(draw(_other_names(before, "other")))
    before = before.decide(draw(_falls(before)))
    before = before.decide(cascade(before))
    record = replace(before, round=1)
    for source in NEW_SOURCES:
        record = record.append(draw(annotations(record, source)))
    record = record.append(draw(_other_names(record, MODEL)))
    record = record.decide(draw(_opinions(record)))
    return Case(record, before, frozenset({MODEL}))


@st.composite
def _other_names(draw: st.DrawFn, record: Record, source: str) -> list[Region]:
    """What a source would call some of the objects that stand."""
    made: list[Region] = []
    for one in record.standing.regions:
        label = draw(st.sampled_from(LABELS))
        if one.kind == "object" and not one.crowd and label != one.label and draw(st.booleans()):
            scores = Scores(label=draw(st.none() | shares))
            made.append(
                replace(
                    one,
                    id=f"{record.round}.names.{len(made)}",
                    source=source,
                    derived_from=(one.id,),
                    label=label,
                    scores=scores,
                )
            )
    return made


@st.composite
def _falls(draw: st.DrawFn, record: Record) -> list[Decision]:
    some = [a for a in record.annotations() if a.source != "human" and draw(st.integers(0, 9)) == 0]
    return [record.reject(annotation, "filter", "some_reason") for annotation in some]


@st.composite
def _opinions(draw: st.DrawFn, record: Record) -> list[Decision]:
    found = []
    for annotation in (*record.standing.regions, *record.standing.texts):
        reasons = (VERIFIED,) if isinstance(annotation, Region) else (VERIFIED, VERIFIED_BLANK)
        if annotation.source != MODEL and draw(st.booleans()):
            found += [
                Decision(
                    annotation_id=annotation.id,
                    action="keep",
                    by=MODEL,
                    reason=reason,
                    value=-round(draw(st.floats(0.01, 5)), 3),
                    round=1,
                )
                for reason in reasons
            ]
    return found
