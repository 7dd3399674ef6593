"""Grounding recall: texts of which the image shows enough, and texts about something else."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phrased import parsed, phrase, picture, record, sample
from strategies import records
from tiny import grounders

from engine.decide import decide
from engine.protocols import Sample
from engine.records import HUMAN, Decision, Detail, Record, Region, Triplet
from filters.grounding import Grounded
from filters.phrase import PhraseScore
from specialists.hub.grounder import GroundingDino

TEXT = "A dog on a leash and two cats in the background of the image"
PHRASES = [phrase(TEXT, "A dog", "A dog on a leash"), phrase(TEXT, "a leash"), phrase(TEXT, "two cats")]
NAMELESS = [phrase(TEXT, "the background"), phrase(TEXT, "the image")]
HALF = Grounded(min_recall={"brief": 0.5})
LOOKED = Decision(annotation_id="t0", action="keep", by="grounder", reason="grounded", value=0.0)


def grounded(
    *said: str, source: str = "grounder", looked: bool = True, detail: Detail = "brief", writer: str = "writer"
) -> Record:
    """TEXT with a triplet for each of some phrases."""
    made = record(*parsed(0, TEXT, *PHRASES, *NAMELESS, detail=detail, source=writer))
    for n, words in enumerate(said):
        start = TEXT.index(words)
        region = Region(id=f"r{n}", source=source, kind="proposal", box=(0, 0, 50, 50))
        span: dict[str, Any] = {"start": start, "stop": start + len(words), "region_ids": (f"r{n}",)}
        made = made.append([region, Triplet(id=f"g{n}", source=source, text_id="t0", **span)])
    return made.decide([LOOKED]) if looked else made


def recall(made: Record, filter_: Grounded = HALF) -> float | None:
    """That of the text, if it falls."""
    found = list(filter_.decide(made))
    assert all((one.annotation_id, one.reason) == ("t0", "low_grounding_recall") for one in found)
    return found[0].value if found else None


def test_a_text_of_which_little_was_found_falls() -> None:
    assert recall(grounded()) == 0
    assert recall(grounded("A dog")) == pytest.approx(1 / 3)
    assert recall(grounded("A dog", "two cats")) is None
    assert recall(grounded("A dog", "two cats"), Grounded(min_recall={"brief": 0.7})) == pytest.approx(2 / 3)
    [fall] = Grounded().decide(grounded())
    assert fall == grounded().reject(grounded().texts[0], "grounded", "low_grounding_recall", 0, 0.1)
    assert recall(grounded("A dog"), Grounded()) is None


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("dog", 1),  # the last words of the phrase
        ("A dog on a leash", 1),  # the expression, which does not ground the leash
        ("cats", 1),
        ("two", 0),  # only a part
        ("leash and two cats", 0),  # more than the phrase
        ("the background", 0),  # names nothing, and doesn't count
    ],
)
def test_which_triplets_are_of_a_phrase(said: str, found: int) -> None:
    assert recall(grounded(said), Grounded(min_recall={"brief": 1.0})) == pytest.approx(found / 3)


def test_what_a_filter_turned_down_was_not_found() -> None:
    made = grounded("A dog", "two cats")
    without_triplet = made.decide([made.reject(made.triplets[0], "phrase_score", "low_box_score")])
    assert recall(without_triplet) == pytest.approx(1 / 3)
    without_region = made.decide([made.reject(made.regions[0], "size", "too_small")])
    assert recall(without_region) == pytest.approx(1 / 3)


def test_what_is_not_known_decides_nothing() -> None:
    assert recall(grounded(looked=False)) is None  # no grounder has looked at it
    assert recall(grounded("A dog", source="other", looked=False)) is None
    by_another = replace(LOOKED, by="other")
    assert recall(grounded(looked=False).decide([by_another, replace(LOOKED, reason="verified")])) is None
    assert recall(grounded("A dog", source="other")) == 0  # what others found is theirs
    assert recall(grounded("A dog", looked=False)) == pytest.approx(1 / 3)  # who has found something has looked
    fallen = grounded("A dog", looked=False)
    fallen = fallen.decide([fallen.reject(fallen.triplets[0], "phrase_score", "low_box_score")])
    assert recall(fallen) == 0
    assert recall(grounded(detail="detailed")) is None  # of a granularity that is not listed
    assert recall(record(*parsed(0, TEXT, *NAMELESS)).decide([LOOKED])) is None  # nothing to find
    assert recall(record(parsed(0, TEXT)[0]).decide([LOOKED])) is None  # no parse
    another = Grounded(by=("other", "grounder"), min_recall={"brief": 0.5})
    assert recall(grounded("A dog", "two cats", source="other"), another) is None


def test_what_people_wrote_stands() -> None:
    made = decide(grounded(writer=HUMAN), [HALF])
    assert not made.fallen
    assert [(d.action, d.value) for d in made.decisions if d.by == "grounded"] == [("keep", 0)]


def test_after_a_grounder_that_looks(tmp_path: Path) -> None:
    """One whose thresholds are too high finds nothing, and one that takes everything all: of the same text."""
    folder = grounders.grounding_dino(tmp_path)
    shown = sample(picture(48, 70), {TEXT: PHRASES})
    for lowest, falls in ((0.0, False), (1.0, True)):
        model = GroundingDino(model=str(folder), min_phrase=lowest, min_box=lowest)
        model.setup()
        [found] = model.annotate([shown])
        made = shown.record.append(one for one in found if not isinstance(one, Decision))
        made = made.decide(one for one in found if isinstance(one, Decision))
        filters = [PhraseScore(min_phrase={"grounder": lowest}), pickle.loads(pickle.dumps(Grounded()))]
        decided = decide(made, filters)
        assert ("t0" in decided.fallen) is falls
        assert Sample(shown.image, made, filters).standing.texts == (() if falls else made.texts)


@settings(max_examples=30)
@given(records(), st.floats(0, 1))
def test_of_any_record_it_rejects_standing_texts_once(made: Record, lowest: float) -> None:
    sources = tuple({annotation.source for annotation in made.annotations()})
    filter_ = Grounded(by=sources, min_recall=dict.fromkeys(("brief", "detailed", "more_detailed"), lowest))
    found = list(filter_.decide(made))
    ids = [decision.annotation_id for decision in found]
    assert len(set(ids)) == len(ids) and set(ids) <= {text.id for text in made.standing.texts}
    assert all(decision.value is not None and decision.value < lowest for decision in found)
    assert list(filter_.decide(made)) == found
