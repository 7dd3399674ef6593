"""The contrastive specialist and chooser on tiny SigLIP, SigLIP 2 and CLIP, against what the models say themselves."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from tiny.contrastives import chinese_clip, clip, siglip, siglip2
from tiny.detectors import rt_detr_v2
from transformers import AutoModel, AutoProcessor

from engine.components import build, describe
from engine.errors import ConfigError
from engine.merge import Case, Rules, merge
from engine.merge.choosing import Candidate, candidates_of
from engine.protocols import Image, Sample
from engine.records import HUMAN, AnyAnnotation, Box, Decision, Item, Kind, Record, Region, RegionText, Scores, Text
from engine.vocabulary import Vocabulary
from specialists.hub.contrastive import SIMILARITY, Contrastive, ContrastiveChooser
from specialists.hub.pixels import crop
from specialists.hub.similarity import LONGEST, middle, parts

FAMILIES = {"siglip": siglip, "siglip2": siglip2, "clip": clip}
NOISE = np.random.default_rng(0)
WIDE: Image = NOISE.integers(0, 255, (90, 140, 3), dtype=np.uint8)
TALL: Image = NOISE.integers(0, 200, (131, 77, 3), dtype=np.uint8)
NEAR = 2e-6  # float noise
BOX: Box = (20.0, 10.0, 90.0, 64.0)


@pytest.fixture(scope="module", autouse=True)
def few_threads(one_thread: None) -> Iterator[None]:
    """Setting up gives torch as many as it may have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


