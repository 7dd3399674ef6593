"""The gate's measures against other implementations, its bootstrap against scipy, and what it accepts and refuses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider as Reference
from scipy.stats import bootstrap

from engine.cider import Cider, words_of
from engine.config import Config, Gate, Merge
from engine.gate.bootstrap import Ratio, interval
from engine.gate.drift import Habits, drifts, habits
from engine.gate.measures import RARE, measure
from engine.gate.verdict import Verdict, judge
from engine.geometry import encode_mask
from engine.records import Box, Item, Mask, Record, Region, Text

WORDS = ("a", "red", "dog", "on", "the", "grass", "two", "cats")
sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
SIZE = (100, 100)


@given(st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=3)), min_size=2, max_size=6))
def test_cider_is_pycocoevalcaps(images: list[tuple[str, list[str]]]) -> None:
    made = Cider([references for _, references in images])
    expected = Reference().compute_score(
        {n: [" ".join(words_of(r)) for r in references] for n, (_, references) in enumerate(images)},
        {n: [" ".join(words_of(said))] for n, (said, _) in enumerate(images)},
    )[1]
    assert [made.score(n, said) for n, (said, _) in enumerate(images)] == pytest.approx(list(expected), abs=1e-9)


def test_words_are_what_letters_make() -> None:
    assert words_of("A black-and-white dog's BALL, here.") == ["a", "black-and-white", "dog's", "ball", "here"]


def test_the_bootstrap_is_scipys() -> None:
    rng = np.random.default_rng(0)
    below = rng.integers(1, 9, 200).astype(float)
    before, after = (rng.binomial(below.astype(int), p).astype(float) for p in (0.6, 0.66))

    def difference(a: np.ndarray, b: np.ndarray, n: np.ndarray, axis: int = -1) -> np.ndarray:  # type: ignore[type-arg]
        return (b.sum(axis) - a.sum(axis)) / n.sum(axis)

    expected = bootstrap(
        (before, after, below), difference, paired=True, method="percentile", n_resamples=4000, vectorized=True, rng=rng
    ).confidence_interval
    made = interval(Ratio(before, below), Ratio(after, below), 4000, 0.95, 0)
    assert made is not None
    assert (made.low, made.high) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_the_bootstrap_keeps_what_it_promises() -> None:
    """Of two rounds that are equally good, one in forty is found better."""
    rng = np.random.default_rng(1)
    found = 0
    for trial in range(400):
        ones = np.ones(100)
        a, b = (rng.binomial(1, 0.5, 100).astype(float) for _ in range(2))
        made = interval(Ratio(a, ones), Ratio(b, ones), 500, 0.95, trial)
        found += made is not None and made.low > 0
    assert 1 <= found <= 22, "2.5 % of 400 are 10"


def test_nothing_to_measure_has_no_interval() -> None:
    nothing = Ratio(np.zeros(3), np.zeros(3))
    assert nothing.value is None
    assert interval(nothing, nothing, 100, 0.95, 0) is None


# Measures


def item(number: int) -> Item:
    return Item(bytes([number]) * 16, f"{number}.png", content_id=bytes([number]) * 16, width=SIZE[0], height=SIZE[1])


def region(number: int, box: Box, label: str = "dog", source: str = "x", **more: object) -> Region:
    return Region(id=f"0.{source}.{number}", source=source, kind="object", box=box, label=label, **more)  # type: ignore[arg-type]


LEFT, RIGHT, TINY = (0.0, 0.0, 40.0, 40.0), (50.0, 50.0, 90.0, 90.0), (95.0, 0.0, 98.0, 3.0)
CONFIG = Config(gate=Gate(min_instances=1))


def values(found: Sequence[Region | Text | Mask], said: Sequence[Region | Text | Mask]) -> dict[str, float | None]:
    record, labels = Record(item(1)).append(found), Record(item(1)).append(said)
    measured = measure([record], [labels], CONFIG)
    return {name: measured.ratio(name).value for name in measured.names}


def test_objects_are_counted_once_each_by_class_and_size() -> None:
    said = [region(0, LEFT), region(1, RIGHT, "cat"), region(2, TINY, "cat")]
    found = [region(0, LEFT), region(1, LEFT), region(2, RIGHT, "dog"), region(3, TINY, "cat")]
    told = values(found, said)
    assert told["objects"] == pytest.approx(2 * 2 / (4 + 3))
    assert told["boxes"] == pytest.approx(2 * 3 / (4 + 3))
    assert told["objects/dog"] == pytest.approx(2 * 1 / (3 + 1))
    assert told["objects/cat"] == pytest.approx(2 * 1 / (1 + 2))
    assert told["objects, small"] == 1.0
    assert told["objects, large"] == pytest.approx(2 * 1 / (3 + 2))


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong() -> None:
    said = [region(0, LEFT), region(1, (50, 50, 100, 100), crowd=True)]
    assert values([region(0, LEFT), region(1, (60, 60, 70, 70))], said)["objects"] == 1.0
    assert values([region(0, LEFT), region(1, (60, 60, 70, 70), "cat")], said)["objects"] == pytest.approx(2 / 3)


def test_rare_classes_are_judged_together() -> None:
    said = [region(0, LEFT), region(1, RIGHT, "cat"), region(2, TINY, "car")]
    record = Record(item(1)).append(said[:2])
    measured = measure([record], [Record(item(1)).append(said)], Config(gate=Gate(min_instances=2)))
    assert measured.ratio(f"objects/{RARE}").value == pytest.approx(2 * 2 / (2 + 3))
    assert "objects/dog" not in measured.names


def test_masks_of_what_was_found() -> None:
    def mask(number: int, region_id: str, columns: int) -> Mask:
        pixels = np.zeros(SIZE, bool)
        pixels[:10, :columns] = True
        return Mask(id=f"0.m.{number}", source="m", region_id=region_id, size=SIZE, counts=encode_mask(pixels))

    said = [region(0, LEFT), region(1, RIGHT), mask(0, "0.x.0", 10), mask(1, "0.x.1", 10)]
    found = [region(0, LEFT), mask(0, "0.x.0", 5)]
    assert values(found, said)["masks"] == pytest.approx(0.5 / 2)


def test_lines_and_texts() -> None:
    def line(number: int, text: str, y: float) -> Region:
        return Region(id=f"0.x.{number}", source="x", kind="text", box=(0, y, 9, y + 9), text=text)

    assert values([line(0, "wold", 20), line(1, "hello", 0)], [line(0, "hello", 0), line(1, "world", 20)])[
        "lines"
    ] == pytest.approx(1 - 1 / 11)
    two = [Record(item(n)).append([Text(id="t", source="x", text=t, detail="brief")]) for n, t in enumerate("ab")]
    said = [Text(id="t", source="human", text="a dog", detail="brief")]
    labels = [Record(item(0)).append(said), Record(item(1))]
    assert measure(two, labels, CONFIG).instances == {"brief texts": 1}


# Verdicts


def images(count: int, right: int, label: str = "dog") -> tuple[list[Record], list[Record]]:
    """Records in which `right` of so many images have their object, and the labels."""
    labels = [Record(item(n)).append([region(0, LEFT, label, "human")]) for n in range(count)]
    found = [Record(item(n)).append([region(0, LEFT if n < right else RIGHT, label)]) for n in range(count)]
    return found, labels


def verdict(
    before: Sequence[Record], after: Sequence[Record], labels: Sequence[Record], gate: Gate | None = None
) -> Verdict:
    config = Config(gate=gate or Gate(samples=500), merge=Merge())
    return judge(before, after, labels, config, (habits(before), habits(after)))


def test_better_is_accepted_and_as_good_is_not() -> None:
    before, labels = images(60, 30)
    after, _ = images(60, 45)
    assert verdict(before, after, labels).outcome == "accepted"
    same = verdict(before, before, labels)
    assert same.outcome == "refused"
    assert "may be chance" in same.reasons[0]
    worse = verdict(after, before, labels)
    assert worse.outcome == "refused"
    assert "that is worse" in worse.reasons[0]


def test_a_class_that_pays_for_the_others_refuses_the_round() -> None:
    common, common_labels = images(60, 20)
    better, _ = images(60, 50)
    rare, rare_labels = images(60, 25, "zebra")
    worse, _ = images(60, 20, "zebra")
    made = verdict([*common, *rare], [*better, *worse], [*common_labels, *rare_labels])
    assert made.outcome == "refused"
    assert any(reason.startswith("objects/zebra: 0.417 before, 0.333 now") for reason in made.reasons)
    lenient = verdict(
        [*common, *rare], [*better, *worse], [*common_labels, *rare_labels], Gate(margin=0.1, samples=500)
    )
    assert lenient.outcome == "accepted"


def test_rare_classes_together_refuse_it_too() -> None:
    common, common_labels = images(60, 20)
    better, _ = images(60, 50)
    rare, rare_labels = images(4, 4, "zebra")
    worse, _ = images(4, 0, "zebra")
    made = verdict([*common, *rare], [*better, *worse], [*common_labels, *rare_labels])
    assert made.outcome == "refused"
    assert any(RARE in reason for reason in made.reasons)


def test_labels_of_other_images_say_nothing() -> None:
    """Sabotage: what was learned is right, and the labels lie beside other images."""
    rng = random.Random(0)
    boxes = [(float(x), float(y), x + 20.0, y + 20.0) for x in range(0, 80, 10) for y in range(0, 80, 10)]
    labels = [Record(item(n)).append([region(0, box, source="human")]) for n, box in enumerate(boxes)]
    right = [Record(item(n)).append([region(0, box)]) for n, box in enumerate(boxes)]
    wrong = [Record(item(n)).append([region(0, TINY)]) for n in range(len(boxes))]
    assert verdict(wrong, right, labels).outcome == "accepted"
    said = rng.sample([r.regions for r in labels], len(labels))
    shuffled = [replace(record, regions=regions) for record, regions in zip(labels, said, strict=True)]
    assert verdict(wrong, right, shuffled).outcome == "refused"


def test_labels_that_were_mixed_up_accept_nothing() -> None:
    """Saying less agrees better with what says nothing, and that may be more than chance."""
    rng = random.Random(1)
    places = [(x, y, x + 20.0, y + 20.0) for x in (0.0, 40.0) for y in (0.0, 30.0, 60.0)]
    there = [rng.choice(places) for _ in range(200)]
    labels = [Record(item(n)).append([region(0, box, source="human")]) for n, box in enumerate(there)]
    much = [Record(item(n)).append([region(k, TINY if k else places[0]) for k in range(9)]) for n in range(200)]
    little = [Record(item(n)).append([region(0, places[0])]) for n in range(200)]
    (reason,) = verdict(much, little, labels, Gate(samples=500, drift=1000.0)).reasons
    assert reason.startswith("the labels fit their images no better than those of other images")
    right = [Record(item(n)).append([region(0, box)]) for n, box in enumerate(there)]
    assert verdict(little, right, labels).outcome == "accepted"


def test_without_labels_a_round_is_unverified_or_drifts() -> None:
    before, _ = images(60, 30)
    made = verdict(before, before, [])
    assert (made.outcome, made.accepted) == ("unverified", True)
    assert "engine audit" in made.reasons[0]
    doubled = [record.append([region(1, (1, 1, 41, 41))]) for record in before]
    assert verdict(before, doubled, []).outcome == "refused"


def test_too_few_labels_are_none() -> None:
    found, labels = images(19, 19)
    assert verdict(found, found, labels).outcome == "unverified"


def test_labels_without_anything_to_judge_by_are_told() -> None:
    found, _ = images(30, 30)
    blank = [Record(record.item) for record in found]
    empty = [Record(record.item) for record in found]
    made = verdict(blank, blank, empty)
    assert made.outcome == "refused"
    assert "nothing to judge by" in made.reasons[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.append([region(n, (n, n, n + 5.0, n + 5.0), "cat") for n in range(1, 4)]), "regions of 'cat'"),
        (lambda r: Record(r.item), "regions of 'dog'"),
        (lambda r: Record(r.item).append([region(0, (0, 0, 80, 80))]), "median share"),
        (lambda r: r.append([Text(id="u", source="x", text="word " * 40, detail="brief")]), "words of brief"),
        (lambda r: r.append([region(1, (1, 1, 41, 41))]), "twice"),
    ],
    ids=["a new class", "a class that is gone", "larger boxes", "longer texts", "doubles"],
)
def test_habits_that_change_are_told(change, says: str) -> None:  # type: ignore[no-untyped-def]
    before, _ = images(60, 60)
    before = [r.append([Text(id="t", source="x", text="a dog sits here", detail="brief")]) for r in before]
    after = habits(map(change, before))
    assert any(says in reason for reason in drifts(habits(before), after, 0.5)), drifts(habits(before), after, 0.5)


def test_a_kind_that_is_lost_is_told() -> None:
    before = [r.append([Text(id="t", source="x", text="a dog", detail="brief")]) for r in images(60, 60)[0]]
    after = [replace(record, texts=()) for record in before]
    assert any("brief texts" in reason for reason in drifts(habits(before), habits(after), 0.5))


def test_captions_alone_judge_captions_and_objects_are_guarded() -> None:
    """Losing all objects is no way to better captions."""
    found, _ = images(60, 60)
    said = [Text(id="t", source="human", text=f"a dog, number {n}", detail="brief") for n in range(60)]
    labels = [Record(record.item).append([text]) for record, text in zip(found, said, strict=True)]
    wrong = Text(id="t", source="x", text="cats", detail="brief")
    before = [record.append([wrong]) for record in found]
    right = [record.append([replace(said[n], source="x")]) for n, record in enumerate(found)]
    assert "objects" not in {one.name for one in verdict(before, right, labels).comparisons}
    assert verdict(before, right, labels, Gate(samples=500, drift=20.0)).outcome == "accepted"
    lost = [replace(record, regions=()) for record in right]
    made = verdict(before, lost, labels)
    assert made.outcome == "refused"
    assert any("objects: 60 before, 0 now" in reason for reason in made.reasons)


@pytest.mark.parametrize("drift", [0.5, 1000.0])
def test_better_objects_pay_for_no_lost_captions(drift: float) -> None:
    """Nobody labelled captions: they are guarded against drift all the same."""
    before, labels = images(60, 30)
    after, _ = images(60, 45)
    caption = Text(id="t", source="x", text="a dog sits here", detail="brief")
    before = [record.append([caption]) for record in before]
    made = verdict(before, after, labels, Gate(samples=500, drift=drift))
    assert made.outcome == "refused"
    assert made.reasons == ("brief texts: 60 before, 0 now",)
    kept = [record.append([caption]) for record in after]
    more = [record.append([region(1, TINY)]) for record in kept]
    assert verdict(before, kept, labels).outcome == "accepted"
    assert not any("regions of" in reason for reason in verdict(before, more, labels).reasons), "labels judge these"


def test_lines_alone_say_nothing_of_objects() -> None:
    found, _ = images(60, 60)
    line = Region(id="0.h.1", source="human", kind="text", box=LEFT, text="stop")
    labels = [Record(record.item).append([line]) for record in found]
    assert "objects" not in measure(found, labels, CONFIG).names


def test_habits_that_stay_are_not() -> None:
    before, _ = images(60, 60)
    assert drifts(habits(before), habits(before[:50]), 0.5) == []
    assert drifts(Habits(), Habits(), 0.5) == []
    assert Habits().told()["entropy of classes"] == 0.0
