"""Merging: what holds for all that may come, and each of its rules by a small case."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from merging import ITEM, LABELS, MODEL, cases, parse

from engine.calibration import Calibration, Curve
from engine.config import Merge
from engine.errors import ImageError
from engine.geometry import iou
from engine.merge import Case, Rules, merge
from engine.merge.choosing import Candidate, Pixels
from engine.merge.claims import Claim, claims_of, clusters_of
from engine.merge.edges import Edges
from engine.merge.evidence import evidence_of
from engine.merge.trials import distrusted, trials_of
from engine.records import (
    HUMAN,
    MERGE,
    VERIFIED,
    VERIFIED_BLANK,
    AnyAnnotation,
    Box,
    Decision,
    Mask,
    Phrase,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
    Triplet,
)
from engine.schema import annotations_to_table, decisions_to_table

SOURCES = ("detector", "other", MODEL, "third")
HERE, NEAR, ELSEWHERE = (10.0, 10.0, 30.0, 30.0), (12.0, 10.0, 32.0, 30.0), (40.0, 40.0, 60.0, 60.0)


def calibration(precision: float | None = None) -> Calibration:
    """All sources: right as often as their value says, or as often as that."""
    curve = Curve((-20.0, 0.0), (precision, precision), 500) if precision is not None else LIKELY
    strata = [
        (source, kind, role, judged)
        for source in (*SOURCES, MERGE)
        for kind in ("object", "proposal", "text")
        for role in ("agreed", "contested", "alone", "renamed")
        for judged in ("judged", "own score")
    ]
    return Calibration(dict.fromkeys(strata, curve))


values = [math.log(n / 100) for n in range(1, 101)]
LIKELY = Curve(tuple(values), tuple(math.exp(value) for value in values), 500)  # precision is exp(value)
COUNTS = dict.fromkeys(LABELS, 2.0) | {"": 3.0}
RULES = (Rules(counts=COUNTS), Rules(calibration=calibration(), counts=COUNTS))


def phrases_in(text: str) -> Sequence[Phrase]:
    found = [label for label in (*LABELS, "man") if f"a {label}" in text or f"brown {label}" in text]
    return [
        Phrase(start=at, stop=at + len(head), head=head, expression_start=at, expression_stop=at + len(head))
        for at, head in sorted((text.index(head), head) for head in found)
    ]


def merged(case: Case, rules: Rules = RULES[1]) -> Record:
    return merge(case, rules, phrases_in)


# What holds for all


@given(cases(), st.sampled_from(RULES))
def test_nothing_disappears_and_people_always_stand(case: Case, rules: Rules) -> None:
    record = merged(case, rules)
    assert case.record.by_id.items() <= record.by_id.items()
    assert record.decisions[: len(case.record.decisions)] == case.record.decisions
    assert {a.source for a in record.annotations() if a.id not in case.record.by_id} <= {MERGE}
    human = {a.id for a in case.standing.annotations() if a.source == HUMAN}
    assert human <= record.standing.by_id.keys()
    assert not {d.annotation_id for d in record.decisions if d.by == MERGE and d.action != "keep"} & human
    annotations_to_table([record])
    decisions_to_table([record])


@given(cases(), st.sampled_from(RULES))
def test_every_region_of_both_rounds_is_accounted_for(case: Case, rules: Rules) -> None:
    record = merged(case, rules)
    if case.says_nothing:
        assert record == case.record
        return
    counted = Counter(d.annotation_id for d in record.decisions if d.by == MERGE)
    assert set(counted.values()) <= {1, 2}, "one choice, and one more if a text of its was chosen"
    new_decisions = record.decisions[len(case.record.decisions) :]
    first = new_decisions[0].annotation_id if new_decisions else None
    for region in case.standing.regions:
        lone_human = region.source == HUMAN
        assert region.crowd or lone_human or counted[region.id] == 1 or first is None, region.id
    for annotation in record.annotations():
        if annotation.source == MERGE:
            assert counted[annotation.id] >= 1
    for decision in new_decisions:
        if decision.action == "supersede":
            assert decision.against in record.by_id
            assert decision.against != decision.annotation_id


@given(cases(), st.sampled_from(RULES), st.randoms(use_true_random=False))
def test_the_order_of_annotations_does_not_count(case: Case, rules: Rules, rng: random.Random) -> None:
    def shuffled(record: Record) -> Record:
        return replace(
            record,
            **{
                name: tuple(rng.sample(entries, len(entries)))
                for name in ("texts", "parses", "regions", "region_texts", "masks", "triplets")
                if (entries := getattr(record, name)) or True
            },
        )

    once, other = merged(case, rules), merged(replace(case, record=shuffled(case.record)), rules)
    assert set(once.annotations()) == set(other.annotations())
    assert set(once.decisions) == set(other.decisions)


@given(cases(), st.sampled_from(RULES))
def test_merging_again_changes_nothing(case: Case, rules: Rules) -> None:
    record = merged(case, rules)
    assert merged(case, rules) == record
    assert merged(Case(record, record, case.judges), rules) == record


@given(cases(), st.sampled_from(RULES))
def test_what_stands_leads_to_what_stands(case: Case, rules: Rules) -> None:
    stands = merged(case, rules).standing
    regions, texts = {r.id for r in stands.regions}, {t.id for t in stands.texts}
    assert {mask.region_id for mask in stands.masks} <= regions
    assert {text.region_id for text in stands.region_texts} <= regions
    assert {parse.text_id for parse in stands.parses} <= texts
    for triplet in stands.triplets:
        assert triplet.text_id in texts
        assert regions.intersection(triplet.region_ids)
    masks = Counter(mask.region_id for mask in stands.masks if mask.source == MERGE)
    assert set(masks.values()) <= {1}


@given(cases(), st.sampled_from(RULES))
def test_no_two_sources_say_the_same_of_one_place(case: Case, rules: Rules) -> None:
    """What was matched is one region afterwards. (Boxes that moved when they were fused may come to overlap.)"""
    record = merged(case, rules)
    if case.says_nothing:
        return
    for cluster in clusters_of(case, "object", 0.5):
        stand = [region for region in cluster if region.id in record.standing.by_id]
        assert len(stand) <= 1 or all(region.source == HUMAN for region in stand)


# Each rule


def case_of(
    old: Sequence[AnyAnnotation],
    new: Sequence[AnyAnnotation],
    opinions: Sequence[tuple[str, str, float]] = (),
    judges: Sequence[str] = (MODEL,),
) -> Case:
    before = Record(ITEM).append(old)
    record = replace(before, round=1).append(new)
    told = [Decision(annotation_id=i, action="keep", by=MODEL, reason=r, value=v, round=1) for i, r, v in opinions]
    return Case(record.decide(told), before, frozenset(judges))


def region(
    id_: str, box: Box = HERE, label: str = "dog", source: str = "detector", score: float | None = 0.9, **more: object
) -> Region:
    kind = str(more.pop("kind", "object"))
    scores = Scores(label=score, box=score)
    return Region(id=id_, source=source, kind=kind, box=box, label=label, scores=scores, **more)  # type: ignore[arg-type]


def verdicts(record: Record) -> dict[str, tuple[str, str]]:
    return {d.annotation_id: (d.action, d.reason) for d in record.decisions if d.by == MERGE}


def test_one_label_gives_one_fused_box() -> None:
    case = case_of([region("old", HERE)], [region("new", NEAR, source=MODEL)])
    record = merged(case)
    (fused,) = record.standing.regions
    assert (fused.source, fused.derived_from, fused.label) == (MERGE, ("new", "old"), "dog")
    assert fused.box == (11.0, 10.0, 31.0, 30.0)
    assert fused.scores.calibrated == pytest.approx(0.9)
    assert replace(fused.scores, calibrated=None) == Scores(), "what its parents said, they said of other boxes"
    assert verdicts(record) == {
        "old": ("supersede", "fused"),
        "new": ("supersede", "fused"),
        fused.id: ("add", "fused"),
    }


def test_a_reliable_source_counts_more() -> None:
    edges = {
        ("detector", "object"): Edges(deviation=(0.3,) * 4),
        (MODEL, "object"): Edges(deviation=(0.1,) * 4),
    }
    case = case_of([region("old", HERE)], [region("new", NEAR, source=MODEL)])
    (fused,) = merged(case, replace(RULES[1], edges=edges)).standing.regions
    assert fused.box == pytest.approx((11.8, 10.0, 31.8, 30.0), abs=1e-4), "nine times the weight"


def test_a_known_bias_is_taken_out() -> None:
    edges = {("detector", "object"): Edges(bias=(0.1, 0, 0, 0), deviation=(0.1,) * 4)}
    record = merged(case_of([region("old")], [region("n", ELSEWHERE, source=MODEL)]), replace(RULES[1], edges=edges))
    corrected = next(r for r in record.standing.regions if r.source == MERGE)
    assert corrected.box == pytest.approx((8.0, 10.0, 30.0, 30.0))
    assert verdicts(record)["old"] == ("supersede", "corrected")


@pytest.mark.parametrize(("old", "new", "stands"), [(0.9, 0.6, "old"), (0.6, 0.9, "new"), (0.8, 0.8, "old")])
def test_of_two_labels_the_more_precise_one_stands(old: float, new: float, stands: str) -> None:
    case = case_of([region("old", score=old)], [region("new", NEAR, "cat", MODEL, new)])
    record = merged(case)
    assert [r.id for r in record.standing.regions] == [stands]
    (fell,) = {"old", "new"} - {stands}
    decision = next(d for d in record.decisions if d.annotation_id == fell)
    assert (decision.action, decision.reason, decision.against) == ("reject", "less_precise", stands)
    assert decision.value == pytest.approx(min(old, new))
    assert decision.threshold == pytest.approx(max(old, new))


@pytest.mark.parametrize(
    ("old", "new", "stands"),
    [(0.9, 0.6, {"old"}), (0.4, 0.9, {"new"}), (0.1, 0.15, set()), (0.15, 0.1, {"old"})],
    ids=["no", "yes", "there is nothing", "nobody looked"],
)
def test_a_region_can_be_renamed(old: float, new: float, stands: set[str]) -> None:
    """The new name is the model's, the place is not: it is no second witness of that."""
    mask = Mask(id="m", source="segmenter", region_id="old", size=(64, 64), counts=b"0PP2")
    about = RegionText(id="d", source="describer", region_id="old", text="a brown dog")
    renamed = region("new", label="cat", source=MODEL, score=new, derived_from=("old",))
    case = case_of([region("old", score=old), mask, about], [renamed])
    edges = {("detector", "object"): Edges(bias=(0.1, 0, 0, 0), deviation=(0.1,) * 4)}
    record = merged(case)
    assert {r.id for r in record.standing.regions} == stands
    assert {m.region_id for m in record.standing.masks} == stands, "which says where it is, and not what"
    assert bool(record.standing.region_texts) == (stands == {"old"})
    put_right = merged(case, replace(RULES[1], edges=edges)).standing
    assert [r.box for r in put_right.regions] == [pytest.approx((8.0, 10.0, 30.0, 30.0))] * len(stands)
    assert {m.region_id for m in put_right.masks} == {r.id for r in put_right.regions}


