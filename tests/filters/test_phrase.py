"""The triplet filters on phrases that should stand and phrases that should not, each with what was measured."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import records

from engine.decide import Filter, decide
from engine.records import HUMAN, Box, Decision, Item, Parse, Phrase, Record, Region, Scores, Text, Triplet
from filters.phrase import MICROSOFT, Contained, Phrases, PhraseScore

BOX, NEAR, FAR = (0, 0, 100, 100), (0, 0, 100, 95), (200, 0, 250, 50)  # IoU of the first two: 0.95


def record(text: str, *phrases: str | tuple[int, int], boxes: Sequence[Sequence[Box]] = ()) -> Record:
    """A triplet for each phrase, at its first place in `text`, with regions of its own for its boxes."""
    made = Record(Item(b"0" * 16, "photo.jpg")).append([Text(id="0.t.0", source="t", text=text, detail="brief")])
    for n, phrase in enumerate(phrases):
        start, stop = phrase if isinstance(phrase, tuple) else (text.index(phrase), text.index(phrase) + len(phrase))
        regions = [
            Region(id=f"0.r.{n}.{k}", source="r", kind="object", box=box)
            for k, box in enumerate(boxes[n] if boxes else [BOX])
        ]
        ids = tuple(region.id for region in regions)
        named = Triplet(id=f"0.g.{n}", source="g", text_id="0.t.0", start=start, stop=stop, region_ids=ids)
        made = made.append([*regions, named])
    return made


def falls(filter_: Filter, made: Record) -> dict[str, tuple[str, float | None, float | None, str | None]]:
    return {d.annotation_id[4:]: (d.reason, d.value, d.threshold, d.against) for d in filter_.decide(made)}


def with_phrase(made: Record, said: str, head: str, expression: str | None = None) -> Record:
    text, wide = made.texts[0].text, expression or said
    start, wide_start = text.index(said), text.index(wide)
    phrase = Phrase(
        start=start,
        stop=start + len(said),
        head=head,
        expression_start=wide_start,
        expression_stop=wide_start + len(wide),
    )
    measures = dict.fromkeys(
        ("objects", "attributes", "actions", "proper_nouns", "max_object_complexity", "max_action_complexity"), 0
    )
    parse = Parse(
        id="0.p.0",
        source="p",
        text_id="0.t.0",
        object_complexity=0,
        action_complexity=0,
        phrases=(phrase,),
        **measures,
    )
    return made.append([parse])


@pytest.mark.parametrize("phrase", MICROSOFT)
def test_microsofts_blacklist_falls_in_any_case(phrase: str) -> None:
    for said in (phrase, phrase.upper(), f"{phrase}."):
        assert falls(Phrases(nouns=(), empty_words=()), record(said, said)) == {
            "0": ("blacklisted_phrase", None, None, None)
        }


@pytest.mark.parametrize(
    ("phrase", "stands"),
    [
        ("An image", False),  # "image" is listed
        ("the  image", False),
        ("a group", False),
        ("the group", True),  # "a group" is, "group" is not
        ("a set", False),
        ("set", True),
        ("a group of people", True),
        ("image frame", True),
        ("The sunny day", False),
        ("beautiful views", False),  # without a parse, plurals too
        ("a black and white photo", True),
        ("a photo album", True),
        ("freedom", False),
        ("a love seat", True),
        ("the left", False),
        ("the top right corner", False),
        ("a red top", True),
        ("a picture", False),
        ("a framed picture", True),
        ("both of them", False),
        ("the other two", False),
        ("two other dogs", True),
        ("a dog", True),
        ("it's", True),
        ("a man's hat", True),
        ("24", True),
        ("狗", True),
    ],
)
def test_blacklisted_phrases(phrase: str, stands: bool) -> None:
    expected = {} if stands else {"0": ("blacklisted_phrase", None, None, None)}
    assert falls(Phrases(), record(f"So {phrase}, here", phrase)) == expected


@pytest.mark.parametrize(
    ("head", "expression", "triplet", "stands"),
    [
        ("view", None, "A fine view", False),
        ("dog", None, "A fine view", True),  # what the parse says counts, not the last word
        ("view", "A fine view of a dog", "A fine view of a dog", False),
        ("dog", "A fine view of a dog", "A fine view of a dog", True),
        ("dog", "A fine view of a dog", "view", False),  # the parse doesn't have this span
        ("Time", None, "A fine view", False),
        ("", None, "A fine view", False),
    ],
)
def test_the_head_is_the_parses_where_it_has_the_span(
    head: str, expression: str | None, triplet: str, stands: bool
) -> None:
    made = with_phrase(record("A fine view of a dog", triplet), "A fine view", head, expression)
    assert (falls(Phrases(), made) == {}) == stands


def test_a_phrase_is_about_its_own_head_before_anothers_expression() -> None:
    made = with_phrase(record("A view", "A view"), "A view", "view")
    other = dataclasses.replace(made.parses[0], phrases=(*made.parses[0].phrases, made.parses[0].phrases[0]))
    wide = dataclasses.replace(other.phrases[1], start=2, head="dog")  # its expression is the first one's phrase
    made = dataclasses.replace(made, parses=(dataclasses.replace(other, phrases=(other.phrases[0], wide)),))
    assert falls(Phrases(), made) == {"0": ("blacklisted_phrase", None, None, None)}


def test_lists_of_ones_own() -> None:
    made = record("A dog, the cat and it", "A dog", "the cat", "it")
    own = Phrases(blacklist=("The  Cat",), nouns=("Dog",), empty_words=())
    assert falls(own, made).keys() == {"0", "1"}
    assert falls(pickle.loads(pickle.dumps(own)), made).keys() == {"0", "1"}
    assert falls(Phrases(blacklist=(), nouns=(), empty_words=()), made) == {}


def test_a_span_that_is_no_phrase() -> None:
    made = record("A dog, a cat.", "A dog", (5, 7), (12, 13))
    stray = [
        Triplet(id="0.g.3", source="g", text_id="0.t.0", start=9, stop=14, region_ids=()),
        Triplet(id="0.g.4", source="g", text_id="nowhere", start=0, stop=5, region_ids=()),
        Triplet(id="0.g.5", source="g", text_id="0.g.0", start=0, stop=5, region_ids=()),
    ]
    broken = dataclasses.replace(made, triplets=(*made.triplets, *stray))  # not by append, which checks
    assert falls(Phrases(), broken) == {str(n): ("span_not_in_text", None, None, None) for n in range(1, 6)}
    assert falls(Contained(), broken) == {}


def test_what_a_text_takes_along_is_left_to_the_cascade() -> None:
    made = record("It", "It", "It")
    gone = made.decide([made.reject(made.texts[0], "length", "too_short")])
    assert falls(Phrases(), gone) == falls(Contained(), gone) == {}


@pytest.mark.parametrize(
    ("source", "scores", "expected"),
    [
        ("g", Scores(phrase=0.2, box=0.9), ("low_phrase_score", 0.2, 0.3, None)),
        ("g", Scores(phrase=0.9, box=0.3), ("low_box_score", 0.3, 0.4, None)),
        ("g", Scores(phrase=0.2, box=0.3), ("low_phrase_score", 0.2, 0.3, None)),
        ("g", Scores(phrase=0.3, box=0.4), None),
        ("g", Scores(box=0.3), ("low_box_score", 0.3, 0.4, None)),
        ("g", Scores(phrase=0.2), ("low_phrase_score", 0.2, 0.3, None)),
        ("g", Scores(label=0.0), None),
        ("h", Scores(phrase=0.2, box=0.2), ("low_box_score", 0.2, 0.5, None)),
        ("other", Scores(phrase=0.0, box=0.0), None),
    ],
)
def test_both_scores_must_pass(source: str, scores: Scores, expected: object) -> None:
    made = record("A dog", "A dog")
    scored = dataclasses.replace(made.triplets[0], source=source, scores=scores)
    filter_ = PhraseScore(min_phrase={"g": 0.3}, min_box={"g": 0.4, "h": 0.5})
    made = dataclasses.replace(made, triplets=(scored,))
    assert falls(filter_, made) == ({} if expected is None else {"0": expected})
    assert falls(PhraseScore(), made) == {}


HOUSE = "a big dog house"


@pytest.mark.parametrize(
    ("text", "phrases", "boxes", "expected"),
    [
        # Inside, with the same boxes, near ones, and others.
        (HOUSE, ["dog", HOUSE], [[BOX], [BOX]], {"0": ("inside_longer_phrase", 1.0, 0.9, "0.g.1")}),
        (HOUSE, ["dog", HOUSE], [[BOX], [NEAR]], {"0": ("inside_longer_phrase", 0.95, 0.9, "0.g.1")}),
        (HOUSE, ["dog", HOUSE], [[BOX], [FAR]], {}),
        (HOUSE, ["dog", HOUSE], [[BOX], [(0, 0, 100, 89)]], {}),
        # Spans that touch or overlap are not inside each other.
        (HOUSE, ["a big", "dog house"], [[BOX], [BOX]], {}),
        (HOUSE, ["big dog", "dog house"], [[BOX], [BOX]], {}),
        # As many boxes, each with its partner, in any order.
        (HOUSE, ["dog", HOUSE], [[BOX, FAR], [BOX]], {}),
        (HOUSE, ["dog", HOUSE], [[BOX], [BOX, FAR]], {}),
        (HOUSE, ["dog", HOUSE], [[BOX, FAR], [FAR, NEAR]], {"0": ("inside_longer_phrase", 0.95, 0.9, "0.g.1")}),
        (HOUSE, ["dog", HOUSE], [[BOX, NEAR], [BOX, FAR]], {}),
        (HOUSE, ["dog", HOUSE], [[BOX, BOX], [BOX, FAR]], {}),
        # A box without area is still the same as itself.
        (HOUSE, ["dog", HOUSE], [[(5, 5, 5, 5)], [(5, 5, 5, 5)]], {"0": ("inside_longer_phrase", 1.0, 0.9, "0.g.1")}),
        # A triplet without boxes is not compared.
        (HOUSE, ["dog", HOUSE], [[], []], {}),
        (HOUSE, [HOUSE, HOUSE], [[], []], {}),
        # The same phrase again: the later falls, if its boxes are the same.
        (HOUSE, ["dog", "dog"], [[BOX], [NEAR]], {"1": ("repeats_phrase", 0.95, 0.9, "0.g.0")}),
        (HOUSE, ["dog", "dog"], [[BOX], [FAR]], {}),
        # Chains fall against the longest.
        (
            HOUSE,
            ["dog", HOUSE, "dog house"],
            [[BOX], [BOX], [NEAR]],
            {
                "0": ("inside_longer_phrase", 1.0, 0.9, "0.g.1"),
                "2": ("inside_longer_phrase", 0.95, 0.9, "0.g.1"),
            },
        ),
        # What fell suppresses nothing: the shortest is like the one in between, which is like the longest.
        (
            HOUSE,
            ["dog", "dog house", HOUSE],
            [[(0, 0, 100, 91)], [NEAR], [(0, 0, 100, 102)]],
            {"1": ("inside_longer_phrase", 95 / 102, 0.9, "0.g.2")},
        ),
        # A word that is cut, at either end, is not inside.
        ("some cattle", ["cat", "some cattle"], [[BOX], [BOX]], {}),
        ("a hotdog", ["dog", "a hotdog"], [[BOX], [BOX]], {}),
        ("a cafe\u0301", ["cafe", "a cafe\u0301"], [[BOX], [BOX]], {}),  # the accent belongs to its letter
        ("a dog-house", ["dog", "a dog-house"], [[BOX], [BOX]], {"0": ("inside_longer_phrase", 1.0, 0.9, "0.g.1")}),
    ],
)
def test_contained(text: str, phrases: Sequence[str], boxes: Sequence[Sequence[Box]], expected: object) -> None:
    assert falls(Contained(), record(text, *phrases, boxes=boxes)) == expected


def test_contained_measures_by_what_stands() -> None:
    """A region that fell is none of its triplet's boxes, a triplet that fell suppresses nothing."""
    made = record(HOUSE, "dog", HOUSE, boxes=[[BOX, FAR], [BOX]])
    assert falls(Contained(), made.decide([made.reject(made.regions[1], "score", "low_score")])) == {
        "0": ("inside_longer_phrase", 1.0, 0.9, "0.g.1")
    }
    made = record(HOUSE, "dog", HOUSE)
    assert falls(Contained(), made.decide([made.reject(made.triplets[1], "score", "low_score")])) == {}


