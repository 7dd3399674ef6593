"""Labels as nouns: COCO's 80, those of other vocabularies, and what is no word."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialists.detector import CLASSES
from specialists.nouns import LONGEST, Noun, article, is_plural, plural_of, speakable

# Those of COCO's 80 whose plural is not the word and an s.
IRREGULAR = {
    "person": "people",
    "bus": "buses",
    "bench": "benches",
    "sheep": "sheep",
    "knife": "knives",
    "sandwich": "sandwiches",
    "couch": "couches",
    "wine glass": "wine glasses",
    "tv": "TVs",
    "mouse": "mice",
    "toothbrush": "toothbrushes",
    "skis": "skis",
    "scissors": "scissors",
}
AN = {"airplane", "umbrella", "elephant", "apple", "orange", "oven"}


@pytest.mark.parametrize("label", CLASSES)
def test_plurals_and_articles_of_coco(label: str) -> None:
    assert plural_of(label) == IRREGULAR.get(label, f"{label}s")
    assert article(label) == ("an" if label in AN else "a")
    assert is_plural(label) == (label in ("skis", "scissors"))


@pytest.mark.parametrize(
    ("label", "number", "indefinite", "definite", "plural"),
    [
        ("cup", 1, "a red cup", "the cup", False),
        ("cup", 2, "two red cups", "the two cups", True),
        ("cup", 12, "twelve red cups", "the twelve cups", True),
        ("cup", 13, "many red cups", "the cups", True),
        ("cup", None, "many red cups", "the cups", True),
        ("skis", 1, "a pair of red skis", "the pair of skis", False),
        ("scissors", 3, "three pairs of red scissors", "the three pairs of scissors", True),
        ("skis", None, "many pairs of red skis", "the pairs of skis", True),
        ("broccoli", 1, "some red broccoli", "the broccoli", False),
        ("broccoli", 4, "some red broccoli", "the broccoli", False),
        ("flowers", 1, "some red flowers", "the flowers", True),
        ("tv", 1, "a red TV", "the TV", False),
        ("tv", 2, "two red TVs", "the two TVs", True),
        ("lens", 2, "two red lenses", "the two lenses", True),
        ("猫", 2, "two red 猫", "the two 猫", True),
    ],
)
def test_how_many_there_are(label: str, number: int | None, indefinite: str, definite: str, plural: bool) -> None:
    noun = Noun(label, number)
    assert (noun.indefinite("red"), noun.definite(), noun.plural) == (indefinite, definite, plural)


def test_the_article_is_that_of_the_first_word() -> None:
    assert Noun("cup", 1).indefinite("orange") == "an orange cup"
    assert Noun("umbrella", 1).indefinite("large", "red") == "a large red umbrella"
    assert Noun("hourglass", 1).indefinite() == "an hourglass"
    assert Noun("unicycle", 1).indefinite("") == "a unicycle"


def test_people_are_human_and_teddy_bears_are_not() -> None:
    assert Noun("person", 2).human
    assert Noun("human face", 1).human
    assert not Noun("teddy bear", 1).human


@pytest.mark.parametrize(
    ("label", "spoken"),
    [
        (" traffic\n light\t", "traffic light"),
        ("baseball_glove", "baseball glove"),
        ('the "cup".', "cup"),
        ("cup\x00\x07\u202e", "cup"),
        ("<script>", "<script>"),
        ("猫", "猫"),
        ("", None),
        (None, None),
        (" \n", None),
        ("42", None),
        ("...", None),
        ("x" * LONGEST, "x" * LONGEST),
        ("x" * 300, None),
    ],
)
def test_labels_that_can_be_said(label: str | None, spoken: str | None) -> None:
    assert speakable(label) == spoken


@given(st.text(max_size=30) | st.from_regex(r"[a-z' <>/-]{1,12}", fullmatch=True), st.none() | st.integers(1, 20))
@settings(max_examples=500, deadline=None)
def test_whatever_can_be_said_can_be_counted(label: str, number: int | None) -> None:
    spoken = speakable(label)
    if spoken:
        noun = Noun(spoken, number)
        for words in (noun.indefinite("red"), noun.definite(), noun.again()):
            assert words == " ".join(words.split())
            assert words[0].isascii()
