"""The text filters on texts that should stand and texts that should not, each with what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import records

from engine.decide import Filter
from engine.records import Detail, Item, Parse, Record, Text
from filters.text import Characters, Complexity, Length, Objects, RepeatedText, Repetition, letters, repetition

FILTERS = (Length(), Characters(), Repetition(), RepeatedText(), Objects(), Complexity())


def record(*texts: str | tuple[Detail, str]) -> Record:
    pairs: list[tuple[Detail, str]] = [("brief", text) if isinstance(text, str) else text for text in texts]
    made = [Text(id=f"0.a.{n}", source="a", text=text, detail=detail) for n, (detail, text) in enumerate(pairs)]
    return Record(Item(b"0" * 16, "photo.jpg")).append(made)


def with_parses(made: Record, *measures: dict[str, Any]) -> Record:
    """`made` with a parse for each text: `measures` over one object of complexity 1."""
    plain: dict[str, Any] = dict.fromkeys(("objects", "max_object_complexity", "object_complexity"), 1)
    none = dict.fromkeys(("attributes", "actions", "proper_nouns", "action_complexity", "max_action_complexity"), 0)
    return made.append(
        Parse(id=f"0.p.{n}", source="p", text_id=text.id, **{**plain, **none, **some})
        for n, (text, some) in enumerate(zip(made.texts, measures, strict=True))
    )


def falls(filter_: Filter, made: Record) -> dict[str, tuple[str, float | None, float | None]]:
    return {d.annotation_id: (d.reason, d.value, d.threshold) for d in filter_.decide(made)}


def test_length_by_granularity() -> None:
    sentence = "A dog sits there."
    made = record(sentence, "A dog", ("detailed", sentence), "dog " * 33, "")
    assert falls(Length(), made) == {
        "0.a.1": ("too_short", 2, 3),
        "0.a.2": ("too_short", 4, 8),
        "0.a.3": ("too_long", 33, 32),
        "0.a.4": ("too_short", 0, 3),
    }
    assert falls(Length(min_words={}, max_words={}), made) == {}


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ("A dog, a cat and 2 birds.", True),
        ("Un garçon près d'une fenêtre", True),
        ("दो कुत्ते घास पर दौड़ते हैं", True),  # vowel signs are marks
        ("IMG_20240131_0001.JPG", False),
        ("!!! $$$ ### SALE ### $$$ !!!", False),
        ("<b>&nbsp;</b>", False),
        ("", False),
    ],
)
def test_characters(text: str, stands: bool) -> None:
    made = record(text)
    decided = falls(Characters(), made)
    assert decided == ({} if stands else {"0.a.0": ("too_few_letters", letters(text), 0.8)})


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a dog and a dog and a dog", 1 - 3 / 6),  # and a dog, a dog and, dog and a
        ("a man in a red shirt and a man in a blue shirt", 1 - 9 / 11),
        ("A dog. A DOG! a dog? a Dog", 1 - 2 / 6),
        ("two words", 0),
        ("", 0),
    ],
)
def test_repetition(text: str, share: float) -> None:
    assert repetition(text, 3) == pytest.approx(share)
    decided = falls(Repetition(), record(text))
    assert decided == ({} if share <= 0.3 else {"0.a.0": ("repetitive", repetition(text, 3), 0.3)})


def test_a_text_that_an_image_has_already() -> None:
    made = record("A dog on grass.", "a dog, on grass", "Grass on a dog", "A cat on grass.", "A dog on grass, a dog")
    decisions = list(RepeatedText().decide(made))
    assert [(d.annotation_id, d.against, d.value) for d in decisions] == [("0.a.1", "0.a.0", 1), ("0.a.2", "0.a.0", 1)]


def test_too_many_objects() -> None:
    made = with_parses(record("tags", "fine", ("detailed", "more")), {"objects": 11}, {"objects": 10}, {"objects": 30})
    assert falls(Objects(), made) == {"0.a.0": ("too_many_objects", 11, 10)}


@pytest.mark.parametrize(
    ("complexities", "fallen"),
    [
        ([0.5, 2, 0], {"0.a.0", "0.a.2"}),
        ([0.5, 0.2], {"0.a.1"}),  # the better one is the last of its granularity
        ([0], set()),
        ([1, 1], set()),
    ],
)
def test_complexity_leaves_the_last_one(complexities: Sequence[float], fallen: set[str]) -> None:
    made = with_parses(
        record(*(f"text {n}" for n in range(len(complexities)))), *({"object_complexity": c} for c in complexities)
    )
    decided = falls(Complexity(), made)
    assert decided.keys() == fallen
    for text_id, (reason, value, threshold) in decided.items():
        assert (reason, value, threshold) == ("too_simple", complexities[int(text_id[-1])], 1)


def test_a_text_without_a_parse_stands() -> None:
    made = record("no verb, no parse")
    assert falls(Objects(), made) == falls(Complexity(), made) == {}


@given(records(), st.sampled_from(FILTERS))
def test_only_texts_that_stand_are_decided_on_and_once(made: Record, filter_: Filter) -> None:
    decisions = list(filter_.decide(made))
    texts = {text.id for text in made.standing.texts}
    assert len({d.annotation_id for d in decisions}) == len(decisions)
    assert all(d.annotation_id in texts and d.by == filter_.name and d.round == made.round for d in decisions)
    after = made.decide(decisions)
    assert list(filter_.decide(after)) == [], "what stands after a filter stands before it"
