"""The filter of what was made up, on texts as a language model writes them, with real parses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import records

from engine.components import build
from engine.decide import decide
from engine.protocols import Sample
from engine.records import AnyAnnotation, Item, Record, Region, RegionText, Text
from engine.vocabulary import ClassEntry, Vocabulary
from filters.supported import Supported, forms
from specialists.parser import Parser

COCO = Vocabulary(
    classes={
        "person": ClassEntry(synonyms=("people", "man", "men", "woman", "women", "child", "children", "rider", "boy")),
        "cell phone": ClassEntry(synonyms=("mobile phone", "smartphone", "phone")),
        "couch": ClassEntry(synonyms=("sofa",)),
        "dining table": ClassEntry(synonyms=("table",)),
        "tv": ClassEntry(synonyms=("television", "tv monitor")),
        "donut": ClassEntry(synonyms=("doughnut",)),
    }
)
# A label; or what was read, with its quotation marks; or a region's text, which has an article.
Input = str


@cache
def parser() -> Parser:
    made = Parser()
    made.setup()
    return made


def parsed(record: Record) -> Record:
    (parses,) = parser().annotate([Sample(np.zeros((9, 9, 3), np.uint8), record)])
    return record.append(parses)


def inputs(*given: Input) -> list[AnyAnnotation]:
    numbers = count()
    made: list[AnyAnnotation] = []
    for one in given:
        box, id_ = (0.0, 0.0, 5.0, 5.0), f"0.in.{next(numbers)}"
        if one.startswith('"'):
            made.append(Region(id=id_, source="in", kind="text", box=box, text=one.strip('"')))
        elif " " in one and one.split()[0] in ("a", "an", "the", "two", "several"):
            region = Region(id=id_, source="in", kind="proposal", box=box)
            made += [region, RegionText(id=f"0.in.{next(numbers)}", source="in", region_id=region.id, text=one)]
        else:
            made.append(Region(id=id_, source="in", kind="object", box=box, label=one, raw_label=one))
    return made


def written(text: str, given: Sequence[AnyAnnotation], source: str = "aggregator") -> Record:
    ids = tuple(annotation.id for annotation in given)
    record = Record(Item(b"0" * 16, "x", width=9, height=9)).append(given)
    return record.append([Text(id=f"0.{source}.0", source=source, text=text, detail="detailed", derived_from=ids)])


def made_up(text: str, *given: Input, vocabulary: Vocabulary = COCO) -> int:
    """How many things it says are made up, by where it stops to let the text fall."""
    record = parsed(written(text, inputs(*given)))
    (decision,) = [*Supported(vocabulary=vocabulary).decide(record)] or [None]
    if decision is None:
        return 0
    assert (decision.annotation_id, decision.action, decision.by) == ("0.aggregator.0", "reject", "supported")
    assert (decision.reason, decision.threshold) == ("unsupported_objects", 0)
    assert decision.value is not None
    return int(decision.value)


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("A dog sits on the left. It looks at two cats, which are on the right side.", ("dog", "cat")),
        ("Two people ride bicycles.", ("person", "bicycle")),
        ("A man and a woman walk beside three children.", ("person",)),
        ("A rider is on a horse in the foreground.", ("a boy on a horse",)),
        ("A coffee cup stands beside a spoon.", ("cup", "spoon")),
        ("A cup stands on the table.", ("coffee cup", "dining table")),
        ("A large wooden dining table is in the centre.", ("table",)),
        ("A woman in a red T-shirt holds a phone.", ("a woman with a red t-shirt", "cell phone")),
        ("Several geese are next to a goose.", ("two geese",)),
        ("A goose is here.", ("several geese",)),
        ("Two leaves and three knives lie beside a loaf.", ("leaf", "knife", "several loaves")),
        ("Boxes and buses can be seen. One box is red, and a bus is blue.", ("box", "bus")),
        ("There is a pair of glasses on a sofa.", ("the glasses", "couch")),
        ("A group of people stands in a row.", ("person",)),
        ("A pair of skis leans against the wall.", ("skis", "a wall")),
        ("A group of geese walks past a bus stop.", ("several geese", "the bus stop")),
        (
            'The words "FRESH BREAD DAILY" can be read above "Open 24 hours".',
            ('"Fresh Bread Daily"', '"OPEN 24 HOURS"'),
        ),
        ('The text "Coca-Cola" can be read in the centre, above "50% OFF".', ('"Coca-Cola"', '"50% OFF"')),
        ("The dog's leash is blue; a close-up of it is in the background.", ("a dog on a blue leash",)),
        ("It spans about a third of the width and half of the height of the image.", ("kite",)),
        ("They are next to each other, and nobody else is in the photo.", ("person",)),
        ("A TV monitor stands there.", ("tv",)),
        ("A dog.", ("dog",)),
        ("", ("dog",)),
        ("On the right is the television, on the left some doughnuts.", ("tv", "donuts")),
    ],
)
def test_what_somebody_spoke_of_is_no_false_alarm(text: str, given: tuple[Input, ...]) -> None:
    assert made_up(text, *given) == 0


@pytest.mark.parametrize(
    ("text", "given", "number"),
    [
        ("A dog sits beside a cat.", ("dog",), 1),
        ("A dog sits beside a cat. The cat is white, and the two cats play.", ("dog",), 1),
        ("A man sits on a bench under a tree, with a child.", ("dog",), 3),  # a man and a child are persons
        ('A sign on the wall reads "STOP".', ('"STOP"',), 2),
        ('The text "SALE" can be read.', ('"STOP"',), 1),
        ("Coffee steams in a cup.", ("cup",), 1),
        ("A bus stop is beside a bus.", ("bus",), 1),
        ("A woman holds a phone.", ("person",), 1),
        ("Mountains rise behind the dog, and the sky is blue.", ("dog",), 2),
    ],
)
def test_what_nobody_spoke_of_is_counted_once(text: str, given: tuple[Input, ...], number: int) -> None:
    assert made_up(text, *given) == number


def test_texts_speak_by_their_words_and_their_parses() -> None:
    brief = Text(id="0.captioner.0", source="captioner", text="two fungi were in a meadow", detail="brief")
    record = parsed(written("A fungus and another fungus are in the meadow, far from a house.", [brief]))
    assert [decision.value for decision in Supported().decide(record)] == [1]


def test_people_are_persons_without_a_vocabulary() -> None:
    assert made_up("Two people sit there.", "person", vocabulary=Vocabulary()) == 0
    assert made_up("A man sits there.", "person", vocabulary=Vocabulary()) == 1


def test_so_many_are_allowed() -> None:
    record = parsed(written("A dog, a cat and a bird sit there.", inputs("dog")))
    assert [(d.value, d.threshold) for d in Supported(max_unsupported=1).decide(record)] == [(2, 1)]
    assert not list(Supported(max_unsupported=2).decide(record))


def test_only_what_derives_from_others_by_the_given_sources_is_looked_at() -> None:
    text = "A dog sits beside a cat."
    assert not list(Supported().decide(parsed(written(text, inputs("dog"), source="annotator"))))
    named = Supported(sources=("annotator",)).decide(parsed(written(text, inputs("dog"), source="annotator")))
    assert [decision.value for decision in named] == [1]
    assert not list(Supported().decide(parsed(written(text, [])))), "from what it was made nobody knows"
    assert not list(Supported().decide(written(text, inputs("dog")))), "without a parse"


def test_it_is_built_with_the_pipelines_vocabulary() -> None:
    built = build("filters", "supported", {"max_unsupported": 1}, COCO)
    assert built == Supported(max_unsupported=1, vocabulary=COCO)


@settings(max_examples=50)
@given(records())
def test_any_record(record: Record) -> None:
    sources = tuple({text.source for text in record.texts})
    filter_ = Supported(sources=sources)
    decided = decide(record, [filter_])
    again = {decision.annotation_id for decision in filter_.decide(decided)}
    assert again.isdisjoint(decided.fallen), "what fell is not looked at again, though what it supported may fall then"
    assert list(filter_.decide(record)) == list(filter_.decide(record))
    for decision in filter_.decide(record):
        text = record.by_id[decision.annotation_id]
        assert isinstance(text, Text)
        assert text.derived_from
        assert decision.value is not None
        assert decision.value > 0


@settings(max_examples=30)
@given(st.sets(st.sampled_from(["dog", "cat", "bench", "tree", "kite", "bus"]), min_size=1))
def test_names_of_inputs_are_supported_and_only_these(labels: set[str]) -> None:
    text = "There is " + ", ".join(f"a {label}" for label in sorted(labels)) + "."
    assert made_up(text, *labels) == 0
    for missing in labels:
        assert made_up(text, *(labels - {missing}), "sofa") == 1


@given(st.text(max_size=20))
def test_a_word_is_a_form_of_itself(word: str) -> None:
    assert not word or word in forms(word)
