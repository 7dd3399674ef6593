"""Colours of patches that are what they are, and of photos that a person looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.geometry import encode_mask
from engine.images import decode
from engine.protocols import Image
from engine.records import Box, Mask, Region
from specialists.appearance import COLOURS, FEWEST, MOST, Tone, colour_around, colour_of, tone_of

WHOLE: Box = (0, 0, 60, 40)
# As a person would paint them, in the light and in the shade. Brown and black have no bright ones.
PATCHES = {
    "black": [(0, 0, 0), (25, 25, 25), (40, 40, 45), (10, 0, 0)],
    "white": [(255, 255, 255), (240, 240, 235), (220, 222, 225)],
    "grey": [(128, 128, 128), (70, 72, 75), (180, 180, 178)],
    "red": [(255, 0, 0), (200, 20, 20), (110, 10, 15), (180, 60, 60)],
    "orange": [(255, 140, 0), (250, 115, 5), (240, 150, 60)],
    "yellow": [(255, 255, 0), (240, 220, 40), (180, 165, 20), (255, 255, 150)],
    "green": [(0, 255, 0), (30, 140, 40), (10, 60, 15), (150, 230, 150), (85, 107, 47)],
    "blue": [(0, 0, 255), (30, 60, 200), (10, 20, 90), (135, 206, 235), (0, 128, 128)],
    "purple": [(128, 0, 128), (75, 0, 130), (60, 20, 80), (180, 120, 220)],
    "pink": [(255, 192, 203), (255, 105, 180), (230, 150, 170)],
    "brown": [(139, 69, 19), (101, 55, 0), (60, 35, 15), (160, 120, 80)],
}


def filled(colour: tuple[int, int, int], size: tuple[int, int] = (40, 60)) -> Image:
    return np.full((*size, 3), colour, np.uint8)


def region(box: Box = WHOLE) -> Region:
    return Region(id="0.a.0", source="a", kind="object", box=box)


def mask(pixels: np.ndarray) -> Mask:
    height, width = pixels.shape
    counts = encode_mask(pixels.astype(bool))
    return Mask(id="0.m.0", source="m", region_id="0.a.0", size=(height, width), counts=counts)


@pytest.mark.parametrize(("name", "rgb"), [(name, rgb) for name, some in PATCHES.items() for rgb in some])
def test_each_colour_in_light_and_shade(name: str, rgb: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(0).normal(0, 3, (40, 60, 3))
    image = np.clip(filled(rgb) + noise, 0, 255).astype(np.uint8)
    assert colour_of(image, region()) == name


def test_all_eleven_are_tested() -> None:
    assert set(PATCHES) == set(COLOURS)


def test_what_lies_outside_the_mask_does_not_count() -> None:
    image = filled((30, 140, 40))
    image[5:15, 20:25] = (200, 20, 20)
    inside = np.zeros((40, 60), bool)
    inside[5:15, 20:25] = True
    assert colour_of(image, region(), mask(inside)) == "red"
    assert colour_of(image, region(), mask(~inside)) == "green"
    assert colour_of(image, region()) == "green", "without a mask: the middle of the box"


def test_the_middle_half_of_the_box_inside_the_image() -> None:
    image = filled((128, 128, 128))
    image[10:30, 15:45] = (245, 130, 20)
    assert colour_of(image, region()) == "orange"
    image[:, :30], image[:, 30:] = (30, 60, 200), (245, 130, 20)
    assert colour_of(image, region((-500, 0, 29, 40))) == "blue", "clipped first"


def test_the_colour_around_a_box() -> None:
    image = filled((30, 140, 40))
    image[10:30, 15:45] = (200, 20, 20)
    thing = region((15, 10, 45, 30))
    assert (colour_of(image, thing), colour_around(image, thing)) == ("red", "green")
    assert colour_around(image, region()) is None, "there is nothing around it"
    assert colour_around(image, region((0, 0, 10, 40))) == "green", "at the edge"


def test_no_colour_where_none_dominates() -> None:
    stripes = filled((0, 0, 0))
    for n, rgb in enumerate([(200, 20, 20), (30, 60, 200), (30, 140, 40)]):
        stripes[n::3] = rgb
    assert colour_of(stripes, region()) is None
    stripes[1::3] = (200, 20, 20)
    assert colour_of(stripes, region()) == "red"


@pytest.mark.parametrize("box", [(5, 5, 5, 30), (100, 100, 200, 200), (-50, -50, -10, -10), (3, 3, 6, 6)])
def test_too_few_pixels_have_no_colour(box: Box) -> None:
    assert colour_of(filled((200, 20, 20)), region(box)) is None


def test_a_mask_of_few_pixels_or_none() -> None:
    pixels = np.zeros((40, 60), bool)
    assert colour_of(filled((200, 20, 20)), region(), mask(pixels)) is None
    pixels[3, : FEWEST - 1] = True
    assert colour_of(filled((200, 20, 20)), region(), mask(pixels)) is None
    pixels[3, :FEWEST] = True
    assert colour_of(filled((200, 20, 20)), region(), mask(pixels)) == "red"


def test_a_large_region_is_seen_through_a_grid() -> None:
    """Of a million pixels so many are taken that a thing of a hundredth of them would still be."""
    side = 1000
    image = filled((30, 140, 40), (side, side))
    image[::2] = (200, 20, 20)
    image[:550] = (30, 60, 200)
    assert side * side > MOST
    assert colour_of(image, region((0, 0, side, side)), mask(np.ones((side, side), bool))) == "blue"


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.floats(-100, 100)] * 4))
@settings(max_examples=50, deadline=None)
def test_any_pixels_have_a_colour_or_none(seed: int, corners: tuple[float, float, float, float]) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    (x0, x1), (y0, y1) = sorted(corners[:2]), sorted(corners[2:])
    assert colour_of(image, region((x0, y0, x1, y1))) in {*COLOURS, None}
    tone_of(image[:1, :1])


@pytest.mark.parametrize(
    ("rgb", "tone"),
    [
        ((5, 5, 5), Tone("dark", True, ("black",))),
        ((250, 250, 250), Tone("bright", True, ("white",))),
        ((120, 120, 120), Tone(None, True, ("grey",))),
        ((30, 140, 40), Tone(None, False, ("green",))),
        ((10, 20, 90), Tone("dark", False, ("blue",))),
    ],
)
def test_tones(rgb: tuple[int, int, int], tone: Tone) -> None:
    assert tone_of(filled(rgb)) == tone


def test_the_largest_colour_of_an_image_comes_first_and_small_ones_are_left_out() -> None:
    image = filled((30, 60, 200))
    image[:15], image[35:] = (245, 245, 245), (200, 20, 20)
    assert tone_of(image).colours == ("blue", "white")


@pytest.mark.parametrize(
    ("photo", "tone"),
    [
        ("camera.png", Tone(None, True, ("grey", "black"))),
        ("chelsea.png", Tone(None, False, ("brown",))),  # a ginger cat
        ("hubble_deep_field.jpg", Tone("dark", False, ("black",))),
        ("rocket.jpg", Tone("dark", False, ("blue",))),  # against the sky before dawn
    ],
)
def test_tones_of_photos(photos: Path, photo: str, tone: Tone) -> None:
    assert tone_of(decode((photos / photo).read_bytes(), max_pixels=10**7)) == tone


def test_colours_in_photos(photos: Path) -> None:
    coffee = decode((photos / "coffee.png").read_bytes(), max_pixels=10**7)
    astronaut = decode((photos / "astronaut.png").read_bytes(), max_pixels=10**7)
    assert colour_of(coffee, region((100, 250, 180, 310))) == "red", "the saucer"
    assert colour_of(coffee, region((480, 40, 600, 300))) == "brown", "the table"
    assert colour_of(astronaut, region((40, 340, 100, 500))) == "orange", "the suit"
    assert colour_of(astronaut, region((300, 380, 480, 500))) == "black", "the visor"
