from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from pydantic import ValidationError
from strategies import words

from engine.vocabulary import ClassEntry, Vocabulary

VOCABULARY = Vocabulary(
    classes={
        "Traffic Light": ClassEntry(synonyms=("stoplight", "traffic  signal")),
        "sofa": ClassEntry(synonyms=("Couch", "SOFA"), prompt="a sofa"),
        "straße": ClassEntry(),
    }
)


@pytest.mark.parametrize(
    "word, canonical",
    [
        ("sofa", "sofa"),
        ("couch", "sofa"),
        (" COUCH\n", "sofa"),
        ("traffic light", "Traffic Light"),
        ("Traffic\tSignal", "Traffic Light"),
        ("STRASSE", "straße"),
        ("Park  Bench ", "park bench"),
        ("", ""),
    ],
)
def test_canonical(word: str, canonical: str) -> None:
    assert VOCABULARY.canonical(word) == canonical


@given(words)
def test_canonical_is_canonical(word: str) -> None:
    canonical = VOCABULARY.canonical(word)
    assert VOCABULARY.canonical(canonical) == canonical
    assert VOCABULARY.canonical(f"  {word}\n") == canonical


@pytest.mark.parametrize(
    "classes",
    [
        {"sofa": {"synonyms": ["couch"]}, "bed": {"synonyms": [" Couch "]}},
        {"sofa": {"synonyms": ["Bed"]}, "bed": {}},
        {"sofa": {}, "bed": {"synonyms": ["SOFA"]}},
    ],
)
def test_a_word_of_two_classes_names_both(classes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="'sofa' and 'bed'"):
        Vocabulary.model_validate({"classes": classes})


def test_one_class_written_twice_is_two_classes() -> None:
    with pytest.raises(ValidationError, match="'Sofa' and 'sofa'"):
        Vocabulary(classes={"Sofa": ClassEntry(), "sofa": ClassEntry()})


def test_unknown_keys_are_errors() -> None:
    with pytest.raises(ValidationError, match="synonym"):
        Vocabulary.model_validate({"classes": {"sofa": {"synonym": ["couch"]}}})


def test_equal_and_picklable_after_use() -> None:
    used = VOCABULARY.model_copy(deep=True)
    used.canonical("couch")
    assert used == Vocabulary(classes=VOCABULARY.classes)
    assert pickle.loads(pickle.dumps(used)).canonical("couch") == "sofa"