def test_who_renames_and_finds_is_one_voice() -> None:
    new = [region("r", label="cat", source=MODEL, derived_from=("old",)), region("n", NEAR, "cat", MODEL)]
    record = merged(case_of([region("old")], new), RULES[0])
    assert "old" in record.standing.by_id, "uncalibrated, one family against another"
    claims = claims_of(case_of([region("old")], new), [region("old"), *new], Merge())
    assert [claim.role for claim in claims] == ["contested", "renamed", "contested"]
    assert [claim.drawn_by for claim in claims] == ["detector", "detector", MODEL]


def test_another_name_is_weighed_where_what_it_names_is() -> None:
    """Of two regions of one thing, beside a neighbour that has the name already, and under what a person said."""
    both = [region("a", score=0.9), region("b", NEAR, source="other", score=0.9)]
    names = [region(f"of {r.id}", r.box, "cat", MODEL, 0.6, derived_from=(r.id,)) for r in both]
    (fused,) = merged(case_of(both, names)).standing.regions
    assert (fused.label, fused.derived_from) == ("dog", ("a", "b"))
    right = [replace(name, scores=Scores(label=0.95)) for name in names]
    (fused,) = merged(case_of(both, right)).standing.regions
    assert (fused.label, fused.derived_from, fused.box) == ("cat", ("of a", "of b"), (11.0, 10.0, 31.0, 30.0))
    (alone,) = merged(case_of([both[0]], [both[1], *names])).standing.regions
    assert alone.label == "dog", "the second was new, and so is its name"
    beside = region("n", (10.0, 16.0, 30.0, 36.0), "cat")
    assert iou(beside.box, HERE) > 0.5
    record = merged(case_of([both[0], beside], [names[0]]))
    assert {r.id for r in record.standing.regions} == {"a", "n"}, "and the neighbour is not moved"
    person = region("p", NEAR, "cat", HUMAN)
    assert merged(case_of([person, both[0]], names[:1])).standing.regions == (person,)
    own = region("of p", NEAR, "dog", MODEL, derived_from=("p",))
    assert merged(case_of([person], [own])).standing.regions == (person,)


