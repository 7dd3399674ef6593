"""Words written in the world's scenes, in the font that comes inside Pillow's wheel."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.world.shapes import Numbers, Points, coverage

# None says where: a mirrored scene has other words for left and right.
_WORDS = """
apple arm bag ball bank bird blue boat book bread bus cake cat coat coffee cold door dog east exit farm fish food
fox game gate gold green hello home hotel ice jam juice key king lamp lion milk moon north open park pizza queen
rain red road sale salt shop sky snow stop sugar sun taxi tea train tree water west zoo
"""
_OTHER = """
army bell bone cloud desk drum girl fire hill iron jump kite leaf mail nest oven pink rope
"""
VOCABULARY, OTHER_VOCABULARY = tuple(_WORDS.split()), tuple(_OTHER.split())
STROKE = 0.5  # px, of the larger letters, by which they are made bolder
TWICE = 2  # drawn so much larger, turned, and averaged
MARGIN = 3.0  # px of the sign around its word


@lru_cache(maxsize=256)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def width_of(text: str, size: int) -> float:
    """Its width in px at a font of `size` px."""
    return float(_font(size).getlength(text))


def word_patch(text: str, size: int, turn: float, on_sign: bool) -> tuple[Numbers, Numbers, Points]:
    """A word in letters of `size` px, turned clockwise by `turn` degrees: coverage [height, width] by the letters, by
    the sign that they stand on (all 0 if not `on_sign`), and the word's corners in the patch, from its top left."""
    font = _font(size * TWICE)
    left, top, right, bottom = font.getbbox(text, stroke_width=STROKE)
    wide, high = (right - left) / TWICE, (bottom - top) / TWICE
    half = (wide / 2, high / 2)
    corners = _turned(half, turn)
    sign = _turned((half[0] + MARGIN, half[1] + MARGIN), turn)
    reach = sign if on_sign else corners
    width, height = (2 * math.ceil(max(point[axis] for point in reach) + 1) for axis in (0, 1))
    ink = Image.new("L", (width * TWICE, height * TWICE))
    at = (width * TWICE / 2 - (left + right) / 2, height * TWICE / 2 - (top + bottom) / 2)
    ImageDraw.Draw(ink).text(at, text, fill=255, font=font, stroke_width=STROKE)
    turned = ink.rotate(-turn, Image.Resampling.BICUBIC) if turn else ink
    letters = np.asarray(turned.reduce(TWICE), np.float32) / 255
    moved = [[(x + width / 2, y + height / 2) for x, y in ring] for ring in (corners, sign)]
    plate = coverage([moved[1]], (width, height)) if on_sign else np.zeros_like(letters)
    return letters, plate, moved[0]


def _turned(half: tuple[float, float], turn: float) -> Points:
    """The corners of a rectangle around (0, 0), from its own top left, clockwise."""
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    w, h = half
    return [(x * c - y * s, x * s + y * c) for x, y in ((-w, -h), (w, -h), (w, h), (-w, h))]
