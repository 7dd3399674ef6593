"""The grounder on drawn scenes: which regions each phrase names, and when it names none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.protocols import Sample
from engine.records import Item, Record, Region, Text
from engine.vocabulary import ClassEntry, Vocabulary
from specialists.grounder import Grounder, singular
from specialists.parser import Parser

VOCABULARY = Vocabulary(
    classes={
        "person": ClassEntry(synonyms=("people", "man", "woman")),
        "cell phone": ClassEntry(synonyms=("mobile phone", "phone")),
        "couch": ClassEntry(synonyms=("sofa",)),
        "hot dog": ClassEntry(),
    }
)
PAINT = {"red": (200, 20, 20), "blue": (20, 40, 200), "grey": (128, 128, 128)}
Thing = tuple[str, tuple[float, float, float, float], str]  # label, box in a 100 x 100 image, colour

DOG_LEFT: Thing = ("dog", (5, 60, 25, 90), "grey")
DOG_RIGHT: Thing = ("dog", (70, 55, 95, 90), "grey")
RED_CUP: Thing = ("cup", (10, 10, 25, 30), "red")
BLUE_CUP: Thing = ("cup", (60, 12, 75, 32), "blue")
WORDS = ["a", "two", "the", "dog", "dogs", "cup", "left", "red", "on", "of", "and", '"', "people"]
PERSON: Thing = ("person", (40, 20, 60, 95), "grey")


@pytest.fixture(scope="module")
def parser() -> Parser:
    made = Parser()
    made.setup()
    return made


def sample(things: list[Thing], texts: list[str], **text: Any) -> Sample:
    image = np.full((100, 100, 3), 255, np.uint8)
    regions = []
    for n, (label, box, colour) in enumerate(things):
        x0, y0, x1, y1 = map(int, box)
        image[y0:y1, x0:x1] = PAINT[colour]
        regions.append(Region(id=f"r{n}", source="a", kind="object", box=box, label=label, crowd=label == "sheep"))
    made = [Text(id=f"t{n}", source="a", text=said, detail="brief", **text) for n, said in enumerate(texts)]
    record = Record(Item(b"0" * 16, "x", width=100, height=100)).append([*regions, *made])
    return Sample(image, record)


def grounded(parser: Parser, things: list[Thing], said: str, **text: Any) -> dict[str, list[int]]:
    """phrase -> indices of the things that it names."""
    before = sample(things, [said], **text)
    (parses,) = parser.annotate([before])
    record = before.record.append(parses)
    (triplets,) = Grounder(vocabulary=VOCABULARY).annotate([Sample(before.image, record)])
    record = record.append(triplets)
    return {said[t.start : t.stop]: [int(id_[1:]) for id_ in t.region_ids] for t in record.triplets}


@pytest.mark.parametrize(
    ("things", "said", "expected"),
    [
        ([DOG_LEFT], "A dog.", {"A dog": [0]}),
        ([DOG_LEFT, RED_CUP], "The dog beside a table.", {"The dog": [0], "The dog beside a table": [0]}),
        ([DOG_LEFT, DOG_RIGHT], "Two dogs run.", {"Two dogs": [0, 1]}),
        ([DOG_LEFT, DOG_RIGHT], "The dogs run.", {"The dogs": [0, 1]}),
        # More, or fewer, than it says, and nothing to choose by.
        ([DOG_LEFT, DOG_RIGHT], "A dog runs.", {}),
        ([DOG_LEFT, DOG_RIGHT], "Three dogs run.", {}),
        ([DOG_LEFT, DOG_RIGHT, ("dog", (40, 0, 50, 20), "grey")], "Two dogs run.", {}),
        # Places, sizes and colours choose.
        (
            [DOG_LEFT, DOG_RIGHT],
            "A dog on the left.",
            {"A dog": [0], "A dog on the left": [0]},
        ),
        ([DOG_LEFT, DOG_RIGHT], "The right dog sleeps.", {"The right dog": [1]}),
        ([("dog", (5, 5, 20, 20), "grey"), ("dog", (30, 30, 90, 90), "grey")], "A small dog.", {"A small dog": [0]}),
        ([RED_CUP, BLUE_CUP], "A blue cup.", {"A blue cup": [1]}),
        ([RED_CUP, BLUE_CUP], "A red cup and a blue cup.", {"A red cup": [0], "a blue cup": [1]}),
        ([RED_CUP, BLUE_CUP], "A green cup.", {}),
        # Of equal place none is the left one; and what is left of something is not at the left.
        ([("cup", (10, 10, 20, 20), "red"), ("cup", (11, 50, 21, 60), "red")], "The left cup.", {}),
        (
            [DOG_LEFT, DOG_RIGHT, PERSON],
            "A dog to the left of the person.",
            {"the person": [2]},
        ),
        # Words for things.
        ([PERSON], "A man walks.", {"A man": [0]}),
        ([PERSON, ("person", (70, 20, 90, 95), "grey")], "People walk.", {"People": [0, 1]}),
        ([("couch", (0, 50, 100, 100), "red")], "An old sofa.", {"An old sofa": [0]}),
        ([("cell phone", (10, 10, 20, 20), "grey")], "A black mobile phone.", {"A black mobile phone": [0]}),
        ([("skis", (10, 10, 20, 90), "red")], "Red skis in the snow.", {"Red skis": [0], "Red skis in the snow": [0]}),
        ([("dining table", (0, 50, 99, 99), "grey")], "A large dining table.", {"A large dining table": [0]}),
        ([DOG_LEFT], "A hot dog.", {}),
        ([DOG_LEFT], "A dog house.", {}),
        ([("bus", (0, 0, 90, 90), "red")], "Buses stop.", {"Buses": [0]}),
        ([("vase", (0, 0, 90, 90), "red")], "The vases are full.", {"The vases": [0]}),
        ([("scissors", (0, 0, 90, 90), "red")], "A pair of scissors.", {"scissors": [0]}),
        # A crowd is many in one box.
        (
            [("sheep", (0, 0, 90, 90), "grey")],
            "Many sheep are grazing. The sheep are white.",
            {"Many sheep": [0], "The sheep": [0]},
        ),
        (
            [("sheep", (0, 0, 90, 90), "grey")],
            "Twelve sheep on grass.",
            {"Twelve sheep": [0], "Twelve sheep on grass": [0]},
        ),
        ([DOG_LEFT], "It is mine.", {}),
        # What isn't there, and what words leave open.
        ([DOG_LEFT], "There is no dog in the room.", {}),
        ([DOG_LEFT], "A room without a dog.", {}),
        ([DOG_LEFT], "This is not a dog.", {}),
        ([DOG_LEFT, DOG_RIGHT], "None of the dogs sleeps.", {}),
        ([DOG_LEFT, DOG_RIGHT], "One of the dogs sleeps.", {}),
        ([DOG_LEFT, DOG_RIGHT, ("dog", (40, 0, 50, 20), "grey")], "A couple of dogs play.", {}),
        ([DOG_LEFT, DOG_RIGHT], "A couple of dogs play.", {"dogs": [0, 1]}),
        ([DOG_LEFT, DOG_RIGHT], "The second dog from the left.", {}),
        ([DOG_LEFT, DOG_RIGHT], "The other dogs sleep.", {}),
        ([DOG_LEFT, DOG_RIGHT], "The dogs on the left.", {}),
        ([DOG_LEFT, DOG_RIGHT], "Twenty-two dogs run.", {}),
        ([PERSON], "A man dressed as a person.", {"A man": [0], "A man dressed as a person": [0]}),
        ([DOG_LEFT], "On the desk stands a statue of a dog.", {}),
        ([DOG_LEFT], "A black-and-white photo of a dog.", {"a dog": [0]}),
        # One thing is not two.
        ([PERSON], "A man and a woman walk.", {}),
        ([DOG_LEFT], "A dog chases another dog.", {"A dog": [0]}),
        ([PERSON, ("person", (70, 20, 90, 95), "grey")], "Two men look at two women.", {}),
        ([DOG_LEFT], "A dog sleeps. The dog is old.", {"A dog": [0], "The dog": [0]}),
        # A colour that can't be.
        ([RED_CUP], "A blue cup.", {}),
        ([RED_CUP], "An orange cup.", {"An orange cup": [0]}),
        ([], "A dog.", {}),
    ],
)
def test_what_phrases_name(parser: Parser, things: list[Thing], said: str, expected: dict[str, list[int]]) -> None:
    assert grounded(parser, things, said) == expected


def test_a_text_made_from_regions_means_those(parser: Parser) -> None:
    things = [DOG_LEFT, DOG_RIGHT]
    assert grounded(parser, things, "A dog.", derived_from=("r1",)) == {"A dog": [1]}


@pytest.mark.parametrize("said", ['A sign says "Stop here".', "“STOP  HERE” on a wall"])
def test_quotations_name_the_text_that_says_so(parser: Parser, said: str) -> None:
    read = Region(id="r0", source="ocr", kind="text", box=(0, 0, 9, 9), text="STOP HERE")
    text = Text(id="t0", source="a", text=said, detail="brief")
    record = Record(Item(b"0" * 16, "x")).append([read, text])
    (triplets,) = Grounder().annotate([Sample(np.zeros((10, 10, 3), np.uint8), record)])
    assert [said[t.start : t.stop].casefold().split() for t in triplets] == [["stop", "here"]]
    assert triplets[0].region_ids == ("r0",)


def test_what_fell_is_not_linked(parser: Parser) -> None:
    before = sample([DOG_LEFT], ["A dog."])
    (parses,) = parser.annotate([before])
    record = before.record.append(parses)
    fallen = record.decide([record.reject(record.regions[0], "test", "low_score")])
    assert Grounder().annotate([Sample(before.image, fallen)]) == [[]]


@given(
    st.lists(st.sampled_from([DOG_LEFT, DOG_RIGHT, RED_CUP, BLUE_CUP, PERSON]), max_size=5),
    st.lists(st.text(max_size=40) | st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_triplets_pass_the_records_checks(parser: Parser, things: list[Thing], texts: list[str]) -> None:
    before = sample(things, texts)
    (parses,) = parser.annotate([before])
    record = before.record.append(parses)
    (triplets,) = Grounder(vocabulary=VOCABULARY).annotate([Sample(before.image, record)])
    after = record.append(triplets)
    spans = [(t.text_id, t.start, t.stop) for t in after.triplets]
    assert len(set(spans)) == len(spans)
    assert all(t.region_ids and len(set(t.region_ids)) == len(t.region_ids) for t in after.triplets)


@pytest.mark.parametrize(
    ("noun", "one"),
    [("cups", "cup"), ("people", "person"), ("bus", "bus"), ("skis", "ski"), ("glass", "glass"), ("tie", "tie")],
)
def test_singular(noun: str, one: str) -> None:
    assert singular(noun) == one
