"""What a specialist finds where a person has annotated the same, another thing, or something near."""

from __future__ import annotations

import pytest
from hypothesis import given
from strategies import records

from engine.records import HUMAN, Box, Item, Record, Region
from filters.human import HumanFirst

CAT: Box = (0, 0, 100, 100)


def region(id_: str, source: str, label: str, box: Box = CAT, **more: object) -> Region:
    return Region(id=id_, source=source, kind="object", label=label, box=box, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "box", "fallen"),
    [
        ("cat", (0, 0, 100, 100), ("human_box", 1.0, 0.5)),
        ("cat", (0, 0, 100, 60), ("human_box", 0.6, 0.5)),
        ("cat", (0, 0, 100, 50), None),
        ("dog", (0, 0, 100, 90), ("human_label", 0.9, 0.8)),
        ("dog", (0, 0, 100, 60), None),
        ("cat", (200, 0, 300, 100), None),
    ],
)
def test_a_box_where_a_person_drew_one(label: str, box: Box, fallen: tuple[str, float, float] | None) -> None:
    record = Record(Item(b"0" * 16, "x")).append([region("h", HUMAN, "cat"), region("d", "detector", label, box)])
    decisions = list(HumanFirst().decide(record))
    found = [(d.annotation_id, d.against, d.reason, pytest.approx(d.value), d.threshold) for d in decisions]
    assert found == ([("d", "h", fallen[0], fallen[1], fallen[2])] if fallen else [])


def test_crowds_contest_nothing_and_other_kinds_neither() -> None:
    proposal = Region(id="p", source="detector", kind="proposal", box=CAT)
    record = Record(Item(b"0" * 16, "x")).append(
        [region("h", HUMAN, "cat", crowd=True), region("d", "detector", "cat"), proposal]
    )
    assert list(HumanFirst().decide(record)) == []


@given(records())
def test_only_specialists_regions_that_stand_fall_and_once(made: Record) -> None:
    decisions = list(HumanFirst().decide(made))
    standing = {region.id for region in made.standing.regions if region.source != HUMAN}
    assert {d.annotation_id for d in decisions} <= standing
    assert len({d.annotation_id for d in decisions}) == len(decisions)
    assert list(HumanFirst().decide(made.decide(decisions))) == []
