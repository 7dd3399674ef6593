"""What a round changed: what came or went is told once, and what took another's place counts as that."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from merging import ITEM, cases
from rich.console import Console

from engine.diff import Change, changes, nested, print_diff
from engine.merge import Case, Rules, merge
from engine.records import Decision, Record, Region, RegionText


@given(cases())
def test_what_came_and_went_adds_up(case: Case) -> None:
    before, after = case.before, merge(case, Rules(counts={"dog": 2.0, "cat": 2.0}))
    counts = Counter(change.change for change in changes(before, after))
    was, now = before.standing.by_id, after.standing.by_id
    came, went = len(now.keys() - was.keys()), len(was.keys() - now.keys())
    assert counts["added"] + counts["changed"] == came
    assert counts["dropped"] + counts["changed"] <= went, "several may have one heir"
    assert (counts["dropped"] + counts["changed"] > 0) == (went > 0)


@given(cases())
def test_a_round_does_not_differ_from_itself(case: Case) -> None:
    assert list(changes(case.record, case.record)) == []


def region(id_: str, label: str = "dog", source: str = "detector") -> Region:
    return Region(id=id_, source=source, kind="object", box=(0, 0, 9, 9), label=label)


def decision(id_: str, action: str, reason: str, against: str | None = None) -> Decision:
    return Decision(annotation_id=id_, action=action, by="merge", reason=reason, against=against, round=1)  # type: ignore[arg-type]


def test_each_kind_of_change() -> None:
    before = Record(ITEM).append([region("a"), region("b", "cat"), region("c")])
    after = replace(before, round=1).append([region("d", source="merge"), region("e", "car", "florence2")])
    after = after.decide(
        [
            decision("a", "supersede", "fused", "d"),
            decision("d", "add", "fused"),
            decision("b", "reject", "imprecise"),
            decision("c", "keep", "precise"),
            decision("e", "add", "precise"),
        ]
    )
    found = Counter(changes(before, after))
    assert found == {
        Change("changed", "object", "merge", "dog", "fused"): 1,
        Change("dropped", "object", "detector", "cat", "merge: imprecise"): 1,
        Change("added", "object", "florence2", "car", "precise"): 1,
    }
    assert nested(found)["dropped"]["object"]["detector"]["cat"] == {"merge: imprecise": 1}


def test_what_gave_way_to_what_stood_was_dropped() -> None:
    before = Record(ITEM).append([region("a"), region("b")])
    after = replace(before, round=1).decide([decision("b", "supersede", "human_region", "a")])
    assert [change.change for change in changes(before, after)] == ["dropped"]


def test_an_heir_of_an_heir_counts() -> None:
    before = Record(ITEM).append([region("a")])
    after = replace(before, round=2).append([region("b"), region("c")])
    after = after.decide([decision("a", "supersede", "fused", "b"), decision("b", "supersede", "fused", "c")])
    assert [(c.change, c.reason) for c in changes(before, after)] == [("changed", "fused")]


def test_another_label_in_its_place_is_a_change() -> None:
    before = Record(ITEM).append([region("a"), region("b")])
    after = replace(before, round=1).append([region("c", "cat", "florence2")])
    after = after.decide([decision("a", "reject", "less_precise", "c"), decision("b", "reject", "imprecise")])
    assert Counter(changes(before, after)) == {
        Change("changed", "object", "florence2", "cat", "less_precise: relabelled"): 1,
        Change("dropped", "object", "detector", "dog", "merge: imprecise"): 1,
    }


def test_a_text_that_gave_way_to_a_category_was_dropped() -> None:
    about = RegionText(id="t", source="describer", region_id="a", text="a cat")
    before = Record(ITEM).append([region("a"), about])
    after = replace(before, round=1).append([region("b", source="merge")])
    after = after.decide([decision("a", "supersede", "fused", "b"), decision("t", "supersede", "category_chosen", "b")])
    assert [(c.change, c.kind) for c in changes(before, after)] == [
        ("changed", "object"),
        ("dropped", "text of a region"),
    ]


def test_hostile_labels_are_printed_as_they_are() -> None:
    found = Counter({Change("added", "object", "x", "[red]\x1b[31m", "new"): 3})
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: SIM115
    print_diff(found, console)
    said = console.export_text()
    assert "[red]" in said
    assert "\x1b" not in said
    print_diff(Counter(), console)
    assert "No difference" in console.export_text()
