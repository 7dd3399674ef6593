from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from strategies import records

from engine.decide import Filter
from engine.records import Box, Decision, Item, Kind, Record, Region, Scores
from engine.vocabulary import ClassEntry, Vocabulary
from filters.region import Aspect, Labels, Outside, Score, Size

ITEM = Item(item_id=Item.id_of("a.jpg"), uri="a.jpg", width=200, height=100)
UNSIZED = dataclasses.replace(ITEM, width=None, height=None)
VOCABULARY = Vocabulary(classes={"sofa": ClassEntry(synonyms=("couch",)), "Person": ClassEntry()}, ignore=("person",))


def region(box: Box = (10, 10, 60, 60), kind: Kind = "object", source: str = "detector", **fields: Any) -> Region:
    return Region(id="0.d.0", source=source, kind=kind, box=box, **fields)


def decide(filter: Filter, region: Region, item: Item = ITEM) -> list[Decision]:
    return list(filter.decide(dataclasses.replace(Record(item=item).append([region]), round=3)))


def outcome(filter: Filter, region: Region, item: Item = ITEM) -> tuple[str, float | None, float | None] | None:
    decisions = decide(filter, region, item)
    return (decisions[0].reason, decisions[0].value, decisions[0].threshold) if decisions else None


@pytest.mark.parametrize(
    "made, expected",
    [
        (region(scores=Scores(label=0.39, box=0.9)), ("low_score", 0.39, 0.4)),
        (region(scores=Scores(label=0.4, box=0.1)), None),
        (region(scores=Scores(box=0.1)), None),
        (region(kind="proposal", scores=Scores(box=0.1, label=0.9)), ("low_score", 0.1, 0.3)),
        (region(kind="proposal", scores=Scores(label=0.1)), None),
        (region(kind="text", scores=Scores(label=0.1)), None),
        (region(kind="text", source="ocr", scores=Scores(label=0.1, box=0.9)), ("low_score", 0.1, 0.6)),
        (region(source="ocr", scores=Scores(label=0.1)), None),
        (region(source="other", scores=Scores(label=0.0)), None),
    ],
)
def test_score(made: Region, expected: object) -> None:
    score = Score(thresholds={"detector": {"object": 0.4, "proposal": 0.3}, "ocr": {"text": 0.6}})
    assert outcome(score, made) == expected
    assert outcome(Score(), made) is None


@pytest.mark.parametrize(
    "box, item, expected",
    [
        ((10, 10, 13, 60), ITEM, ("too_small", 3, 4)),
        ((10, 10, 14, 60), ITEM, None),
        ((10, 10, 10, 10), ITEM, ("too_small", 0, 4)),
        ((-50, 10, 2, 60), ITEM, ("too_small", 2, 4)),  # what the image shows of it
        ((300, 10, 400, 60), ITEM, ("too_small", 0, 4)),
        ((0, 0, 200, 100), ITEM, None),
        ((-9, -9, 209, 109), ITEM, None),
        ((10, 10, 13, 60), UNSIZED, ("too_small", 3, 4)),
        ((0, 0, 9000, 9000), UNSIZED, None),
        ((0, 0, 9, 9), dataclasses.replace(ITEM, width=1000, height=1000), ("too_small", 81e-6, 1e-4)),
        ((0, 0, 10, 10), dataclasses.replace(ITEM, width=1000, height=1000), None),
    ],
)
def test_size(box: Box, item: Item, expected: object) -> None:
    assert outcome(Size(), region(box), item) == expected


def test_size_too_large() -> None:
    assert outcome(Size(max_area_fraction=0.9), region((-9, 0, 190, 100))) == ("too_large", 0.95, 0.9)
    assert outcome(Size(max_area_fraction=0.9), region((0, 0, 180, 100))) is None
    assert outcome(Size(max_area_fraction=0.9, kinds=("text",)), region((-9, 0, 190, 100))) is None


@pytest.mark.parametrize(
    "box, kind, expected",
    [
        ((0, 0, 100, 4), "object", ("extreme_aspect", 25, 20)),
        ((0, 0, 4, 100), "proposal", ("extreme_aspect", 25, 20)),
        ((0, 0, 100, 5), "object", None),
        ((0, 0, 100, 1), "text", None),
        ((0, 0, 100, 0), "object", None),
        ((0, 0, 0, 0), "object", None),
    ],
)
def test_aspect(box: Box, kind: Kind, expected: object) -> None:
    assert outcome(Aspect(), region(box, kind)) == expected


@pytest.mark.parametrize(
    "box, item, expected",
    [
        ((-30, 0, 10, 10), ITEM, ("outside_image", 0.25, 0.5)),
        ((190, 90, 210, 110), ITEM, ("outside_image", 0.25, 0.5)),
        ((-10, 0, 10, 10), ITEM, None),
        ((300, 0, 400, 10), ITEM, ("outside_image", 0, 0.5)),
        ((300, 5, 300, 5), ITEM, ("outside_image", 0, 0.5)),
        ((5, 5, 5, 5), ITEM, None),
        ((300, 0, 400, 10), UNSIZED, None),
    ],
)
def test_outside(box: Box, item: Item, expected: object) -> None:
    assert outcome(Outside(), region(box), item) == expected


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"label": "sofa"}, "blacklisted_label"),
        ({"label": "Couch"}, "blacklisted_label"),
        ({"raw_label": " COUCH"}, "blacklisted_label"),
        ({"raw_label": "couch", "label": "bed"}, None),  # the vocabulary's word counts
        ({"label": "Person"}, "ignored_label"),
        ({"label": "bed"}, None),
        ({}, None),
        ({"kind": "text", "text": "sofa"}, None),
    ],
)
def test_labels(fields: dict[str, Any], reason: str | None) -> None:
    got = outcome(Labels(blacklist=("couch",), vocabulary=VOCABULARY), region(**fields))
    assert got == (None if reason is None else (reason, None, None))
    assert outcome(Labels(), region(**fields)) is None


def test_a_decision_carries_name_and_round() -> None:
    (decision,) = decide(Size(name="tiny"), region((0, 0, 1, 1)))
    assert (decision.by, decision.round, decision.action, decision.annotation_id) == ("tiny", 3, "reject", "0.d.0")


STRICT = [
    Score(
        thresholds={source: dict.fromkeys(("object", "text", "proposal"), 0.5) for source in ("detector", "ocr", "a")}
    ),
    Size(min_side=40, min_area_fraction=0.1, max_area_fraction=0.5),
    Aspect(max_ratio={"object": 1.5, "text": 1.5, "proposal": 1.5}),
    Outside(min_inside=0.9),
    Labels(blacklist=("", "0"), vocabulary=VOCABULARY),
]


@pytest.mark.parametrize("strict", STRICT, ids=lambda filter: filter.name)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(record=records())
def test_decisions_are_about_what_stands_once_and_measured(strict: Filter, record: Record) -> None:
    decisions = list(strict.decide(record))
    ids = [decision.annotation_id for decision in decisions]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= {region.id for region in record.standing.regions}
    assert all(d.value != d.threshold for d in decisions if d.value is not None)
    assert list(strict.decide(record.decide(decisions))) == []
    for decision in decisions:
        if decision.reason == "low_score":
            judged = record.by_id[decision.annotation_id]
            assert isinstance(judged, Region) and judged.score == decision.value
