from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops
from strategies import records

from engine.draw import MAX_LONGER, MIN_LONGER, MIN_SHORTER, draw
from engine.geometry import encode_mask
from engine.records import Box, Decision, Item, Mask, Record, Region, Scores

PHOTO = np.full((300, 400, 3), 90, np.uint8)
EMPTY = Record(item=Item(item_id=Item.id_of("a.jpg"), uri="a.jpg", width=400, height=300))


def region(id: str, box: Box, label: str = "cup") -> Region:
    return Region(id=id, source="a", kind="object", box=box, label=label, scores=Scores(label=0.57))


def changed(picture: Image.Image, ground: Image.Image, box: Box) -> float:
    """The share of pixels that differ inside `box`, given in the photo's pixels."""
    scale = picture.width / PHOTO.shape[1]
    difference = ImageChops.difference(picture, ground).crop(tuple(round(value * scale) for value in box))
    return float((np.asarray(difference).max(axis=2) > 0).mean())


GROUND = draw(PHOTO, EMPTY)


def test_draws_nothing_over_an_empty_record() -> None:
    assert GROUND.size == (MIN_LONGER, 768)
    assert np.asarray(GROUND).min() == np.asarray(GROUND).max() == 90


def test_draws_box_and_tag_where_they_belong() -> None:
    picture = draw(PHOTO, EMPTY.append([region("0.a.0", (100, 100, 200, 200))]))
    assert changed(picture, GROUND, (101, 99.6, 199, 100.4)) == 1  # the upper edge
    assert changed(picture, GROUND, (110, 110, 190, 190)) == 0  # inside
    assert changed(picture, GROUND, (100, 90, 130, 98)) == 1  # the tag above it
    assert changed(picture, GROUND, (210, 0, 400, 300)) == 0


def test_fills_masks_exactly() -> None:
    pixels = np.zeros((300, 400), bool)
    pixels[120:180, 120:180] = True
    mask = Mask(id="0.s.0", source="s", region_id="0.a.0", size=(300, 400), counts=encode_mask(pixels))
    picture = draw(PHOTO, EMPTY.append([region("0.a.0", (100, 100, 200, 200)), mask]))
    assert changed(picture, GROUND, (121, 121, 179, 179)) == 1
    assert changed(picture, GROUND, (105, 105, 195, 117)) == 0


def test_what_fell_is_drawn_on_request_and_grey() -> None:
    record = EMPTY.append([region("0.a.0", (100, 100, 200, 200))])
    record = record.decide([Decision(annotation_id="0.a.0", action="reject", by="score", reason="low_score")])
    assert draw(PHOTO, record) == GROUND
    pixels = np.asarray(draw(PHOTO, record, fallen=True)).astype(int)
    assert (pixels != 90).any()
    assert np.ptp(pixels, axis=2).max() == 0


def test_a_label_has_one_colour() -> None:
    def colours(label: str, box: Box) -> set[tuple[int, ...]]:
        picture = draw(PHOTO, EMPTY.append([region("0.a.0", box, label)]))
        found = picture.getcolors(picture.width * picture.height) or []
        return {colour for _, colour in sorted(found, reverse=True)[1:2] if isinstance(colour, tuple)}

    assert colours("cup", (100, 100, 200, 200)) == colours("cup", (50, 150, 300, 280))
    assert colours("cup", (100, 100, 200, 200)) != colours("spoon", (100, 100, 200, 200))


def test_tags_of_one_place_are_beside_each_other() -> None:
    boxes = [(100, 100, 200, 200)] * 4
    one, four = (
        draw(PHOTO, EMPTY.append([region(f"0.a.{n}", box, f"{n}") for n, box in enumerate(boxes[:count])]))
        for count in (1, 4)
    )
    above = (100, 85, 200, 98)
    assert changed(four, GROUND, above) > 1.5 * changed(one, GROUND, above)


@pytest.mark.parametrize(
    "height, width, size",
    [
        (1, 1, (MIN_LONGER, MIN_LONGER)),
        (200, 20000, (MAX_LONGER, MIN_SHORTER)),
        (20000, 200, (MIN_SHORTER, MAX_LONGER)),
        (1200, 1200, (1200, 1200)),
    ],
)
def test_sizes(height: int, width: int, size: tuple[int, int]) -> None:
    item = Item(item_id=Item.id_of("a.jpg"), uri="a.jpg", width=width, height=height)
    mask = Mask(
        id="0.a.1",
        source="a",
        region_id="0.a.0",
        size=(height, width),
        counts=encode_mask(np.ones((height, width), bool)),
    )
    record = Record(item=item).append([region("0.a.0", (0, 0, width, height), "a long label " * 9), mask])
    assert draw(np.zeros((height, width, 3), np.uint8), record).size == size


def written(text: str) -> Image.Image:
    quad = (100, 110, 190, 90, 200, 190, 110, 210)
    return draw(
        PHOTO,
        EMPTY.append([Region(id="0.o.0", source="o", kind="text", box=(100, 90, 200, 210), quad=quad, text=text)]),
    )


@pytest.mark.parametrize("text", ["中文", "שלום", "مرحبا", "🏳️‍🌈", "e\u0301", "\x00\n\t", "\ud800", " ", "x" * 500])
def test_any_text_can_be_drawn(text: str) -> None:
    assert written(text) != GROUND


def test_what_no_font_has_is_a_question_mark() -> None:
    assert written("a \U00013000 \x07") == written("a ? ?")
    assert written("Größe é") != written("Gr??e ?")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records(), st.booleans())
def test_any_record_can_be_drawn(record: Record, fallen: bool) -> None:
    size = (record.item.height or 7, record.item.width or 5)
    picture = draw(np.zeros((*size, 3), np.uint8), record, fallen=fallen)
    assert MIN_LONGER <= max(picture.size) <= MAX_LONGER


def test_coordinates_beyond_reason() -> None:
    far = [(-1e30, -1e30, 1e30, 1e30), (1e30, 1e30, 1e30, 1e30)]
    kinds = [("object", far[0]), ("proposal", far[0]), ("object", far[1]), ("proposal", far[1])]
    made = [Region(id=f"0.a.{n}", source="a", kind=kind, box=box) for n, (kind, box) in enumerate(kinds)]
    assert draw(PHOTO, EMPTY.append(made)).size == GROUND.size


def test_leaves_the_photo_alone(photos: Path) -> None:
    photo = np.asarray(Image.open(photos / "coffee.png").convert("RGB"))
    photo.setflags(write=False)
    before = photo.copy()
    item = Item(item_id=Item.id_of("c"), uri="c", width=photo.shape[1], height=photo.shape[0])
    draw(photo, Record(item=item).append([region("0.a.0", (100, 100, 200, 200))]))
    assert (photo == before).all()
