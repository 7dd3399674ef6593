"""The Florence-2 specialist: what becomes of its answers, one region a thing, and honest opinions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memorised import memorised, saved, untrained

from engine.geometry import decode_mask, iou
from engine.protocols import Sample
from engine.records import AnyAnnotation, Decision, Item, Mask, Record, Scores
from engine.vocabulary import Vocabulary
from florence2 import Florence2, ask
from specialists.florence import Florence

WIDTH, HEIGHT = 100, 50
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
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    specialist = ready(folder, tasks=(*Florence().tasks, "REGION_TO_SEGMENTATION"))
    encoded: list[int] = []
    encode_image = Florence2.encode_image
    monkeypatch.setattr(Florence2, "encode_image", lambda m, x: encoded.append(len(x)) or encode_image(m, x))
    (record,) = said(specialist, sample())
    assert encoded == [1]
    assert [(text.detail, text.text) for text in record.texts] == [
        ("brief", CAPTION),
        ("detailed", "A red circle is beside a blue square."),
    ]
    disc, square, tree, empty, sign = record.regions
    assert (disc.kind, disc.label, disc.raw_label) == ("object", "disc", "circle")
    assert disc.box == pytest.approx(REGION, abs=0.1)
    assert (square.kind, square.label) == ("object", "square")
    assert [region.kind for region in (tree, empty, sign)] == ["proposal", "proposal", "text"]
    assert (sign.text, sign.quad and sign.quad[:3]) == ("STOP", pytest.approx((1.05, 0.525, 9.05)))
    assert {text.region_id: text.text for text in record.region_texts} == {
        disc.id: "small red circle",
        (tree if iou(tree.box, (5, 30, 20, 45)) > 0.9 else empty).id: "a tree",
    }
    named = [(record.texts[0].text[t.start : t.stop], t.region_ids) for t in record.triplets]
    assert named == [("a red circle", (disc.id,)), ("a blue square", (square.id,))], "a tree that no caption has"
    mask = record.masks[0]
    assert mask.region_id == disc.id
    assert decode_mask(mask).sum() == pytest.approx(30 * 15 / 2, rel=0.15)  # half of its box
    assert [a.id for a in record.annotations() if not isinstance(a, Mask)][:3] == [f"1.florence2.{n}" for n in range(3)]
    for annotation in record.annotations():
        assert all(s is None or 0 <= s <= 1 for s in vars_of(annotation.scores))
    assert disc.scores.label and disc.scores.label > 0.9
    assert tree.scores.label is None and tree.scores.box is not None


def vars_of(scores: Scores) -> list[float | None]:
    return [getattr(scores, name) for name in scores.__slots__]