def test_contained_keeps_texts_and_thresholds_apart() -> None:
    made = record(HOUSE, "dog", HOUSE, boxes=[[BOX], [(0, 0, 100, 80)]])
    assert falls(Contained(iou=0.8), made) == {"0": ("inside_longer_phrase", 0.8, 0.8, "0.g.1")}
    assert falls(Contained(iou=0.81), made) == {}
    other = Text(id="0.t.1", source="t", text=HOUSE, detail="detailed")
    moved = dataclasses.replace(made.triplets[0], text_id="0.t.1")
    apart = dataclasses.replace(made, texts=(*made.texts, other), triplets=(moved, made.triplets[1]))
    assert falls(Contained(iou=0.8), apart) == {}


def test_what_people_wrote_stands() -> None:
    made = record("It", "It")
    human = dataclasses.replace(made, triplets=(dataclasses.replace(made.triplets[0], source=HUMAN),))
    decided = decide(human, [Phrases()])
    assert [d.action for d in decided.decisions] == ["keep"]
    assert decided.standing.triplets


def test_a_decision_carries_name_and_round() -> None:
    made = dataclasses.replace(record("It", "It"), round=3)
    assert list(Phrases(name="words").decide(made)) == [
        Decision(annotation_id="0.g.0", action="reject", by="words", reason="blacklisted_phrase", round=3)
    ]


