from __future__ import annotations

import dataclasses
import subprocess
import sys
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import boxes
from torchvision.ops import nms

from engine.geometry import iou
from engine.records import Box, Decision, Item, Record, Region, Scores
from filters.nms import PLAIN, TOGETHER, Nms, _kernel, _plain

EMPTY = Record(item=Item(item_id=Item.id_of("a.jpg"), uri="a.jpg", width=200, height=100))
BOX, SHIFTED, FAR = (0, 0, 100, 100), (10, 0, 110, 100), (150, 0, 199, 100)  # IoU of the first two: 90 / 110


def region(box: Box = BOX, score: float | None = 0.5, label: str | None = "cup", **fields: Any) -> Region:
    fields = {"id": "", "source": "detector", "kind": "object", **fields}
    return Region(box=box, label=label, scores=Scores(label=score, box=score), **fields)


def record_of(*regions: Region) -> Record:
    return EMPTY.append(dataclasses.replace(region, id=f"0.d.{n}") for n, region in enumerate(regions))


def lost(nms: Nms, *regions: Region) -> list[str]:
    return sorted(decision.annotation_id for decision in nms.decide(record_of(*regions)))


def test_a_decision_names_the_better_box_and_the_overlap() -> None:
    record = dataclasses.replace(record_of(region(score=0.4), region(SHIFTED, 0.9), region(FAR, 0.1)), round=2)
    assert list(Nms().decide(record)) == [
        Decision(
            annotation_id="0.d.0",
            action="reject",
            by="nms",
            reason="duplicate_box",
            value=90 / 110,
            threshold=0.6,
            against="0.d.1",
            round=2,
        )
    ]


@pytest.mark.parametrize(
    "one, other",
    [
        (region(), region(SHIFTED, label="bowl")),
        (region(), region(SHIFTED, label=None)),
        (region(), region(SHIFTED, source="other")),
        (region(), region(SHIFTED, kind="text")),
        (region(), region(FAR)),
        (region((5, 5, 5, 5)), region((5, 5, 5, 5))),
        (region(), region(SHIFTED, None)),
        (region(score=None), region(SHIFTED, None)),
    ],
)
def test_what_does_not_suppress(one: Region, other: Region) -> None:
    assert lost(Nms(kinds=("object", "text", "proposal")), one, other) == []
    assert lost(Nms(kinds=("object", "text", "proposal")), other, one) == []


def test_across_labels_but_never_across_sources_and_kinds() -> None:
    nms = Nms(kinds=("object", "text"), per_label=False)
    others = region(label="bowl"), region(source="other", score=0.1), region(kind="text", score=0.1)
    assert lost(nms, region(SHIFTED, 0.4), *others) == ["0.d.0"]


def test_what_gives_another_label_to_a_region_is_in_its_place() -> None:
    other = region(score=0.4, label="mug", derived_from=("0.d.0",))
    assert lost(Nms(per_label=False), region(), other) == []


def test_only_the_kinds_that_it_looks_at() -> None:
    proposals = region(kind="proposal"), region(SHIFTED, 0.4, kind="proposal")
    assert lost(Nms(), *proposals) == []
    assert lost(Nms(kinds=("proposal",)), *proposals) == ["0.d.1"]


def test_a_proposal_is_ranked_by_its_box_score() -> None:
    first = dataclasses.replace(region(kind="proposal"), scores=Scores(label=0.9, box=0.1))
    second = dataclasses.replace(first, scores=Scores(label=0.1, box=0.9))
    assert lost(Nms(kinds=("proposal",)), first, second) == ["0.d.0"]


def test_equal_scores_keep_the_earlier() -> None:
    assert lost(Nms(), *[region()] * 50) == sorted(f"0.d.{n}" for n in range(1, 50))


def test_what_lost_suppresses_nothing() -> None:
    """A chain of boxes, each over the threshold with its neighbours only."""
    chain = [region((20 * n, 0, 20 * n + 100, 100), 0.9 - n / 10) for n in range(3)]
    assert lost(Nms(), *chain) == ["0.d.1"]


def test_against_is_a_better_box_even_if_a_worse_one_overlaps_more() -> None:
    regions = [region((shift, 0, shift + 100, 100), score) for shift, score in ((0, 0.9), (20, 0.8), (32, 0.7))]
    (decision,) = Nms().decide(record_of(*regions))
    assert (decision.annotation_id, decision.against, decision.value) == ("0.d.1", "0.d.0", 80 / 120)


