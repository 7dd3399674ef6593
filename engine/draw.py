"""A picture of a record: what stands, drawn over its image, for a person to look at."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from zlib import crc32

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFilter, ImageFont, ImageOps

from engine.geometry import area, decode_mask, iou
from engine.protocols import Image
from engine.records import Box, Mask, Record, Region

Colour = tuple[int, int, int]
Point = tuple[float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

GREY, MARGIN, WHITE, BLACK = (150, 150, 150), (32, 32, 32), (255, 255, 255), (0, 0, 0)
MIN_LONGER, MAX_LONGER = 1024, 1600  # pixels of the longer side: tags can be read, and a screen shows it whole
MIN_SHORTER = 320  # of the shorter side, margins included: a strip keeps room for its tags
SUPERSAMPLING = 2  # drawn at twice the size: Pillow's slanted lines have no anti-aliasing
LONGEST_TAG = 48  # characters
# A text is written in the one that has most of its characters; Pillow finds them where the system keeps its fonts.
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf")


def draw(image: Image, record: Record, fallen: bool = False) -> Pillow.Image:
    """`image` [height, width, 3] RGB with the masks, regions and tags of `record` that stand over it.

    A tag says an object's label and score, or what a text says; proposals are dotted and have none. With `fallen`,
    what fell is drawn too, in grey, its tag with the reason. The picture is smaller or larger than the image.
    """
    sketch = _Sketch(image)
    reasons = {d.annotation_id: d.reason for d in record.decisions if d.action in ("reject", "supersede")}
    shown = [region for region in record.regions if fallen or region.id not in reasons]
    # What fell lies below, then the large, so that the small can be seen.
    regions = sorted(shown, key=lambda region: (region.id not in reasons, -area(region.box)))
    colours = {region.id: GREY if region.id in reasons else _colour(region) for region in regions}
    for region in regions:
        for mask in record.masks:
            if mask.region_id == region.id and (fallen or mask.id not in reasons):
                sketch.mask(mask, GREY if mask.id in reasons else colours[region.id])
    for region in regions:
        sketch.outline(region, colours[region.id])
    for region in reversed(regions):
        if region.kind != "proposal":
            sketch.tag(region.box, _caption(region, reasons.get(region.id)), colours[region.id])
    return sketch.finished()


class _Sketch:
    """The picture while it is drawn. Boxes and quads come in the image's pixels."""

    def __init__(self, image: Image) -> None:
        height, width = image.shape[:2]
        longer = min(max(height, width, MIN_LONGER), MAX_LONGER) * SUPERSAMPLING
        self.scale = longer / max(height, width)
        size = (max(1, round(width * self.scale)), max(1, round(height * self.scale)))
        canvas = tuple(max(side, MIN_SHORTER * SUPERSAMPLING) for side in size)
        self.offset = ((canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2)
        self.canvas = Pillow.new("RGB", (canvas[0], canvas[1]), MARGIN)
        self.canvas.paste(Pillow.fromarray(image).resize(size, Pillow.Resampling.BICUBIC), self.offset)
        self.pen = ImageDraw.Draw(self.canvas)
        self.line = longer // 400
        self.letter = longer // 64
        self.tags: list[Box] = []

    def finished(self) -> Pillow.Image:
        return self.canvas.reduce(SUPERSAMPLING)

    def mask(self, mask: Mask, colour: Colour) -> None:
        """Fills the mask translucently and draws its contour."""
        pixels = Pillow.fromarray(decode_mask(mask).astype(np.uint8) * 255)
        box = pixels.getbbox()
        if box is None:
            return
        left, top, right, bottom = (round(value) for value in self._scaled(box))
        size = (max(right - left, 1), max(bottom - top, 1))
        border = 2 * self.line
        alpha = ImageOps.expand(pixels.crop(box).resize(size, Pillow.Resampling.BILINEAR), border)
        # Where the blurred mask passes from outside to inside is its contour.
        contour = alpha.filter(ImageFilter.GaussianBlur(self.line)).point(lambda v: 255 if 70 < v < 185 else 0)
        corner = (left - border, top - border)
        self.canvas.paste(colour, corner, alpha.point(lambda v: v // 3))
        self.canvas.paste(colour, corner, contour)

    def outline(self, region: Region, colour: Colour) -> None:
        """A line in the colour inside a black one, to be seen on any ground; of a proposal thin dashes."""
        corners = self._placed(region.quad or _corners(region.box))
        closed = list(zip(corners[0::2], corners[1::2], strict=True))
        closed.append(closed[0])
        if region.kind != "proposal":
            self.pen.line(closed, BLACK, self.line + 2, joint="curve")
            self.pen.line(closed, colour, self.line, joint="curve")
            return
        self.pen.line(closed, BLACK, self.line // 2)
        for start, stop in pairwise(closed):
            for dash in _dashes(start, stop, 3 * self.line):
                self.pen.line(dash, colour, self.line // 2)

    def tag(self, box: Box, caption: str, colour: Colour) -> None:
        """Writes `caption` beside the box: inside the picture, and where it hides least of the tags before it."""
        font, caption = _lettering(caption, self.letter)
        pad = self.letter // 4
        width, height = self.pen.textlength(caption, font) + 2 * pad, self.letter + 3 * pad
        x0, y0, x1, y1 = self._placed(box)
        corners = [(x, y) for y in (y0 - height, y1, y0, y1 - height) for x in (x0, x1 - width)]
        places = [self._inside(x, y, width, height) for x, y in corners]
        place = min(places, key=lambda place: sum(iou(place, tag) for tag in self.tags))
        self.tags.append(place)
        self.pen.rounded_rectangle(place, radius=pad, fill=colour)
        ink = BLACK if np.dot(colour, (0.299, 0.587, 0.114)) > 140 else WHITE  # luma, ITU-R BT.601
        self.pen.text((place[0] + pad, place[1] + height / 2), caption, ink, font, anchor="lm")

    def _scaled(self, coordinates: Sequence[float]) -> list[float]:
        """Pairs x, y of the image's pixels as the canvas's."""
        return [value * self.scale + self.offset[axis % 2] for axis, value in enumerate(coordinates)]

    def _placed(self, coordinates: Sequence[float]) -> list[float]:
        """As `_scaled`, but what is outside the canvas is drawn along its edge."""
        edge = self.line / 2
        return [
            min(max(value, edge), self.canvas.size[axis % 2] - edge)
            for axis, value in enumerate(self._scaled(coordinates))
        ]

    def _inside(self, x: float, y: float, width: float, height: float) -> Box:
        x = max(min(x, self.canvas.width - width), 0)
        y = max(min(y, self.canvas.height - height), 0)
        return x, y, x + width, y + height


def _corners(box: Box) -> tuple[float, ...]:
    x0, y0, x1, y1 = box
    return x0, y0, x1, y0, x1, y1, x0, y1


def _dashes(start: Point, stop: Point, length: float) -> Iterator[tuple[Point, Point]]:
    """Dashes of about `length`, as far from each other, along a line."""
    stops = max(round(math.dist(start, stop) / length), 1) + 1
    points = list(zip(*np.linspace(start, stop, stops).T.tolist(), strict=True))
    return zip(points[0::2], points[1::2], strict=False)


def _word(region: Region) -> str:
    return region.label or region.raw_label or region.kind


def _colour(region: Region) -> Colour:
    """White for texts and proposals; for an object a bright colour that its word has in every picture."""
    if region.kind != "object":
        return WHITE
    hue = crc32(_word(region).encode(errors="replace")) / 2**32
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.8, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _caption(region: Region, reason: str | None) -> str:
    caption = (region.kind == "text" and region.text) or _word(region)
    if len(caption) > LONGEST_TAG:
        caption = caption[: LONGEST_TAG - 1] + "…"
    if region.kind == "object" and region.scores.label is not None:
        caption += f" {region.scores.label:.2f}"
    return f"{caption}: {reason}" if reason else caption


def _lettering(text: str, size: int) -> tuple[Font, str]:
    """The font that has most of the text's characters, and the text with "?" for those that it hasn't."""
    text = " ".join(text.split())
    font = max(_fonts(size), key=lambda font: sum(_has(font, character) for character in text))
    return font, "".join(character if _has(font, character) else "?" for character in text)


@cache
def _fonts(size: int) -> list[Font]:
    """Those of FONTS that are installed, and the one that comes with Pillow."""
    found: list[Font] = []
    for name in FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return [*found, ImageFont.load_default(size)]


@cache
def _has(font: Font, character: str) -> bool:
    """Whether the font draws something else for the character than for one that no font has."""
    return character.isprintable() and bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))
