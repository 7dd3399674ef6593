"""What is said of an image stays true of what augmentation makes of it; pixels are the witnesses."""

from __future__ import annotations

import colorsys
import random
from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from florence2.augment import COLOURS, RANGES, Augment, coloured, cropped, mirrored
from florence2.directions import opposite
from florence2.errors import ConfigError, ImageError
from florence2.scene import Caption, Line, Mask, Phrase, Placement, Scene, Thing

OFF = Augment(flip=0, crop=0, brightness=0, contrast=0, saturation=0)
FLIP, CROP = replace(OFF, flip=1), replace(OFF, crop=1, min_area=0.3)
ALL = replace(Augment(), flip=0.5, crop=0.8, hue=0.1, greyscale=0.3, blur=1.5)
GREY = Image.new("RGB", (64, 48), (90, 90, 90))
RED, GREEN, BLUE = (230, 20, 20), (20, 200, 30), (20, 30, 220)


class Fixed:
    """Draws that are given, the last of them for ever: what a part of a range does."""

    def __init__(self, *parts: float) -> None:
        self.parts = list(parts)

    def random(self) -> float:
        return self.parts.pop(0) if len(self.parts) > 1 else self.parts[0]

    def uniform(self, low: float, high: float, /) -> float:
        return low + self.random() * (high - low)


def caption(text: str, *named: tuple[str, tuple[int, ...]], wide: str = "") -> Caption:
    """With a phrase for each of `named`, all with the expression `wide` or their own."""
    spans = [(text.index(words), text.index(wide or words), things, words) for words, things in named]
    phrases = (Phrase(s, s + len(w), t, e, e + len(wide or w)) for s, e, t, w in spans)
    return Caption(text, "brief", tuple(phrases))


def scene_of(*texts: str, size: tuple[float, float] = (64, 48), **more: Any) -> Scene:
    return Scene(size, tuple(map(caption, texts)), **more)


def spelled(made: Caption) -> list[tuple[str, str]]:
    return [(made.text[p.start : p.stop], made.text[p.expression_start : p.expression_stop]) for p in made.phrases]


# Left and right


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("the man on the left holds a bottle", "the man on the right holds a bottle"),
        ("The LEFT is dark, the Right is not", "The RIGHT is dark, the Left is not"),
        ("Left: a dog. Right: a cat.", "Right: a dog. Left: a cat."),
        ("leftmost", "rightmost"),
        ("the Left-hand side and a rightward turn", "the Right-hand side and a leftward turn"),
        ("left shoe", "right shoe"),
        ("left_shoe", "right_shoe"),
        ("from left to right", "from right to left"),
        ("two dogs left and right of a tree", "two dogs right and left of a tree"),
        ("in the top-left corner", "in the top-right corner"),
        ("front_left wheel", "front_right wheel"),
        ("a woman with her left hand raised", "a woman with her right hand raised"),
        ("second from right", "second from left"),
        ("the dog on the right to the left of the cat", "the dog on the left to the right of the cat"),
        ("a horse facing right", "a horse facing left"),
        (
            "on the right next to the bright, upright copyright sign",
            "on the left next to the bright, upright copyright sign",
        ),
        ("the chair on the left that is empty", "the chair on the right that is empty"),
        ("On the right a small dog sleeps", "On the left a small dog sleeps"),
        ("The right half of the image is dark", "The left half of the image is dark"),
        ("The left part of the photo", "The right part of the photo"),
        ("a mouse right of the laptop", "a mouse left of the laptop"),
        ("her right forearm", "her left forearm"),
        ("the left one", "the right one"),
        ("right wing mirror", "left wing mirror"),
        ("a bird's left wing", "a bird's right wing"),
        ("a dog with its right front paw raised", "a dog with its left front paw raised"),
        ("the man on the far left in a hat", "the man on the far right in a hat"),
        ("the elephant on the right raised its trunk", "the elephant on the left raised its trunk"),
        ("Far right of the photo, a tree", "Far left of the photo, a tree"),
        ("a couple (left) and a left-handed boy", "a couple (right) and a right-handed boy"),
        ("the top-left photo, the lower right picture", "the top-right photo, the lower left picture"),
        ("a man reading a book", "a man reading a book"),
        ("a clock on the wall above two beds", "a clock on the wall above two beds"),
        ("a dog on grass", "a dog on grass"),
        ("", ""),
    ],
)
def test_what_is_mirrored(text: str, other: str) -> None:
    thing = Thing((1, 2, 3, 4), text, (text,))
    made = FLIP(GREY, scene_of(text, things=(thing,), exhaustive=frozenset({text})), random.Random(0))[1]
    assert (made.captions[0].text, made.things[0].label, made.things[0].texts) == (other, other, (other,))
    assert made.exhaustive == {other}
    assert made.things[0].box == (61, 2, 63, 4)