def test_what_an_earlier_filter_rejected_suppresses_nothing() -> None:
    record = record_of(region(score=0.9), region(SHIFTED, 0.4))
    earlier = Decision(annotation_id="0.d.0", action="reject", by="score", reason="low_score")
    assert list(Nms().decide(record.decide([earlier]))) == []


def test_one_box_far_away_changes_nothing() -> None:
    """`torchvision.ops.batched_nms` moves each group by the largest coordinate: 1e30 would round the boxes away."""
    monster = region((0, 0, 1e30, 1e30), label="bowl")
    assert lost(Nms(), monster, region(score=0.9), region(SHIFTED)) == ["0.d.2"]


def test_the_threshold_itself_stands() -> None:
    pair = region(score=0.9), region((0, 0, 100, 50))
    assert lost(Nms(iou=0.5), *pair) == []
    assert lost(Nms(iou=0.49), *pair) == ["0.d.1"]
    assert lost(Nms(iou=1), region(), region()) == []
    # Exactly 0.6, which in float32 is more than 0.6.
    assert lost(Nms(iou=0.6), region(score=0.9), region((0, 0, 100, 60))) == []


def test_needs_no_torch_to_be_built_or_to_find_nothing() -> None:
    code = (
        "import sys; from filters.nms import Nms; from engine.records import Item, Record; "
        "assert not list(Nms().decide(Record(item=Item(item_id=b'', uri='')))); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


crowds = st.lists(
    st.builds(
        region,
        box=boxes(st.floats(0, 40)),
        score=st.sampled_from([None, 0.1, 0.5, 0.5, 0.9]) | st.floats(0, 1),
        label=st.sampled_from(["cup", "bowl"]),
        source=st.sampled_from(["detector", "other"]),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(crowds, st.sampled_from([0.0, 0.25, 0.5, 0.6, 1.0]), st.booleans())
def test_decisions_agree_with_what_they_measured(crowd: list[Region], threshold: float, per_label: bool) -> None:
    record, nms = record_of(*crowd), Nms(iou=threshold, per_label=per_label)
    decisions = list(nms.decide(record))
    after = record.decide(decisions)
    assert len(after.fallen) == len(decisions)
    for decision in decisions:
        loser, winner = (record.by_id[id or ""] for id in (decision.annotation_id, decision.against))
        assert isinstance(loser, Region) and isinstance(winner, Region) and winner.id not in after.fallen
        assert decision.value == iou(loser.box, winner.box) > threshold
        assert (winner.score or 0) >= (loser.score or 0)
    for one, other in combinations(after.standing.regions, 2):
        same = one.source == other.source and (one.label == other.label or not per_label)
        if same and one.score is not None and other.score is not None:
            assert iou(one.box, other.box) <= threshold
    assert list(nms.decide(after)) == []


@settings(max_examples=100, deadline=None)
@given(
    st.lists(boxes(st.integers(0, 12) | st.floats(0, 40, width=32)), max_size=70),
    st.sampled_from([0.0, 0.25, 0.5, 0.6, 1.0]),
)
def test_plain_is_the_kernel(some: list[Box], threshold: float) -> None:
    """On few boxes and many, with ties, equal boxes, and such without area."""
    by_kernel = list(_kernel(some, threshold)) if some else []
    assert list(_plain(some, threshold)) == by_kernel
    kept = nms(
        torch.tensor(some, dtype=torch.float64).reshape(-1, 4), torch.arange(len(some), 0, -1).double(), threshold
    )
    assert {lost for lost, _, _ in by_kernel} == set(range(len(some))).difference(kept.tolist())
    assert all(overlap == iou(some[lost], some[winner]) > threshold for lost, winner, overlap in by_kernel)


def test_many_lost_boxes_are_measured_in_parts() -> None:
    crowd: list[Box] = [(n % 7, n % 5, 100, 100) for n in range(2 * TOGETHER + 100)]
    assert list(_kernel(crowd, 0.5)) == list(_plain(crowd, 0.5))
    assert len(list(_kernel(crowd, 0.5))) > 2 * TOGETHER


@pytest.mark.parametrize("count", [PLAIN, PLAIN + 1])
def test_the_filter_is_the_same_on_both_sides_of_the_limit(count: int) -> None:
    assert lost(Nms(), *[region()] * count) == sorted(f"0.d.{n}" for n in range(1, count))
