"""What comes along with images, good and bad: taken, clipped or turned down, and never without a word."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco
from strategies import items, run_lengths

from engine.entry import Given, GivenRegion, GivenRegionText, GivenText
from engine.geometry import decode_mask, mask_area
from engine.given import canonical, detail_of, take
from engine.records import Box, Item, ItemError, Region, RegionText
from engine.schema import given_to_table, items_to_table, records_from_tables
from engine.vocabulary import ClassEntry, Vocabulary

ITEM = Item(Item.id_of("a.jpg"), "a.jpg", width=40, height=30)
BOX = (2.0, 3.0, 12.0, 13.0)


def kinds(*some: Given, item: Item = ITEM) -> list[str]:
    return [fault.kind for fault in take(item, some)[1]]


def region(*some: Given) -> Region:
    (region,) = take(ITEM, some)[0].regions
    return region


def masked(segmentation: Any) -> GivenRegion:
    return GivenRegion("cat", BOX, segmentation=segmentation, where="annotation 17 of a.json")


def pixels(segmentation: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    record, faults = take(ITEM, [masked(segmentation)])
    assert not faults
    (mask,) = record.masks
    assert (mask.region_id, mask.size) == (record.regions[0].id, (30, 40))
    return decode_mask(mask)


# Boxes


def test_an_object_with_all_that_it_may_have() -> None:
    ring = [2, 3, 12, 3, 12, 13, 2, 13]
    some = GivenRegion(" cat ", BOX, size=(30, 40), segmentation=[ring], description="a cat\ud800\n", crowd=True)
    record, faults = take(ITEM, [some, GivenRegion(None, (0, 0, 40, 30))])
    assert not faults
    assert record.regions == (
        Region(id="0.human.0", source="human", kind="object", box=BOX, raw_label="cat", crowd=True),
        Region(id="0.human.3", source="human", kind="object", box=(0, 0, 40, 30)),
    )
    assert record.region_texts == (RegionText(id="0.human.1", source="human", region_id="0.human.0", text="a cat?"),)
    assert [mask.id for mask in record.masks] == ["0.human.2"]


def test_texts_that_are_too_long_are_left_out() -> None:
    name, text = "x" * 1000, "x" * 2**17
    some = GivenRegion(name, BOX, description=text, key=("a", "1"))
    record, faults = take(ITEM, [some, GivenRegionText(("a", "1"), text), GivenText(text)])
    assert not faults
    assert record.regions[0].raw_label == name and len(record.region_texts) == 2 and len(record.texts) == 1
    more = GivenRegion(name + "x", BOX, description=text + "x", where="line 3")
    line = GivenRegion(None, BOX, text=text + "x")
    record, faults = take(ITEM, [some, more, line, GivenRegionText(("a", "1"), text + "x"), GivenText(text + "x")])
    assert [fault.kind for fault in faults] == ["too_long"] * 5
    assert [region.raw_label for region in record.regions] == [name, None]
    assert len(record.region_texts) == 1 and not record.texts
    assert faults[0].message == "a text of 1,001 characters, more than 1,000; its region stays, without it"
    assert faults[4].message == "a text of 131,073 characters, more than 131,072; it was left out"


@pytest.mark.parametrize(
    ("box", "expected", "faults"),
    [
        ((-0.6, 0, 40.9, 30), (0, 0, 40, 30), []),  # rounding
        ((-5, -5, 10, 50), (0, 0, 10, 30), ["box_clipped"]),
        ((-1e308, -1e308, 1e308, 1e308), (0, 0, 40, 30), ["box_clipped"]),
        ((40, 0, 50, 30), None, ["box_outside"]),
        ((-10, -10, 0, 0), None, ["box_outside"]),
        ((5, 5, 5, 9), None, ["bad_box"]),
        ((9, 5, 5, 9), None, ["bad_box"]),
        ((math.nan, 0, 9, 9), None, ["bad_box"]),
        ((0, 0, math.inf, 9), None, ["bad_box"]),
        ((0, 0, 10**400, 9), None, ["bad_box"]),
        ((0, 0, 10**5000, 9), None, ["bad_box"]),
        ((0, 0, "9", 9), None, ["bad_box"]),
        ((0, 0, 9), None, ["bad_box"]),
    ],
)
def test_boxes(box: Any, expected: Box | None, faults: list[str]) -> None:
    record, found = take(ITEM, [GivenRegion("cat", box)])
    assert [region.box for region in record.regions] == ([expected] if expected else [])
    assert [fault.kind for fault in found] == faults


def test_boxes_in_fractions_of_the_image() -> None:
    assert region(GivenRegion("cat", (0.25, 0.5, 0.5, 1.0), relative=True)).box == (10, 15, 20, 30)
    assert kinds(GivenRegion("cat", (0.25, 0.5, 0.5, 1.2), relative=True)) == ["box_clipped"]
    assert kinds(GivenRegion("cat", (1e308, 0, 1.5e308, 1), relative=True)) == ["bad_box"]


def test_boxes_of_another_image_than_this_one() -> None:
    _, (fault,) = take(ITEM, [GivenRegion("cat", BOX, size=(60, 80), where="annotation 3 of a.json")])
    assert (fault.kind, fault.where) == ("image_size", "annotation 3 of a.json")
    assert fault.message == "it is for an image of 80 x 60, and this one has 40 x 30; it was left out"


# Masks


@pytest.mark.parametrize(
    "rings",
    [
        [[2, 3, 12, 3, 12, 13, 2, 13]],
        [[2.5, 3.25, 30.75, 5.5, 17.1, 28.9]],
        [[0, 0, 40, 0, 40, 30, 0, 30]],
        [[1, 1, 9, 1, 9, 9], [20, 20, 35, 20, 35, 28, 20, 28]],
        [[1, 1, 20, 1, 20, 20], [5, 1, 30, 1, 30, 20]],  # overlapping
        [[-7.5, -3, 50, 12, 3, 40]],  # a little outside
        [[20, 0, 40, 15, 20, 30, 20, 10, 0, 15]],  # not convex
        [[5, 5, 30, 25, 30, 5, 5, 25]],  # crosses itself
    ],
)
def test_polygons_are_the_masks_that_pycocotools_makes(rings: list[list[float]]) -> None:
    expected = coco.decode(coco.merge(coco.frPyObjects(rings, 30, 40)))
    assert np.array_equal(pixels(rings), expected != 0)


def test_rings_without_area_add_nothing() -> None:
    whole = [2, 3, 12, 3, 12, 13, 2, 13]
    assert np.array_equal(pixels([[1, 1, 5, 5], whole, [], [3, 3]]), pixels([whole]))


@pytest.mark.parametrize("far", [1e3, 1e6, 1e12])
def test_polygons_that_reach_far_outside_are_cut_not_bent(far: float) -> None:
    """A band across the image, a wedge of one side, and a rectangle far larger than it."""
    rows, columns = np.mgrid[0:30, 0:40]
    assert np.array_equal(pixels([[-far, 10, far, 10, far, 20, -far, 20]]), (rows >= 10) & (rows < 20))
    half = pixels([[-far, -far, far, far, -far, far]])  # below the diagonal
    assert half[rows > columns + 1].all() and not half[rows < columns - 1].any()
    assert pixels([[-far, -far, far, -far, far, far, -far, far]]).all()


@pytest.mark.parametrize(
    "rings",
    [
        [[1e12, 1e12, 2e12, 1e12, 2e12, 2e12]],
        [[100, 100, 110, 100, 110, 110]],
        [[5, 5, 5, 5, 5, 5]],
        [],
        [[]],
        [[1, 1, 5, 5]],
        [[1, 1, 5, 5, 9]],
        [[1, 1, 5, 5, 9, math.nan]],
        [[1, 1, 5, 5, 9, 10**400]],
        [[1, 1, 5, 5, 9, "1"]],
        [1, 1, 5, 5, 9, 1],
        [{"x": 1}],
        [None],
        [[-100, 0, 100, 30] * 20_000],  # an outline of 4 million pixels
    ],
)
def test_polygons_that_are_no_masks(rings: Any) -> None:
    record, faults = take(ITEM, [masked(rings)])
    assert [fault.kind for fault in faults] == ["bad_mask"]
    assert faults[0].message.endswith("; its box stays, without a mask")
    assert len(record.regions) == 1 and not record.masks


def test_run_lengths_as_lists_and_strings() -> None:
    plain = np.zeros((30, 40), np.uint8)
    plain[3:13, 2:12] = 1
    compressed = coco.encode(np.asfortranarray(plain))
    flat = plain.T.reshape(-1)
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    runs = np.diff(edges).tolist()
    for counts in (
        compressed["counts"],
        compressed["counts"].decode(),
        runs,
        [*runs[:1], 0, 0, *runs[1:]],  # empty runs are allowed anywhere
        [*runs[:-1], runs[-1] - 5, 0, 5, 0],
    ):
        assert np.array_equal(pixels({"size": [30, 40], "counts": counts}), plain != 0)


@given(run_lengths((30, 40)))
def test_run_lengths_come_back_as_they_were(counts: bytes) -> None:
    record, faults = take(ITEM, [masked({"size": [30, 40], "counts": counts})])
    if coco.area({"size": [30, 40], "counts": counts}):
        assert not faults
        assert np.array_equal(decode_mask(record.masks[0]), coco.decode({"size": [30, 40], "counts": counts}))
        assert mask_area(record.masks[0]) == coco.area({"size": [30, 40], "counts": counts})
    else:
        assert [fault.kind for fault in faults] == ["bad_mask"]


WHOLE = coco.encode(np.asfortranarray(np.tri(30, 40, dtype=np.uint8)))["counts"]


@pytest.mark.parametrize(
    ("runs", "kind"),
    [
        ({"size": [40, 30], "counts": [1200]}, "mask_size"),
        ({"size": [30, 40, 1], "counts": [1200]}, "mask_size"),
        ({"size": "30x40", "counts": [1200]}, "mask_size"),
        ({"size": [10**5000, 1], "counts": [1200]}, "mask_size"),
        ({"counts": [1200]}, "mask_size"),
        ({}, "mask_size"),
        ({"size": [30, 40]}, "bad_mask"),
        ({"size": [30, 40], "counts": None}, "bad_mask"),
        ({"size": [30, 40], "counts": []}, "bad_mask"),
        ({"size": [30, 40], "counts": [1200]}, "bad_mask"),  # no pixel
        ({"size": [30, 40], "counts": [0, 1199]}, "bad_mask"),
        ({"size": [30, 40], "counts": [0, 1201]}, "bad_mask"),
        ({"size": [30, 40], "counts": [2000, -800]}, "bad_mask"),
        ({"size": [30, 40], "counts": [0, 2**64, -(2**64) + 1200]}, "bad_mask"),
        ({"size": [30, 40], "counts": [0, 1200.0]}, "bad_mask"),
        ({"size": [30, 40], "counts": ["0", "1200"]}, "bad_mask"),
        ({"size": [30, 40], "counts": ""}, "bad_mask"),
        ({"size": [30, 40], "counts": "no run lengths"}, "bad_mask"),
        ({"size": [30, 40], "counts": "☃"}, "bad_mask"),
        ({"size": [30, 40], "counts": "\ud800"}, "bad_mask"),
        ({"size": [30, 40], "counts": b"o" * 100_000}, "bad_mask"),  # a number that goes on and on
        *(({"size": [30, 40], "counts": WHOLE[:end]}, "bad_mask") for end in range(len(WHOLE))),
        ({"size": [30, 40], "counts": WHOLE + b"1"}, "bad_mask"),
        (3, "bad_mask"),
        ("1200", "bad_mask"),
    ],
)
def test_run_lengths_that_are_no_masks(runs: Any, kind: str) -> None:
    record, faults = take(ITEM, [masked(runs)])
    assert [(fault.kind, fault.where) for fault in faults] == [(kind, "annotation 17 of a.json")]
    assert len(record.regions) == 1 and not record.masks


def test_garbage_never_ends_the_process() -> None:
    """In a process of its own: pycocotools reads and writes where it shouldn't if it is given the like."""
    code = """if True:
        import random
        import numpy as np
        from engine.entry import GivenRegion
        from engine.geometry import decode_mask, encode_mask
        from engine.given import take
        from engine.records import Item
        item, noise, taken = Item(bytes(16), "a", width=7, height=5), random.Random(0), 0
        for n in range(10_000):
            counts = bytearray(encode_mask(np.array(noise.choices([False, False, True], k=35)).reshape(5, 7)))
            for _ in range(n % 3):
                counts[noise.randrange(len(counts)) :] = noise.choices(range(48, 112) if n % 4 else range(256), k=n % 5)
                counts = counts or bytearray(b"x")
            counts = bytes(counts)
            segmentation = {"size": [5, 7], "counts": counts}
            record, faults = take(item, [GivenRegion("a", (0, 0, 7, 5), segmentation=segmentation)])
            assert len(record.masks) + len(faults) == 1
            taken += sum(decode_mask(mask).sum() > 0 for mask in record.masks)
        print(taken)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 3_000 < int(done.stdout) < 10_000


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_masks_in_files_are_made_as_large_as_the_image(tmp_path: Path, mode: str) -> None:
    small = np.zeros((15, 20), np.uint8)
    small[5:10, 4:16] = 255
    Image.fromarray(small).convert(mode).save(tmp_path / "mask.png")
    assert np.array_equal(pixels(tmp_path / "mask.png"), np.kron(small != 0, np.ones((2, 2), bool)))


def test_files_that_are_no_masks(tmp_path: Path) -> None:
    Image.new("1", (20, 15)).save(tmp_path / "empty.png")
    Image.new("1", (5_000, 4_000)).save(tmp_path / "huge.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "huge.png").read_bytes()[:2000])
    (tmp_path / "folder.png").mkdir()
    found = {"empty": "bad_mask", "huge": "bad_mask", "text": "bad_mask", "cut": "bad_mask", "folder": "bad_mask"}
    for name, kind in (found | {"gone": "mask_missing"}).items():
        record, (fault,) = take(ITEM, [masked(tmp_path / f"{name}.png")])
        assert fault.kind == kind and f"{name}.png" in fault.message, fault
        assert len(record.regions) == 1 and not record.masks


# Texts


def test_texts() -> None:
    long = "a red cup " * 10_000
    record, faults = take(
        ITEM,
        [
            GivenText(" A cup.\n"),
            GivenText(long),
            GivenText("alt", "alt"),
            GivenText("\ud800 \0 café"),
            GivenText("写真"),
        ],
    )
    assert not faults
    assert [text.text for text in record.texts] == ["A cup.", long.strip(), "alt", "? \0 café", "写真"]
    assert [text.id for text in record.texts] == ["0.human.0", "0.human.1", "0.alt.0", "0.human.2", "0.human.3"]
    assert [text.detail for text in record.texts[:2]] == ["brief", "more_detailed"]
    for nothing in ("", " \n\t", None):
        assert kinds(GivenText(nothing)) == ["empty_text"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "detail"), [(1, "brief"), (16, "brief"), (17, "detailed"), (47, "detailed"), (48, "more_detailed")]
)
def test_granularity_by_length(words: int, detail: str) -> None:
    assert detail_of("word " * words) == detail


# All of it


def test_nothing_is_taken_for_an_image_that_can_not_be_read() -> None:
    gone = Item(Item.id_of("b.jpg"), "b.jpg", error=ItemError("ingest", "missing", "no such file"))
    record, faults = take(gone, [GivenText("a cup"), GivenRegion("cup", BOX)])
    assert not record.by_id
    assert [fault.kind for fault in faults] == ["unread_image"] * 2


def test_the_words_of_the_vocabulary() -> None:
    vocabulary = Vocabulary(classes={"couch": ClassEntry(synonyms=("sofa",))})
    record, _ = take(ITEM, [GivenRegion("Sofa", BOX), GivenRegion(None, BOX)])
    assert [(r.raw_label, r.label) for r in canonical(record, vocabulary).regions] == [("Sofa", "couch"), (None, None)]


def test_thousands_of_objects_in_one_image() -> None:
    noise = random.Random(0)
    boxes = [(x, y, x + 5, y + 5) for x, y in ((noise.random() * 30, noise.random() * 20) for _ in range(3_000))]
    record, faults = take(ITEM, [GivenRegion("person", box, description="a person") for box in boxes])
    assert len(record.by_id) == 6_000 and not faults


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)
coordinates = st.floats() | st.integers() | st.floats(-50, 100)
some_text = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates, too
segmentations = st.one_of(
    st.none(),
    st.lists(st.lists(coordinates, max_size=10), max_size=3),
    st.fixed_dictionaries({"size": st.just([30, 40]) | anything, "counts": st.binary(max_size=12) | anything}),
    st.just(Path("/nowhere/mask.png")),
    anything,
)
everything = st.lists(
    st.builds(GivenText, some_text, st.sampled_from(["human", "alt"]), some_text)
    | st.builds(
        GivenRegion,
        label=st.none() | some_text,
        box=st.tuples(*[coordinates] * 4) | st.lists(anything, max_size=5).map(tuple),
        relative=st.booleans(),
        size=st.none() | st.just((30, 40)) | st.tuples(st.integers(), st.integers()),
        segmentation=segmentations,
        description=st.none() | some_text,
        crowd=st.booleans(),
        where=some_text,
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(items(), everything)
def test_whatever_is_given_what_is_not_taken_has_a_fault(item: Item, some: list[Given]) -> None:
    record, faults = take(item, some)
    table = given_to_table([(record, faults)])
    assert records_from_tables(items_to_table([item]), table.drop_columns(["faults"])) == [record]
    if item.error:
        assert not record.by_id and len(faults) == len(some)
        return
    texts = [one for one in some if isinstance(one, GivenText)]
    regions = [one for one in some if isinstance(one, GivenRegion)]
    left_out = sum(fault.message.endswith("it was left out") for fault in faults)
    without_mask = sum(fault.message.endswith("without a mask") for fault in faults)
    assert len(record.texts) + len(record.regions) + left_out == len(texts) + len(regions)
    masks = sum(one.segmentation is not None for one in regions)
    assert masks - left_out <= len(record.masks) + without_mask <= masks
    for mask in record.masks:
        assert decode_mask(mask).any()
    for region in record.regions:
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 <= x1 <= (item.width or 0) and 0 <= y0 <= y1 <= (item.height or 0)
