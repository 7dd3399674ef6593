"""Detectors of the DETR family, each loaded from a tiny checkpoint on disk."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from tiny import detectors

from engine.geometry import iou
from engine.protocols import Image, Sample
from engine.records import Box, Item, Record, Region
from engine.vocabulary import ClassEntry, Vocabulary
from specialists.hub.detector import Detr, ranked

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = ((48, 70), (90, 41))  # height, width
VOCABULARY = Vocabulary(classes={"cat": ClassEntry(synonyms=("kitten",)), "bike": ClassEntry(synonyms=("Bicycle",))})


def picture(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sample(image: Image) -> Sample:
    return Sample(image, Record(Item(bytes(16), "x", width=image.shape[1], height=image.shape[0])))


@pytest.fixture(scope="module", params=detectors.FAMILY, ids=lambda make: make.__name__)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = request.param(tmp_path_factory.mktemp(request.param.__name__))
    return made


def detector(folder: Path, **parameters: float) -> Detr:
    """As a worker has it. With every box, unless told otherwise."""
    built = Detr(model=str(folder), vocabulary=VOCABULARY, **{"min_score": 0, "min_proposal_score": 0} | parameters)
    loaded: Detr = pickle.loads(pickle.dumps(built))
    loaded.setup()
    return loaded


def expected(model: Detr, image: Image) -> list[tuple[float, str, Box]]:
    """What the network says, by the formula of each family: of every class of every query score, name and box."""
    pixels = model._processor(images=Pillow.fromarray(image), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        outputs = model._model(pixel_values=pixels)
    softmax = type(model._model).__name__.startswith("Detr")
    logits = outputs.logits[0]
    probabilities = logits.softmax(-1)[:, :-1] if softmax else logits.sigmoid()
    height, width = image.shape[:2]
    found = []
    for query, (x, y, w, h) in zip(probabilities.tolist(), outputs.pred_boxes[0].tolist(), strict=True):
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        found += [(score, detectors.NAMES.get(n, ""), box) for n, score in enumerate(query)]
    return sorted(found, key=lambda one: -one[0])


@pytest.mark.parametrize("size", SIZES)
def test_boxes_and_scores_are_the_networks_in_pixels(folder: Path, size: tuple[int, int]) -> None:
    model, image = detector(folder, max_objects=8, max_proposals=0), picture(*size)
    [found] = model.annotate([sample(image)])
    named = [one for one in expected(model, image) if one[1] not in ("", "N/A")][: len(found)]
    assert len(found) == 8
    for region, (score, word, box) in zip(found, named, strict=True):
        assert (region.kind, region.raw_label) == ("object", word)
        assert region.box == pytest.approx(box, abs=0.02)
        assert region.scores.label == pytest.approx(score, abs=1e-5)
        assert region.label == {"cat": "cat", "dog": "dog", "bicycle": "bike"}[word]


def test_proposals_are_what_any_class_is_likely_in_and_no_two_of_one_thing(folder: Path) -> None:
    model, image = detector(folder, max_objects=0, iou=0.5), picture(48, 70)
    [found] = model.annotate([sample(image)])
    assert found
    assert all(region.kind == "proposal" and region.label is None and region.scores.label is None for region in found)
    best = expected(model, image)[0]
    assert found[0].box == pytest.approx(best[2], abs=0.02)
    assert found[0].score == pytest.approx(best[0], abs=1e-5)
    assert all(iou(a.box, b.box) <= 0.5 + 1e-6 for n, a in enumerate(found) for b in found[:n])


def test_thresholds(folder: Path) -> None:
    everything = detector(folder).annotate([sample(picture(48, 70))])[0]
    scores = sorted({r.scores.label for r in everything if r.scores.label is not None})
    middle = sum(scores[len(scores) // 2 - 1 :][:2]) / 2
    some = detector(folder, min_score=middle, max_proposals=0).annotate([sample(picture(48, 70))])[0]
    assert sorted({r.scores.label or 0 for r in some}) == [score for score in scores if score >= middle]
    assert 0 < len(some) < len(everything)
    assert detector(folder, min_score=1, min_proposal_score=1).annotate([sample(picture(48, 70))]) == [[]]


def test_an_image_alone_gives_what_it_gives_among_others(folder: Path) -> None:
    images = [
        picture(48, 70, 1),
        picture(90, 41, 2),
        picture(48, 70, 3),
        picture(1, 300),
        picture(300, 1),
        picture(1, 1),
    ]
    model = detector(folder)
    together = model.annotate([sample(image) for image in images])
    assert len(together) == len(images)
    for image, found in zip(images, together, strict=True):
        [alone] = model.annotate([sample(image)])
        assert close(alone, found)
        assert all(np.isfinite(region.box).all() for region in found)
    assert not close(together[0], together[2])
    assert model.annotate([]) == []


def close(some: list[Region], others: list[Region]) -> bool:
    """The same regions, but for the last bits of sums of another order."""
    return [(r.kind, r.label) for r in some] == [(r.kind, r.label) for r in others] and all(
        np.allclose([*a.box, a.score], [*b.box, b.score], rtol=1e-5, atol=1e-4)
        for a, b in zip(some, others, strict=True)
    )


def test_boxes_that_a_network_turns_over_are_turned_back_and_those_outside_are_none() -> None:
    found = {
        "scores": torch.tensor([0.1, 0.9, 0.5, 0.5, 0.3]),
        "labels": torch.tensor([0, 1, 2, 3, 4]),
        "boxes": torch.tensor([[1.0, 2, 3, 4], [9.0, 8, 5, 6], [2.0, 10, 4, 12], [-5.0, 0, 3, 3], [4.0, 4, 4, 8]]),
    }
    upright = ranked(found, picture(10, 20))
    assert upright["boxes"].tolist() == [[5, 6, 9, 8], [-5, 0, 3, 3], [1, 2, 3, 4]]
    assert upright["labels"].tolist() == [1, 3, 0]
