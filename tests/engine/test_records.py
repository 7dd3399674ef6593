import dataclasses
import math
import pickle
from array import array

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import annotations, boxes, coordinates, decisions, records, regions

from engine.errors import RecordError
from engine.records import (
    Decision,
    Item,
    Mask,
    Parse,
    Phrase,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
    Triplet,
    cascade,
    digest16,
)

quick = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])

ITEM = Item(item_id=Item.id_of("a.jpg"), uri="a.jpg", width=40, height=30)
TEXT = Text(id="0.a.0", source="a", text="a cup", detail="brief")
REGION = Region(id="0.a.1", source="a", kind="object", box=(1, 2, 3, 4))
MASK = Mask(id="0.a.2", source="a", region_id="0.a.1", size=(30, 40), counts=b"")
TRIPLET = Triplet(id="0.a.3", source="a", text_id="0.a.0", start=2, stop=5, region_ids=("0.a.1",))
PARSE = Parse(
    id="0.a.4",
    source="a",
    text_id="0.a.0",
    objects=1,
    attributes=0,
    actions=0,
    proper_nouns=0,
    object_complexity=1.0,
    action_complexity=0.0,
    max_object_complexity=1,
    max_action_complexity=0,
    phrases=(Phrase(start=0, stop=5, head="cup", count=1, expression_start=0, expression_stop=5),),
)
RECORD = Record(item=ITEM).append([TEXT, REGION, MASK, TRIPLET])


def reject(*ids: str) -> list[Decision]:
    return [Decision(annotation_id=id, action="reject", by="test", reason="why_not") for id in ids]


@quick
@given(records(), st.data())
def test_nothing_disappears(record, data):
    new = data.draw(annotations(record))
    appended = record.append(new)
    assert [a for a in appended.annotations() if a.id in record.by_id] == list(record.annotations())
    assert {a.id: a for a in new}.items() <= appended.by_id.items()
    decided = appended.decide(data.draw(decisions(appended)))
    assert list(decided.annotations()) == list(appended.annotations())
    assert decided.decisions[: len(record.decisions)] == record.decisions


@quick
@given(records())
def test_what_fell_and_what_stands_is_everything(record):
    standing = {a.id for a in record.standing.annotations()}
    assert standing | record.fallen == record.by_id.keys()
    assert not standing & record.fallen
    assert record.standing.decisions == record.decisions
    assert record.standing.standing == record.standing


@quick
@given(records())
def test_after_cascade_nothing_stands_alone(record):
    after = record.decide(cascade(record))
    standing = after.standing
    regions, texts = {r.id for r in standing.regions}, {t.id for t in standing.texts}
    assert {a.region_id for a in (*standing.masks, *standing.region_texts)} <= regions
    assert {t.text_id for t in (*standing.triplets, *standing.parses)} <= texts
    assert all(not t.region_ids or regions & set(t.region_ids) for t in standing.triplets)
    assert cascade(after) == []
    # Only what lost its ground falls, each once, and no region at all.
    new = after.decisions[len(record.decisions) :]
    assert len({d.annotation_id for d in new}) == len(new)
    assert not {d.annotation_id for d in new} & record.fallen
    assert standing.regions == record.standing.regions
    rejected = {d.annotation_id for d in record.decisions if d.action == "reject"} & {r.id for r in record.regions}
    assert standing.texts == tuple(t for t in record.standing.texts if not rejected & set(t.derived_from))


@quick
@given(records(), st.sampled_from(["a", "0", "a.b"]))
def test_ids_are_fresh_and_the_same_again(record, source):
    record = dataclasses.replace(record, round=record.round + 1)
    first, second = (next(record.ids(source)) for _ in range(2))
    assert first == second
    ids = record.ids(source)
    assert not {next(ids) for _ in range(5)} & record.by_id.keys()


@quick
@given(records())
def test_rejects_repeated_ids(record):
    for annotation in record.annotations():
        with pytest.raises(RecordError, match="twice"):
            record.append([annotation])


@given(boxes(), st.tuples(*[coordinates] * 8))
def test_coordinates_are_float32_and_stay_so(box, quad):
    region = Region(id="0.a.0", source="a", kind="text", box=box, quad=quad)
    again = dataclasses.replace(region)
    assert region == again
    assert region.box == tuple(array("f", region.box)) and region.quad == tuple(array("f", region.quad))
    assert all(
        math.isclose(kept, given, rel_tol=2**-24, abs_tol=1e-45) for kept, given in zip(region.box, box, strict=True)
    )


