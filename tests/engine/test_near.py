"""Near-duplicates: what looks the same has nearly the same hash, and no pair within the distance is missed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from engine import grouping, spill
from engine.grouping import groups
from engine.images import decode
from engine.layout import Output, ShardId
from engine.near import MAX_DISTANCE, perceptual_hash
from engine.records import Item, Record
from engine.storage import read_table, write_annotations
from engine.summary import group_near_duplicates

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
drawn_hashes = st.lists(
    st.tuples(st.sampled_from([0, 2**64 - 1, 0x0123456789ABCDEF]) | st.integers(0, 2**64 - 1), near), max_size=25
)


def flipped(drawn: list[tuple[int, list[int]]]) -> list[int]:
    hashes = []
    for value, bits in drawn:
        for bit in bits:
            value ^= 1 << bit
        hashes.append(value)
    return hashes


def members(hashes: list[int]) -> dict[int, int]:
    """Of each that is not alone, the first of its group."""
    leaders = by_all_pairs(hashes)
    return {row: leader for row, leader in enumerate(leaders) if leaders.count(leader) > 1}


def grouped(hashes: list[int], parts: int = 1, step: int = 1) -> dict[int, int]:
    """The same by `groups`; rows are `step` apart, as images without a hash are in between."""
    pieces = [
        (np.array(rows, dtype=np.int64) * step, np.array([hashes[row] for row in rows], dtype=np.uint64))
        for rows in np.array_split(np.arange(len(hashes)), parts)
    ]
    rows, first = groups(iter(pieces))
    assert not (rows % step).any() and not (first % step).any()
    return dict(zip((rows // step).tolist(), (first // step).tolist(), strict=True))


@given(drawn_hashes, st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_groups_are_those_of_all_pairs(drawn: list[tuple[int, list[int]]], parts: int, step: int) -> None:
    hashes = flipped(drawn)
    assert grouped(hashes, parts, step) == members(hashes)


@given(drawn_hashes, st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_groups_are_the_same_by_way_of_files(drawn: list[tuple[int, list[int]]], parts: int) -> None:
    hashes = flipped(drawn)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spill, "HELD", 3)
        patched.setattr(spill, "PIECE_ROWS", 2)
        assert grouped(hashes, parts) == members(hashes)


def test_so_many_that_share_two_bands_are_compared_with_the_next_ones_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hash, not as they come; chains make one group of them all the same."""
    monkeypatch.setattr(grouping, "MOST_TOGETHER", 2)
    ladder = [(1 << n) - 1 for n in range(40)]
    assert set(grouped(ladder[::-1]).values()) == {0}
    apart = [0, 0b1111111, 0b1]  # the last one is between the others by its size, and near both
    assert grouped(apart) == {0: 0, 1: 0, 2: 0}


@pytest.mark.parametrize("one", range(8))
@pytest.mark.parametrize("other", range(8))
def test_any_two_bands_that_are_shared_will_do(one: int, other: int) -> None:
    apart = sum(1 << 8 * band for band in range(8) if band not in (one, other))
    assert grouped([0, apart, 2**64 - 1]) == ({0: 0, 1: 0} if one != other else {})


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 400))
def test_long_chains_are_one_group(seed: int, length: int) -> None:
    generator = np.random.default_rng(seed)
    value, chain = int(generator.integers(0, 2**63)), []
    for _ in range(length):
        value ^= 1 << int(generator.integers(0, 64))
        chain.append(value)
    assert grouped(chain) == members(chain)


def test_a_set_is_grouped_across_shards(tmp_path: Path) -> None:
    """Images without a hash, blank or unread, are in between and in no group."""
    output, one = Output(tmp_path), 0x0123456789ABCDEF
    shards: list[list[int | None]] = [[one, None, 77 << 40], [None], [one ^ 1, 99 << 20], [77 << 40, one ^ 3, None]]
    ids = {}
    for number, hashes in enumerate(shards):
        records = []
        for row, value in enumerate(hashes):
            uri = f"{number} {row}"
            ids[number, row] = Item.id_of(uri)
            seen = None if value is None else value.to_bytes(8)
            records.append(Record(Item(Item.id_of(uri), uri), perceptual_hash=seen))
        write_annotations(output.round(0), ShardId(number // 2, number % 2), records, "digest")
    places = [ShardId(number // 2, number % 2) for number in range(4)]
    assert group_near_duplicates(output, 0, iter(places)) == {"groups": 2, "images": 5}
    table = read_table(output.round(0).near_duplicates)
    first, second = ids[0, 0], ids[0, 2]
    assert table.column("item_id").to_pylist() == [first, second, ids[2, 0], ids[3, 0], ids[3, 1]]
    assert table.column("group").to_pylist() == [first, second, first, second, first]
    assert group_near_duplicates(output, 0, [places[1]]) == {"groups": 0, "images": 0}
    assert read_table(output.round(0).near_duplicates).schema.names == ["item_id", "group"]
