"""The Florence-2 specialist: what becomes of its answers, one region a thing, and honest opinions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from florence import small_tokens
from hypothesis import given
from hypothesis import strategies as st
from memorised import memorised, saved, untrained
from PIL import Image
from toys import Brightness, Dark

from engine.annotate import annotate
from engine.config import Http, Ingest
from engine.download import Downloader
from engine.entry import Entry
from engine.errors import ConfigError
from engine.geometry import decode_mask, iou
from engine.ingest import item_of
from engine.protocols import Sample
from engine.records import VERIFIED, VERIFIED_BLANK, AnyAnnotation, Decision, Item, Record, Region, Scores, Text
from engine.vocabulary import Vocabulary
from florence2 import Answer, Florence2, Processor, Prompt, Task, ask
from florence2.codec import decode, pieces_of_text
from specialists.findings import Findings, span_of
from specialists.florence import USUAL, Florence
from specialists.union import Sighting, union

WIDTH, HEIGHT = 100, 50
pytestmark = pytest.mark.usefixtures("one_thread")
CAPTION = "a red circle and a blue square"
CIRCLE, SQUARE = "<loc_100><loc_100><loc_400><loc_400>", "<loc_500><loc_500><loc_900><loc_900>"
ELSEWHERE = "<loc_50><loc_600><loc_200><loc_900>"
SIGN = "<loc_10><loc_10><loc_90><loc_10><loc_90><loc_40><loc_10><loc_40>"
OUTLINE = "<loc_100><loc_100><loc_400><loc_100><loc_400><loc_400>"
REGION = (10.05, 5.025, 40.05, 20.025)  # CIRCLE in pixels of the image
VOCABULARY = Vocabulary.model_validate({"classes": {"disc": {"synonyms": ["circle"], "prompt": "circle"}}})
KNOWN = {
    ask("CAPTION"): CAPTION,
    ask("DETAILED_CAPTION"): "A red circle is beside a blue square.",
    ask("MORE_DETAILED_CAPTION"): "",
    ask("OD"): f"circle{CIRCLE}square{SQUARE}noise{ELSEWHERE}",
    ask("DENSE_REGION_CAPTION"): "small red circle<loc_102><loc_100><loc_400><loc_400>a tree" + ELSEWHERE,
    ask("REGION_PROPOSAL"): "<loc_700><loc_20><loc_950><loc_200>" + CIRCLE,
    ask("OCR_WITH_REGION"): f"STOP{SIGN}",
    ask("OPEN_VOCABULARY_DETECTION", ["circle"]): f"circle{CIRCLE}",
    ask("OPEN_VOCABULARY_DETECTION", ["square"]): "",
    ask("CAPTION_TO_PHRASE_GROUNDING", CAPTION): f"a red circle{CIRCLE}a green tree{ELSEWHERE}a blue square{SQUARE}",
    ask("REGION_TO_SEGMENTATION", REGION, (WIDTH, HEIGHT)): OUTLINE,
    ask("REGION_TO_CATEGORY", REGION, (WIDTH, HEIGHT)): "circle",
    ask("REGION_TO_DESCRIPTION", REGION, (WIDTH, HEIGHT)): "a small red circle in a corner",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("known"), memorised(KNOWN))


@pytest.fixture(scope="module")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("random"), untrained())


def ready(folder: Path, **parameters: Any) -> Florence:
    specialist = Florence(model=str(folder), **{"max_new_tokens": 60, "vocabulary": VOCABULARY, **parameters})
    specialist.setup()
    return specialist


def sample(*annotations: AnyAnnotation, size: tuple[int, int] = (WIDTH, HEIGHT), round: int = 1) -> Sample:
    item = Item(bytes(16), "/x.png", width=size[0], height=size[1])
    before = Record(item, round=round).append(annotations)
    return Sample(np.full((size[1], size[0], 3), 120, np.uint8), before, before=before)


def said(specialist: Florence, *samples: Sample) -> list[Record]:
    """What the specialist makes of samples, as the engine takes it."""
    answers = specialist.annotate(samples)
    return [
        one.record.append(a for a in answer if not isinstance(a, Decision)).decide(
            a for a in answer if isinstance(a, Decision)
        )
        for one, answer in zip(samples, answers, strict=True)
    ]


def test_every_kind_of_annotation_from_one_encoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specialist = ready(folder, tasks=(*USUAL, "REGION_TO_SEGMENTATION"))
    encoded: list[int] = []
    encode_image = Florence2.encode_image
    monkeypatch.setattr(Florence2, "encode_image", lambda m, x: encoded.append(len(x)) or encode_image(m, x))
    (record,) = said(specialist, sample())
    assert encoded == [1]
    assert [(text.detail, text.text) for text in record.texts] == [
        ("brief", CAPTION),
        ("detailed", "A red circle is beside a blue square."),
    ]
    disc, square = sorted((r for r in record.regions if r.kind == "object"), key=lambda r: r.label or "")
    tree, empty = sorted((r for r in record.regions if r.kind == "proposal"), key=lambda r: r.box)
    (sign,) = (r for r in record.regions if r.kind == "text")
    assert (disc.label, disc.raw_label, square.label, square.raw_label) == ("disc", "circle", "square", "square")
    assert disc.box == pytest.approx(REGION, abs=0.1)
    assert (sign.text, sign.box) == ("STOP", pytest.approx((1.05, 0.525, 9.05, 2.025), abs=0.01))
    assert {text.region_id: text.text for text in record.region_texts} == {
        disc.id: "small red circle",
        tree.id: "a tree",
    }
    brief = record.texts[0]
    named = [(brief.text[t.start : t.stop], t.region_ids) for t in record.triplets if t.text_id == brief.id]
    assert named == [("a red circle", (disc.id,)), ("a blue square", (square.id,))], "a tree that no caption has"
    (mask,) = (mask for mask in record.masks if mask.region_id == disc.id)
    assert decode_mask(mask).sum() == pytest.approx(30 * 15 / 2, rel=0.15)  # half of its box
    assert {a.id for a in record.annotations()} == {f"1.florence2.{n}" for n in range(len(record.by_id))}
    scores = [getattr(a.scores, name) for a in record.annotations() for name in Scores.__slots__]
    assert all(score is None or 0 < score <= 1 for score in scores)
    assert disc.scores.label is not None
    assert disc.scores.label > 0.8
    assert empty.scores.label is None
    assert empty.scores.box is not None


def test_what_stands_is_called_otherwise_where_it_would_be(folder: Path) -> None:
    """One region in the same place, if the label is another; not of people's, of crowds, of what has no area."""
    box = Region(id="0.a.0", source="a", kind="object", box=REGION, label="box")
    outside = (REGION[0], REGION[1], REGION[0] + 200, REGION[3])
    others = [
        replace(box, id="0.a.1", label="disc"),
        replace(box, id="0.a.2", crowd=True),
        replace(box, id="0.a.3", box=(*REGION[:2], *REGION[:2])),
        replace(box, id="0.human.0", source="human"),
        replace(box, id="0.a.4", kind="proposal", label=None),
        replace(box, id="0.a.5", box=outside),
    ]
    (record,) = said(ready(folder, tasks=[], verify=False), sample(box, *others))
    found = {r.derived_from[0]: r for r in record.regions if r.derived_from}
    renamed = found.pop("0.a.0")
    assert (renamed.label, renamed.raw_label, renamed.box, renamed.kind) == ("disc", "circle", box.box, "object")
    assert renamed.scores.label is not None
    assert renamed.scores.label > 0.8
    assert {*found} <= {"0.a.5"}, "what it says of a place that it never learned"
    ignoring = ready(folder, tasks=[], vocabulary=VOCABULARY.model_copy(update={"ignore": ("disc",)}))
    (record,) = said(ignoring, sample(box))
    assert [r.id for r in record.regions] == [box.id]
    (record,) = said(ready(folder, tasks=[]), sample(box, round=0))
    assert [r.id for r in record.regions] == [box.id], "in a first round nobody chooses"
    (record,) = said(ready(folder, tasks=[], rename=False), sample(box))
    assert [r.id for r in record.regions] == [box.id]


