"""GrabCut on real photos, and where it has nothing to say."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from engine.geometry import decode_mask
from engine.images import decode
from engine.protocols import Image, Sample
from engine.records import Box, Decision, Item, Kind, Mask, Record, Region, Scores
from specialists.segmenter import GrabCut

# Measured by hand.
SAUCER: Box = (77.0, 18.0, 480.0, 390.0)
CUP: Box = (173.0, 18.0, 405.0, 308.0)
COIN: Box = (80.0, 38.0, 122.0, 76.0)
SPOON: Box = (300.0, 200.0, 600.0, 400.0)  # and much else: what is cut out differs with how the clusters begin


def region(box: Box, number: int = 0, score: float | None = 0.9, kind: Kind = "object") -> Region:
    return Region(id=f"0.detector.{number}", source="detector", kind=kind, box=box, scores=Scores(label=score))


def sample(image: Image, *regions: Region) -> Sample:
    item = Item(b"0" * 16, "x", width=image.shape[1], height=image.shape[0])
    return Sample(image, Record(item).append(regions))


def masks(image: Image, *regions: Region, segmenter: GrabCut | None = None) -> list[Mask]:
    segmenter = segmenter or GrabCut()
    segmenter.setup()
    shown = sample(image, *regions)
    (found,) = segmenter.annotate([shown])
    shown.record.append(found)  # whose references the record checks
    return found


@pytest.fixture(scope="module")
def coffee(photos: Path) -> Image:
    return decode((photos / "coffee.png").read_bytes(), max_pixels=10**7)


def test_the_saucer_is_cut_out(coffee: Image) -> None:
    (mask,) = masks(coffee, region(SAUCER))
    pixels = decode_mask(mask)
    assert pixels.shape == coffee.shape[:2]
    y, x = np.indices(pixels.shape)
    ellipse = ((x - 278) / 201) ** 2 + ((y - 225) / 160) ** 2 < 1
    cup = ((x - 288) / 115) ** 2 + ((y - 110) / 92) ** 2 < 1
    thing = ellipse | cup
    assert (pixels & thing).sum() / (pixels | thing).sum() > 0.85
    x0, y0, x1, y1 = map(int, SAUCER)
    outside = pixels.copy()
    outside[y0:y1, x0:x1] = False
    assert not outside.any(), "the box is the prompt"


def test_the_rim_of_the_cup_is_in_its_mask(coffee: Image) -> None:
    """Its red body is not: that is the saucer's colour, which is background to this box."""
    (mask,) = masks(coffee, region(CUP))
    pixels = decode_mask(mask)
    x0, y0, x1, y1 = map(int, CUP)
    assert 0.4 < pixels[y0:y1, x0:x1].mean() < 0.7
    assert pixels[(y0 + y1) // 2, (x0 + x1) // 2]
    assert not pixels[[y0, y0, y1 - 1], [x0, x1 - 1, x0]].any()


def test_a_large_box_is_cut_smaller_and_a_small_one_is_not_enlarged(coffee: Image, photos: Path) -> None:
    whole = GrabCut(max_side=10_000)
    (small,), (large,) = masks(coffee, region(SAUCER)), masks(coffee, region(SAUCER), segmenter=whole)
    assert small.counts != large.counts
    a, b = decode_mask(small), decode_mask(large)
    assert (a & b).sum() / (a | b).sum() > 0.97
    assert a.sum() == pytest.approx(b.sum(), rel=0.01), "enlarging makes it no fatter"
    coins = decode((photos / "coins.png").read_bytes(), max_pixels=10**7)
    assert masks(coins, region(COIN)) == masks(coins, region(COIN), segmenter=whole)


def test_a_coin_is_round(photos: Path) -> None:
    coins = decode((photos / "coins.png").read_bytes(), max_pixels=10**7)
    (mask,) = masks(coins, region(COIN))
    x0, y0, x1, y1 = COIN
    assert decode_mask(mask).sum() == pytest.approx(np.pi / 4 * (x1 - x0) * (y1 - y0), rel=0.12)


def test_masks_say_whose_they_are_and_score_nothing(coffee: Image) -> None:
    first, second = masks(coffee, region(CUP, 0, 0.6), region(SAUCER, 1, 0.8))
    assert (first.region_id, second.region_id) == ("0.detector.1", "0.detector.0"), "the surest first"
    assert first.derived_from == ("0.detector.1",)
    assert first.scores == Scores()
    assert first.source == "segmenter"
    assert first.id != second.id


def test_who_gets_a_mask(coffee: Image) -> None:
    regions = [
        region(CUP, 0, 0.3),
        region(SAUCER, 1, 0.9),
        region(CUP, 2, 0.8, kind="proposal"),
        region(CUP, 3, 0.7),
        region(CUP, 4, None),
        region(CUP, 5, 0.35),
    ]
    assert [mask.region_id[-1] for mask in masks(coffee, *regions)] == ["4", "1", "3", "5"]
    assert [mask.region_id[-1] for mask in masks(coffee, *regions, segmenter=GrabCut(max_regions=1))] == ["4"]
    shown = sample(coffee, region(CUP))
    decision = Decision(annotation_id="0.detector.0", action="reject", by="score", reason="low")
    fallen = Sample(coffee, shown.record.decide([decision]))
    assert list(GrabCut().annotate([fallen])) == [[]]


NOISE = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
SCREEN = np.zeros((80, 120, 3), dtype=np.uint8)
SCREEN[20:60, 30:80] = NOISE[20:60, 30:80] // 2 + 128


@pytest.mark.parametrize(
    ("image", "box"),
    [
        (np.full((80, 120, 3), 90, dtype=np.uint8), (30, 20, 80, 60)),  # nothing to tell apart
        (NOISE, (0, 0, 120, 80)),  # no background
        (NOISE, (1, 1, 119, 79)),  # hardly any
        (SCREEN, (30, 20, 80, 60)),  # the box is the thing
        (NOISE, (130, 20, 150, 60)),  # outside
        (NOISE, (30, 20, 31, 60)),  # too thin
        (NOISE, (30.4, 20, 30.4, 20)),
        (np.zeros((1, 1, 3), dtype=np.uint8), (0, 0, 1, 1)),
        (np.zeros((3, 4000, 3), dtype=np.uint8), (100, 0, 3900, 3)),
        (np.zeros((10, 9000, 3), dtype=np.uint8), (100, 0, 8900, 10)),  # thinner than a pixel when it fits
    ],
)
def test_no_mask_is_invented(image: Image, box: Box) -> None:
    assert masks(image, region(box)) == []


def test_a_cat_that_fills_its_photo_gets_none(photos: Path) -> None:
    """The 2 % around the box are cat, too: cut by them, a third of it would be left."""
    cat = decode((photos / "chelsea.png").read_bytes(), max_pixels=10**7)
    assert masks(cat, region((2.0, 2.0, 449.0, 298.0))) == []


def test_a_pole_gets_none_when_too_thin_to_learn_from() -> None:
    y, x = np.indices((60, 2000))
    pole = np.where(((x - 1000) / 400) ** 2 + ((y - 30) / 8) ** 2 < 1, 220, 20).astype(np.uint8)
    image, box = np.dstack([pole] * 3), (250.0, 22.0, 1750.0, 39.0)
    assert masks(image, region(box)) == []
    assert len(masks(image, region(box), segmenter=GrabCut(max_side=2000))) == 1


def test_a_box_that_leaves_the_image_is_cut_where_it_is(coffee: Image) -> None:
    (mask,) = masks(coffee, region((-50.0, 100.0, 500.0, 450.0)))
    assert mask.size == coffee.shape[:2]
    assert decode_mask(mask)[:100].sum() == 0


def test_answers_do_not_depend_on_order_or_process(coffee: Image) -> None:
    """GrabCut begins with random clusters; they are the same ones each time."""
    copy = pickle.loads(pickle.dumps(GrabCut()))
    alone = masks(coffee, region(SPOON), segmenter=copy)[0]
    after_another = masks(coffee, region(SAUCER, 1, 0.95), region(SPOON))[1]
    assert alone.counts == after_another.counts
    assert copy.version == GrabCut().version