@pytest.mark.parametrize(
    "text",
    [
        "a bag left behind on the left",
        "the man has left",
        "the man in front left the room",
        "pizza left half eaten",
        "a chair left facing the wall",
        "the man left the room on the right",
        "one slice left",
        "what is left of the cake",
        "a bike left on the street",
        "Left alone in the room",
        "leftover food on the right, the left over soup",
        "it is all right",
        "a right-angled corner",
        "a man who works right now",
        "right next to the car",
        "Right behind the car stands a man",
        "the right way up",
        "a cake with the right ingredients",
        "wearing the right outfit",
        "a right whale",
        "The dog left paw prints in the snow",
        "Someone left foot prints in the sand",
        "The truck in the front left tire tracks in the mud",
        "They left hand in hand",
        "The woman on the right left early",
        "The one on the right left his bag",
        "The man in the front left his bag",
        "The guests at the back left early",
        "The man next to her left in a hurry",
        "The man talking to her left the room",
        "Left abandoned in a field, the old truck rusts",
        "Left and forgotten, a bicycle leans on a wall",
        "Left parked on the street",
        "Left without a rider the horse runs",
        "two slices left of the pizza",
        "A train heading right toward the camera",
        "facing right towards the viewer",
        "leaning right against the wall",
        "Right around the table sit four men",
        "turned right around",
        "everything on the table is just right",
        "a cake made from the right ingredients",
        "sold at the right prices",
        "butter on the right kinds of bread",
        "sold to the right buyers",
        "cooked at the right cooking temperature",
        "a tower built from the right colored blocks",
        "a right-wing rally",
        "a right wing rally",
        "the far right party",
        "a rally of the far right",
        "a centre-right party",
        "the right of workers",
        "the right of the people to assemble",
        "right whale",
        "a phone lying right side up",
        "his right-hand man",
        "a clock showing half past three",
        "a quarter to ten",
        "ten past ten",
        "a wrist watch with hands at ten and two",
        "the clock reads 4 pm",
        "a street sign reading No Parking",
        "a sign reading no parking",
        "a sign that read Main Street",
        "the left cake",  # in the mirror it would be the correct one
        "the left way",
        "a sign for the right to vote",
        "a sign that tells the right of way",
        "cars must yield the right-of-way",
        "a picture hung at the right height",
        "driving on the right path",
        "the right and wrong answers",
        "he is in the right",
        "lEft on the left",
        "a clock at 3 o'clock",
        "dancers move clockwise",
        "anticlockwise",
        "east_wing",
        "the east wing",
        "a Northwestern jersey",
        "half past, 10:45",
        "a sign that says stop",
        'a "STOP" sign',
        "a shop called \u2018Bob\u2019",
        "the bus with number 42",
        "the topleft corner",
    ],
)
def test_what_is_not_mirrored(text: str) -> None:
    for made in (scene_of(text), scene_of(things=(Thing((1, 2, 3, 4), text),)), scene_of(exhaustive=frozenset({text}))):
        assert FLIP(GREY, made, random.Random(0)) == (GREY, made)


def test_text_in_the_image_is_mirrored_on_request_alone() -> None:
    made = scene_of("a 'STOP' sign", lines=(Line((10, 5, 30, 6, 30, 12, 10, 11), "STOP"),))
    assert FLIP(GREY, made, random.Random(0))[1] == made
    after = replace(FLIP, mirror_text=True)(GREY, made, random.Random(0))[1]
    assert after.lines == (Line((34, 6, 54, 5, 54, 11, 34, 12), "STOP"),), "clockwise from the image's top left"


def test_a_span_from_within_a_word_is_not_mirrored() -> None:
    made = Scene((64, 48), (Caption("on the right", "brief", (Phrase(9, 12, (), 0, 12),)),))
    assert FLIP(GREY, made, random.Random(0))[1] == made


NAMES = ("man", "left shoe", "right wing mirror", "LEFT sleeve", "dog on the right", "rightmost tree", "red car")
JOINS = (" and ", ", ", " holds ", ". ", " to the left of ", " on the Right of ")