@quick
@given(regions())
def test_regions_compare_and_hash_by_value(region):
    copy = pickle.loads(pickle.dumps(region))
    assert copy == region and hash(copy) == hash(region)


def test_ids_go_on_over_rounds_and_per_source():
    record = dataclasses.replace(RECORD, round=1)
    ids = record.ids("a")
    assert [next(ids), next(ids)] == ["1.a.4", "1.a.5"]
    assert next(record.ids("b")) == "1.b.0"


def test_append_keeps_the_order_of_each_sort():
    more = [dataclasses.replace(REGION, id=f"0.a.{n}") for n in (9, 4, 7)]
    assert [r.id for r in RECORD.append(more).regions] == ["0.a.1", "0.a.9", "0.a.4", "0.a.7"]


def test_append_sees_repeated_ids_among_the_new():
    with pytest.raises(RecordError, match=r"0\.b\.0 twice"):
        RECORD.append([dataclasses.replace(REGION, id="0.b.0"), dataclasses.replace(TEXT, id="0.b.0")])


@pytest.mark.parametrize(
    "annotation",
    [
        dataclasses.replace(TEXT, id="0.b.0", derived_from=("0.a.1", "9.x.9")),
        dataclasses.replace(MASK, id="0.b.0", region_id="9.x.9"),
        dataclasses.replace(TRIPLET, id="0.b.0", region_ids=("0.a.1", "9.x.9")),
        dataclasses.replace(TRIPLET, id="0.b.0", text_id="9.x.9"),
    ],
)
def test_append_rejects_references_to_nothing(annotation):
    with pytest.raises(RecordError, match=r"0\.b\.0 refers to 9\.x\.9"):
        RECORD.append([annotation])


@pytest.mark.parametrize(
    "annotation",
    [
        dataclasses.replace(MASK, id="0.b.0", region_id="0.a.0"),
        dataclasses.replace(TRIPLET, id="0.b.0", region_ids=("0.a.0",)),
        dataclasses.replace(TRIPLET, id="0.b.0", text_id="0.a.1"),
    ],
)
def test_append_rejects_references_to_another_sort(annotation):
    with pytest.raises(RecordError, match=r"0\.b\.0 refers to 0\.a\.[01]"):
        RECORD.append([annotation])


def test_append_resolves_references_among_the_new_in_any_order():
    assert Record(item=ITEM).append([TRIPLET, MASK, REGION, TEXT]).standing.masks == (MASK,)


def test_append_rejects_spans_behind_the_text():
    with pytest.raises(RecordError, match=r"\[2, 6\) ends behind its text, which has 5"):
        RECORD.append([dataclasses.replace(TRIPLET, id="0.b.0", stop=6)])


@pytest.mark.parametrize("field", ["value", "threshold"])
def test_a_decision_measures_finite_values(field):
    with pytest.raises(RecordError, match=r"f: a measured value .* not nan"):
        Decision(annotation_id="0.a.0", action="reject", by="f", reason="r", **{field: float("nan")})


def test_append_rejects_parses_of_another_text():
    phrase = Phrase(start=2, stop=4, head="x", expression_start=2, expression_stop=6)
    with pytest.raises(RecordError, match=r"0\.b\.0: span \[2, 6\) ends behind its text, which has 5"):
        RECORD.append([dataclasses.replace(PARSE, id="0.b.0", phrases=(phrase,))])
    with pytest.raises(RecordError, match=r"0\.b\.0 refers to 0\.a\.9"):
        RECORD.append([dataclasses.replace(PARSE, id="0.b.0", text_id="0.a.9")])


@pytest.mark.parametrize("span", [(3, 3, 2, 6), (1, 3, 2, 6), (2, 7, 2, 6), (-1, 2, -1, 6)])
def test_a_phrase_lies_in_its_expression(span):
    with pytest.raises(RecordError, match="must not be empty and lie in its expression"):
        Phrase(start=span[0], stop=span[1], head="x", expression_start=span[2], expression_stop=span[3])


def test_append_rejects_masks_of_another_size():
    with pytest.raises(RecordError, match=r"\(40, 30\), its image \(30, 40\)"):
        RECORD.append([dataclasses.replace(MASK, id="0.b.0", size=(40, 30))])


def test_masks_of_an_image_without_size_have_any():
    unsized = dataclasses.replace(ITEM, width=None, height=None)
    assert Record(item=unsized).append([REGION, MASK]).masks == (MASK,)