def test_to_say_it_twice_is_no_second_voice() -> None:
    again = region("again", source="detector", score=0.06)
    case = case_of([region("old", score=0.06)], [again], [("old", VERIFIED, math.log(0.06))])
    assert not merged(case).standing.regions
    cousins = replace(RULES[1], config=Merge(families={"detector": "detr", "other": "detr"}))
    case = case_of([region("old", score=0.06)], [replace(again, source="other")], [("old", VERIFIED, math.log(0.06))])
    assert not merged(case, cousins).standing.regions


def test_the_uncalibrated_old_one_falls_only_to_what_would_enter() -> None:
    strata = {s: c for s, c in calibration().curves.items() if s[0] == MODEL}
    rules = replace(RULES[1], calibration=Calibration(strata))
    for score, stands in ((0.79, "old"), (0.81, "new")):
        found = case_of([region("old")], [region("new", NEAR, "cat", MODEL, score)])
        renamed = case_of([region("old")], [region("new", HERE, "cat", MODEL, score, derived_from=("old",))])
        for case in (found, renamed):
            assert [r.id for r in merged(case, rules).standing.regions] == [stands]


def test_a_calibrated_label_gives_way_to_no_uncalibrated_ones() -> None:
    strata = {s: c for s, c in calibration().curves.items() if s[0] == "detector"}
    new = [region("a", NEAR, "cat", MODEL, 0.1), region("b", NEAR, "cat", "third", 0.1)]
    record = merged(case_of([region("old", score=0.95)], new), replace(RULES[1], calibration=Calibration(strata)))
    assert [r.id for r in record.standing.regions] == ["old"]
    assert verdicts(record)["a"] == ("reject", "contested_uncalibrated")


