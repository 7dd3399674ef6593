"""Filters one after the other; what people annotated stands whatever they say; what fell takes along its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from strategies import records
from toys import Broken

from engine.decide import FilterFault, decide
from engine.protocols import Sample
from engine.records import Decision, Item, Record, Region, Text


@dataclass(frozen=True)
class Everything:
    """Turns down whatever stands."""

    name: str = "everything"

    def decide(self, record: Record) -> Iterator[Decision]:
        for annotation in record.standing.annotations():
            yield record.reject(annotation, self.name, "no_reason", 1.0, 2.0)


def record(source: str) -> Record:
    region = Region(id="r", source=source, kind="object", box=(0, 0, 1, 1))
    return Record(Item(b"0" * 16, "x")).append([region, Text(id="t", source=source, text="A dog.", detail="brief")])


def test_human_annotations_stand_and_what_a_filter_said_of_them_is_kept() -> None:
    decided = decide(record("human"), [Everything()])
    assert decided.standing.by_id.keys() == {"r", "t"}
    assert {(d.action, d.by, d.reason, d.value, d.threshold) for d in decided.decisions} == {
        ("keep", "everything", "no_reason", 1.0, 2.0)
    }


@pytest.mark.parametrize("source", ["alt", "detector"])
def test_others_fall(source: str) -> None:
    assert decide(record(source), [Everything()]).standing.by_id == {}


@given(records())
def test_after_deciding_only_the_human_is_left_of_what_stood(made: Record) -> None:
    decided = decide(made, [Everything()])
    assert {a.source for a in decided.standing.annotations()} <= {"human"}
    assert decided.fallen >= made.fallen


def test_a_filter_that_raises_is_named() -> None:
    with pytest.raises(FilterFault, match="ZeroDivisionError: it had to happen") as fault:
        decide(record("a"), [Everything(), Broken()])
    assert fault.value.filter_name == "broken"


def test_a_sample_knows_what_stands_and_its_record_is_undecided() -> None:
    sample = Sample(np.zeros((1, 1, 3), np.uint8), record("a"), [Everything()])
    assert sample.standing.by_id == {}
    assert sample.record.decisions == ()