def test_each_task_can_be_left_out(folder: Path) -> None:
    (record,) = said(ready(folder, tasks=["OD"], verify=False), sample())
    assert {type(a) for a in record.annotations()} == {Region}
    assert {region.label for region in record.regions} == {"disc", "square"}
    assert not record.decisions
    (nothing,) = said(ready(folder, tasks=[], verify=False), sample())
    assert not nothing.by_id


def test_any_task_of_what_others_found(folder: Path) -> None:
    """As a grounder, segmenter and describer of what stands."""
    disc = Region(id="0.a.0", source="a", kind="object", box=REGION, label="disc")
    nowhere = Region(id="0.a.1", source="a", kind="object", box=(200, 200, 300, 300), label="car")
    text = Text(id="0.b.0", source="b", text=CAPTION, detail="detailed")
    roles = ("CAPTION_TO_PHRASE_GROUNDING", "REGION_TO_SEGMENTATION", "REGION_TO_DESCRIPTION")
    (record,) = said(ready(folder, tasks=roles, standing=True, verify=False), sample(disc, nowhere, text, round=0))
    (mask,) = record.masks
    assert (mask.region_id, mask.derived_from, mask.source) == ("0.a.0", ("0.a.0",), "florence2")
    assert decode_mask(mask).sum() == pytest.approx(30 * 15 / 2, rel=0.15)
    (description,) = record.region_texts
    assert (description.region_id, description.text) == ("0.a.0", "a small red circle in a corner")
    assert description.scores.phrase is not None
    assert description.scores.phrase > 0.5
    named = {CAPTION[t.start : t.stop]: record.by_id[t.region_ids[0]] for t in record.triplets}
    assert {t.text_id for t in record.triplets} == {"0.b.0"}
    assert named.keys() == {"a red circle", "a blue square"}
    circle = named["a red circle"]
    assert isinstance(circle, Region)
    assert circle.box == pytest.approx(REGION, abs=0.1)
    assert not record.texts[1:], "it was not asked for captions"
    again = said(ready(folder, tasks=roles, standing=True, verify=False), Sample(sample().image, record))
    assert len(again[0].masks) == 1, "what has a mask gets no other"
    (untold,) = said(ready(folder, tasks=roles, verify=False), sample(disc, text))
    assert not [*untold.masks, *untold.region_texts, *untold.triplets], "unless told so, it speaks of its own alone"