def test_who_learned_an_image_is_no_witness_of_it() -> None:
    """It says what it was told: with that no label has two families against another one's."""
    old = [region("old", score=0.3), region("third", NEAR, "cat", "third", 0.9)]
    case = case_of(old, [region("new", HERE, "dog", MODEL, 0.99)], judges=())
    cluster = [*old, case.record.regions[-1]]
    assert [c.role for c in claims_of(case, cluster, Merge())] == ["agreed", "contested", "agreed"]
    learned = replace(case, learners=frozenset({MODEL}))
    assert [c.role for c in claims_of(learned, cluster, Merge())] == ["contested", "contested", "alone"]
    twice = region("twice", source="fourth", label="cat", score=0.9)
    for one, stands in ((case, "dog"), (learned, "cat")):
        record = merged(replace(one, record=one.record.append([twice])), RULES[0])
        assert {r.label for r in record.standing.regions} == {stands}, "two families against two, or against one"


def test_a_region_keeps_its_own_mask() -> None:
    old = [region("old", score=0.3), Mask(id="m", source="s", region_id="old", size=(64, 64), counts=b"0PP2")]
    new = [
        region("new", NEAR, "cat", MODEL),
        Mask(id="n", source=MODEL, region_id="new", size=(64, 64), counts=b"PP20"),
    ]
    edges = {(MODEL, "object"): Edges(bias=(0.1, 0, 0, 0), deviation=(0.1,) * 4)}
    for rules in (RULES[1], replace(RULES[1], edges=edges)):
        (mask,) = merged(case_of(old, new), rules).standing.masks
        assert mask.counts == b"PP20"
    named = region("r", label="cat", source=MODEL, score=0.95, derived_from=("old",))
    (mask,) = merged(case_of([], [*old, named])).standing.masks
    assert mask.counts == b"0PP2", "where all is new, too"


def test_uncalibrated_what_stood_before_stays() -> None:
    case = case_of([region("old", score=0.1)], [region("new", NEAR, "cat", MODEL, 1.0)])
    assert [r.id for r in merged(case, RULES[0]).standing.regions] == ["old"]


@pytest.mark.parametrize(
    ("families", "stands"),
    [({}, {MODEL, "third"}), ({MODEL: "x", "third": "x"}, {"detector"})],
)
def test_uncalibrated_two_independent_families_outdo_one(families: dict[str, str], stands: set[str]) -> None:
    new = [region("a", NEAR, "cat", MODEL), region("b", NEAR, "cat", "third")]
    record = merged(case_of([region("old")], new), replace(RULES[0], families=families))
    (stood,) = record.standing.regions
    sources = {record.by_id[id_].source for id_ in stood.derived_from} or {stood.source}
    assert sources == stands


