"""The parser on texts that a person took apart, and on texts that nobody would write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.protocols import Sample
from engine.records import Item, Parse, Record, Text
from specialists.parser import Parser

GOLDEN = yaml.safe_load((Path(__file__).parents[1] / "golden" / "texts.yaml").read_text())
NO_IMAGE = np.zeros((1, 1, 3), np.uint8)


@pytest.fixture(scope="module")
def parser() -> Parser:
    made = Parser()
    made.setup()
    return made


def record(*texts: str) -> Record:
    made = [Text(id=f"0.a.{n}", source="a", text=text, detail="brief") for n, text in enumerate(texts)]
    return Record(Item(b"0" * 16, "photo.jpg")).append(made)


def parsed(parser: Parser, *texts: str) -> list[Parse]:
    """What the parser appends to a record of `texts`, after the record's own checks."""
    before = record(*texts)
    (made,) = parser.annotate([Sample(NO_IMAGE, before)])
    return list(before.append(made).parses)


def written(text: str, parse: Parse) -> list[str]:
    """The phrases as the golden file has them."""
    lines = []
    for p in parse.phrases:
        phrase, expression = text[p.start : p.stop], text[p.expression_start : p.expression_stop]
        lines.append(phrase if phrase == expression else f"{phrase} > {expression}")
    return lines


@pytest.mark.parametrize("golden", GOLDEN, ids=[golden["text"][:30] for golden in GOLDEN])
def test_measures_and_phrases(parser: Parser, golden: dict[str, Any]) -> None:
    (parse,) = parsed(parser, golden["text"])
    assert (parse.objects, parse.attributes, parse.actions) == tuple(
        len(golden[name]) for name in ("objects", "attributes", "actions")
    )
    assert parse.object_complexity == pytest.approx(golden["object_complexity"], abs=0.01)
    assert parse.action_complexity == pytest.approx(golden["action_complexity"], abs=0.01)
    assert written(golden["text"], parse) == golden["phrases"]


@pytest.mark.parametrize(
    ("text", "head", "modifiers", "count"),
    [
        ("Two dogs run.", "dog", (), 2),
        ("The dogs run.", "dog", (), None),
        ("3 small birds fly.", "bird", ("small",), 3),
        ("Both cats sleep.", "cat", (), 2),
        ("This is a cell phone.", "phone", ("cell",), 1),
        ("There were 1234567 people.", "people", (), None),
    ],
)
def test_what_a_phrase_says_of_its_thing(
    parser: Parser, text: str, head: str, modifiers: tuple[str, ...], count: int | None
) -> None:
    (parse,) = parsed(parser, text)
    *_, phrase = parse.phrases
    assert (phrase.head, phrase.modifiers, phrase.count) == (head, modifiers, count)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("A man holding a cup and a plate smiles.", "A man holding a cup"),
        (
            "A person filling most of the image and a flag in the upper left can be seen.",
            "A person filling most of the image",
        ),
        ("A dog and a cat on a sofa.", "A dog"),
    ],
)
def test_an_expression_ends_where_belonging_is_in_doubt(parser: Parser, text: str, expression: str) -> None:
    (parse,) = parsed(parser, text)
    first = parse.phrases[0]
    assert text[first.expression_start : first.expression_stop] == expression


@given(st.lists(st.text(max_size=60) | st.sampled_from([golden["text"] for golden in GOLDEN]), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_spans_are_what_they_claim(parser: Parser, texts: list[str]) -> None:
    for text, parse in zip(texts, parsed(parser, *texts), strict=True):
        end = 0
        for phrase in parse.phrases:
            said = text[phrase.start : phrase.stop]
            assert said
            assert said == said.strip()
            assert phrase.start >= end
            end = phrase.stop


def test_each_text_is_parsed_once(parser: Parser) -> None:
    once = record("A dog.", "Two cats.")
    (made,) = parser.annotate([Sample(NO_IMAGE, once)])
    again = once.append(made).append([Text(id="0.b.0", source="b", text="A bird.", detail="brief")])
    (more,) = parser.annotate([Sample(NO_IMAGE, again)])
    assert [parse.text_id for parse in more] == ["0.b.0"]
    assert {parse.id for parse in again.append(more).parses} == {f"0.parser.{n}" for n in range(3)}


def test_batches_keep_texts_with_their_images(parser: Parser) -> None:
    records = [record("A dog.", "Two cats sleep."), record(), record("A red bird.")]
    answers = parser.annotate([Sample(NO_IMAGE, r) for r in records])
    heads = [[phrase.head for parse in answer for phrase in parse.phrases] for answer in answers]
    assert heads == [["dog", "cat"], [], ["bird"]]


def test_a_hundred_thousand_characters(parser: Parser) -> None:
    (parse,) = parsed(parser, "A dog. " * 14_300)
    assert parse.objects == len(parse.phrases) == 14_300


def test_what_is_too_long_to_parse_keeps_its_image(parser: Parser) -> None:
    assert [parse.text_id for parse in parsed(parser, "A dog. " * 200_000, "A dog.")] == ["0.a.1"]


def test_a_pipeline_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigError, match="specialist parser: no spaCy pipeline xx_nowhere is installed"):
        assert Parser(pipeline="xx_nowhere").version
