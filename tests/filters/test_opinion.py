"""Filters by opinions: whose count, what falls, and what is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies import records

from engine.components import build, parameters_of
from engine.decide import decide
from engine.records import (
    DETAILS,
    HUMAN,
    KINDS,
    AnyAnnotation,
    Decision,
    Item,
    Mask,
    Parse,
    Record,
    Region,
    RegionText,
    Text,
    Triplet,
)
from engine.vocabulary import Vocabulary
from filters.opinion import Closest, Opinion, judged_as
from specialists.hub.contrastive import SIMILARITY, Contrastive

EMPTY = Record(Item(b"0" * 16, "x", width=8, height=8))
ZEROS = dict.fromkeys(("objects", "attributes", "actions", "proper_nouns"), 0)
ZEROS |= dict.fromkeys(("max_object_complexity", "max_action_complexity"), 0)
ONE_OF_EACH: tuple[AnyAnnotation, ...] = (
    *(Text(id=detail, source="a", text="a dog", detail=detail) for detail in DETAILS),
    Parse(id="parse", source="a", text_id="brief", object_complexity=0, action_complexity=0, **ZEROS),
    *(Region(id=kind, source="a", kind=kind, box=(0, 0, 4, 4)) for kind in KINDS),
    RegionText(id="region_text", source="a", region_id="object", text="a dog"),
    Mask(id="mask", source="a", region_id="object", size=(8, 8), counts=b"o1"),
    Triplet(id="triplet", source="a", text_id="brief", start=0, stop=5, region_ids=("object",)),
)
JUDGED = [one.id for one in ONE_OF_EACH if one.id != "parse"]


def opinion(of: str, value: float | None, by: str = "contrastive", reason: str = SIMILARITY, **more: Any) -> Decision:
    return Decision(annotation_id=of, **{"action": "keep", "by": by, "reason": reason, "value": value, **more})


def texts(*sources: str, of: str = "object") -> list[RegionText]:
    return [RegionText(id=f"{of}{n}", source=source, region_id=of, text="a dog") for n, source in enumerate(sources)]


def fallen(filter_: Any, record: Record) -> list[str]:
    return [decision.annotation_id for decision in filter_.decide(record)]


@pytest.mark.parametrize("judged", JUDGED)
def test_each_thing_has_its_threshold(judged: str) -> None:
    record = replace(EMPTY, round=2).append(ONE_OF_EACH).decide(opinion(one.id, 0.1) for one in ONE_OF_EACH)
    assert list(Opinion(name="far", minimum={judged: 0.2}).decide(record)) == [  # type: ignore[dict-item]
        Decision(
            annotation_id=judged,
            action="reject",
            by="far",
            reason="low_similarity",
            value=0.1,
            threshold=0.2,
            round=2,
        )
    ]
    assert fallen(Opinion(minimum={judged: 0.1}), record) == []  # type: ignore[dict-item]
    assert fallen(Opinion(), record) == []


def test_a_parse_is_judged_by_nothing() -> None:
    assert [judged_as(one) for one in ONE_OF_EACH] == [None if one.id == "parse" else one.id for one in ONE_OF_EACH]


@pytest.mark.parametrize(
    ("decisions", "falls"),
    [
        ([opinion("brief", 0.1)], True),
        ([], False),
        ([opinion("detailed", 0.1)], False),
        ([opinion("brief", 0.1, by="other")], False),
        ([opinion("brief", 0.1, reason="verified")], False),
        ([opinion("brief", None)], False),
        ([opinion("brief", 0.1, action="add")], False),
        ([opinion("brief", 0.1), opinion("brief", 0.3, round=1)], False),
        ([opinion("brief", 0.3), opinion("brief", 0.1, round=1)], True),
        ([opinion("brief", 0.1), opinion("brief", 0.3, by="other")], True),
        ([opinion("brief", 0.1), opinion("brief", None, round=1)], True),
        ([opinion("brief", 0.1), opinion("brief", None, action="reject", by="length", reason="too_long")], False),
    ],
)
def test_whose_opinion_counts(decisions: list[Decision], falls: bool) -> None:
    record = EMPTY.append(ONE_OF_EACH).decide(decisions)
    assert fallen(Opinion(minimum={"brief": 0.2}), record) == (["brief"] if falls else [])


def test_any_source_and_reason() -> None:
    record = EMPTY.append(ONE_OF_EACH).decide(
        [opinion("mask", 0.7, "sam", "stability"), opinion("brief", -4.0, "f", "verified")]
    )
    (low,) = Opinion(by="sam", reason="stability", minimum={"mask": 0.9}).decide(record)
    assert (low.annotation_id, low.reason, low.value, low.threshold) == ("mask", "low_stability", 0.7, 0.9)
    (unlikely,) = Opinion(by="f", reason="verified", minimum={"brief": -3.0}).decide(record)
    assert (unlikely.annotation_id, unlikely.reason, unlikely.value) == ("brief", "low_verified", -4.0)


def test_the_closest_stands() -> None:
    regions = [Region(id=id_, source="a", kind="object", box=(0, 0, 4, 4)) for id_ in ("object", "other")]
    record = EMPTY.append([*regions, *texts("a", "b", "c", "d"), *texts("a", "a", of="other")])
    given = [("object0", 0.1), ("object1", 0.3), ("object2", 0.2), ("other0", -0.2), ("other1", -0.1)]
    record = record.decide(opinion(id_, value) for id_, value in given)
    found = [(d.annotation_id, d.value, d.threshold, d.against) for d in Closest().decide(record)]
    assert found == [
        ("object0", 0.1, 0.3, "object1"),
        ("object2", 0.2, 0.3, "object1"),
        ("other0", -0.2, -0.1, "other1"),
    ]
    assert {(d.action, d.by, d.reason) for d in Closest(name="near").decide(record)} == {
        ("reject", "near", "less_close")
    }
    assert fallen(Closest(by="other"), record) == fallen(Closest(reason="verified"), record) == []


@pytest.mark.parametrize(
    ("sources", "given", "expected"),
    [
        (("a", "b"), [("object0", 0.2), ("object1", 0.2)], ["object1"]),  # of equals the earlier stands
        (("a", "b"), [("object1", 0.2)], []),
        (("a",), [("object0", -1.0)], []),
        (("a", "b"), [("object0", 0.2), ("object1", 0.1), ("object1", 0.3)], ["object0"]),
        ((HUMAN, "b", "c"), [("object0", 0.1), ("object1", 0.2), ("object2", 0.3)], []),
        ((HUMAN, "b", "c"), [("object1", 0.2), ("object2", 0.3)], []),
    ],
)
def test_what_is_compared(sources: tuple[str, ...], given: list[tuple[str, float]], expected: list[str]) -> None:
    region = Region(id="object", source="a", kind="object", box=(0, 0, 4, 4))
    record = EMPTY.append([region, *texts(*sources)]).decide(opinion(id_, value) for id_, value in given)
    assert fallen(Closest(), record) == expected


def test_what_fell_before_is_not_compared() -> None:
    """First those that are far from what they are about, then all but the closest."""
    region = Region(id="object", source="a", kind="object", box=(0, 0, 4, 4))
    record = EMPTY.append([region, *texts("a", "b", "c")])
    record = record.decide(opinion(f"object{n}", value) for n, value in enumerate((0.05, 0.2, 0.1)))
    decided = decide(record, [Opinion(minimum={"region_text": 0.1}), Closest()])
    assert [text.id for text in decided.standing.region_texts] == ["object1"]
    assert [d.reason for d in decided.decisions[3:]] == ["low_similarity", "less_close"]
    nothing = decide(record, [Opinion(minimum={"region_text": 0.5}), Closest()])
    assert nothing.standing.region_texts == ()


def test_what_people_said_stands_whatever_its_opinion() -> None:
    record = EMPTY.append([replace(ONE_OF_EACH[0], source=HUMAN)]).decide([opinion("brief", 0.1)])
    decided = decide(record, [Opinion(minimum={"brief": 0.2})])
    assert decided.standing.texts == record.texts
    assert (decided.decisions[-1].action, decided.decisions[-1].reason) == ("keep", "low_similarity")


def test_a_later_round_decides_on_what_it_added() -> None:
    """Also where it has opinions of what was there before."""
    region = Region(id="object", source="a", kind="object", box=(0, 0, 4, 4))
    before = EMPTY.append([region, *texts("a")]).decide([opinion("object0", 0.1)])
    new = [RegionText(id=f"new{n}", source="b", region_id="object", text="a cat") for n in range(2)]
    record = replace(before, round=1).append(new)
    record = record.decide(
        opinion(id_, value, round=1) for id_, value in (("object0", 0.9), ("new0", 0.2), ("new1", 0.3))
    )
    decided = decide(record, [Opinion(minimum={"region_text": 0.15}), Closest()], before)
    assert [text.id for text in decided.standing.region_texts] == ["object0", "new1"]


def test_parameters_are_checked() -> None:
    built = build(
        "filters", "far", {"use": "opinion", "by": "sam", "minimum": {"mask": 0.5, "text": 0.1}}, Vocabulary()
    )
    assert built == Opinion(name="far", by="sam", minimum={"mask": 0.5, "text": 0.1})
    for minimum in ({"masks": 0.5}, {"parse": 0.5}, {"mask": float("nan")}, {"mask": "much"}):
        with pytest.raises(ValidationError):
            parameters_of(Opinion)(minimum=minimum)


def test_the_contrastive_specialists_opinions_are_the_default() -> None:
    for filter_ in (Opinion(), Closest()):
        assert (filter_.by, filter_.reason) == (Contrastive().name, SIMILARITY)


@given(records(), st.data())
def test_only_what_stands_falls_and_once(made: Record, data: st.DataObject) -> None:
    values = st.one_of(st.none(), st.floats(-1, 1))
    given_ = {id_: data.draw(values) for id_ in made.by_id}
    record = made.decide(opinion(id_, value) for id_, value in given_.items() if value is not None)
    for filter_ in (Opinion(minimum=dict.fromkeys(JUDGED, 0.0)), Closest()):  # type: ignore[arg-type]
        decisions = list(filter_.decide(record))
        assert {d.annotation_id for d in decisions} <= set(made.standing.by_id)
        assert len({d.annotation_id for d in decisions}) == len(decisions)
        assert all(d.value is not None and d.threshold is not None and d.value <= d.threshold for d in decisions)
        assert list(filter_.decide(record.decide(decisions))) == []
