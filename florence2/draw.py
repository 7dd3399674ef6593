"""A picture of answers, for a person to look at: places drawn over the image, texts written below it."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import islice, pairwise
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from florence2.annotate import Answer
from florence2.codec import Annotation, decode, pieces_of_text
from florence2.locations import Size
from florence2.processor import to_rgb
from florence2.tasks import Box, Form

Colour = tuple[int, int, int]
Ring = tuple[float, ...]  # x, y, x, y, ...
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BLACK, GREY, WHITE, GROUND = (0, 0, 0), (160, 160, 160), (255, 255, 255), (32, 32, 32)
MIN_LONGER, MAX_LONGER = 1024, 2048  # pixels of the longer side: labels can be read, and a screen shows it whole
MIN_SHORTER = 320  # of the shorter side, margins included: a strip keeps room for its labels
SUPERSAMPLING = 2  # places are drawn at twice the size: Pillow's slanted lines have no anti-aliasing
LONGEST_TAG = 56  # characters
CROWD = 40  # places: with more of them the letters of tags are smaller
MOST_LINES = 60  # below the picture
# A text is written in the one that has most of its characters; Pillow finds them where the system keeps its fonts.
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf")


def draw(image: Image.Image, answers: Sequence[Answer]) -> Image.Image:
    """`image` with what the answers find in it; a label has the same colour in every picture.

    A tag says an annotation's label and, where it has one, the score of its place. A region that was asked about is
    dashed. Texts come below, with their task. The picture is smaller or larger than the image. ValueError for an image
    of a mode that the model would not take either.
    """
    # The large lie below, so that the small can be seen, and are labelled last, where there is room.
    shapes = sorted(shapes_of(answers, image.size), key=lambda shape: (shape.style == "dashed", -extent(shape)))
    sketch = Sketch(to_rgb(image), crowded=len(shapes) > CROWD)
    for shape in shapes:
        sketch.fill(shape)
    for shape in shapes:
        sketch.outline(shape)
    for shape in reversed(shapes):
        sketch.tag(shape)
    texts = [answer for answer in answers if answer.prompt.form is Form.TEXT]
    return with_texts(sketch.finished(), [(name_of(answer), said(answer)) for answer in texts])


class Shape(NamedTuple):
    """An annotation as it is drawn."""

    rings: tuple[Ring, ...]  # in the image's pixels
    style: Literal["plain", "filled", "dashed"]
    colour: Colour
    label: str = ""
    score: float | None = None


def shapes_of(answers: Sequence[Answer], size: Size) -> Iterator[Shape]:
    """Each place once under a label: models repeat themselves."""
    seen = set()
    for answer in answers:
        if answer.task and answer.task.takes_region:
            for asked in decode(Form.BOXES, pieces_of_text(answer.prompt.text), size):
                yield Shape(rings_of(asked.annotation), "dashed", WHITE)
        for number, annotation in enumerate(answer.annotations):
            rings, label = rings_of(annotation), " ".join(annotation.label.split())
            if rings and (rings, label) not in seen:
                seen.add((rings, label))
                style: Literal["filled", "plain"] = "filled" if annotation.polygons else "plain"
                yield Shape(rings, style, colour_of(label or str(number)), label, annotation.score)


def rings_of(annotation: Annotation) -> tuple[Ring, ...]:
    """Those that can be drawn: of two points or more, all finite."""
    rings = annotation.polygons or (annotation.quad or (),)
    if annotation.box and len(annotation.box) == 4 and not any(rings):
        x0, y0, x1, y1 = annotation.box
        rings = ((x0, y0, x1, y0, x1, y1, x0, y1),)
    return tuple(ring for ring in rings if len(ring) >= 4 and len(ring) % 2 == 0 and all(map(math.isfinite, ring)))


def around(rings: Sequence[Ring]) -> Box:
    xs, ys = ([value for ring in rings for value in ring[axis::2]] for axis in (0, 1))
    return min(xs), min(ys), max(xs), max(ys)


def extent(shape: Shape) -> float:
    x0, y0, x1, y1 = around(shape.rings)
    return (x1 - x0) * (y1 - y0)


def colour_of(word: str) -> Colour:
    """Bright, and one that the word has in every picture."""
    hash = crc32(word.casefold().encode(errors="replace"))
    red, green, blue = colorsys.hsv_to_rgb(hash / 2**32, (0.9, 0.65, 0.45)[hash % 3], 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def contrary(colour: Colour) -> Colour:
    """Black or white, to be seen on it and beside it."""
    return BLACK if np.dot(colour, (0.299, 0.587, 0.114)) > 120 else WHITE  # luma, ITU-R BT.601


class Sketch:
    """The picture while it is drawn, larger than it will be. Rings come in the image's pixels."""

    def __init__(self, image: Image.Image, crowded: bool = False) -> None:
        longer = min(max(*image.size, MIN_LONGER), MAX_LONGER) * SUPERSAMPLING
        self.scale = longer / max(image.size)
        width, height = (max(1, round(side * self.scale)) for side in image.size)
        canvas = (max(width, MIN_SHORTER * SUPERSAMPLING), max(height, MIN_SHORTER * SUPERSAMPLING))
        self.offset = ((canvas[0] - width) // 2, (canvas[1] - height) // 2)
        self.canvas = Image.new("RGB", canvas, GROUND)
        self.canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), self.offset)
        self.pen = ImageDraw.Draw(self.canvas)
        self.line = longer // 400
        self.letter = longer // (84 if crowded else 64)
        self.tags: list[Box] = []

    def finished(self) -> Image.Image:
        return self.canvas.reduce(SUPERSAMPLING)

    def fill(self, shape: Shape) -> None:
        """Translucent where it is within any of its rings."""
        if shape.style != "filled":
            return
        rings = [self.placed(ring) for ring in shape.rings]
        left, top, right, bottom = (round(value) for value in around(rings))
        alpha = Image.new("L", (right - left + 1, bottom - top + 1))
        for ring in rings:
            ImageDraw.Draw(alpha).polygon([(x - left, y - top) for x, y in points(ring)], fill=96)
        self.canvas.paste(shape.colour, (left, top), alpha)

    def outline(self, shape: Shape) -> None:
        """A line in the colour within a contrary one, to be seen on any ground."""
        for ring in shape.rings:
            corners = points(self.placed(ring))
            closed = [*corners, *corners[:2]]  # the second again, for a joint at the first
            self.pen.line(closed, contrary(shape.colour), self.line + 4, joint="curve")
            if shape.style != "dashed":
                self.pen.line(closed, shape.colour, self.line, joint="curve")
                continue
            for start, stop in pairwise([*corners, corners[0]]):
                for dash in dashes(start, stop, 4 * self.line):
                    self.pen.line(dash, shape.colour, self.line)

    def tag(self, shape: Shape) -> None:
        if not shape.label:
            return
        pad, edge = self.letter // 4, 2
        score = "" if shape.score is None else f" {shape.score:.2f}"
        font = font_for(shape.label, self.letter)
        room = self.canvas.width - 2 * (pad + edge) - self.pen.textlength(score, font)
        caption = shortened(drawable(shape.label, font), font, room) + score
        width, height = self.pen.textlength(caption, font) + 2 * pad, self.letter + 3 * pad
        place = self.free_place(around([self.placed(ring) for ring in shape.rings]), width, height)
        self.tags.append(place)
        ink = contrary(shape.colour)
        self.pen.rounded_rectangle(place, pad, shape.colour, ink, edge)
        self.pen.text((place[0] + pad, (place[1] + place[3]) / 2), caption, ink, font, anchor="lm")

    def free_place(self, box: Box, width: float, height: float) -> Box:
        """Beside the box, inside the picture: the first place that hides no tag, or else the one that hides least."""
        x0, y0, x1, y1 = box
        rows = (y0 - height, y1, y0, y1 - height)
        near = [(x, y) for y in rows for x in (x0, x1 - width)]
        steps = [step for n in range(1, 9) for step in (n, -1 - n)]
        further = [(x, y0 + step * height) for step in steps for x in (x0, x1 - width, x1, x0 - width)]
        places = [self.inside(x, y, width, height) for x, y in near + further]
        return next((p for p in places if not self.hidden(p)), None) or min(places, key=self.hidden)

    def inside(self, x: float, y: float, width: float, height: float) -> Box:
        x = max(min(x, self.canvas.width - width - 1), 0)
        y = max(min(y, self.canvas.height - height - 1), 0)
        return x, y, x + width, y + height

    def hidden(self, place: Box) -> float:
        """Pixels of tags under a place."""
        tags = np.array(self.tags).reshape(-1, 4)
        sides = np.minimum(place[2:], tags[:, 2:]) - np.maximum(place[:2], tags[:, :2])
        return float(sides.clip(0).prod(axis=1).sum())

    def placed(self, ring: Ring) -> Ring:
        """In the canvas's pixels; what is outside the canvas is drawn along its edge."""
        edge = self.line / 2
        return tuple(
            min(max(value * self.scale + self.offset[axis % 2], edge), self.canvas.size[axis % 2] - 1 - edge)
            for axis, value in enumerate(ring)
        )