@st.composite
def scenes(draw: st.DrawFn, with_lines: bool = False) -> Scene:
    """Boxes in the image, masks by hand, captions whose phrases are NAMES, all of which have a mirror image."""
    width, height = draw(st.integers(1, 300)), draw(st.integers(1, 300))

    def place(side: int) -> st.SearchStrategy[float]:
        return st.integers(0, 3 * side).map(lambda thirds: thirds / 3)

    def box() -> tuple[float, float, float, float]:
        (x0, x1), (y0, y1) = (sorted(draw(st.tuples(place(s), place(s)))) for s in (width, height))
        return x0, y0, x1, y1

    names = draw(st.lists(st.sampled_from(NAMES), max_size=4))
    mask = Mask((height, width), b"", Placement(0.5, 3, 0.5, -2))
    things = tuple(Thing(box(), name, (f"a {name}",), draw(st.sampled_from((None, mask)))) for name in names)
    captions = []
    for _ in range(draw(st.integers(0, 2)) if things else 0):
        text, phrases = "", []
        for n in draw(st.lists(st.integers(0, len(things) - 1), min_size=1, max_size=4)):
            start = len(text) + len("the ")
            stop = start + len(names[n])
            text += f"the {names[n]}"
            phrases.append(Phrase(start, stop, (n,), start - 4, stop))
            text += draw(st.sampled_from(JOINS))
        captions.append(Caption(f"{text}the end", "detailed", tuple(phrases)))
    quads = st.tuples(*[place(width), place(height)] * 4)
    lines = tuple(Line(quad, "abc") for quad in draw(st.lists(quads, max_size=3))) if with_lines else ()
    labels = {thing.label for thing in things if thing.label}
    exhaustive = draw(st.sets(st.sampled_from(sorted(labels | {"left glove"}))))
    return Scene((width, height), tuple(captions), things, lines, frozenset(exhaustive))


def image_of(scene: Scene) -> Image.Image:
    return Image.new("RGB", (int(scene.size[0]), int(scene.size[1])), (90, 90, 90))


def numbers(scene: Scene) -> list[float]:
    masks = [thing.mask.placement for thing in scene.things if thing.mask]
    placements = [v for p in masks for v in (p.scale_x, p.shift_x, p.scale_y, p.shift_y)]
    return [v for thing in scene.things for v in thing.box] + [v for li in scene.lines for v in li.quad] + placements


def words(scene: Scene) -> Any:
    return scene.captions, [(t.label, t.texts, t.crowd) for t in scene.things], [li.text for li in scene.lines]


@given(scenes(with_lines=True))
@settings(max_examples=50)
def test_mirrored_twice_is_the_scene(scene: Scene) -> None:
    flip, image = replace(FLIP, mirror_text=True), image_of(scene)
    once = flip(image, scene, random.Random(0))[1]
    twice = flip(image, once, random.Random(0))[1]
    assert words(twice) == words(scene)
    assert (twice.size, twice.exhaustive) == (scene.size, scene.exhaustive)
    assert numbers(twice) == pytest.approx(numbers(scene), abs=1e-9)
    for thing, after in zip(scene.things, once.things, strict=True):
        size = int(scene.size[1]), int(scene.size[0])
        boxes = tv_tensors.BoundingBoxes([thing.box], format="XYXY", canvas_size=size)
        assert after.box == pytest.approx(functional.horizontal_flip(boxes)[0].tolist(), abs=1e-4)
        assert (after.label, after.texts) == (opposite(thing.label or ""), tuple(map(opposite, thing.texts)))


@given(scenes())
@settings(max_examples=50)
def test_spans_spell_the_mirrored_phrases(scene: Scene) -> None:
    for before, after in zip(scene.captions, mirrored(scene).captions, strict=True):
        assert spelled(after) == [(opposite(phrase), opposite(wide)) for phrase, wide in spelled(before)]
        assert [p.things for p in after.phrases] == [p.things for p in before.phrases]


# Pixels


def painted(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (120, 90)) -> npt.NDArray[np.uint8]:
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    for colour, (x0, y0, x1, y1) in zip((RED, GREEN, BLUE), boxes, strict=False):
        image[y0:y1, x0:x1] = colour
    return image


def shown(image: npt.NDArray[np.uint8], colour: int) -> npt.NDArray[np.bool_]:
    """[H, W]: where a channel stands out."""
    others = [image[..., c].astype(int) for c in range(3) if c != colour]
    return image[..., colour] > np.maximum(*others) + 60