@st.composite
def grounded(draw: st.DrawFn) -> Record:
    """A text with triplets of many spans and a few boxes, so that some contain others with the same."""
    text = "a dog house by the lake"
    spans = [(a, b) for a in range(0, len(text), 2) for b in range(a + 1, len(text) + 1, 3)]
    count = draw(st.integers(0, 8))
    made = record(
        text,
        *draw(st.lists(st.sampled_from([*spans, (0, 5), (2, 5), (2, 11), (0, 11)]), min_size=count, max_size=count)),
        boxes=draw(st.lists(st.lists(st.sampled_from([BOX, NEAR, FAR]), max_size=2), min_size=count, max_size=count)),
    )
    fallen = draw(st.sets(st.sampled_from([*made.regions, *made.triplets]), max_size=2)) if count else set()
    return made.decide([made.reject(annotation, "other", "fell") for annotation in fallen])


STRICT = (
    Phrases(nouns=("", "0", "house"), empty_words=("a", "dog")),
    PhraseScore(min_phrase=dict.fromkeys(("a", "0", "ocr"), 0.5), min_box=dict.fromkeys(("a", "detector"), 0.5)),
    Contained(),
    Contained(iou=0.001),
)


@settings(deadline=None, max_examples=200)
@given(records() | grounded(), st.sampled_from(STRICT))
def test_only_triplets_that_stand_are_decided_on_and_once(made: Record, filter_: Filter) -> None:
    decisions = list(filter_.decide(made))
    triplets = {triplet.id for triplet in made.standing.triplets}
    assert len({d.annotation_id for d in decisions}) == len(decisions)
    assert all(d.annotation_id in triplets and d.by == filter_.name and d.round == made.round for d in decisions)
    after = made.decide(decisions)
    assert list(filter_.decide(after)) == [], "what stands after a filter stands before it"
    for decision in decisions:
        if decision.against is not None:
            assert decision.against in {triplet.id for triplet in after.standing.triplets}
            assert decision.value is not None and decision.threshold is not None
            assert decision.value >= decision.threshold
