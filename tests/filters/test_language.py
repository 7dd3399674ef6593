"""The language filter on a table of captions, alt-texts and titles in 26 languages, and on what is hard to tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies import records

from engine.components import parameters_of
from engine.errors import ConfigError
from engine.records import Decision, Item, Record, Text
from filters.language import SCRIPTS, TWO_SCRIPTS, Language, _identifier, probability, script_share

GOLDEN = yaml.safe_load((Path(__file__).parents[1] / "golden" / "languages.yaml").read_text())
OTHERS = [(code, text) for code, texts in GOLDEN["others"].items() for text in texts]
OWN_SCRIPT = {"ru", "uk", "el", "zh", "ja", "ko", "ar", "he", "hi", "th"}


def decide(text: str, filter_: Language = Language()) -> list[Decision]:  # noqa: B008
    made = Text(id="0.a.0", source="a", text=text, detail="brief")
    return list(filter_.decide(Record(Item(b"0" * 16, "photo.jpg"), round=2).append([made])))


@pytest.mark.parametrize("text", GOLDEN["english"])
def test_no_english_text_falls(text: str) -> None:
    assert decide(text) == []
    assert decide(text.upper()) == []


def test_most_others_fall() -> None:
    """Of those in Latin letters 62 of 80 (the rest are short), of those in other scripts all."""
    fallen = [code for code, text in OTHERS if decide(text)]
    assert sum(code not in OWN_SCRIPT for code in fallen) >= 62
    assert sum(code in OWN_SCRIPT for code in fallen) == sum(code in OWN_SCRIPT for code, _ in OTHERS) == 50


@pytest.mark.parametrize("code", sorted(GOLDEN["others"]))
def test_a_wanted_language_stands(code: str) -> None:
    filter_ = Language(languages=("en", code))
    assert [text for text in GOLDEN["others"][code] if decide(text, filter_)] == []


@pytest.mark.parametrize(
    ("text", "languages", "expected"),
    [
        ("犬", ("en",), ("foreign_script", 0, 0.5)),
        ("犬", ("ja",), None),
        ("dog", ("ja",), ("foreign_script", 0, 0.5)),
        ("A sign: 北京烤鸭", ("en",), None),
        ("Menu: 北京烤鸭北京烤鸭", ("en",), ("foreign_script", 4 / 12, 0.5)),
        ("\N{FULLWIDTH LATIN SMALL LETTER A}", ("en",), None),
        ("コーヒー", ("ja",), None),
        ("Пас трчи", ("sr",), None),
        ("Pas trči", ("sr",), None),
        ("12:30 !!! 😀", ("en",), None),
        ("", ("en",), None),
    ],
)
def test_scripts(text: str, languages: tuple[str, ...], expected: object) -> None:
    decisions = decide(text, Language(languages=languages))
    assert [(d.reason, d.value, d.threshold) for d in decisions] == ([expected] if expected else [])


def test_a_decision_carries_the_probability() -> None:
    text = "Ein Mann fährt mit dem Fahrrad durch die Stadt."
    (decision,) = decide(text, Language(name="tongue"))
    english = frozenset({"en"})
    plain = "fährt mit dem durch die"
    assert decision == Decision(
        annotation_id="0.a.0",
        action="reject",
        by="tongue",
        reason="foreign_language",
        value=max(probability(text, english), probability(plain, english)),
        threshold=0.001,
        round=2,
    )


@pytest.mark.parametrize(
    ("filter_", "stands"),
    [
        (Language(), False),
        (Language(min_letters=38), False),
        (Language(min_letters=39), True),
        (Language(min_plain_letters=19), False),
        (Language(min_plain_letters=20), True),
        (Language(min_probability=0), True),
        (Language(languages=("de", "en")), True),
    ],
)
def test_limits(filter_: Language, stands: bool) -> None:
    """38 letters, 19 of them in words without a capital."""
    assert (decide("Ein Mann fährt mit dem Fahrrad durch die Stadt.", filter_) == []) == stands


def test_what_may_be_all_names_stands() -> None:
    assert [d.reason for d in decide("Un hombre monta a caballo por la playa")] == ["foreign_language"]
    assert decide("Un Hombre Monta A Caballo Por La Playa") == []
    assert decide("UN HOMBRE MONTA A CABALLO POR LA PLAYA") == []
    assert [d.reason for d in decide("МУЖЧИНА")] == ["foreign_script"]


def test_every_language_of_the_scripts_is_the_models() -> None:
    known = set(_identifier().labels)
    assert {code for users in SCRIPTS.values() for code in users.split()} | TWO_SCRIPTS <= known
    assert script_share("犬", frozenset({"en", "zh"})) == 1


def test_a_language_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"no language xx; py3langid knows .* en "):
        decide("A man in a red shirt throws a frisbee.", Language(languages=("en", "xx")))
    for languages in ((), ("english",), ("EN",)):
        with pytest.raises(ValidationError):
            parameters_of(Language)(languages=languages)


def test_the_model_is_not_loaded_to_build_the_filter() -> None:
    code = (
        "import sys; from filters.language import Language; from engine.records import Item, Record; "
        "assert not list(Language().decide(Record(item=Item(item_id=b'', uri='')))); "
        "assert 'py3langid' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(deadline=None)
@given(records(), st.sampled_from([Language(), Language(min_probability=0.9, min_letters=0, min_plain_letters=0)]))
def test_only_texts_that_stand_are_decided_on_and_once(made: Record, filter_: Language) -> None:
    decisions = list(filter_.decide(made))
    texts = {text.id for text in made.standing.texts}
    assert len({d.annotation_id for d in decisions}) == len(decisions)
    assert all(d.annotation_id in texts and d.value is not None and d.threshold is not None for d in decisions)
    assert all(d.value < d.threshold for d in decisions if d.value is not None and d.threshold is not None)
    assert list(filter_.decide(made.decide(decisions))) == []


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    assert len(decide(text)) <= 1
