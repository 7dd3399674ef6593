"""Folding: a strip's page holds every pixel of it, and every point finds its way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialists.folding import GAP, fold

SIDE = 400


@settings(max_examples=60, deadline=None)
@given(short=st.integers(1, 90), more=st.integers(1, 3000), tall=st.booleans())
def test_pages_fit_and_points_come_back(short: int, more: int, tall: bool) -> None:
    long = short + more
    along = np.arange(long) % 251  # tells where along the strip a pixel is from
    strip = np.broadcast_to(along[None, :, None], (short, long, 3)).astype(np.uint8)
    page = fold(strip.transpose(1, 0, 2) if tall else strip, SIDE)
    assert max(page.pixels.shape[:2]) <= SIDE
    owned = np.zeros(long, dtype=int)
    unscaled = page.scale == (1.0, 1.0)
    for row in range(len(page.starts)):
        for x in range(page.length):
            point = np.array([[x + 0.5, row * (page.breadth + GAP) + page.breadth / 2]])
            point = point[:, ::-1] if page.tall else point
            back = page.unfolded(point, row)[0]
            at = back[1] if page.tall else back[0]
            if page.owner(point) == row:
                owned[min(int(at), long - 1)] += 1
            if unscaled:
                shown = page.pixels[int(point[0, 1]), int(point[0, 0]), 0]
                assert shown == along[int(at)]
    if unscaled:
        assert (owned == 1).all(), "every place along the strip has one owner"


def test_what_is_no_strip_is_left_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 300, 3), dtype=np.uint8)
    page = fold(image, SIDE)
    assert (page.pixels == image).all()
    assert page.starts == (0,)


def test_large_images_are_made_smaller() -> None:
    page = fold(np.zeros((1200, 2000, 3), dtype=np.uint8), SIDE)
    assert page.pixels.shape == (240, 400, 3)
    assert page.unfolded(np.array([[400.0, 240.0], [-3.0, 120.0]]), 0) == pytest.approx(
        np.array([[2000, 1200], [0, 600]])
    )


@pytest.mark.parametrize("size", [(200, 20_000), (20_000, 200), (8, 60_000), (1000, 30_000), (2, 3000)])
def test_extreme_strips_fit_on_a_page(size: tuple[int, int]) -> None:
    page = fold(np.zeros((*size, 3), dtype=np.uint8), 2000)
    assert max(page.pixels.shape[:2]) <= 2000