def test_decide_rejects_decisions_on_nothing():
    with pytest.raises(RecordError, match=r"test decided on annotation 9\.x\.9"):
        RECORD.decide(reject("9.x.9"))


@pytest.mark.parametrize("action, stands", [("reject", False), ("supersede", False), ("keep", True), ("add", True)])
def test_which_actions_fell(action, stands):
    decided = RECORD.decide([dataclasses.replace(reject("0.a.1")[0], action=action)])
    assert (REGION in decided.standing.regions) is stands


def test_nothing_rises_again():
    keep = Decision(annotation_id="0.a.1", action="keep", by="test", reason="better")
    assert RECORD.decide([*reject("0.a.1"), keep]).standing.regions == ()


@pytest.mark.parametrize(
    "fallen, expected",
    [
        (("0.a.1",), {("0.a.2", "region_fell", "0.a.1"), ("0.a.3", "regions_fell", None)}),
        (("0.a.0",), {("0.a.3", "text_fell", "0.a.0")}),
        (("0.a.0", "0.a.1"), {("0.a.2", "region_fell", "0.a.1"), ("0.a.3", "text_fell", "0.a.0")}),
        (("0.a.2",), set()),
        ((), set()),
    ],
)
def test_cascade(fallen, expected):
    got = cascade(RECORD.decide(reject(*fallen)))
    assert {(d.annotation_id, d.reason, d.against) for d in got} == expected
    assert all(d.by == "cascade" and d.action == "reject" for d in got)


def test_a_text_falls_with_a_region_that_it_speaks_of_but_not_when_a_better_one_took_its_place():
    about = dataclasses.replace(TEXT, id="0.b.0", source="b", derived_from=("0.a.1",))
    said = RegionText(id="0.b.1", source="b", region_id="0.a.1", text="a red kite")
    record = RECORD.append([about, said])
    got = {(d.annotation_id, d.reason) for d in cascade(record.decide(reject("0.a.1")))}
    assert got >= {("0.b.0", "region_fell"), ("0.b.1", "region_fell")}
    superseded = [dataclasses.replace(reject("0.a.1")[0], action="supersede")]
    assert "0.b.0" not in {d.annotation_id for d in cascade(record.decide(superseded))}


def test_a_triplet_stands_while_one_of_its_regions_does():
    other = dataclasses.replace(REGION, id="0.b.0")
    both = dataclasses.replace(TRIPLET, id="0.b.1", region_ids=("0.a.1", "0.b.0"))
    record = RECORD.append([other, both]).decide(reject("0.a.1"))
    assert both in record.decide(cascade(record)).standing.triplets


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: dataclasses.replace(REGION, box=(3, 2, 1, 4)), "x0 <= x1"),
        (lambda: dataclasses.replace(REGION, box=(1, 4, 3, 2)), "y0 <= y1"),
        (lambda: dataclasses.replace(REGION, box=(1, 2, 3)), "box must be 4 finite numbers"),
        (lambda: dataclasses.replace(REGION, box=(1, 2, 3, math.inf)), "box must be 4 finite numbers"),
        (lambda: dataclasses.replace(REGION, box=(1, math.nan, 3, 4)), "box must be 4 finite numbers"),
        (lambda: dataclasses.replace(REGION, quad=(1, 2, 3, 4)), "quad must be 8 finite numbers"),
        (lambda: dataclasses.replace(REGION, kind="thing"), "kind must be one of object, text, proposal, not 'thing'"),
        (lambda: dataclasses.replace(TEXT, detail="long"), "detail must be one of brief, detailed, more_detailed"),
        (lambda: dataclasses.replace(TRIPLET, start=5), r"0 <= start < stop, not \[5, 5\)"),
        (lambda: dataclasses.replace(TRIPLET, start=-1), r"0 <= start < stop, not \[-1, 5\)"),
        (lambda: dataclasses.replace(reject("0.a.1")[0], action="drop"), "action must be one of reject, supersede"),
        (lambda: Scores(label=math.nan), "'label' must be a finite number or None, not nan"),
        (lambda: Scores(box=-math.inf), "'box' must be a finite number or None, not -inf"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(RecordError, match=message):
        make()


def test_digest_does_not_drift():
    assert digest16(b"a.jpg").hex() == "cde2f4fce9daad975ab1202fd69b5951"  # b2sum -l 128
    assert Item.id_of("Größe.jpg") == digest16("Größe.jpg".encode())
