"""Masks to outlines: on the pixels' edges, within the limits, and true to the mask by a measure of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from florence2.errors import Florence2Error
from florence2.polygons import Ring, box_of, rings_of
from florence2.scene import Mask, Placement

Pixels = npt.NDArray[np.uint8]
FINE = 4  # samples a pixel's side


def mask_of(pixels: Pixels, placement: Placement = Placement()) -> Mask:  # noqa: B008
    counts = coco.encode(np.asfortranarray(pixels))["counts"]
    return Mask((pixels.shape[0], pixels.shape[1]), counts, placement)


def filled(shape: tuple[int, int], *boxes: tuple[int, int, int, int, int]) -> Pixels:
    """Boxes x0, y0, x1, y1 painted one over the other, each with a value."""
    pixels = np.zeros(shape, np.uint8)
    for x0, y0, x1, y1, value in boxes:
        pixels[y0:y1, x0:x1] = value
    return pixels


def inside(rings: Sequence[Ring], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which samples of a fine grid over the pixels any ring goes around, by counting the edges to their left."""
    y, x = (np.mgrid[: shape[0] * FINE, : shape[1] * FINE] + 0.5) / FINE
    found = np.zeros(x.shape, bool)
    for ring in rings:
        odd = np.zeros(x.shape, bool)
        points = np.reshape(ring, (-1, 2))
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            crosses = (y0 > y) != (y1 > y)
            odd ^= crosses & (x0 + (y - y0) / ((y1 - y0) or 1) * (x1 - x0) < x)
        found |= odd
    return found


def measured(rings: Sequence[Ring], pixels: Pixels) -> float:
    ours, exact = inside(rings, pixels.shape), pixels.repeat(FINE, 0).repeat(FINE, 1).astype(bool)
    return float((ours & exact).sum() / (ours | exact).sum())


def turn(ring: Ring) -> float:
    """Twice the area; above 0 for clockwise, where y goes down."""
    points = np.reshape(ring, (-1, 2))
    x, y = points.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


