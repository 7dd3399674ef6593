from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco
from strategies import boxes

from engine.errors import RecordError
from engine.geometry import (
    MaskArray,
    area,
    clip,
    decode_mask,
    encode_mask,
    inside_fraction,
    iou,
    mask_area,
    quad_box,
)
from engine.records import Box, Mask

SIZE = 12
cells = boxes(st.integers(-4, SIZE + 4).map(float))
pictures = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20))


def pixels(box: Box) -> MaskArray:
    """The unit cells of a box with whole coordinates, on a canvas around the image: where area can be counted."""
    x0, y0, x1, y1 = (int(value) + 5 for value in box)
    canvas = np.zeros((SIZE + 10, SIZE + 10), bool)
    canvas[y0:y1, x0:x1] = True
    return canvas


def mask(size: tuple[int, int], counts: bytes) -> Mask:
    return Mask(id="0.s.0", source="s", region_id="0.d.0", size=size, counts=counts)


@given(cells, cells)
def test_area_and_iou_count_pixels(a: Box, b: Box) -> None:
    union = (pixels(a) | pixels(b)).sum()
    assert area(a) == pixels(a).sum()
    assert iou(a, b) == iou(b, a) == pytest.approx((pixels(a) & pixels(b)).sum() / union if union else 0)


@given(cells)
def test_what_is_inside_counts_pixels(box: Box) -> None:
    image = pixels((0, 0, SIZE, SIZE))
    assert (pixels(clip(box, SIZE, SIZE)) == (pixels(box) & image)).all()
    if area(box):
        assert inside_fraction(box, SIZE, SIZE) == pytest.approx((pixels(box) & image).sum() / pixels(box).sum())


@given(boxes(), st.floats(1, 5000), st.floats(1, 5000))
def test_clipped_is_inside(box: Box, width: float, height: float) -> None:
    x0, y0, x1, y1 = clipped = clip(box, width, height)
    assert 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height
    assert clip(clipped, width, height) == clipped
    assert 0 <= inside_fraction(box, width, height) <= 1 == inside_fraction(clipped, width, height)


@given(boxes())
def test_a_box_is_itself(box: Box) -> None:
    assert iou(box, box) == (1 if area(box) else 0)
    x0, y0, x1, y1 = box
    assert quad_box((x0, y0, x1, y0, x1, y1, x0, y1)) == box


@pytest.mark.parametrize(
    "box, inside",
    [((2, 3, 8, 3), 1), ((8, 3, 16, 3), 0.5), ((2, 20, 8, 20), 0), ((12, 12, 12, 12), 1), ((13, 5, 13, 5), 0)],
)
def test_inside_of_lines_and_points(box: Box, inside: float) -> None:
    assert inside_fraction(box, SIZE, SIZE) == inside


@given(pictures)
def test_masks_come_back(picture: MaskArray) -> None:
    made = mask(picture.shape, encode_mask(picture))
    assert (decode_mask(made) == picture).all()
    assert mask_area(made) == picture.sum()


@given(pictures, st.tuples(*[st.integers(0, 9)] * 4))
def test_counts_are_pycocotools_own(picture: MaskArray, margins: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = margins
    whole = np.pad(picture, ((top, bottom), (left, right)))
    expected = coco.encode(np.asfortranarray(whole, dtype=np.uint8))["counts"]
    assert encode_mask(picture, (left, top), whole.shape) == expected


def test_counts_are_cocos() -> None:
    """Column by column, as COCO has it: 3 zeros, 2 ones, 1 zero."""
    assert encode_mask(np.array([[0, 0, 1], [0, 1, 0]], bool)) == b"321"


@pytest.mark.parametrize("counts", [b"", b"3", b"321", b"abc", b"\x00\xff", encode_mask(np.ones((9, 9), bool))])
def test_counts_of_another_size_are_refused(counts: bytes) -> None:
    with pytest.raises(RecordError, match=r"mask 0\.s\.0: counts are no COCO run lengths of size \(4, 4\)"):
        decode_mask(mask((4, 4), counts))


@given(st.binary(max_size=40), st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_no_counts_harm_the_process(counts: bytes, size: tuple[int, int]) -> None:
    """pycocotools would write behind the image's memory."""
    try:
        pixels = decode_mask(mask(size, counts))
    except RecordError as error:
        assert "0.s.0" in str(error)
    else:
        assert pixels.shape == size and encode_mask(pixels) == counts


def test_counts_that_are_too_many_are_refused() -> None:
    counts = coco.encode(np.asfortranarray(np.ones((40, 40), np.uint8)))["counts"]
    for _ in range(100):  # as they come, this ends the process
        with pytest.raises(RecordError, match="do not fill it"):
            decode_mask(mask((4, 4), counts))
