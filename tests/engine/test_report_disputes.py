"""What pictures are ordered by, and what is told of what fell: on columns, as on records."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import boxes, records
from test_report import Page, ingested, page, thing, write

from engine.config import Ingest
from engine.geometry import iou
from engine.layout import ShardId
from engine.records import MERGE, Decision, Item, Record, Region, Scores
from engine.report import write_report
from engine.report.disputes import SAME_PLACE, Dispute, Thing, dispute, named_differently, round_of
from engine.report.pictures import picture_of
from engine.report.shapes import data_uri
from engine.report.survey import MOST_EXAMPLES, MOST_REASONS, MOST_VALUES, Fell, Place, Reason, survey
from engine.rounds import added
from engine.storage import write_annotations, write_decisions

BOX = (10.0, 10.0, 50.0, 50.0)
NEAR_BY = (12.0, 10.0, 52.0, 50.0)  # IoU 0.9
HALF = (30.0, 10.0, 70.0, 50.0)  # IoU 1/3


def said(id_: str, label: str, source: str, box: tuple[float, float, float, float] = BOX) -> Thing:
    return Thing(id_, source, label, box)


def fell(id_: str, **fields: Any) -> Fell:
    return Fell(
        **{**dict.fromkeys(Fell._fields), "annotation_id": id_, "action": "reject", "by": "f", "round": 0, **fields}
    )


@pytest.mark.parametrize(
    ("others", "falls", "pairs"),
    [
        ([said("b", "dog", "two", NEAR_BY)], [], [("a", "b")]),
        ([said("b", "dog", "two", HALF)], [], []),
        ([said("b", "cat", "two", NEAR_BY)], [], []),
        ([said("b", "dog", "one", NEAR_BY)], [], []),
        ([said("b", "dog", MERGE, NEAR_BY)], [], []),
        ([said("b", "", "two", NEAR_BY)], [], []),
        ([said("b", "dog", "two")], [fell("b", reason="low_score")], []),
        ([said("b", "dog", "two")], [fell("b", reason="human_label", against="a")], [("a", "b")]),
        ([said("b", "dog", "two")], [fell("a", action="supersede", against="c")], [("a", "b")]),
        ([said("b", "dog", "two"), said("c", "cow", "three")], [], [("a", "b"), ("a", "c"), ("b", "c")]),
    ],
)
def test_objects_that_are_called_differently(
    others: list[Thing], falls: list[Fell], pairs: list[tuple[str, str]]
) -> None:
    assert named_differently([said("a", "cat", "one"), *others], falls) == pairs


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), boxes(st.floats(0, 9, width=32))), max_size=7))
def test_pairs_are_those_of_boxes_that_overlap(drawn: list[tuple[str, str, Any]]) -> None:
    things = [said(str(n), label, source, box) for n, (source, label, box) in enumerate(drawn)]
    expected = [
        (one.id, other.id)
        for one, other in itertools.combinations(things, 2)
        if one.source != other.source and one.label != other.label and iou(one.box, other.box) >= SAME_PLACE
    ]
    near = [1 for a, b in itertools.combinations(things, 2) if abs(iou(a.box, b.box) - SAME_PLACE) < 1e-9]
    assert near or named_differently(things, []) == expected


@pytest.mark.parametrize(
    ("falls", "found"),
    [
        ([fell("0.d.0", value=0.37, threshold=0.4)], Dispute(close=1)),
        ([fell("0.d.0", value=0.35, threshold=0.4)], Dispute()),
        ([fell("0.d.0", value=0.39, threshold=0.4), fell("0.d.0", value=0.5, threshold=0.5)], Dispute(close=1)),
        ([fell("0.d.0", value=11.0, threshold=10.0)], Dispute(close=1)),
        ([fell("0.d.0", value=-2.1, threshold=-2.0)], Dispute(close=1)),
        ([fell("0.d.0", value=0.3)], Dispute()),
        ([fell("0.d.0", round=1)], Dispute(overruled=1)),
        ([fell("1.d.0", round=1)], Dispute()),
        ([fell("0.d.0", round=1, by="cascade")], Dispute()),
        ([fell("0.d.0", round=1, action="supersede", against="same")], Dispute()),
        ([fell("0.d.0", round=1, action="supersede", against="other")], Dispute(overruled=1)),
        ([fell("0.text.0", round=1, action="supersede", against="1.text.0")], Dispute(overruled=1)),
    ],
)
def test_what_is_close_and_what_is_overruled(falls: list[Fell], found: Dispute) -> None:
    assert dispute([], falls, {"0.d.0": "cat", "same": "cat", "other": "dog"}) == found


def test_a_dispute_is_told() -> None:
    assert Dispute(2, 1, 3).told == "2 named differently, 1 close call, 3 overruled later"
    assert (Dispute(2, 1, 3).value, Dispute().told) == (6, "")


@pytest.mark.parametrize(
    ("id_", "number"), [("0.a.1", 0), ("12.a.1", 12), ("x", 0), ("1", 0), ("99999999.a", 0), ("", 0)]
)
def test_the_round_that_an_id_tells(id_: str, number: int) -> None:
    assert round_of(id_) == number


@given(st.lists(records(), min_size=1, max_size=4, unique_by=lambda record: record.item.item_id))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_columns_tell_what_records_tell(made: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = survey(write(Path(folder) / "out", made, shard_size=2))
    shown = [n for n, record in enumerate(made) if not record.item.duplicate_of and not record.item.error]
    assert found.places == [Place(ShardId(0, n // 2), n % 2) for n in shown]
    assert found.fallen == [len(made[n].fallen) for n in shown]
    pictures = [picture_of(made[n], 1, Ingest(), Path("none"), data_uri) for n in shown]
    assert found.disputes == [picture.dispute for picture in pictures]
    firsts = [fall for n in shown for fall in {d.annotation_id: d for d in reversed(falls(made[n]))}.values()]
    assert Counter({key: reason.count for key, reason in found.reasons.items()}) == Counter(
        (fall.by, fall.reason) for fall in firsts
    )
    assert [found.disputes[n].value for n in found.order()] == sorted((d.value for d in found.disputes), reverse=True)


def falls(record: Record) -> list[Decision]:
    return [decision for decision in record.decisions if decision.action in ("reject", "supersede")]


def test_later_rounds_count(image_set: Any, tmp_path: Path) -> None:
    """Objects of two rounds that are called differently, one of which the later round turns down."""
    quiet, loud = (record.append([thing(0, box=BOX)]) for record in ingested(image_set(2), tmp_path))
    later = replace(loud, round=1)
    other = Region(id="1.florence2.0", source="florence2", kind="object", label="dog", box=NEAR_BY)
    later = later.append([other])
    later = later.decide([later.reject(later.regions[0], "merge", "outvoted", 0.5, 0.51, other.id)])
    dataset = write(tmp_path / "out", [quiet, loud])
    new = [added(replace(quiet, round=1), quiet), added(later, loud)]
    write_annotations(dataset.output.round(1), ShardId(0, 0), new, "")
    write_decisions(dataset.output.round(1), ShardId(0, 0), new, "")
    first, second = survey(dataset), survey(replace(dataset, round=1))
    assert first.disputes == [Dispute(), Dispute()]
    assert second.disputes == [Dispute(), Dispute(named=2, close=1, overruled=1)]
    assert (first.order(), second.order()) == ([0, 1], [1, 0])


def test_proposals_are_no_dispute(image_set: Any, tmp_path: Path) -> None:
    (record,) = ingested(image_set(1), tmp_path)
    record = record.append([thing(0, kind="proposal", scores=Scores(box=0.39))])
    record = record.decide([record.reject(record.regions[0], "score", "low_score", 0.39, 0.4)])
    assert survey(write(tmp_path / "out", [record])).disputes == [Dispute()]


numbers = st.none() | st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 9)), min_size=1, max_size=40))
def test_examples_are_the_nearest_of_each_image(drawn: list[tuple[float | None, float | None, int]]) -> None:
    reason, nearest = Reason(), {}
    for n, (value, threshold, row) in enumerate(drawn):
        reason.add(fell(str(n), value=value, threshold=threshold), Place(ShardId(0, 0), row), n)
        known = value is not None and threshold is not None
        distance = abs(value - threshold) / (abs(threshold) or 1.0) if known else math.inf
        nearest[row] = min(nearest.get(row, (math.inf, n)), (distance, n))
    expected = [str(n) for _, n in sorted(nearest.values())]
    # An image that fell out for others comes back only by what is nearer.
    assert [example.fell.annotation_id for example in reason.examples] == expected[:MOST_EXAMPLES]
    assert reason.count == len(drawn)
    values = [value for value, _, _ in drawn if value is not None]
    assert (reason.low, reason.high) == (min(values, default=None), max(values, default=None))


def test_of_many_values_some_are_kept() -> None:
    reason, count = Reason(), 5 * MOST_VALUES
    for n in range(count):
        reason.add(fell("a", value=float(n)), Place(ShardId(0, 0), 0), n)
    assert MOST_VALUES / 2 <= len(reason.values) <= MOST_VALUES
    assert sorted(reason.values)[len(reason.values) // 2] == pytest.approx(count / 2, rel=0.01)
    assert len(set(itertools.starmap(lambda a, b: b - a, itertools.pairwise(reason.values)))) == 1


def test_what_was_measured_is_told(image_set: Any, tmp_path: Path) -> None:
    made = ingested(image_set(3), tmp_path)
    for n, scores in enumerate(((0.1, 0.2), (0.3,), (0.39991,))):
        record = made[n].append([thing(k, scores=Scores(label=score)) for k, score in enumerate(scores)])
        made[n] = record.decide([record.reject(r, "score", "low_score", r.score, 0.4) for r in record.regions])
    found = page(made, tmp_path)
    assert ["score", "low score", "4", "0.1 to 0.4, median 0.25", "0.4"] in found.rows()
    told = [" ".join(e.text.split()) for e in found.all("figure", **{"class": "example"})]
    assert told == [
        "cupobject · 0.3999 against 0.4 · 0002.png",
        "cupobject · 0.3 against 0.4 · 0001.png",
        "cupobject · 0.2 against 0.4 · 0000.png",
    ]


def test_an_example_whose_image_is_gone_says_so(image_set: Any, tmp_path: Path) -> None:
    folder = image_set(1)
    (record,) = ingested(folder, tmp_path)
    record = record.append([thing(0)])
    record = record.decide([record.reject(record.regions[0], "score", "low_score", 0.5, 0.6)])
    (folder / "0000.png").unlink()
    found = page([record], tmp_path, images=0)
    (example,) = found.all("figure", **{"class": "example"})
    assert "its image can't be opened any more" in example.text
    assert not found.all("img")


def test_reasons_without_end_have_one(tmp_path: Path) -> None:
    """A filter that puts a number into its reason has as many reasons as there are images."""
    items = [Item(Item.id_of(f"{n}.jpg"), f"{n}.jpg", width=9, height=9) for n in range(410)]
    made = [Record(item).append([thing(0)]) for item in items]
    made = [r.decide([r.reject(r.regions[0], "odd", f"number {n}")]) for n, r in enumerate(made)]
    dataset = write(tmp_path / "out", made, shard_size=410)
    found = survey(dataset)
    assert len(found.reasons) == MOST_REASONS
    shown = Page(write_report(dataset, Ingest(), tmp_path / "report", 0).read_text())
    assert len([row for row in shown.rows() if row[0] == "odd"]) == 200
    assert "210 more reasons are not listed." in [e.text for e in shown.all("p")]


def test_reasons_sort_alike() -> None:
    """Two that fell alike, in one heap: places and decisions are never compared."""
    reason = Reason()
    for n in range(20):
        reason.add(fell(f"{n}", value=1.0, threshold=1.0), Place(ShardId(0, n), 0), n)
    assert [example.fell.annotation_id for example in reason.examples] == list("012345")
