"""Records to scenes: what stands, and of whom; and phrases, whose regions may have fallen to better ones."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import records

from engine.errors import RecordError
from engine.geometry import encode_mask
from engine.records import HUMAN, Item, Mask, Parse, Phrase, Record, Region, RegionText, Scores, Text, Triplet
from engine.vocabulary import ClassEntry, Vocabulary
from florence2 import scene as scenes
from florence2.targets import Targets
from florence2.tasks import Task
from pipelines.scenes import scene_of

ITEM = Item(b"0" * 16, "photo.jpg", b"1" * 16, width=200, height=100)
BOX = (10.0, 10.0, 60.0, 90.0)
QUAD = (10.0, 5.0, 90.0, 6.0, 90.0, 16.0, 10.0, 15.0)
TEXT = "a dog on a leash, a man"
NO_MEASURES: dict[str, Any] = dict.fromkeys(
    ("objects", "attributes", "actions", "proper_nouns", "max_object_complexity", "max_action_complexity"), 0
)


def region(id: str, source: str = "detector", label: str | None = "dog", **fields: Any) -> Region:
    return Region(**{"id": id, "source": source, "kind": "object", "box": BOX, "label": label, **fields})


def parse(*phrases: tuple[str, str]) -> Parse:
    """Of TEXT: phrases and the expressions that they grow to."""
    spans = [(*span(words), *span(grown)) for words, grown in phrases]
    made = [Phrase(start=a, stop=b, head="", expression_start=c, expression_stop=d) for a, b, c, d in spans]
    return Parse(
        id="parse",
        source="parser",
        text_id="text",
        derived_from=("text",),
        object_complexity=0,
        action_complexity=0,
        phrases=tuple(made),
        **NO_MEASURES,
    )


def span(words: str) -> tuple[int, int]:
    return TEXT.index(words), TEXT.index(words) + len(words)


def triplet(id: str, words: str, *region_ids: str) -> Triplet:
    start, stop = span(words)
    return Triplet(
        id=id, source="grounder", text_id="text", derived_from=("text",), start=start, stop=stop, region_ids=region_ids
    )


def rich_record() -> Record:
    mask = encode_mask(np.pad(np.ones((80, 50), bool), ((10, 10), (10, 140))))
    return Record(ITEM).append(
        [
            Text(id="text", source="captioner", text=TEXT, detail="brief"),
            Text(id="told", source="composer", text="A dog.", detail="detailed"),
            region("dog", raw_label="Dog"),
            region("man", label=None, raw_label="man", box=(70, 0, 90, 100)),
            region("some", kind="proposal", label=None, box=(100, 0, 200, 100)),
            region("herd", HUMAN, "sheep", crowd=True),
            region("line", "ocr", None, kind="text", quad=QUAD, text=" EXIT "),
            region("bare", "ocr", None, kind="text", box=(0, 0, 20, 10), text="12"),
            region("unread", "ocr", None, kind="text"),
            RegionText(id="t0", source="composer", region_id="dog", text="the dog"),
            RegionText(id="t1", source="m", region_id="dog", text="fair", scores=Scores(calibrated=0.5)),
            RegionText(id="t2", source="m", region_id="dog", text="better", scores=Scores(calibrated=0.9)),
            RegionText(id="t3", source=HUMAN, region_id="dog", text="best"),
            Mask(id="m0", source="segmenter", region_id="dog", size=(100, 200), counts=mask),
            parse(("a dog", "a dog on a leash"), ("a man", "a man")),
            triplet("p0", "a dog", "dog"),
            triplet("e0", "a dog on a leash", "dog"),
            triplet("p1", "a man", "man"),
            triplet("quote", "leash", "line"),
        ]
    )


def phrases(record: Record, **kept: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    """Phrase, expression and things of TEXT, of those that name something."""
    found = next((c.phrases for c in scene_of(record, **kept).captions if c.text == TEXT), ())
    return [(TEXT[p.start : p.stop], TEXT[p.expression_start : p.expression_stop], p.things) for p in found if p.things]


def test_phrases_without_things_are_known_as_such() -> None:
    """A crop must not keep a caption that names what it may have cut away."""
    caption = next(c for c in scene_of(rich_record(), exclude_sources=("detector",)).captions if c.text == TEXT)
    assert {TEXT[p.start : p.stop] for p in caption.phrases} >= {"a dog", "a man"}
    assert not any(p.things for p in caption.phrases)


def test_each_annotation_has_its_place() -> None:
    scene = scene_of(rich_record())
    assert scene.size == (200, 100)
    assert [(c.text, c.detail) for c in scene.captions] == [(TEXT, "brief"), ("A dog.", "detailed")]
    dog, man, some, herd = scene.things
    assert (dog.label, dog.box, dog.texts) == ("dog", BOX, ("best", "better", "fair", "the dog"))
    assert dog.mask is not None and dog.mask.size == (100, 200) and dog.mask.placement == scenes.Placement()
    assert (man.label, man.mask, man.texts, some.label, herd.crowd) == ("man", None, (), None, True)
    assert scene.lines == (
        scenes.Line(QUAD, " EXIT ", ("line",)),
        scenes.Line((0, 0, 20, 0, 20, 10, 0, 10), "12", ("bare",)),
    )
    assert phrases(rich_record()) == [("a dog", "a dog on a leash", (0,)), ("a man", "a man", (1,))]
    assert scene.exhaustive == frozenset()


def test_all_tasks_of_a_real_record() -> None:
    available = Targets().available(scene_of(rich_record(), exhaustive_sources={"detector": ("dog", "cat")}))
    assert set(Task) - available.keys() == {Task.MORE_DETAILED_CAPTION}
    (example,) = Targets().examples(scene_of(rich_record()), Task.REGION_TO_SEGMENTATION, random.Random(0))
    assert example.answer == "<loc_50><loc_100><loc_300><loc_100><loc_300><loc_900><loc_50><loc_900>"


def test_what_fell_is_not_there() -> None:
    record = rich_record()
    fallen = [record.by_id[id_] for id_ in ("told", "man", "t3", "m0", "line", "herd")]
    scene = scene_of(record.decide(record.reject(one, "filter", "because") for one in fallen))
    assert [c.text for c in scene.captions] == [TEXT] and [line.text for line in scene.lines] == ["12"]
    assert [thing.label for thing in scene.things] == ["dog", None]
    assert scene.things[0].texts == ("better", "fair", "the dog") and scene.things[0].mask is None


def test_labels_by_another_vocabulary() -> None:
    vocabulary = Vocabulary(classes={"hound": ClassEntry(synonyms=("dog",)), "person": ClassEntry(synonyms=("man",))})
    scene = scene_of(rich_record(), vocabulary=vocabulary, exhaustive_sources={"detector": ("dog", "man")})
    assert [thing.label for thing in scene.things] == ["hound", "person", None, "sheep"]
    assert scene.exhaustive == {"hound", "person"}


def test_sources_may_be_shut_out_with_what_they_led_to() -> None:
    record = rich_record().append(
        [
            Text(id="of_told", source="captioner", text="It is a dog.", detail="brief", derived_from=("told",)),
            RegionText(id="t4", source="m", region_id="man", text="told", derived_from=("of_told",)),
            RegionText(id="t5", source=HUMAN, region_id="man", text="checked", derived_from=("of_told",)),
        ]
    )
    scene = scene_of(record, exclude_sources=("composer",))
    assert [c.text for c in scene.captions] == [TEXT]
    assert "the dog" not in scene.things[0].texts and scene.things[1].texts == ("checked",)
    assert phrases(record, exclude_sources=("detector",)) == []
    assert phrases(record, exclude_sources=("parser",)) == [
        ("a dog", "a dog", (0,)),
        ("a dog on a leash", "a dog on a leash", (0,)),
        ("a man", "a man", (1,)),
    ]
    alone = scene_of(record, sources=())
    assert [thing.label for thing in alone.things] == ["sheep"] and not alone.captions and not alone.lines


def test_a_region_that_fell_to_a_better_one_is_named_through_it() -> None:
    record = rich_record().append([region("better", HUMAN), region("other", HUMAN, "cat")])
    man, dog = record.by_id["man"], record.by_id["dog"]
    moved = record.decide([record.reject(dog, "human_first", "human_box", against="better")])
    assert [thing.label for thing in scene_of(moved).things] == ["man", None, "sheep", "dog", "cat"]
    assert phrases(moved)[0] == ("a dog", "a dog on a leash", (3,))
    contested = record.decide([record.reject(dog, "human_first", "human_label", against="other")])
    assert [words for words, _, _ in phrases(contested)] == ["a man"]
    in_a_ring = record.decide(
        [record.reject(dog, "f", "r", against="man"), record.reject(man, "f", "r", against="dog")]
    )
    assert phrases(in_a_ring) == []


def test_two_are_not_one() -> None:
    record = rich_record().append([region("second"), triplet("both", "a leash", "dog", "second")])
    assert ("a leash", "a leash", (0, 4)) in phrases(record)
    second = record.by_id["second"]
    assert "a leash" not in [p[0] for p in phrases(record.decide([record.reject(second, "f", "low_score")]))]


@pytest.mark.parametrize(
    ("fallen", "expected"),
    [
        ("p0", ("a dog on a leash", "a dog on a leash", (0,))),
        ("e0", ("a dog", "a dog", (0,))),  # what a filter turned down is not built again
        ("parse", ("a dog", "a dog", (0,))),
    ],
)
def test_phrases_and_expressions_that_fell(fallen: str, expected: tuple[str, str, tuple[int, ...]]) -> None:
    record = rich_record()
    assert phrases(record.decide([record.reject(record.by_id[fallen], "f", "r")]))[0] == expected


def test_exhaustive_is_what_nothing_was_taken_from() -> None:
    record = rich_record()
    known = {"detector": ("dog", "man", "cat"), "nobody": ("zebra",), HUMAN: ("sheep",)}
    assert scene_of(record, exhaustive_sources=known).exhaustive == {"dog", "man", "cat", "sheep"}
    gone = record.decide([record.reject(record.by_id["man"], "size", "too_small")])
    assert scene_of(gone, exhaustive_sources=known).exhaustive == {"dog", "cat", "sheep"}
    twice = record.append([region("again")])
    twice = twice.decide([twice.reject(twice.by_id["again"], "nms", "duplicate_box", against="dog")])
    assert "dog" in scene_of(twice, exhaustive_sources=known).exhaustive
    assert scene_of(record, exhaustive_sources=known, exclude_sources=("detector",)).exhaustive == {"sheep"}


def test_an_image_that_was_not_read() -> None:
    with pytest.raises(RecordError, match=r"gone\.jpg: expected a record with the size"):
        scene_of(Record(Item(b"0" * 16, "gone.jpg")))


@given(records(), st.sets(st.sampled_from(["detector", "ocr", "human", "a"])))
@settings(max_examples=25, deadline=None)
def test_any_record_makes_a_scene(record: Record, excluded: set[str]) -> None:
    if not record.item.width:
        record = dataclasses.replace(record, item=dataclasses.replace(record.item, width=5, height=7))
    scene = scene_of(record, exclude_sources=excluded, exhaustive_sources={"detector": ("a",)})
    things = [region for region in record.standing.regions if region.kind != "text"]
    assert len(scene.things) <= len(things) and (excluded or len(scene.things) == len(things))
    assert all(n < len(scene.things) for c in scene.captions for p in c.phrases for n in p.things)
    for task, count in Targets().available(scene).items():
        assert len(Targets().examples(scene, task, random.Random(0))) <= count
