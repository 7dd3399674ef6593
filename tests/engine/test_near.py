"""Near-duplicates: what looks the same has nearly the same hash, and no pair within the distance is missed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from engine.images import decode
from engine.near import MAX_DISTANCE, group, perceptual_hash

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "page.png", "rocket.jpg")


def distance(one: bytes | None, other: bytes | None) -> int:
    assert one is not None and other is not None
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def reworked(picture: Image.Image) -> dict[str, Image.Image]:
    """What people do to pictures."""
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=30)
    return {
        "half": picture.resize((picture.width // 2, picture.height // 2)),
        "thrice": picture.resize((picture.width * 3, picture.height * 3)),
        "squeezed": picture.resize((picture.width, picture.height * 3 // 4)),
        "jpeg": Image.open(jpeg).convert("RGB"),
        "brighter": ImageEnhance.Brightness(picture).enhance(1.15),
    }


def test_a_reworked_picture_is_near_and_another_is_not(photos: Path) -> None:
    pictures = {name: Image.fromarray(decode((photos / name).read_bytes(), max_pixels=10**8)) for name in NAMES}
    hashes = {name: perceptual_hash(np.asarray(picture)) for name, picture in pictures.items()}
    for name, picture in pictures.items():
        for how, other in reworked(picture).items():
            assert distance(hashes[name], perceptual_hash(np.asarray(other))) <= MAX_DISTANCE, (name, how)
        assert all(distance(hashes[name], hashes[other]) > MAX_DISTANCE for other in NAMES if other != name)


@pytest.mark.parametrize("shape", [(2, 2), (1, 900), (2000, 3), (40, 40)])
def test_any_size_has_a_hash(shape: tuple[int, int]) -> None:
    ramp = np.linspace(0, 255, shape[0] * shape[1]).reshape(*shape, 1).repeat(3, axis=2).astype(np.uint8)
    assert len(perceptual_hash(ramp) or b"") == 8


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_what_is_blank_has_none(colour: int) -> None:
    for shape in [(1, 1), (40, 40), (3000, 2)]:
        assert perceptual_hash(np.full((*shape, 3), colour, np.uint8)) is None


def by_all_pairs(hashes: list[int]) -> list[int]:
    """The first of each one's group, the slow way."""
    leader = list(range(len(hashes)))
    for one in range(len(hashes)):
        for other in range(one):
            if (hashes[one] ^ hashes[other]).bit_count() <= MAX_DISTANCE:
                low, high = sorted((leader[one], leader[other]))
                leader = [low if at == high else at for at in leader]
    return leader


near = st.lists(st.integers(0, 63), max_size=7)  # bits to flip


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 2**64 - 1, 0x0123456789ABCDEF]) | st.integers(0, 2**64 - 1), near), max_size=25
    )
)
@settings(max_examples=200, deadline=None)
def test_groups_are_those_of_all_pairs(drawn: list[tuple[int, list[int]]]) -> None:
    hashes = []
    for value, bits in drawn:
        for bit in bits:
            value ^= 1 << bit
        hashes.append(value)
    assert group(np.array(hashes, dtype=np.uint64)).tolist() == by_all_pairs(hashes)
