"""Agreement of detectors: what several see, and what one sees alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phrased import parsed, record
from strategies import records

from engine.decide import decide
from engine.records import HUMAN, AnyAnnotation, Box, Kind, Record, Region, Scores, Triplet
from filters.agreement import Agreement

PLACE: Box = (0, 0, 100, 100)
NEAR: Box = (0, 0, 100, 60)  # IoU 0.6
OFF: Box = (0, 0, 100, 40)  # IoU 0.4
BOTH = Agreement(sources=("a", "b"))


def region(
    id_: str,
    source: str,
    box: Box = PLACE,
    label: str | None = "dog",
    score: float | None = 0.5,
    made_from: tuple[str, ...] = (),
    kind: Kind = "object",
) -> Region:
    scores = Scores(label=score) if kind == "object" else Scores(box=score)
    return Region(id=id_, source=source, kind=kind, box=box, label=label, scores=scores, derived_from=made_from)


def falls(filter_: Agreement, *annotations: AnyAnnotation) -> dict[str, float | None]:
    """What falls, with the IoU of what came nearest to confirming it."""
    found = list(filter_.decide(record(*annotations)))
    assert all((one.reason, one.threshold) == ("unconfirmed", filter_.iou) for one in found)
    return {one.annotation_id: one.value for one in found}


def test_two_that_see_the_same_confirm_each_other() -> None:
    assert falls(BOTH, region("r", "a"), region("s", "b", NEAR)) == {}
    assert falls(BOTH, region("r", "a"), region("s", "b", OFF)) == {"r": 0.4, "s": 0.4}
    assert falls(BOTH, region("r", "a"), region("s", "b", label="cat")) == {"r": 0, "s": 0}
    assert falls(BOTH, region("r", "a"), region("s", "a")) == {"r": 0, "s": 0}
    assert falls(Agreement(sources=("a", "b"), iou=0.4), region("r", "a"), region("s", "b", OFF)) == {}


def test_that_another_found_nothing_is_evidence() -> None:
    assert falls(BOTH, region("r", "a")) == {"r": 0}


@pytest.mark.parametrize(
    "filter_",
    [
        Agreement(),
        Agreement(sources=("a",)),
        Agreement(sources=("a", "b"), families={"a": "detr", "b": "detr"}),
        Agreement(sources=("b", "c")),  # a is not asked to agree
        Agreement(sources=("a", "b"), kinds=("text",)),
    ],
)
def test_with_nobody_to_agree_with_everything_stands(filter_: Agreement) -> None:
    assert falls(filter_, region("r", "a")) == {}


def test_anybody_else_confirms_and_only_those_asked_fall() -> None:
    assert falls(BOTH, region("r", "a"), region("s", "other", NEAR)) == {}
    assert falls(BOTH, region("s", "other")) == {}
    assert falls(BOTH, region("r", "a"), region("s", HUMAN, NEAR)) == {}


def test_one_family_is_one_witness() -> None:
    filter_ = Agreement(sources=("a", "a2", "b"), families={"a": "detr", "a2": "detr"})
    assert falls(filter_, region("r", "a"), region("s", "a2")) == {"r": 0, "s": 0}
    assert falls(filter_, region("r", "a"), region("s", "a2"), region("t", "b")) == {}


def test_who_is_sure_needs_no_witness() -> None:
    filter_ = Agreement(sources=("a", "b"), sure={"a": 0.8})
    assert falls(filter_, region("r", "a", score=0.8), region("s", "b", OFF, score=0.99)) == {"s": 0.4}
    assert falls(filter_, region("r", "a", score=0.79), region("s", "a", score=None)) == {"r": 0, "s": 0}


def test_what_derives_from_a_region_does_not_confirm_it() -> None:
    """Nor does the region confirm what derives from it; over others just as little."""
    assert falls(BOTH, region("r", "a"), region("s", "b", made_from=("r",))) == {"r": 0, "s": 0}
    between = region("m", "other", label="puppy", made_from=("r",))
    assert falls(BOTH, region("r", "a"), between, region("s", "b", made_from=("m",))) == {"r": 0, "s": 0}
    circle = [region("s", "b", made_from=("t",)), region("t", "other", OFF, made_from=("s",))]
    assert falls(BOTH, *circle) == {"s": 0}


def test_what_fell_confirms_nothing() -> None:
    made = record(region("r", "a"), region("s", "b"))
    made = made.decide([made.reject(made.regions[1], "size", "too_small")])
    assert [one.annotation_id for one in BOTH.decide(made)] == ["r"]


def test_proposals_are_compared_by_their_boxes() -> None:
    filter_ = Agreement(sources=("a", "b"), kinds=("proposal",), sure={"b": 0.9})
    some = [
        region("r", "a", label=None, kind="proposal"),
        region("s", "b", OFF, label=None, kind="proposal", score=0.9),
    ]
    assert falls(filter_, *some) == {"r": 0.4}
    assert falls(filter_, *some, region("t", "c", NEAR, label=None, kind="proposal")) == {}
    assert falls(filter_, *some, region("t", "c", NEAR, label=None)) == {"r": 0.4}


def test_a_triplet_confirms_nothing() -> None:
    """Whoever makes it looks for what stands by then, and the region does not."""
    span: dict[str, Any] = {"text_id": "t0", "start": 0, "stop": 5}
    triplet = Triplet(id="g", source="grounder", region_ids=("r",), scores=Scores(phrase=0.9), **span)
    assert falls(BOTH, region("r", "a"), *parsed(0, "a dog"), triplet) == {"r": 0}


def test_a_person_is_not_contradicted() -> None:
    made = decide(record(region("r", HUMAN)), [Agreement(sources=(HUMAN, "b"))])
    assert not made.fallen and [one.action for one in made.decisions] == ["keep"]


@settings(max_examples=30)
@given(records(), st.floats(0.01, 1))
def test_of_any_record_it_rejects_standing_regions_once_in_whatever_order_they_come(
    made: Record, lowest: float
) -> None:
    sources = tuple(sorted({annotation.source for annotation in made.annotations()}))
    filter_ = Agreement(sources=sources, kinds=("object", "proposal"), iou=lowest)
    found = list(filter_.decide(made))
    ids = [decision.annotation_id for decision in found]
    assert len(set(ids)) == len(ids) and set(ids) <= {region.id for region in made.standing.regions}
    turned = Record(made.item).append(list(made.annotations())[::-1]).decide(made.decisions)
    assert {decision.annotation_id for decision in filter_.decide(turned)} == set(ids)