class Reference:
    """The model as transformers has it: cosines out of the logits of its own forward pass."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModel.from_pretrained(folder).eval()
        self.processor = AutoProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def __call__(self, image: Image, text: str) -> float:
        """Of a text that fits."""
        length = self.model.config.text_config.max_position_embeddings
        words = self.processor.tokenizer(
            text.lower(), padding="max_length", max_length=length, padding_side="right", return_tensors="pt"
        )
        if self.model.config.model_type != "clip":
            del words["attention_mask"]  # SigLIP's were trained without
        pixels = self.processor.image_processor(Pillow.fromarray(image), return_tensors="pt")
        logit = self.model(**words, **pixels).logits_per_image.item()
        bias = getattr(self.model, "logit_bias", torch.zeros(()))
        return ((logit - bias) / self.model.logit_scale.exp()).item()


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
    specialist = Contrastive(model=str(folder))
    specialist.setup()
    return SimpleNamespace(folder=folder, specialist=specialist, reference=Reference(folder))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = siglip(tmp_path_factory.mktemp("model"))
    specialist = Contrastive(model=str(folder))
    specialist.setup()
    return SimpleNamespace(folder=folder, specialist=specialist, reference=Reference(folder))


def region(
    number: int = 0, box: Box = BOX, label: str | None = "dog", score: float | None = 0.9, **more: Any
) -> Region:
    more = {"kind": "object", "source": "detector", **more}
    return Region(id=f"r{number}", box=box, label=label, scores=Scores(label=score), **more)


def said(number: int, text: str, about: int = 0, source: str = "captioner") -> RegionText:
    return RegionText(id=f"t{number}", source=source, region_id=f"r{about}", text=text)


def caption(number: int, text: str) -> Text:
    return Text(id=f"c{number}", source="captioner", text=text, detail="brief")


def sample(image: Image, *annotations: AnyAnnotation) -> Sample:
    item = Item(b"0" * 16, "x", width=image.shape[1], height=image.shape[0])
    return Sample(image, Record(item).append(annotations))


def annotated(specialist: Contrastive, *samples: Sample) -> list[Record]:
    """The records with what it adds; that is what the record may take, in the order of the samples."""
    answers = specialist.annotate(samples)
    assert len(answers) == len(samples)
    records = []
    for one, answer in zip(samples, answers, strict=True):
        made = [entry for entry in answer if isinstance(entry, RegionText)]
        opinions = [entry for entry in answer if isinstance(entry, Decision)]
        assert all(entry.source == specialist.name and entry.scores == Scores() for entry in made)
        assert all((entry.action, entry.by) == ("keep", specialist.name) for entry in opinions)
        assert len({entry.annotation_id for entry in opinions}) == len(opinions), "one opinion each"
        records.append(one.record.append(made).decide(opinions))
    return records


def values(record: Record) -> dict[str, float]:
    assert all(decision.reason == SIMILARITY for decision in record.decisions)
    return {decision.annotation_id: decision.value for decision in record.decisions if decision.value is not None}


def settled(specialist: Any, **parameters: Any) -> Any:
    """The same weights with other parameters."""
    made = type(specialist)(model=specialist.model, **parameters)
    for name in ("_model", "_processor", "_positions", "_around", "_parser"):
        setattr(made, name, getattr(specialist, name))
    return made


# What a similarity is


@pytest.mark.parametrize(
    ("image", "box", "seen"),
    [
        (WIDE, (20, 10, 90, 64), (20, 10, 90, 64)),
        (TALL, (5, 40, 60, 131), (5, 40, 60, 131)),
        (WIDE, (19.6, 10.4, 89.7, 64.2), (20, 10, 90, 64)),  # to the nearest edges of pixels
        (WIDE, (-30, 50, 40, 300), (0, 50, 40, 90)),
        (TALL, (30, -5, 900, 40), (30, 0, 77, 40)),
    ],
)
def test_it_is_the_cosine_of_the_models_own_logits(
    family: Any, image: Image, box: Box, seen: tuple[int, int, int, int]
) -> None:
    shown = sample(image, region(box=box, label=None), said(0, "A Brown Dog"), caption(0, "a dog, a cat"))
    found = values(annotated(family.specialist, shown)[0])
    x0, y0, x1, y1 = seen
    assert found["t0"] == pytest.approx(family.reference(image[y0:y1, x0:x1], "a brown dog"), abs=NEAR)
    assert found["c0"] == pytest.approx(family.reference(image, "a dog, a cat"), abs=NEAR)
    for dx0, dy0, dx1, dy1 in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, -1, 0), (0, 0, 0, -1), (1, 0, 1, 0), (0, 1, 0, 1)):
        moved = image[y0 + dy0 : y1 + dy1, x0 + dx0 : x1 + dx1]
        if moved.shape == image[y0:y1, x0:x1].shape or (dx0, dy0) != (dx1, dy1):  # not beyond the image
            assert abs(found["t0"] - family.reference(moved, "a brown dog")) > 10 * NEAR


def test_a_margin_is_seen_as_far_as_there_is_an_image(family: Any) -> None:
    wider = settled(family.specialist, margin=0.25)
    boxes: list[Box] = [(40, 20, 80, 60), (4, 50, 44, 90)]
    shown = sample(
        WIDE, *(region(n, box, label=None) for n, box in enumerate(boxes)), said(0, "a cat"), said(1, "a cat", 1)
    )
    found = values(annotated(wider, shown)[0])
    assert found["t0"] == pytest.approx(family.reference(WIDE[10:70, 30:90], "a cat"), abs=NEAR)
    assert found["t1"] == pytest.approx(family.reference(WIDE[40:90, 0:54], "a cat"), abs=NEAR)


def test_case_is_not_seen_and_words_for_structure_are_words(family: Any) -> None:
    texts = [
        "A DOG",
        "a dog",
        "a dog <eos> x",
        "a dog <|endoftext|> x",
        "a dog <pad> x",
        "a dog",
        "\u72ac\u306e\U0001f415",
    ]
    (found,) = family.specialist.similarities([(WIDE, texts)])
    assert found["A DOG"] == found["a dog"]
    assert len({round(value, 5) for value in found.values()}) == 5


def test_a_text_that_no_token_is_left_of_has_no_opinion(family: Any) -> None:
    shown = sample(WIDE, region(label=None), said(0, ""), said(1, " \n"), caption(0, ""), caption(1, "\t"))
    assert annotated(family.specialist, shown) == [shown.record]


# Long texts

SENTENCES = ("A brown dog lies on the grass. ", "It sleeps, or so it seems! ", 'Says he: "why not?" ')  # 30, 26, 19
UNBROKEN = "\u72ac\u732b" * 60


def test_a_long_text_goes_in_parts_that_fit(family: Any) -> None:
    limit = 63 if family.reference.model.config.model_type != "clip" else 75
    tokenizer = family.reference.processor.tokenizer
    for text in ("".join(SENTENCES) * 3, "word " * 40, "x" * 200, UNBROKEN, "a dog " + "\U0001f415" * 90 + " ends."):
        found = list(family.specialist._parts(text))
        assert "".join(found).replace(" ", "") == text.replace(" ", ""), "nothing is lost"
        weights = [len(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in found]
        assert len(found) > 1
        assert max(weights) <= limit
        assert len(found[0]) == limit or text[0] != "x", "as long as can be"
        expected = [family.reference(WIDE, part) for part in found]
        (value,) = family.specialist.similarities([(WIDE, [text])])[0].values()
        assert value == pytest.approx(np.average(expected, weights=weights), abs=NEAR)


def test_what_is_behind_the_last_token_counts(family: Any) -> None:
    start = "a dog and a cat " * 6
    (found,) = family.specialist.similarities([(WIDE, [start + "here", start + "gone"])])
    assert abs(found[start + "here"] - found[start + "gone"]) > 1e-4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", ["short"]),
        ("  short \n", ["short"]),
        ("One two. Three four. Five", ["One two. Three four.", "Five"]),
        ('He says: "no." And goes away.', ['He says: "no."', "And goes away."]),
        ("There are 3.5 of them, as it seems", ["There are 3.5 of", "them, as it seems"]),
        ("one two three four five six", ["one two three four", "five six"]),
        ("\u72ac\u3067\u3059\u3002" * 7, ["\u72ac\u3067\u3059\u3002" * 5, "\u72ac\u3067\u3059\u3002" * 2]),
        ("\u72ac\u3067\u3059\uff01" * 5 + "\u72ac", ["\u72ac\u3067\u3059\uff01" * 5, "\u72ac"]),
        ("x" * 45, ["x" * 20, "x" * 20, "x" * 5]),
        ("", []),
    ],
)
def test_where_a_text_is_cut(text: str, expected: list[str]) -> None:
    assert list(parts(text, lambda some: len(some) <= 20, window=100)) == expected


@given(st.text("ab .!\n\u3002\u72ac", max_size=80), st.integers(1, 20), st.integers(1, 30))
def test_nothing_of_a_text_is_lost(text: str, most: int, window: int) -> None:
    found = list(parts(text, lambda some: len(some) <= most, window))
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(0 < len(part) <= min(most, window) for part in found)


# Which text is the closest

SAID = [["a small dog on a red mat"], ["a man on a horse", "the sky"], ["two cats"]]


def test_the_closest_of_all_is_there_in_the_end(family: Any) -> None:
    """Each kind of text is it for some of the labels, texts and images."""
    cases = [(label, texts, image) for label in ("x", "bird house") for texts in SAID for image in (WIDE, TALL)]
    samples = [
        sample(image, region(label=label), *(said(n, text) for n, text in enumerate(texts)))
        for label, texts, image in cases
    ]
    won = set()
    for shown, record in zip(samples, annotated(family.specialist, *samples), strict=True):
        phrases_in = family.specialist._parser.phrases_in
        candidates = list(candidates_of(shown.record.regions[0], shown.record.region_texts, phrases_in))
        best = max(candidates, key=lambda one: family.reference(shown.image[10:64, 20:90], one.text))
        won.add(best.kind)
        opinions = values(record)
        assert set(opinions) == {text.id for text in record.region_texts}, "of all, and of nothing else"
        assert max(record.region_texts, key=lambda text: opinions[text.id]).text == best.text
        made = [
            (text.text, text.region_id, text.derived_from) for text in record.region_texts if text.source != "captioner"
        ]
        origin = {"category": ("r0",), "chunk": ("r0", best.of), "description": ()}[best.kind]
        assert made == ([(best.text, "r0", origin)] if origin else [])
    assert won == {"description", "chunk", "category"}


def test_a_region_that_nobody_has_described_gets_its_category(tiny: Any) -> None:
    (record,) = annotated(tiny.specialist, sample(WIDE, region()))
    assert [(text.text, text.derived_from) for text in record.region_texts] == [("dog", ("r0",))]
    assert values(record) == {
        record.region_texts[0].id: pytest.approx(tiny.reference(WIDE[10:64, 20:90], "dog"), abs=NEAR)
    }


@pytest.mark.parametrize(
    "annotations",
    [
        (region(), said(0, "dog")),
        (region(label="Dog"), said(0, "dog")),
        (region(label=None), said(0, "dog"), said(1, "dog", source="other")),
        (region(label=" "), said(0, "dog")),
    ],
)
def test_nothing_is_said_twice(tiny: Any, annotations: Sequence[AnyAnnotation]) -> None:
    (record,) = annotated(tiny.specialist, sample(WIDE, *annotations))
    texts = [one for one in annotations if isinstance(one, RegionText)]
    assert record.region_texts == tuple(texts)
    assert set(values(record)) == {text.id for text in texts}


def test_nothing_is_added_where_a_person_has_spoken(tiny: Any) -> None:
    """By the same words: of a source, of a person, and of a source beside a person."""
    added = []
    for sources in (("captioner",), (HUMAN,), ("captioner", HUMAN)):
        texts = [said(n, "two cats and a dog", source=source) for n, source in enumerate(sources)]
        shown = [sample(image, region(label="x"), *texts) for image in (WIDE, TALL)]
        records = annotated(tiny.specialist, *shown)
        assert all(len(values(record)) == len(record.region_texts) for record in records)
        added.append(sum(len(record.region_texts) - len(texts) for record in records))
    assert added[0]
    assert added[1:] == [0, 0]


def test_a_second_time_adds_nothing(tiny: Any) -> None:
    shown = sample(WIDE, region(label="zebra"), region(1, (0, 0, 40, 40)), said(0, "a man on a horse"))
    (once,) = annotated(tiny.specialist, shown)
    again = replace(once, decisions=(), round=1)
    assert annotated(tiny.specialist, Sample(WIDE, again, before=again))[0].region_texts == once.region_texts


# What is looked at


def test_who_is_looked_at(tiny: Any) -> None:
    kinds: tuple[Kind, ...] = ("object", "proposal", "text")
    regions = [
        region(0, score=0.3),
        region(1, score=0.8),
        region(2, score=None),
        region(3, (20, 10, 36, 26)),
        region(4, (20, 10, 35, 60)),  # too thin
        region(5, (200, 10, 300, 60)),  # outside
        region(6, kind="proposal", label=None),
        region(7, kind="text", label=None),
        region(8, (30, 30, 30, 30)),
        region(9, (130, 0, 200, 60)),  # of which 10 px are in the image
        region(10, label=None),  # said nothing of
    ]
    texts = [said(n, "a dog", n) for n in range(10)]
    shown = sample(WIDE, *regions, *texts)

    def seen(**parameters: Any) -> list[str]:
        opinions = values(annotated(settled(tiny.specialist, **parameters), shown)[0])
        return [id_[1:] for id_ in opinions if id_.startswith("t")]

    assert seen() == ["2", "3", "1", "0"]
    assert seen(max_regions=2) == ["2", "3"]
    assert seen(max_regions=0) == []
    assert seen(min_side=17) == seen(min_side=17, margin=1.0) == ["2", "1", "0"]
    assert seen(min_side=1) == ["2", "3", "4", "9", "1", "0"]
    assert seen(kinds=kinds) == ["2", "6", "3", "7", "1", "0"]


def test_what_fell_is_not_looked_at(tiny: Any) -> None:
    shown = sample(
        WIDE, region(), region(1), said(0, "a dog"), said(1, "a cat"), said(2, "a cat", 1), caption(0, "a dog")
    )
    fallen = [shown.record.reject(shown.record.by_id[id_], "f", "bad") for id_ in ("r1", "t1", "c0")]
    opinions = values(replace(annotated(tiny.specialist, Sample(WIDE, shown.record.decide(fallen)))[0], decisions=()))
    assert opinions == {}
    answer = tiny.specialist.annotate([Sample(WIDE, shown.record.decide(fallen))])[0]
    ids = {entry.annotation_id for entry in answer if isinstance(entry, Decision)}
    assert ids & set(shown.record.by_id) == {"t0"}


def test_a_record_without_anything_to_look_at(family: Any) -> None:
    nothing = [sample(WIDE), sample(TALL, region(label=None)), sample(WIDE, region(kind="proposal"))]
    assert family.specialist.annotate(nothing) == [[], [], []]
    assert family.specialist.annotate([]) == []


# Batches and odd images


def test_answers_do_not_depend_on_the_batch(family: Any) -> None:
    one = sample(WIDE, region(), region(1, (0, 0, 50, 90), "cat"), said(0, "a man on a horse"), caption(0, "a dog"))
    other = sample(TALL, region(label="zebra"), said(0, "a dog"), caption(0, "".join(SENTENCES)))
    empty = sample(WIDE)
    together = annotated(family.specialist, one, empty, other, one)
    small = annotated(settled(family.specialist, at_once=1), one, empty, other, one)
    alone = [annotated(family.specialist, shown)[0] for shown in (one, empty, other, one)]
    for records in (small, alone):
        for found, expected in zip(records, together, strict=True):
            assert found.region_texts == expected.region_texts
            assert values(found) == pytest.approx(values(expected), abs=NEAR)
            assert list(values(found)) == list(values(expected))
    assert family.specialist.annotate([one, other]) == family.specialist.annotate([one, other])


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (64, 64)])
def test_odd_images(family: Any, shape: tuple[int, int]) -> None:
    image: Image = np.zeros((*shape, 3), dtype=np.uint8)
    whole = (0.0, 0.0, float(shape[1]), float(shape[0]))
    shown = sample(image, region(box=whole), said(0, "a dog"), caption(0, "it is dark"))
    (record,) = annotated(settled(family.specialist, min_side=1), shown)
    found = values(record)
    assert {"t0", "c0"} <= set(found)
    assert all(-1.001 < value < 1.001 for value in found.values())


def test_long_images_are_seen_whole_or_in_the_middle(family: Any) -> None:
    """CLIP throws all but the middle away. What it throws away need not be made larger first."""
    image = NOISE.integers(0, 255, (20, 400, 3), dtype=np.uint8)
    (found,) = family.specialist.similarities([(image, ["a dog"])])
    is_clip = family.reference.model.config.model_type == "clip"
    shown = middle(image) if is_clip else image
    assert found["a dog"] == pytest.approx(family.reference(shown, "a dog"), abs=NEAR)
    assert family.reference(shown, "a dog") == pytest.approx(family.reference(image, "a dog"), abs=0.01)
    assert middle(image).shape == (20, 20 * LONGEST, 3)
    assert (middle(image) == image[:, 120:280]).all()
    assert (middle(WIDE) == WIDE).all()
    assert (middle(image.swapaxes(0, 1)) == image.swapaxes(0, 1)[120:280]).all()


def test_numbers_that_are_none_are_no_opinion(tmp_path: Path) -> None:
    specialist = Contrastive(model=str(siglip(tmp_path)))
    specialist.setup()
    with torch.no_grad():
        specialist._model.vision_model.post_layernorm.weight.fill_(torch.nan)
    shown = sample(WIDE, region(), said(0, "a dog"), caption(0, "a dog"))
    assert specialist.annotate([shown]) == [[]]


# The chooser


def chooser_for(specialist: Contrastive, **parameters: Any) -> ContrastiveChooser:
    asked = {"use": "contrastive", "model": specialist.model, **parameters}
    chooser: ContrastiveChooser = build("choosers", "contrastive", asked, Vocabulary())
    chooser.setup()
    return chooser


def test_the_chooser_has_the_specialists_order(family: Any) -> None:
    texts = ["a man on a horse", "the red sky", "two cats"]
    shown = sample(TALL, region(), *(said(n, text) for n, text in enumerate(texts)))
    chooser = chooser_for(family.specialist)
    candidates = list(candidates_of(region(), shown.record.region_texts, family.specialist._parser.phrases_in))
    worth = chooser.choose(region(), candidates, lambda: TALL)
    assert len(worth) == len(candidates) > len(texts)
    assert worth == pytest.approx([family.reference(TALL[10:64, 20:77], one.text) for one in candidates], abs=NEAR)
    opinions = values(annotated(family.specialist, shown)[0])
    of_texts = {one.text: value for one, value in zip(candidates, worth, strict=True)}
    assert [of_texts[text] for text in texts] == pytest.approx([opinions[f"t{n}"] for n in range(3)], abs=NEAR)


def test_the_choosers_margin_and_what_it_can_not_judge(tiny: Any) -> None:
    candidates = [
        Candidate("a dog", "description", "t0"),
        Candidate("", "category", "r0"),
        Candidate("a dog", "chunk", "t1"),
    ]
    known, nothing, again = chooser_for(tiny.specialist, margin=0.5).choose(region(), candidates, lambda: WIDE)
    assert known == again == pytest.approx(tiny.reference(WIDE[0:90, 0:125][:, :], "a dog"), abs=NEAR)
    assert nothing == -1
    chooser = chooser_for(tiny.specialist)
    assert chooser.choose(region(box=(500, 0, 600, 90)), candidates, lambda: WIDE) == [0, 0, 0]
    assert chooser.choose(region(), [], lambda: WIDE) == []


def test_rounds_are_merged_with_it(tiny: Any) -> None:
    """Of what ends in the same word the category would be the first by words."""
    item = Item(b"0" * 16, "x", width=WIDE.shape[1], height=WIDE.shape[0])
    phrases_in: Callable[[str], Any] = tiny.specialist._parser.phrases_in
    for texts in (["a dog", "a zebra"], ["a zebra", "a dog"]):
        before = Record(item).append([region(), *(said(n, text) for n, text in enumerate(texts))])
        after = replace(before, round=1).append([region(1, (100, 60, 130, 85), source="model")])
        rules = Rules(chooser=chooser_for(tiny.specialist))
        merged = merge(Case(after, before, frozenset({"model"})), rules, phrases_in, lambda: WIDE)
        cosines = {text: tiny.reference(WIDE[10:64, 20:90], text) for text in (*texts, "dog")}
        best = max(texts, key=cosines.__getitem__)
        assert cosines[best] > cosines["dog"]
        assert [text.text for text in merged.standing.region_texts] == [best]
        (chosen,) = [decision for decision in merged.decisions if decision.reason == "chosen"]
        assert chosen.value == pytest.approx(cosines[best], abs=NEAR)


# Parameters and files


def test_it_is_built_like_any_other_and_packed_before_it_is_set_up(tiny: Any) -> None:
    asked = {"model": str(tiny.folder), "kinds": ["object", "proposal"], "margin": 0.1}
    specialist = build("specialists", "contrastive", asked, Vocabulary())
    assert isinstance(specialist, Contrastive)
    assert describe(specialist)["kinds"] == ["object", "proposal"]
    for part in (specialist, ContrastiveChooser(model=str(tiny.folder))):
        copy = pickle.loads(pickle.dumps(part))
        assert copy == part
        assert copy.version == part.version
    copy.setup()
    assert copy.choose(region(), [Candidate("dog", "category", "r0")], lambda: WIDE) != [0]


def test_versions_and_licences(tiny: Any, tmp_path: Path) -> None:
    versions = [
        part(model=str(folder)).version
        for folder in (tiny.folder, clip(tmp_path))
        for part in (Contrastive, ContrastiveChooser)
    ]
    assert len(set(versions)) == 4
    assert Contrastive().licence == ContrastiveChooser().licence == "Apache-2.0"
    assert Contrastive(model="openai/clip-vit-large-patch14").licence == "MIT"
    assert tiny.specialist.licence == "not stated"


@pytest.mark.parametrize(
    ("maker", "message"),
    [
        (chinese_clip, "of the family chinese_clip; expected one of clip, siglip, siglip2"),
        (rt_detr_v2, "of the family rt_detr_v2; expected one of clip, siglip, siglip2"),
    ],
)
def test_another_kind_of_model(maker: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Contrastive(model=str(maker(tmp_path))).setup()


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="there the tokenizer works")
def test_a_tokenizer_that_needs_another_package(tmp_path: Path) -> None:
    folder = siglip(tmp_path)
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace("GemmaTokenizer", "SiglipTokenizer"))
    with pytest.raises(ConfigError, match=r"(?i)sentencepiece"):
        Contrastive(model=str(folder)).setup()


def test_crops_have_exclusive_edges_and_nothing_outside() -> None:
    y, x = np.indices((90, 140))
    image = np.dstack([x, y, x]).astype(np.uint8)
    cut = crop(image, (20, 10, 90, 64))
    assert (cut.shape, cut[0, 0].tolist(), cut[-1, -1].tolist()) == ((54, 70, 3), [20, 10, 20], [89, 63, 89])
    assert crop(image, (-1e30, -1e30, 1e30, 1e30), 1.0).shape == image.shape
    assert crop(image, (500, 500, 600, 600)).size == crop(image, (5, 5, 5, 50)).size == 0