side_by_side = st.tuples(
    *[st.tuples(st.integers(0, 35), st.integers(1, 40), st.integers(0, 80), st.integers(1, 80))] * 3
)


@given(side_by_side, st.integers(0, 2**32))
def test_boxes_are_where_the_pixels_are(places: tuple[tuple[int, int, int, int], ...], seed: int) -> None:
    corners = [
        (40 * n + x, y, min(40 * n + x + w, 40 * n + 40), min(y + h, 90)) for n, (x, w, y, h) in enumerate(places)
    ]
    things = tuple(Thing(box, name) for box, name in zip(corners, ("red", "green", "blue"), strict=True))
    scene = Scene((120, 90), things=things, exhaustive=frozenset(("red", "green", "blue")))
    image, after = Augment(crop=0.9, min_area=0.1)(painted(*corners), scene, np.random.default_rng(seed))
    assert image.shape == (after.size[1], after.size[0], 3)
    found = {thing.label: thing.box for thing in after.things}
    for colour, name in enumerate(("red", "green", "blue")):
        rows, columns = np.nonzero(shown(image, colour))
        if name in found:
            assert found[name] == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        elif name in after.exhaustive:  # absent, or a sliver
            assert len(rows) == 0 or min(np.ptp(rows), np.ptp(columns)) == 0


@given(st.integers(0, 2**32), st.sampled_from((1, 2, 3)))
def test_masks_are_where_the_pixels_are(seed: int, scale: int) -> None:
    """The mask is of an original that is `scale` times smaller than the scene."""
    rng = np.random.default_rng(seed)
    pixels = np.asfortranarray(rng.random((30, 40)) < 0.5, np.uint8)
    mask = Mask((30, 40), coco.encode(pixels)["counts"], Placement(scale, 0, scale, 0))
    large = np.kron(pixels, np.ones((scale, scale), np.uint8))
    whole = (0.0, 0.0, 40.0 * scale, 30.0 * scale)
    scene = Scene(whole[2:], things=(Thing(whole, "noise", mask=mask),))
    image, after = Augment(crop=0.9, min_kept=0)(
        np.where(large[..., None], np.uint8(200), np.uint8(40)).repeat(3, 2), scene, rng
    )
    moved = after.things[0].mask
    assert moved is not None
    decoded = coco.decode({"size": list(moved.size), "counts": moved.counts})
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5  # the middles of the scene's pixels, back in the mask
    way = moved.placement
    at = decoded[((y - way.shift_y) / way.scale_y).astype(int), ((x - way.shift_x) / way.scale_x).astype(int)]
    assert (at == (image[..., 0] > 120)).all()


def test_colours_are_torchvisions() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(60, 180, (40, 50, 3), dtype=np.uint8))
    for b, c, s in product((0.85, 1, 1.2), repeat=3):
        theirs = functional.adjust_brightness(image, b)
        theirs = functional.adjust_saturation(functional.adjust_contrast(theirs, c), s)
        assert np.abs(np.asarray(coloured(image, b, c, s), int) - np.asarray(theirs, int)).max() <= 3, (b, c, s)
    grey = np.asarray(coloured(image, 1, 1, 0), int)
    assert np.abs(grey - np.asarray(functional.rgb_to_grayscale(image, 3), int)).max() <= 1


HUES = {"red": 0, "orange": 39, "yellow": 60, "green": 120, "blue": 240, "purple": 300}


@pytest.mark.parametrize("name", HUES)
def test_by_default_a_colour_keeps_its_name(name: str) -> None:
    augment = replace(Augment(), flip=0, crop=0)
    for value, ground, *parts in product((1, 0.7), (0, 90, 200), *[(0, 1)] * 3):
        pixels = np.full((20, 20, 3), ground, np.uint8)
        pixels[5:15, 5:15] = [round(255 * v) for v in colorsys.hsv_to_rgb(HUES[name] / 360, 1, value)]
        image, _ = augment(pixels, Scene((20, 20)), Fixed(0.5, 0.5, *parts, 0.5))
        hue = 360 * colorsys.rgb_to_hsv(*image[10, 10] / 255)[0]
        assert min(HUES, key=lambda other: abs((hue - HUES[other] + 180) % 360 - 180)) == name


