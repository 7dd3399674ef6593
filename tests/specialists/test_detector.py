"""NanoDet on real photos."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.geometry import iou
from engine.images import decode
from engine.protocols import Image, Sample
from engine.records import Item, Record, Region
from engine.vocabulary import ClassEntry, Vocabulary
from specialists.detector import CLASSES, NanoDet

# Measured by hand: the cup, the cup with its saucer, four coins.
CUP = (173.0, 18.0, 405.0, 308.0)
CUP_AND_SAUCER = (77.0, 18.0, 480.0, 390.0)
COINS = [(81.0, 39.0, 121.0, 75.0), (21.0, 35.0, 68.0, 76.0), (254.0, 34.0, 298.0, 73.0), (316.0, 104.0, 357.0, 145.0)]


@pytest.fixture(scope="module")
def detector() -> NanoDet:
    detector = NanoDet()
    detector.setup()
    return detector


@pytest.fixture
def photo(photos: Path) -> Callable[[str], Image]:
    return lambda name: decode((photos / name).read_bytes(), max_pixels=10**7)


def found(detector: NanoDet, *images: Image) -> list[list[Region]]:
    samples = [
        Sample(image, Record(Item(b"0" * 16, "x", width=image.shape[1], height=image.shape[0]))) for image in images
    ]
    return detector.annotate(samples)


@pytest.mark.parametrize(
    ("name", "label", "score"),
    [("coffee.png", "cup", 0.5), ("chelsea.png", "cat", 0.35), ("motorcycle_left.png", "motorcycle", 0.7)],
)
def test_things_are_found(
    detector: NanoDet, photo: Callable[[str], Image], name: str, label: str, score: float
) -> None:
    (regions,) = found(detector, photo(name))
    scores = [region.scores.label for region in regions if region.label == label]
    assert max(filter(None, scores), default=0) >= score


def test_the_cup_is_where_it_is(detector: NanoDet, photo: Callable[[str], Image]) -> None:
    (regions,) = found(detector, photo("coffee.png"))
    cups = [region.box for region in regions if region.label == "cup"]
    assert max(iou(box, CUP) for box in cups) > 0.6
    assert max(iou(box, CUP_AND_SAUCER) for box in cups) > 0.8


def test_boxes_are_exact(detector: NanoDet, photo: Callable[[str], Image]) -> None:
    """Half a cell off in the head's geometry, and the IoU on the coins is 0.76."""
    (regions,) = found(detector, photo("coins.png"))
    proposals = [region for region in regions if region.kind == "proposal"]
    assert np.mean([max(iou(coin, proposal.box) for proposal in proposals) for coin in COINS]) > 0.88


def test_objects_have_label_scores_and_proposals_box_scores(detector: NanoDet, photo: Callable[[str], Image]) -> None:
    (regions,) = found(detector, photo("camera.png"))
    assert {region.kind for region in regions} == {"object", "proposal"}
    for region in regions:
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 <= x1 <= 512
        assert 0 <= y0 <= y1 <= 512
        if region.kind == "object":
            assert region.raw_label in CLASSES
            assert region.scores.label is not None
            assert 0.2 <= region.scores.label <= 1
            assert region.scores.box is None
        else:
            assert (region.label, region.raw_label, region.scores.label) == (None, None, None)
            assert region.scores.box is not None
            assert 0.1 <= region.scores.box <= 1
    for kind in ("object", "proposal"):
        scores = [region.scores.label or region.scores.box or 0 for region in regions if region.kind == kind]
        assert scores == sorted(scores, reverse=True)
    assert len({region.id for region in regions}) == len(regions)


def test_limits_and_thresholds_hold(photo: Callable[[str], Image]) -> None:
    detector = NanoDet(min_score=0.25, max_objects=3, min_proposal_score=0.15, max_proposals=2)
    detector.setup()
    (regions,) = found(detector, photo("motorcycle_left.png"))
    assert [region.kind for region in regions] == ["object"] * 3 + ["proposal"] * 2
    assert min(region.scores.label for region in regions if region.scores.label is not None) >= 0.25


def test_labels_are_the_vocabularys(photo: Callable[[str], Image]) -> None:
    detector = NanoDet(vocabulary=Vocabulary(classes={"motorbike": ClassEntry(synonyms=("motorcycle",))}))
    detector.setup()
    (regions,) = found(detector, photo("motorcycle_left.png"))
    assert (regions[0].label, regions[0].raw_label) == ("motorbike", "motorcycle")


def test_answers_do_not_depend_on_the_batch_or_the_process(detector: NanoDet, photo: Callable[[str], Image]) -> None:
    images = [photo("coffee.png"), photo("astronaut.png")]
    copy = pickle.loads(pickle.dumps(NanoDet()))
    copy.setup()
    assert found(detector, *images) == [found(copy, image)[0] for image in images]
    assert copy.version == detector.version


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (200, 20_000), (500, 500)])
def test_any_size_and_nothing_to_see(detector: NanoDet, size: tuple[int, int]) -> None:
    (regions,) = found(detector, np.full((*size, 3), 127, dtype=np.uint8))
    for region in regions:
        assert region.box[2] <= size[1]
        assert region.box[3] <= size[0]