def test_where_memory_is_too_small_less_goes_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real lack of memory: more than two images, or more than three prompts, ask for a pebibyte each."""
    text = Text(id="0.b.0", source="b", text=CAPTION, detail="brief")
    samples = [sample(text, size=(WIDTH + n, HEIGHT)) for n in range(5)]
    whole = said(ready(folder), *samples)
    taken: dict[str, list[int]] = {"images": [], "prompts": []}
    encode_image, encode_prompts = Florence2.encode_image, Florence2.log_likelihood

    def images(model: Florence2, pixels: torch.Tensor) -> torch.Tensor:
        taken["images"].append(len(pixels))
        torch.empty(max(len(pixels) - 2, 0), 2**50, dtype=torch.uint8)
        return encode_image(model, pixels)

    def prompts(model: Florence2, features: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        taken["prompts"].append(len(features))
        torch.empty(max(len(features) - 3, 0), 2**50, dtype=torch.uint8)
        return encode_prompts(model, features, *others)

    monkeypatch.setattr(Florence2, "encode_image", images)
    monkeypatch.setattr(Florence2, "log_likelihood", prompts)
    parts = said(ready(folder), *samples)
    assert taken["images"][:4] == [5, 2, 2, 1]
    assert max(taken["prompts"][-3:]) <= 3
    for one, other in zip(whole, parts, strict=True):
        assert [a.id for a in one.annotations()] == [a.id for a in other.annotations()]
        values = [[d.value for d in record.decisions] for record in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=1e-3)


def test_in_bfloat16_it_says_the_same(folder: Path) -> None:
    (full,), (half,) = (said(ready(folder, precision=p), sample()) for p in ("float32", "bfloat16"))
    assert [text.text for text in full.texts] == [text.text for text in half.texts]
    named = [{(r.label, r.text, r.kind) for r in record.regions if r.kind != "proposal"} for record in (full, half)]
    assert named[0] == named[1]
    assert full != half, "or it is not in bfloat16"


def test_opinions_are_the_models_own_log_likelihood(folder: Path) -> None:
    size = (WIDTH, HEIGHT)
    disc = Region(id="0.a.0", source="a", kind="object", box=REGION, label="circle")
    wrong = Region(id="0.a.1", source="a", kind="object", box=REGION, label="two people ride bicycles")
    others = [
        Region(id="0.a.2", source="a", kind="object", box=(0, 0, 1, 1)),  # no label
        Region(id="0.a.3", source="a", kind="object", box=(200, 200, 300, 300), label="car"),  # nowhere
        Region(id="0.a.4", source="a", kind="proposal", box=REGION),
    ]
    texts = [
        Text(id="0.b.0", source="b", text=CAPTION, detail="brief"),
        Text(id="0.b.1", source="b", text="word " * 2000, detail="brief"),  # more than it has positions
    ]
    (record,) = said(ready(folder, tasks=[]), sample(disc, wrong, *others, *texts))
    found = {d.annotation_id: d.value for d in record.decisions if d.reason == VERIFIED}
    blank = {d.annotation_id: d.value for d in record.decisions if d.reason == VERIFIED_BLANK}
    assert found.keys() == {"0.a.0", "0.a.1", "0.b.0"}
    assert blank.keys() == {"0.b.0"}
    assert all((d.action, d.by) == ("keep", "florence2") for d in record.decisions)
    assert record.standing.by_id == record.by_id
    model, processor = Florence2.from_pretrained(folder), Processor.from_pretrained(folder)
    image = model.encode_image(processor.images([Image.fromarray(sample().image)]))
    prompt = ask("REGION_TO_CATEGORY", REGION, size)
    grey = model.encode_image(processor.images([Image.new("RGB", (9, 9), (128, 128, 128))]))
    for id_, asked, text, opinions, features in (
        ("0.a.0", prompt, "circle", found, image),
        ("0.a.1", prompt, wrong.label, found, image),
        ("0.b.0", ask("CAPTION"), CAPTION, found, image),
        ("0.b.0", ask("CAPTION"), CAPTION, blank, grey),
    ):
        labels = torch.tensor([processor.tokens.sentence(str(text))])
        with torch.inference_mode():
            total = model.log_likelihood(features, *processor.prompts([asked]), labels)
        assert opinions[id_] == pytest.approx(float(total) / labels.shape[1], abs=1e-4)
    assert found["0.a.0"] > found["0.a.1"] + 1  # type: ignore[operator]


def test_what_fell_is_not_judged(folder: Path) -> None:
    text = Text(id="0.b.0", source="b", text=CAPTION, detail="brief")
    one = sample(text)
    fallen = one.record.decide([one.record.reject(text, "f", "r")])
    (record,) = said(ready(folder, tasks=[]), replace(one, record=fallen, before=fallen))
    assert [d.by for d in record.decisions] == ["f"]


SIZES = [(1, 1), (3, 400), (400, 2), (WIDTH, HEIGHT)]


@pytest.mark.parametrize("constrained", [True, False])
def test_rubbish_on_any_image_is_no_exception(babbler: Path, constrained: bool) -> None:
    """A random model, each answer cut; in a batch as one by one, and alike the second time."""
    specialist = ready(
        babbler, constrained=constrained, min_score=0.0, eos_penalty=5.0, tasks=(*USUAL, "REGION_TO_SEGMENTATION")
    )
    text = Text(id="0.b.0", source="b", text="<loc_5> <and> </s>", detail="brief")
    odd = Region(id="0.b.1", source="b", kind="object", box=(0, 0, 1, 1), label="<and> \u200b <loc_3>")
    samples = [sample(text, odd, size=size) for size in SIZES]
    together = said(specialist, *samples)
    assert together == said(specialist, *samples)
    assert [len(record.decisions) for record in together] == [3] * len(SIZES)
    for record, (width, height) in zip(together, SIZES, strict=True):
        for region in record.regions[1:]:
            x0, y0, x1, y1 = region.box
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height


def answer(prompt: Prompt, text: str, complete: bool = True) -> Answer:
    """As the model would give it, without scores."""
    ids = tuple(small_tokens().sentence(text))
    found = decode(prompt.form, pieces_of_text(text), (WIDTH, HEIGHT))
    return Answer(prompt, text, ids, 0.5, tuple(one.annotation for one in found), complete)


def heard(*answers: Answer, **parameters: Any) -> Findings:
    findings = Findings(sample(), Florence(vocabulary=VOCABULARY, **parameters), small_tokens())
    for one in answers:
        findings.hear(one)
    return findings


def test_what_was_cut_loses_its_last_piece() -> None:
    cut = [
        answer(ask("OD"), f"circle{CIRCLE}squ{SQUARE}", complete=False),
        answer(ask("OCR_WITH_REGION"), f"STOP{SIGN}", complete=False),
        answer(ask("CAPTION"), "a dog on", complete=False),
        answer(ask("DETAILED_CAPTION"), "A dog. A cat. A bi", complete=False),
    ]
    annotations = list(heard(*cut).annotations())
    assert [a.text for a in annotations if isinstance(a, Text)] == ["A dog. A cat."]
    assert [(a.kind, a.label) for a in annotations if isinstance(a, Region)] == [("object", "disc")]


def test_an_answer_without_scores_gets_none() -> None:
    (region,) = heard(answer(ask("OD"), f"circle{CIRCLE}")).annotations()
    assert region.scores == Scores()


def test_classes_are_asked_for_once_each_and_not_too_many() -> None:
    seen = answer(ask("OD"), f"square{SQUARE}circle{CIRCLE}noise{ELSEWHERE}")
    dense = answer(ask("DENSE_REGION_CAPTION"), f"a small circle{CIRCLE}a nice day{SQUARE}")
    caption = answer(ask("CAPTION"), CAPTION)
    prompts = heard(seen, dense, caption, caption).questions()
    assert [(p.task, p.labels) for p in prompts] == [
        (Task.OPEN_VOCABULARY_DETECTION, ("square",)),
        (Task.OPEN_VOCABULARY_DETECTION, ("circle",)),  # as the vocabulary says that "disc" is asked for
        (Task.CAPTION_TO_PHRASE_GROUNDING, (CAPTION,)),
    ]
    assert len(heard(seen, max_queries=1).questions()) == 1
    assert [p.labels for p in heard().questions()] == [("circle",)], "a small vocabulary is asked for whole"


@pytest.mark.parametrize(
    ("phrase", "behind", "span"),
    [
        ("a dog", 0, (0, 5)),
        ("a dog", 5, (10, 15)),
        ("a dog", 15, (0, 5)),  # a third one that the text doesn't have
        ("dog", 11, (12, 15)),
        ("do", 0, None),
        ("A dog", 0, None),
        ("", 0, None),
        ("(", 0, None),
    ],
)
def test_spans_are_exact(phrase: str, behind: int, span: tuple[int, int] | None) -> None:
    assert span_of(phrase, "a dog and a dog", behind) == span


def sighting(box: Sequence[float], label: str | None = None, said: str = "", **scores: float) -> Sighting:
    return Sighting(tuple(map(float, box)), said or label or "", label, **scores)  # type: ignore[arg-type]


def test_one_label_that_overlaps_is_one_thing() -> None:
    od = sighting((0, 0, 10, 10), "cat", said_score=0.3, box_score=0.9)
    asked = sighting((0, 0, 10, 9), "cat", "kitten", said_score=0.8, box_score=0.2)
    dog = sighting((0, 0, 10, 10), "dog", said_score=0.7)
    far = sighting((0, 0, 10, 4), "cat", said_score=0.6, box_score=0.5)
    things = union([far, asked, dog, od], 0.5, 0.7)
    assert [(t.label, t.box, t.label_score, t.box_score) for t in things] == [
        ("cat", od.box, 0.8, 0.9),
        ("cat", far.box, 0.6, 0.5),
        ("dog", dog.box, 0.7, None),
    ]
    assert things[0].named == asked


def test_descriptions_go_to_what_they_overlap_most_and_else_are_proposals() -> None:
    cat, dog = sighting((0, 0, 10, 10), "cat", box_score=0.5), sighting((0, 0, 10, 12), "dog", box_score=0.4)
    text = sighting((0, 0, 10, 12), said="a brown dog", said_score=0.9, box_score=0.99)
    again, lone = replace(text, box_score=0.1), sighting((50, 0, 60, 10), said="a tree", box_score=0.3)
    near, surer = sighting((50, 0, 60, 9), box_score=0.2), sighting((50, 0, 60, 11), box_score=0.8)
    things = union([near, lone, again, text, dog, cat, surer], 0.5, 0.7)
    assert [(t.label, [one.said for one in t.described]) for t in things] == [
        ("cat", []),
        ("dog", ["a brown dog"]),
        (None, ["a tree"]),
    ]
    assert things[1].box == dog.box
    assert (things[2].box, things[2].box_score, things[2].label_score) == (surer.box, 0.8, None)


NUMBERS = st.sampled_from([0.0, 1.0, 2.0, 5.0, 6.0, 9.0])
SCORES = st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0])
SIGHTINGS = st.builds(
    lambda xs, ys, label, said, a, b: Sighting((min(xs), min(ys), max(xs), max(ys)), said, label, a, b),
    st.tuples(NUMBERS, NUMBERS),
    st.tuples(NUMBERS, NUMBERS),
    st.sampled_from([None, "cat", "dog"]),
    st.sampled_from(["", "x", "y"]),
    SCORES,
    SCORES,
)


@given(st.lists(SIGHTINGS, max_size=8).flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))))
def test_union_loses_nothing_and_knows_no_order(both: tuple[list[Sighting], list[Sighting]]) -> None:
    some, shuffled = both
    things = union(some, 0.5, 0.7)
    assert things == union(shuffled, 0.5, 0.7)
    assert sorted(map(repr, (one for thing in things for one in thing.seen))) == sorted(map(repr, some))
    for thing in things:
        assert {one.label for one in thing.seen} <= {thing.label, None}
        assert all(iou(thing.box, one.box) >= 0.5 for one in thing.seen[1:])


def test_who_made_it_is_a_digest_of_code_and_weights(folder: Path, tmp_path: Path) -> None:
    made = memorised({ask("CAPTION"): "x"}, steps=0)
    first = Florence(model=str(saved(tmp_path / "a", made))).version
    assert first == Florence(model=str(saved(tmp_path / "b", made))).version != Florence(model=str(folder)).version
    weights = tmp_path / "a" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert Florence(model=str(tmp_path / "a")).version != first


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"florence2: .*nowhere.*no such folder"):
        _ = Florence(model=str(tmp_path / "nowhere")).version
    with pytest.raises(ConfigError, match="`model` is empty"):
        _ = Florence().version


@dataclass
class Opinionated(Brightness):
    """Has an opinion of the first region, and says it as `how` has it."""

    how: dict[str, Any] = field(default_factory=dict)

    def annotate(self, batch: Sequence[Sample]) -> list[list[AnyAnnotation | Decision]]:
        opinion = Decision(annotation_id="0.a.0", action="keep", by=self.name, reason="verified", value=-1.0)
        return [[replace(opinion, **self.how)] for _ in batch]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({}, None),
        ({"action": "reject"}, "a decision to reject 0.a.0"),
        ({"by": "somebody"}, "by 'somebody'"),
        ({"annotation_id": "7"}, "decided on annotation 7, which isn't there"),
    ],
)
def test_specialists_have_opinions_and_no_more(
    image_set: Callable[..., Path], how: dict[str, str], says: str | None
) -> None:
    region = Region(id="0.a.0", source="a", kind="object", box=(0, 0, 1, 1))
    path = next(image_set(1).iterdir())
    item = item_of(Entry(str(path)), Ingest(), Downloader(Path("nowhere"), Http(), max_bytes=0))
    before = Record(item, round=1).append([region])
    (record,) = annotate([before], [Opinionated(how=how)], [Dark()], Ingest(), {})
    assert record.regions == record.standing.regions == (region,)
    assert [(d.by, d.value, d.round) for d in record.decisions] == ([] if says else [("brightness", -1.0, 1)])
    assert (says is None) == (record.error is None)
    assert says is None or says in record.error.message  # type: ignore[union-attr]