Point = tuple[float, float]


def points(ring: Ring) -> list[Point]:
    return list(zip(ring[0::2], ring[1::2], strict=True))


def dashes(start: Point, stop: Point, length: float) -> Iterator[tuple[Point, Point]]:
    """Dashes of about `length`, as far from each other, along a line."""
    count = max(round(math.dist(start, stop) / length), 1) + 1
    ends = [(float(x), float(y)) for x, y in np.linspace(start, stop, count)]
    return zip(ends[0::2], ends[1::2], strict=False)


# Texts below the picture


def name_of(answer: Answer) -> str:
    return answer.task or answer.prompt.text


def said(answer: Answer) -> str:
    return answer.text.strip() + ("" if answer.complete else " …")


def with_texts(picture: Image.Image, texts: Sequence[tuple[str, str]]) -> Image.Image:
    """A strip below the picture, with each name in grey and its text in white."""
    letter = min(max(picture.size) // 56, picture.width // 20)
    width = picture.width - 2 * letter
    lines = [*islice(lines_of(texts, letter, width), MOST_LINES + 1)]
    if not lines:
        return picture
    if len(lines) > MOST_LINES:
        lines[-1] = ("…", WHITE, font_for("…", letter))
    step = letter * 3 // 2
    whole = Image.new("RGB", (picture.width, picture.height + step * len(lines) + letter), GROUND)
    whole.paste(picture)
    pen = ImageDraw.Draw(whole)
    for n, (line, colour, font) in enumerate(lines):
        pen.text((letter, picture.height + letter / 2 + step * (n + 0.5)), line, colour, font, anchor="lm")
    return whole


def lines_of(texts: Sequence[tuple[str, str]], letter: int, width: int) -> Iterator[tuple[str, Colour, Font]]:
    for name, text in texts:
        small, font = font_for(name, letter * 3 // 4), font_for(text, letter)
        yield shortened(drawable(" ".join(name.split()), small), small, width), GREY, small
        yield from ((line, WHITE, font) for line in wrapped(text, font, width))


def wrapped(text: str, font: Font, width: float) -> Iterator[str]:
    """Its lines, each broken between words, or within a word that is wider than a line."""
    longest = int(width)  # characters: a pixel each, or a line's search would be through all of a long text
    for paragraph in text.splitlines():
        rest = drawable(" ".join(paragraph.split()), font)
        while len(rest) > longest or font.getlength(rest) > width:
            most = fitting(rest[:longest], font, width)
            end = rest.rfind(" ", 1, most + 1)
            end = most if end < 0 else end
            yield rest[:end]
            rest = rest[end:].lstrip()
        yield rest


def shortened(text: str, font: Font, width: float) -> str:
    if len(text) <= LONGEST_TAG and font.getlength(text) <= width:
        return text
    return text[: fitting(text[: LONGEST_TAG - 1], font, width - font.getlength("…"))].rstrip() + "…"


def fitting(text: str, font: Font, width: float) -> int:
    """How many characters of its start fit; one at least."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle]) <= width else (low, middle - 1)
    return low


def font_for(text: str, size: int) -> Font:
    """The one that has most of the text's characters."""
    return max(fonts(size), key=lambda font: sum(has(font, character) for character in text))


def drawable(text: str, font: Font) -> str:
    """With a box in the place of each character that the font lacks, or that would direct those around it."""
    lacking = "□" if has(font, "□") else "?"
    return "".join(character if has(font, character) else lacking for character in text)


@cache
def fonts(size: int) -> list[Font]:
    """Those of FONTS that are installed, and the one that comes with Pillow."""
    found: list[Font] = []
    for name in FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return [*found, ImageFont.load_default(size)]


@lru_cache(maxsize=2**16)
def has(font: Font, character: str) -> bool:
    """Whether the font draws something else for the character than for one that no font has."""
    return character.isprintable() and bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))
