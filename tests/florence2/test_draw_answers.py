"""Pictures of answers: what is where, and that nothing an answer may hold stops them."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from florence2.annotate import Answer
from florence2.codec import Annotation
from florence2.draw import (
    MAX_LONGER,
    MIN_LONGER,
    MIN_SHORTER,
    MOST_LINES,
    Sketch,
    colour_of,
    draw,
    font_for,
    rings_of,
    shapes_of,
    wrapped,
)
from florence2.tasks import Form, Prompt, Task, ask

GREY = Image.new("RGB", (400, 300), (90, 90, 90))
SCALE = MIN_LONGER / GREY.width


def answer(task: str, *annotations: Annotation, text: str = "", complete: bool = True, input: Any = None) -> Answer:
    return Answer(ask(task, input, GREY.size), text, (0, 2), 0.5, annotations, complete)


GROUND = draw(GREY, [])


def changed(picture: Image.Image, box: tuple[float, float, float, float]) -> float:
    """The share of pixels that are not the image's inside `box`, given in the image's pixels."""
    part = ImageChops.difference(picture.crop((0, 0, *GROUND.size)), GROUND)
    return float((np.asarray(part.crop(tuple(round(v * SCALE) for v in box))).max(axis=2) > 0).mean())


def test_without_annotations_there_is_the_image() -> None:
    assert GROUND.size == (1024, 768)
    assert GROUND.getcolors() == [(1024 * 768, (90, 90, 90))]
    assert draw(GREY, [answer("OD"), answer("OD", Annotation("no place"))]) == GROUND


def test_box_and_tag_are_where_they_belong() -> None:
    picture = draw(GREY, [answer("OD", Annotation("cup", box=(100, 100, 200, 200), score=0.57))])
    assert changed(picture, (101, 99.6, 199, 100.4)) == 1  # the upper edge
    assert changed(picture, (110, 110, 190, 190)) == 0  # inside
    assert changed(picture, (100, 90, 125, 98)) == 1  # the tag above it
    assert changed(picture, (205, 0, 400, 300)) == changed(picture, (0, 0, 98, 300)) == 0
    unscored = draw(GREY, [answer("OD", Annotation("cup", box=(100, 100, 200, 200)))])
    assert changed(unscored, (100, 88, 200, 98)) < changed(picture, (100, 88, 200, 98))
    unlabelled = draw(GREY, [answer("REGION_PROPOSAL", Annotation(box=(100, 100, 200, 200), score=0.57))])
    assert changed(unlabelled, (100, 80, 200, 98)) == 0


def test_quads_are_slanted_and_polygons_are_filled() -> None:
    quad = draw(GREY, [answer("OCR_WITH_REGION", Annotation(quad=(100, 150, 150, 100, 200, 150, 150, 200)))])
    assert changed(quad, (147, 98, 153, 103)) > 0.3
    assert changed(quad, (100, 100, 118, 118)) == changed(quad, (140, 140, 160, 160)) == 0
    rings = ((20.0, 20.0, 80.0, 20.0, 80.0, 80.0, 20.0, 80.0), (200.0, 20.0, 260.0, 20.0, 200.0, 80.0))
    filled = draw(GREY, [answer("REFERRING_EXPRESSION_SEGMENTATION", Annotation(polygons=rings), input="x")])
    assert changed(filled, (19, 19, 81, 81)) == changed(filled, (199.5, 19.5, 225, 44)) == 1
    assert changed(filled, (245, 50, 260, 80)) == changed(filled, (90, 20, 190, 80)) == 0
    colour = np.array(colour_of("0"))
    inside = np.array(filled.getpixel((round(50 * SCALE), round(50 * SCALE))))
    np.testing.assert_allclose(inside, 90 + (colour - 90) * 96 / 255, atol=2)  # translucent


def test_a_label_has_one_colour() -> None:
    def colours(label: str, *box: float) -> set[Any]:
        picture = draw(GREY, [answer("OD", replace(Annotation(label), box=box))])  # type: ignore[arg-type]
        return {colour for count, colour in picture.getcolors(1 << 20) or [] if count > 300} - {(90, 90, 90)}

    assert colour_of("cup") in colours("cup", 10, 40, 90, 120) & colours("cup", 150, 150, 390, 290)
    assert colour_of("cup") != colour_of("spoon")
    assert colour_of("cup") == colour_of("Cup")


@pytest.mark.parametrize("box", [(0, 0, 400, 300), (150, 100, 250, 200), (380, 280, 400, 300)])
def test_tags_stay_inside_and_do_not_cover_each_other(box: tuple[float, float, float, float]) -> None:
    sketch = Sketch(GREY)
    for shape in shapes_of(
        [answer("OD", *(Annotation(f"label {n}", box=box, score=0.5) for n in range(8)))], GREY.size
    ):
        sketch.tag(shape)
    assert len(sketch.tags) == 8
    for n, (x0, y0, x1, y1) in enumerate(sketch.tags):
        assert x0 >= 0 and y0 >= 0 and x1 < sketch.canvas.width and y1 < sketch.canvas.height
        for left, top, right, bottom in sketch.tags[:n]:
            assert min(x1, right) <= max(x0, left) or min(y1, bottom) <= max(y0, top)


def test_a_repeated_place_is_drawn_once() -> None:
    one = Annotation("cup", box=(100, 100, 200, 200), score=0.57)
    assert draw(GREY, [answer("OD", one)]) == draw(GREY, [answer("OD", one, one, replace(one, score=0.2))])


def test_texts_come_below() -> None:
    picture = draw(GREY, [answer("CAPTION", text="A cup.")])
    assert picture.crop((0, 0, *GROUND.size)) == GROUND
    assert picture.width == GROUND.width and picture.height > GROUND.height
    two = draw(GREY, [answer("CAPTION", text="A cup."), answer("OCR", text="one\ntwo")])
    assert two.height - GROUND.height > 1.9 * (picture.height - GROUND.height)
    long = draw(GREY, [answer("CAPTION", text="word " * 200)])
    assert long.height > two.height
    endless = draw(GREY, [answer("CAPTION", text="word\n" * 9000)])
    assert endless.height < GROUND.height + (MOST_LINES + 3) * 27
    cut = draw(GREY, [answer("CAPTION", text="A cup.", complete=False)])
    assert cut.size == picture.size and cut != picture
    free = draw(GREY, [Answer(Prompt("How many?", Form.TEXT), "Two.", (0, 2), 0.5, (), True)])
    assert free.size == picture.size


def test_the_region_that_was_asked_about_is_dashed() -> None:
    picture = draw(GREY, [answer(Task.REGION_TO_CATEGORY, text="cup", input=(100, 100, 200, 200))])
    edge = np.asarray(picture.crop(tuple(round(v * SCALE) for v in (104, 99.8, 196, 100.6))))
    assert {0, 255} <= set(edge.reshape(-1).tolist())
    assert changed(picture, (110, 110, 190, 190)) == 0


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((1, 1), (MIN_LONGER, MIN_LONGER)),
        ((9000, 90), (MAX_LONGER, MIN_SHORTER)),
        ((90, 9000), (MIN_SHORTER, MAX_LONGER)),
        ((1300, 1200), (1300, 1200)),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "I;16"])
def test_images_of_any_size_and_mode(size: tuple[int, int], drawn: tuple[int, int], mode: str) -> None:
    if mode != "RGB" and size != (1300, 1200):
        return
    width, height = size
    whole = Annotation("a long label " * 9, box=(0, 0, width, height), score=0.5)
    picture = draw(Image.new(mode, size), [answer("OD", whole)])
    assert (picture.size, picture.mode) == (drawn, "RGB")
    below = draw(Image.new(mode, size), [answer("CAPTION", text="x" * 500)])
    assert below.width == drawn[0] and below.height > drawn[1]


def test_what_no_font_has_is_replaced_visibly() -> None:
    def written(text: str) -> Image.Image:
        return draw(GREY, [answer("OD", Annotation(text, box=(100, 100, 200, 200)))]).crop((0, 240, 1024, 256))

    hue = colour_of("\U0010ffff")
    assert hue in {colour for _, colour in written("\U0010ffff").getcolors(1 << 16) or []}
    ink = [np.asarray(written(text)).astype(int).std() for text in ("\U0010ffff", "\U0010ffff" * 3)]
    assert ink[1] > ink[0] > 0
    assert written("\u202eabc") != written("abc")  # nothing turns a text around unseen


NOWHERE = (float("nan"), 1.0, float("inf"), 9.0)


@pytest.mark.parametrize(
    "place",
    [
        {"box": NOWHERE},
        {"box": ()},
        {"box": (1, 2, 3)},
        {"quad": NOWHERE * 2},
        {"quad": (1, 2, 3, 4, 5)},
        {"polygons": ((),)},
        {"polygons": ((5, 5),)},
        {"polygons": ((), NOWHERE * 2, (5, 5))},
    ],
)
def test_what_cannot_be_drawn_is_left_out(place: dict[str, Any]) -> None:
    cup = Annotation("cup", box=(100, 100, 200, 200))
    assert draw(GREY, [answer("OD", Annotation("dog", **place), cup)]) == draw(GREY, [answer("OD", cup)])
    ring = (20.0, 20.0, 80.0, 20.0, 80.0, 80.0)
    some, one = ((), ring, NOWHERE), (ring,)
    assert rings_of(Annotation(polygons=some)) == rings_of(Annotation(polygons=one)) == one


def test_lines_that_are_not_shown_are_not_made() -> None:
    font = font_for("x", 18)
    measured = 0

    class Counted:
        def getlength(self, text: str) -> float:
            nonlocal measured
            measured += len(text)
            return font.getlength(text)

        getmask = font.getmask

    lines = [*islice(wrapped("x" * 100_000, Counted(), 900), 5)]  # type: ignore[arg-type]
    assert len({*lines}) == 1 and font.getlength(lines[0]) <= 900 < font.getlength(lines[0] + "x")
    assert measured < 5 * 12 * 900
    assert draw(GREY, [answer("CAPTION", text="x" * 100_000)]).height < GROUND.height + (MOST_LINES + 3) * 27


NUMBERS = st.floats(-50, 500)
PLACES = st.fixed_dictionaries(
    {"label": st.text(max_size=30), "score": st.none() | st.floats(0, 1)},
    optional={
        "box": st.tuples(*[NUMBERS] * 4),
        "quad": st.tuples(*[NUMBERS] * 8),
        "polygons": st.lists(st.tuples(*[NUMBERS] * 6), min_size=1, max_size=3).map(tuple),
    },
)


@settings(max_examples=25, deadline=None)
@given(st.lists(PLACES, max_size=5), st.text(max_size=200))
def test_never_raises(places: list[dict[str, Any]], text: str) -> None:
    found = [Annotation(**place) for place in places]
    picture = draw(GREY, [answer("DENSE_REGION_CAPTION", *found), answer("OCR", text=text)])
    assert picture.width == 1024 and picture.height > 768