def test_what_derives_from_a_source_confirms_nothing_of_it() -> None:
    parent = region("parent", ELSEWHERE, "car")
    old = [parent, region("old", HERE, "dog", "other")]
    derived = [
        region("a", NEAR, "cat", MODEL, derived_from=("parent",)),
        region("b", NEAR, "cat", "third", derived_from=("parent",)),
    ]
    record = merged(case_of(old, derived), RULES[0])
    assert "old" in record.standing.by_id, "both go back to the detector, and are one voice"


@pytest.mark.parametrize(("precision", "enters"), [(0.79, False), (0.8, True)])
def test_what_is_new_enters_by_its_calibrated_precision(precision: float, enters: bool) -> None:
    case = case_of([], [region("new", source=MODEL, score=0.01)])
    record = merged(case, replace(RULES[1], calibration=calibration(precision)))
    assert verdicts(record) == {"new": ("add", "precise") if enters else ("reject", "imprecise")}


def test_uncalibrated_additions_have_a_cap() -> None:
    boxes = [(0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (40.0, 0.0, 50.0, 10.0), (0.0, 40.0, 10.0, 50.0)]
    new = [region(f"n{n}", box, source=MODEL, score=0.6 + n / 10) for n, box in enumerate(boxes)]
    unsure = region("unsure", (20.0, 40.0, 30.0, 50.0), "cat", MODEL, 0.49)
    record = merged(case_of([region("old", ELSEWHERE)], [*new, unsure]), replace(RULES[0], counts={"dog": 2.6}))
    assert verdicts(record) == {
        "old": ("keep", "uncalibrated"),
        "n3": ("add", "uncalibrated"),
        "n2": ("add", "uncalibrated"),
        "n1": ("reject", "no_room_uncalibrated"),
        "n0": ("reject", "no_room_uncalibrated"),
        "unsure": ("reject", "unsure_uncalibrated"),
    }


@pytest.mark.parametrize(
    ("opinion", "precision", "falls"),
    [(-3.0, 0.19, True), (-3.0, 0.2, False), (None, 0.1, False)],
    ids=["imprecise", "just precise enough", "nobody judged it"],
)
def test_what_is_old_falls_by_the_opinion_of_its_label_alone(
    opinion: float | None, precision: float, falls: bool
) -> None:
    opinions = [] if opinion is None else [("old", VERIFIED, opinion)]
    case = case_of([region("old")], [region("n", ELSEWHERE, source=MODEL)], opinions)
    record = merged(case, replace(RULES[1], calibration=calibration(precision)))
    assert verdicts(record)["old"] == (("reject", "imprecise") if falls else ("keep", "precise"))


def test_the_opinion_of_who_learned_it_counts_for_nothing() -> None:
    case = case_of([region("old")], [], [("old", VERIFIED, -9.0)], judges=())
    assert case.opinion(case.record.regions[0]) is None
    assert merged(case, replace(RULES[1], calibration=calibration(0.0))) == case.record


def test_an_opinion_and_a_score_are_ranked_together() -> None:
    case = case_of([region("old", score=0.5)], [], [("old", VERIFIED, math.log(0.02))])
    (claim,) = claims_of(case, [case.record.regions[0]], Merge())
    assert claim.value == pytest.approx(math.log(0.1))
    assert isinstance(claim, Claim)
    assert (claim.role, claim.size, claim.is_judged) == ("alone", "large", True)


def test_human_regions_outdo_all_others() -> None:
    old = [region("h", HERE, source=HUMAN), region("same", NEAR)]
    new = [region("other", NEAR, "cat", MODEL, 1.0)]
    assert verdicts(merged(case_of(old, new))) == {
        "same": ("supersede", "human_region"),
        "other": ("reject", "human_label"),
    }


# Lines


def line(id_: str, text: str, source: str = "ocr", box: Box = HERE) -> Region:
    return Region(id=id_, source=source, kind="text", box=box, text=text)


def test_the_specialists_string_stays_unless_two_agree_on_another() -> None:
    old, new, third = line("old", "ST0P"), line("new", "STOP", MODEL), line("third", "STOP ", "third")
    alone = merged(case_of([old], [new]))
    assert verdicts(alone) == {"old": ("keep", "specialist"), "new": ("supersede", "other_reading")}
    both = merged(case_of([old], [new, third]))
    assert verdicts(both) == {
        "new": ("add", "agreed"),
        "old": ("supersede", "other_reading"),
        "third": ("supersede", "same_reading"),
    }
    kin = merged(case_of([old], [new, third]), Rules(families={MODEL: "x", "third": "x"}))
    assert verdicts(kin)["old"] == ("keep", "specialist")


def test_a_new_line_needs_a_second_reader() -> None:
    assert verdicts(merged(case_of([], [line("a", "x", MODEL)]), RULES[0])) == {"a": ("reject", "unread_uncalibrated")}
    two = merged(case_of([], [line("a", "x", MODEL), line("b", "x", "third")]), RULES[0])
    assert verdicts(two) == {"a": ("add", "agreed"), "b": ("supersede", "same_reading")}


# Texts


def told(id_: str, text: str, heads: Sequence[str], source: str = "captioner", **more: object) -> list[AnyAnnotation]:
    made = Text(id=id_, source=source, text=text, detail="brief", **more)  # type: ignore[arg-type]
    return [made, parse(f"{id_}p", made, heads)]


def test_the_text_that_names_what_is_there_stands() -> None:
    old = [region("r", HERE, "dog"), *told("old", "a cat", ["cat"])]
    record = merged(case_of(old, told("new", "a dog", ["dog"], MODEL)))
    assert [text.id for text in record.standing.texts] == ["new"]
    assert verdicts(record)["old"] == ("supersede", "names_less_of_it")
    assert [p.id for p in record.standing.parses] == ["newp"]


def test_of_equals_the_one_that_the_image_says_more_for() -> None:
    old = [region("r", HERE, "dog"), *told("old", "a dog sits", ["dog"])]
    new = told("new", "a dog lies", ["dog"], MODEL)
    opinions = [
        ("old", VERIFIED, -2.0),
        ("old", VERIFIED_BLANK, -2.5),
        ("new", VERIFIED, -3.0),
        ("new", VERIFIED_BLANK, -4.0),
    ]
    record = merged(case_of(old, new, opinions))
    assert [text.id for text in record.standing.texts] == ["new"], "likelier alone it is not"
    assert verdicts(record)["old"] == ("supersede", "less_gain")
    unjudged = merged(case_of(old, new))
    assert [text.id for text in unjudged.standing.texts] == ["old"]
    assert verdicts(unjudged)["new"] == ("supersede", "unjudged")


def test_a_text_made_of_regions_is_not_confirmed_by_them() -> None:
    composed = told("old", "a dog", ["dog"], "composer", derived_from=("r",))
    record = merged(case_of([region("r"), *composed], told("new", "a cat", ["cat"], MODEL)))
    assert verdicts(record)["new"] == ("supersede", "unjudged")


def test_a_text_where_none_was_must_name_what_is_there() -> None:
    record = merged(case_of([region("r", label="dog")], told("new", "a cat", ["cat"], MODEL)))
    assert verdicts(record)["new"] == ("reject", "names_what_is_not_there")
    record = merged(case_of([region("r", label="dog")], told("new", "a dog", ["dog"], MODEL)))
    assert verdicts(record)["new"] == ("add", "best_text")


def test_a_text_of_regions_keeps_no_other_from_being_judged_by_what_it_names() -> None:
    """Beside one that nobody can judge the others go on as without it, and it by its gain."""
    composed = told("made", "here is a dog", ["dog"], "composer", derived_from=("r",))
    old, new = told("old", "a cat here", ["cat"]), told("new", "a dog here", ["dog"], MODEL)
    for others in ([], composed):
        record = merged(case_of([region("r"), *old, *others], new))
        assert {text.id for text in record.standing.texts} - {"made"} == {"new"}
        assert verdicts(record)["old"] == ("supersede", "unjudged" if others else "names_less_of_it")
    gains = [(id_, reason, v) for id_ in ("old", "made", "new") for reason, v in told_gain(id_ == "made")]
    record = merged(case_of([region("r"), *composed], [*old, *new], gains))
    assert [text.id for text in record.standing.texts] == ["new"], "the composed one is held against the worst"
    record = merged(case_of([region("r"), *old, *composed], new, gains))
    assert {text.id for text in record.standing.texts} == {"new", "made"}, "and is preferred to that by its gain"


def told_gain(much: bool) -> list[tuple[str, float]]:
    return [(VERIFIED, -2.0), (VERIFIED_BLANK, -5.0 if much else -3.0)]


# What goes along, and what is chosen


def test_masks_texts_and_phrases_go_along() -> None:
    counts = b"0PP2"
    old = [
        region("old", HERE),
        Mask(id="m", source="segmenter", region_id="old", size=(64, 64), counts=counts),
        RegionText(id="d", source="describer", region_id="old", text="a brown dog"),
        *told("t", "a dog", ["dog"]),
        Triplet(id="tr", source="grounder", text_id="t", start=0, stop=5, region_ids=("old",)),
    ]
    record = merged(case_of(old, [region("new", NEAR, source=MODEL)]))
    stands = record.standing
    (fused,) = stands.regions
    assert [(m.region_id, m.counts) for m in stands.masks] == [(fused.id, counts)]
    assert [(t.region_id, t.text) for t in stands.region_texts] == [(fused.id, "a brown dog")]
    assert [t.region_ids for t in stands.triplets] == [(fused.id,)]
    assert all(verdicts(record)[id_] == ("supersede", "carried") for id_ in ("m", "d", "tr"))


@pytest.mark.parametrize(
    ("label", "said", "stands"),
    [
        ("dog", ["a brown dog", "a cat"], ["a brown dog"]),
        ("car", ["a man beside a car"], ["car"]),
        ("dog", ["a cat"], []),
    ],
    ids=["description", "chunk", "category"],
)
def test_a_regions_text_is_chosen(label: str, said: list[str], stands: list[str]) -> None:
    texts = [RegionText(id=f"t{n}", source="describer", region_id="r", text=text) for n, text in enumerate(said)]
    record = merged(case_of([region("r", label=label), *texts], [region("n", ELSEWHERE, source=MODEL)]))
    assert [text.text for text in record.standing.region_texts] == stands


def test_fused_boxes_lie_between_their_parents() -> None:
    case = case_of([region("old", HERE)], [region("new", NEAR, source=MODEL)])
    (fused,) = merged(case).standing.regions
    assert min(iou(fused.box, HERE), iou(fused.box, NEAR)) > iou(HERE, NEAR)


# What went wrong once


def test_a_composed_text_that_is_about_to_fall_takes_nobody_s_place() -> None:
    composed = told("old", "a dog", ["dog"], "composer", derived_from=("r",))
    case = case_of(
        [region("r"), *composed],
        [region("n", ELSEWHERE, source=MODEL), *told("new", "a cat", ["cat"], MODEL)],
        [("r", VERIFIED, -9.0)],
    )
    record = merged(case, replace(RULES[1], calibration=calibration(0.1)))
    assert verdicts(record)["r"] == ("reject", "imprecise")
    assert verdicts(record)["old"] == ("reject", "region_fell")
    assert "old" not in record.standing.by_id


def test_naming_nothing_where_nothing_is_is_better_than_naming_what_is_not_there() -> None:
    record = merged(case_of(told("old", "it is sunny", []), told("new", "a dog", ["dog"], MODEL)))
    assert [text.id for text in record.standing.texts] == ["old"]


def test_the_more_precise_reading_of_a_new_line_stands() -> None:
    new = [
        replace(line("a", "foo", MODEL), scores=Scores(label=0.1)),
        replace(line("b", "bar", "third"), scores=Scores(label=0.95)),
    ]
    assert verdicts(merged(case_of([], new))) == {"b": ("add", "precise"), "a": ("supersede", "other_reading")}
    three = [line("a", "foo", MODEL), line("b", "bar", "third"), line("c", "bar", "ocr")]
    assert verdicts(merged(case_of([], three), RULES[0])) == {
        "c": ("add", "agreed"),
        "b": ("supersede", "same_reading"),
        "a": ("supersede", "other_reading"),
    }


def test_a_model_from_elsewhere_has_no_say_about_itself() -> None:
    old = [region("own", HERE, source=MODEL), region("other", ELSEWHERE)]
    case = case_of(old, [], [("own", VERIFIED, -0.1), ("other", VERIFIED, -0.2)], judges=())
    case = replace(case, outsiders=frozenset({MODEL}))
    own, other = case.record.regions
    assert case.opinion(own) is None
    assert case.opinion(other) == -0.2


def test_an_image_that_is_gone_keeps_its_texts() -> None:
    @dataclass(frozen=True)
    class Looking:
        name: str = "looking"

        def setup(self) -> None: ...

        def choose(self, region: Region, candidates: Sequence[Candidate], pixels: Pixels) -> list[float]:
            pixels()
            raise AssertionError("never reached")

    def gone() -> object:
        raise ImageError("missing", "it is gone")

    texts = [RegionText(id="t", source="describer", region_id="r", text="a cat")]
    case = case_of([region("r"), *texts], [region("n", ELSEWHERE, source=MODEL)])
    record = merge(case, replace(RULES[1], chooser=Looking()), phrases_in, gone)
    assert "t" in record.standing.by_id


# Evidence


def labels_of(*annotations: AnyAnnotation) -> Record:
    return Record(ITEM).append(annotations)


def test_what_a_source_says_again_is_as_right_as_it_was() -> None:
    case = case_of([region("old", source=MODEL)], [region("new", NEAR, source=MODEL)])
    found = evidence_of(case, labels_of(region("true", source=HUMAN)), Merge())
    assert [sample.correct for sample in found.samples] == [True, True]
    assert len(found.offsets) == 2


def test_who_renames_is_judged_apart_and_drew_no_box() -> None:
    new = [region("r", label="cat", source=MODEL, derived_from=("old",)), region("n", NEAR, "cat", MODEL)]
    case = case_of([region("old")], new)
    found = evidence_of(case, labels_of(region("true", label="cat", source=HUMAN)), Merge())
    assert sorted((s.strata[-1][0], s.strata[-1][2], s.correct) for s in found.samples) == [
        ("detector", "contested", False),
        (MODEL, "contested", True),
        (MODEL, "renamed", True),
    ]
    assert [strata[-1] for strata, _ in found.offsets] == [(MODEL, "object")]


def test_texts_alone_say_nothing_of_objects() -> None:
    case = case_of([region("old")], [region("new", ELSEWHERE, source=MODEL)])
    said = Text(id="t", source=HUMAN, text="a dog", detail="brief")
    assert evidence_of(case, labels_of(said), Merge()).samples == []
    assert [sample.correct for sample in evidence_of(case, labels_of(), Merge()).samples] == [False, False]


def test_labels_and_places_have_to_agree_and_crowds_are_nobodys() -> None:
    old = [region("a"), region("b", ELSEWHERE, "cat"), region("c", (0.0, 40.0, 10.0, 50.0), "car")]
    truth = [
        region("x", NEAR, source=HUMAN),
        region("y", ELSEWHERE, "dog", HUMAN),
        region("z", (0.0, 35.0, 20.0, 60.0), "car", HUMAN, crowd=True),
    ]
    case = case_of(old, [region("n", (40.0, 0.0, 50.0, 10.0), source=MODEL)])
    found = evidence_of(case, labels_of(*truth), Merge())
    assert sorted((s.label, s.correct, s.strata[0][0]) for s in found.samples) == [
        ("cat", False, "detector"),
        ("dog", False, MODEL),
        ("dog", True, "detector"),
    ]


# Trials


def caption_case(n: int, old: str, new: str) -> tuple[Case, Record]:
    """An image whose new text has the larger gain; people wrote "a dog sits on the grass number n"."""
    opinions = [
        ("old", VERIFIED, -2.0),
        ("old", VERIFIED_BLANK, -2.0),
        ("new", VERIFIED, -2.0),
        ("new", VERIFIED_BLANK, -4.0),
    ]
    case = case_of([region("r"), *told("old", old, ["dog"])], told("new", new, ["dog"], MODEL), opinions)
    return case, labels_of(Text(id="h", source=HUMAN, text=f"a dog sits on the grass number {n}", detail="brief"))


@pytest.mark.parametrize(("count", "better", "stands"), [(25, False, "old"), (19, False, "new"), (25, True, "new")])
def test_a_ground_that_makes_texts_worse_ranks_no_more(count: int, better: bool, stands: str) -> None:
    right, wrong = "a dog sits on the grass number {}", "a dog flies over mountains"
    trials = []
    for n in range(count):
        old, new = (wrong, right.format(n)) if better else (right.format(n), wrong)
        trials += trials_of(*caption_case(n, old, new), RULES[1])
    assert len(trials) == count
    assert {trial.ground for trial in trials} == {("brief", "gain")}
    case, _ = caption_case(0, "a dog here", "a dog there")
    record = merged(case, replace(RULES[1], distrusted=distrusted(trials)))
    assert [text.id for text in record.standing.texts] == [stands]