@st.composite
def masks(draw: st.DrawFn) -> Pixels:
    """Parts with holes, and now and then salt and pepper."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    pixels = np.zeros((height, width), np.uint8)
    for value in draw(st.lists(st.sampled_from([1, 1, 0]), min_size=1, max_size=6)):
        x0, x1 = sorted(draw(st.tuples(st.integers(0, width), st.integers(0, width))))
        y0, y1 = sorted(draw(st.tuples(st.integers(0, height), st.integers(0, height))))
        if draw(st.booleans()):
            pixels[y0:y1, x0:x1] = value
        else:
            y, x = np.mgrid[:height, :width]
            pixels[np.hypot((x - x0) / (x1 - x0 + 1), (y - y0) / (y1 - y0 + 1)) < 1] = value
    if draw(st.integers(0, 4)) == 0:
        pixels ^= (np.random.default_rng(draw(st.integers(0, 99))).random((height, width)) < 0.2).astype(np.uint8)
    return pixels


def test_a_rectangle_gives_its_own_corners() -> None:
    mask = mask_of(filled((100, 200), (30, 20, 90, 60, 1)))
    assert rings_of(mask, (200, 100)) == ((30, 20, 90, 20, 90, 60, 30, 60),)
    assert box_of(mask, (200, 100)) == (30, 20, 90, 60)


def test_one_pixel_and_all_of_them() -> None:
    assert rings_of(mask_of(filled((3, 3), (1, 1, 2, 2, 1))), (3, 3)) == ((1, 1, 2, 1, 2, 2, 1, 2),)
    assert rings_of(mask_of(np.ones((3, 5), np.uint8)), (5, 3)) == ((0, 0, 5, 0, 5, 3, 0, 3),)


@given(masks(), st.sampled_from([(64, 400, 0.01, 0.9), (8, 30, 0.05, 0.8), (64, 400, 0, 0)]))
@settings(max_examples=80, deadline=None)
def test_what_is_given_keeps_the_limits(pixels: Pixels, limits: tuple[int, int, float, float]) -> None:
    most, locs, least, iou = limits
    height, width = pixels.shape
    rings = rings_of(mask_of(pixels), (width, height), max_vertices=most, max_locs=locs, min_ring=least, min_iou=iou)
    if rings is None:
        return
    assert measured(rings, pixels) >= iou - 0.03  # of the samples: a slanted edge cuts 1/16 of a pixel at a time
    assert all(6 <= len(ring) <= 2 * most for ring in rings) and sum(map(len, rings)) <= locs
    areas = list(map(turn, rings))
    for ring, area in zip(rings, areas, strict=True):
        x, y = ring[0::2], ring[1::2]
        assert x[0] + y[0] == min(a + b for a, b in zip(x, y, strict=True)) and area > 0
        assert min(x) >= 0 and max(x) <= width and min(y) >= 0 and max(y) <= height


@given(masks())
@settings(max_examples=40, deadline=None)
def test_the_only_reasons_for_none(pixels: Pixels) -> None:
    """With room for every corner and no part too small, only holes lower the IoU."""
    height, width = pixels.shape
    limits = {"max_vertices": 10**6, "max_locs": 10**7}
    rings = rings_of(mask_of(pixels), (width, height), **limits, min_ring=0, min_iou=0)
    assert (rings is None) == (not pixels.any())
    if rings is not None:
        high = rings_of(mask_of(pixels), (width, height), **limits, min_ring=0, min_iou=1 - 1e-9)
        without_holes = pixels.repeat(FINE, 0).repeat(FINE, 1).astype(bool)
        if high is not None:
            assert (inside(high, pixels.shape) == without_holes).all()


def test_holes_and_parts() -> None:
    size = (40, 40)
    ring = filled(size, (5, 5, 35, 35, 1), (18, 18, 22, 22, 0))
    assert rings_of(mask_of(ring), size) == ((5, 5, 35, 5, 35, 35, 5, 35),)  # 16 of 900 px are the hole
    assert rings_of(mask_of(filled(size, (5, 5, 35, 35, 1), (10, 10, 30, 30, 0))), size) is None
    parts = filled(size, (0, 0, 5, 5, 1), (10, 10, 30, 30, 1), (38, 38, 40, 39, 1))  # 2 of 427 px
    assert rings_of(mask_of(parts), size) == ((10, 10, 30, 10, 30, 30, 10, 30), (0, 0, 5, 0, 5, 5, 0, 5))
    touching = filled(size, (0, 0, 10, 10, 1), (10, 10, 20, 20, 1))
    assert rings_of(mask_of(touching), size) == ((0, 0, 10, 0, 10, 10, 20, 10, 20, 20, 10, 20, 10, 10, 0, 10),)
    island = filled(size, (0, 0, 40, 40, 1), (20, 20, 30, 30, 0), (23, 23, 27, 27, 1))  # 84 of 1600 px are the hole
    assert rings_of(mask_of(island), size) == ((0, 0, 40, 0, 40, 40, 0, 40),)
    assert rings_of(mask_of(np.zeros(size, np.uint8)), size) is box_of(mask_of(np.zeros(size, np.uint8)), size) is None


def test_noise_is_no_outline_and_takes_no_time() -> None:
    """A few hundred thousand edges: what overlays polygons takes minutes."""
    noise = (np.random.default_rng(0).random((480, 640)) < 0.5).astype(np.uint8)
    assert rings_of(mask_of(noise), (640, 480)) is None


def test_a_disc_needs_few_vertices() -> None:
    y, x = np.mgrid[:200, :200]
    pixels = (np.hypot(x - 100, y - 100) < 75).astype(np.uint8)
    (ring,) = rings_of(mask_of(pixels), (200, 200)) or ()
    assert len(ring) // 2 <= 64 and measured([ring], pixels) > 0.98


def test_placement_flips_scales_and_clips() -> None:
    pixels = filled((100, 200), (30, 20, 90, 60, 1), (30, 20, 50, 30, 0))
    mirrored = mask_of(pixels, Placement(-1, 200, 1, 0))
    assert rings_of(mirrored, (200, 100)) == ((110, 20, 150, 20, 150, 30, 170, 30, 170, 60, 110, 60),)
    assert box_of(mirrored, (200, 100)) == (110, 20, 170, 60)
    cropped = mask_of(pixels, Placement(2, -100, 2, -60))  # 2 x as large, its 50 x 50 px from (50, 30) on
    assert rings_of(cropped, (50, 50)) == ((0, 0, 50, 0, 50, 50, 0, 50),)
    assert box_of(cropped, (50, 50)) == (0, 0, 50, 50)
    away = mask_of(pixels, Placement(1, 500, 1, 0))
    assert rings_of(away, (200, 100)) is box_of(away, (200, 100)) is None


@pytest.mark.parametrize("counts", [b"", b"0", b"\xff\xff", b"99999", b"o" * 50])
def test_counts_that_are_none(counts: bytes) -> None:
    with pytest.raises(Florence2Error, match="COCO run lengths"):
        rings_of(Mask((10, 10), counts), (10, 10))