@pytest.mark.parametrize("change", [{"greyscale": 1}, {"hue": 0.1}])
def test_new_colours_take_the_colours_names(change: dict[str, Any]) -> None:
    augment = replace(OFF, **change)
    scene = scene_of("a red car", "a car", "a Blonde man", things=(Thing((1, 2, 3, 4), "car", ("green car", "a car")),))
    pixels = painted((5, 5, 50, 40), size=(64, 48))
    image, after = augment(pixels, scene, random.Random(0))
    assert after == replace(scene_of("a car"), things=(Thing((1, 2, 3, 4), "car", ("a car",)),))
    assert not (image == pixels).all()
    named = replace(scene, exhaustive=frozenset({"red_car"}))
    same, after = augment(pixels, named, random.Random(0))
    assert (same == pixels).all() and after == named, "a label names a colour"
    assert not COLOURS.search("a black and white cat in a bored, tanned, redone orchard")


# Crops

PEOPLE = Scene(
    (100, 100),
    (
        caption("a man and a dog", ("a man", (0,)), ("a dog", (1,))),
        caption("a dog", ("a dog", (1,)), wide="a dog"),
        caption("a dog on the left", ("a dog", (1,))),
        caption("a dog at a lake"),  # who knows where the lake is
        caption("a dog at a lake", ("a dog", (1,)), ("a lake", ())),
        caption("a dog and dogs", ("a dog", (1,)), ("dogs", (1, 2))),
        caption("a dog and its 'REX' tag", ("a dog", (1,))),
    ),
    (
        Thing((0, 0, 40, 100), "man"),
        Thing((50, 20, 90, 60), "dog", ("a brown dog", "dog in the middle")),
        Thing((60, 60, 100, 100), "dog"),
        Thing((29.7, 0, 30.3, 100), "rope"),
        Thing((0, 0, 5, 5), "kite"),
    ),
    exhaustive=frozenset(("man", "dog", "rope", "kite", "cow")),
)


def test_what_a_crop_leaves() -> None:
    after = cropped(PEOPLE, (30, 10, 100, 90), 0.6)
    assert after == Scene(
        (70, 80),
        (
            caption("a dog", ("a dog", (0,))),
            caption("a dog and dogs", ("a dog", (0,)), ("dogs", (0, 1))),
        ),
        (Thing((20, 10, 60, 50), "dog", ("a brown dog",)), Thing((30, 50, 70, 80), "dog")),
        exhaustive=frozenset(("dog", "rope", "kite", "cow")),  # of the man a quarter is still there, of the rope 0.3 px
    )
    assert cropped(PEOPLE, (30, 10, 100, 90), 0.2).exhaustive == PEOPLE.exhaustive


def test_a_crop_of_nearly_all_leaves_every_text() -> None:
    scene = replace(PEOPLE, things=PEOPLE.things[:3])
    after = cropped(scene, (0, 2, 99, 100), 0.4)
    assert after.captions == scene.captions
    assert after.things[0].box == (0, 0, 40, 98) and after.things[1].texts == scene.things[1].texts
    kite = Thing((0, 0, 5, 5), "kite")  # three fifths of it are in, which is not nearly all
    fewer = cropped(replace(scene, things=(*scene.things, kite)), (2, 0, 100, 100), 0.4)
    assert (len(fewer.captions), len(fewer.things)) == (3, 4)


@given(scenes(with_lines=True), st.integers(0, 2**32))
@settings(max_examples=50)
def test_crops(scene: Scene, seed: int) -> None:
    image, after = CROP(image_of(scene), scene, random.Random(seed))
    width, height = after.size
    assert image.size == after.size
    assert width * height >= 0.3 * scene.size[0] * scene.size[1]
    for thing in after.things:
        x0, y0, x1, y1 = thing.box
        assert 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height
    for made in after.captions:
        assert all(0 <= n < len(after.things) for phrase in made.phrases for n in phrase.things)
        assert [p for p, _ in spelled(made)] == [after.things[p.things[0]].label for p in made.phrases]
    for line in after.lines:
        assert all(0 <= x <= width for x in line.quad[::2]) and all(0 <= y <= height for y in line.quad[1::2]), "whole"
    assert after.exhaustive <= scene.exhaustive


@given(st.integers(0, 2**32))
def test_no_line_is_cut_and_none_is_missing(seed: int) -> None:
    """Each line is painted in its own value: its pixels are all there, or none."""
    rng = np.random.default_rng(seed)
    image, lines = np.zeros((100, 160, 3), np.uint8), []
    for n in range(6):
        x, y, w = int(rng.integers(0, 100)), 16 * n + 2, int(rng.integers(5, 60))
        image[y : y + 9, x : x + w] = 40 * n + 40
        lines.append(Line((x, y, x + w, y, x + w, y + 9, x, y + 9), str(40 * n + 40)))
    before, scene = image.copy(), Scene((160, 100), lines=tuple(lines))
    after_image, after = replace(CROP, min_area=0.05)(image, scene, rng)
    assert (image == before).all()
    values = {int(v) for v in np.unique(after_image)} - {0}
    assert values == {int(line.text) for line in after.lines}
    for line in after.lines:
        x0, y0, x1, _, _, y2, _, _ = map(int, line.quad)
        value = int(line.text)
        assert (after_image[y0:y2, x0:x1, 0] == value).all() and (after_image == value).sum() == 27 * (x1 - x0)


def test_crops_of_pages_happen() -> None:
    lines = tuple(Line((5, y, 60, y, 60, y + 8, 5, y + 8), "words") for y in range(0, 90, 10))
    counts = {
        len(CROP(GREY.resize((100, 100)), Scene((100, 100), lines=lines), random.Random(n))[1].lines) for n in range(50)
    }
    assert len(counts) > 2


# All together


def test_all_off_is_the_identity() -> None:
    image, pixels = GREY, np.asarray(GREY)
    scene = scene_of("a red dog on the left", things=(Thing((1, 2, 3, 4), "dog"),))
    assert OFF(image, scene, random.Random(0))[0] is image and OFF(pixels, scene, random.Random(0))[0] is pixels
    assert OFF(image, scene, random.Random(0))[1] is scene


@pytest.mark.parametrize("make", [random.Random, np.random.default_rng])
@pytest.mark.parametrize("kind", [Image.Image, np.ndarray])
def test_a_seed_says_all(make: Any, kind: type) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)
    image: Any = Image.fromarray(pixels) if kind is Image.Image else pixels
    results = []
    for seed in (*range(12), *range(12)):
        made, scene = ALL(image, PEOPLE, make(seed))
        assert isinstance(made, kind) and np.asarray(made).dtype == np.uint8
        results.append((np.asarray(made).tobytes(), scene))
    assert results[:12] == results[12:]
    assert len({pixels for pixels, _ in results}) == 12
    assert (np.asarray(image) == pixels).all()


def test_no_global_state_is_touched() -> None:
    def states() -> tuple[Any, ...]:
        name, keys, *rest = np.random.get_state()
        return random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist()

    before = states()
    for seed in range(8):
        ALL(GREY.resize((100, 100)), PEOPLE, random.Random(seed))
    assert states() == before


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_any_size(width: int, height: int, seed: int) -> None:
    image, scene = ALL(np.zeros((height, width, 3), np.uint8), Scene((width, height)), random.Random(seed))
    assert image.shape[:2] == scene.size[::-1] and 0 not in image.shape


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_any_mode(mode: str) -> None:
    image, _ = ALL(GREY.convert(mode), scene_of(), random.Random(1))
    assert image.mode == "RGB" and FLIP(GREY.convert(mode), scene_of(), random.Random(1))[0].mode == mode


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.zeros((48, 64), np.uint8), r"uint8 \[height, width, 3\].*uint8 \[48, 64\]"),
        (np.zeros((48, 64, 3)), "float64"),
        (Image.new("F", (64, 48)), "mode I or F"),
        ("photo.jpg", "photo.jpg"),
        (Image.new("RGB", (48, 64)), r"\(64, 48\); got \(48, 64\)"),
    ],
)
def test_what_is_no_image_of_the_scene(image: Any, expected: str) -> None:
    with pytest.raises(ImageError, match=expected):
        OFF(image, scene_of(), random.Random(0))


@pytest.mark.parametrize("field", [field.name for field in fields(Augment)])
def test_settings_are_checked(field: str) -> None:
    least, most = RANGES[field]
    for wrong in ("0.5", None, float("nan"), least - 0.001, most + 0.001, 7 if field == "mirror_text" else True):
        with pytest.raises(ConfigError, match=f"expected {field} to be"):
            Augment(**{field: wrong})  # type: ignore[arg-type]
    for right in (False, True) if field == "mirror_text" else (least, most):
        Augment(**{field: right})  # type: ignore[arg-type]
