"""What can be seen in the world: outlines, colours, textures, and a shape drawn with them as a patch of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Pixels = npt.NDArray[np.uint8]  # [height, width, 3] RGB
Numbers = npt.NDArray[np.floating[Any]]
Points = list[tuple[float, float]]

COLOURS = {
    "red": (214, 32, 38),
    "orange": (248, 132, 12),
    "yellow": (246, 222, 40),
    "green": (30, 150, 58),
    "blue": (36, 84, 222),
    "purple": (138, 44, 176),
    "white": (246, 246, 246),
    "black": (18, 18, 18),
}
# What textures are drawn in, beside the colour itself; all others' is nearly white. White and black have middle greys:
# black checks on white would be white ones on black.
MARKS = {"yellow": (110, 90, 10), "white": (150, 150, 150), "black": (116, 116, 116)}
TEXTURES = ("plain", "striped", "dotted", "checked")
TEXTURED = 16  # px: on a smaller shape no texture can be told from another
PERIOD = 5.0  # px from one stripe, or row of dots, to the next, at least
FINE = 4  # a patch is drawn so many times larger, and averaged


@dataclass(frozen=True)
class Outline:
    """A polygon in [-1, 1] x [-1, 1], y down; `hole` is cut out. `turn` is how far it may be turned: degrees to either
    side, within which it stays what it is called."""

    points: Points
    turn: float
    hole: Points = field(default_factory=list)


def _around(radii: Sequence[float], start: float = -90) -> Points:
    """A point for each radius, at equal angles, clockwise from `start` (degrees, 0 to the right)."""
    angles = [math.radians(start + 360 * n / len(radii)) for n in range(len(radii))]
    return [(r * math.cos(angle), r * math.sin(angle)) for r, angle in zip(radii, angles, strict=True)]


def _moon() -> Points:
    """The unit circle's left part, and back along a circle of radius 0.85 that lies 0.5 to the right."""
    outer = [math.radians(a) for a in range(58, 303, 8)]
    inner = [math.radians(a) for a in range(265, 94, -8)]
    return [(math.cos(a), math.sin(a)) for a in outer] + [(0.5 + 0.85 * math.cos(a), 0.85 * math.sin(a)) for a in inner]


def _heart() -> Points:
    angles = [math.radians(a) for a in range(0, 360, 8)]
    return [
        (
            math.sin(a) ** 3,
            -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 17 - 0.12,
        )
        for a in angles
    ]


def _cross(arm: float = 0.34) -> Points:
    quarter = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    turns = ((1, 0), (0, 1), (-1, 0), (0, -1))  # cosine and sine
    return [(x * c - y * s, x * s + y * c) for c, s in turns for x, y in quarter]


def _turned_over(half: Points) -> Points:
    """With the same again, turned by half a circle."""
    return half + [(-x, -y) for x, y in half]


def _arch(height: float, bend: float) -> Points:
    """From the left end to the right one, over the middle."""
    angles = [a / 20 * math.pi for a in range(20)]
    return [(-math.cos(a), -height * math.sin(a) ** bend) for a in angles]


OUTLINES = {
    "circle": Outline(_around([1.0] * 48), 180),
    "square": Outline([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)], 12),
    "triangle": Outline([(0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)], 15),
    "star": Outline(_around([1.0, 0.42] * 5), 36),
    "ring": Outline(_around([1.0] * 48), 180, _around([0.55] * 36)),
    "cross": Outline(_cross(), 12),
    "heart": Outline(_heart(), 15),
    "diamond": Outline([(0.0, -1.0), (0.66, 0.0), (0.0, 1.0), (-0.66, 0.0)], 8),
    "moon": Outline(_moon(), 35),
    "arrow": Outline([(-1, -0.3), (0.1, -0.3), (0.1, -0.85), (1, 0), (0.1, 0.85), (0.1, 0.3), (-1, 0.3)], 180),
    # Those of the other world.
    "flower": Outline(_around([0.74 + 0.26 * math.cos(math.radians(n * 40)) for n in range(45)]), 36),
    "house": Outline([(-0.75, 1), (-0.75, -0.1), (-1, -0.1), (0, -1), (1, -0.1), (0.75, -0.1), (0.75, 1)], 10),
    "dome": Outline(
        [
            (1.0, 0.5),
            (-1.0, 0.5),
            *((-math.cos(a / 24 * math.pi), 0.5 - math.sin(a / 24 * math.pi)) for a in range(25)),
        ],
        12,
    ),
    "bolt": Outline([(0.2, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.25, 1), (0.6, -0.25), (0.05, -0.25), (0.5, -1)], 12),
    "hexagon": Outline(_around([1.0] * 6), 30),
    "frame": Outline(
        [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)], 12, [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]
    ),
    # Those of a model that is to begin with many.
    "pentagon": Outline(_around([1.0] * 5), 15),
    "bucket": Outline([(-1.0, -0.85), (1.0, -0.85), (0.55, 0.85), (-0.55, 0.85)], 12),
    "corner": Outline([(-0.9, -0.95), (-0.3, -0.95), (-0.3, 0.35), (0.9, 0.35), (0.9, 0.95), (-0.9, 0.95)], 12),
    "hammer": Outline(
        [(-1, -0.9), (1, -0.9), (1, -0.3), (0.3, -0.3), (0.3, 0.95), (-0.3, 0.95), (-0.3, -0.3), (-1, -0.3)], 12
    ),
    "cup": Outline(
        [(-0.95, -0.9), (-0.4, -0.9), (-0.4, 0.35), (0.4, 0.35), (0.4, -0.9), (0.95, -0.9), (0.95, 0.9), (-0.95, 0.9)],
        12,
    ),
    "hourglass": Outline(_turned_over([(-0.85, -1), (0.85, -1), (0.85, -0.75), (0.18, 0), (0.85, 0.75)]), 12),
    "crown": Outline([(-1, -0.7), (-0.5, 0), (0, -0.85), (0.5, 0), (1, -0.7), (0.85, 0.8), (-0.85, 0.8)], 12),
    "stair": Outline(
        [
            (-0.95, 0.95),
            (-0.95, 0.35),
            (-0.3, 0.35),
            (-0.3, -0.3),
            (0.3, -0.3),
            (0.3, -0.95),
            (0.95, -0.95),
            (0.95, 0.95),
        ],
        10,
    ),
    "leaf": Outline(_turned_over(_arch(0.5, 1.3)), 30),
    "slice": Outline(
        [
            (-0.9, 0.9),
            *((-0.9 + 1.8 * math.sin(a / 36 * math.pi), 0.9 - 1.8 * math.cos(a / 36 * math.pi)) for a in range(19)),
        ],
        12,
    ),
    "nut": Outline(_around([1.0] * 6), 30, _around([0.5] * 30)),
    "bottle": Outline(
        [(-0.25, -1), (0.25, -1), (0.25, -0.45), (0.6, -0.1), (0.6, 1), (-0.6, 1), (-0.6, -0.1), (-0.25, -0.45)], 10
    ),
    "zigzag": Outline(_turned_over([(-0.9, -0.95), (0.9, -0.95), (0.9, -0.5), (-0.15, 0.5), (0.9, 0.5)]), 10),
}


def coverage(rings: Sequence[Points], size: tuple[int, int]) -> Numbers:
    """How much of each pixel of a patch of `size` (width, height) lies in the first ring and not in the others,
    [height, width] in [0, 1]. Points are pixels of the patch."""
    fine = Image.new("L", (size[0] * FINE, size[1] * FINE))
    draw = ImageDraw.Draw(fine)
    for number, ring in enumerate(rings):
        # Pillow takes whole numbers for the centres of pixels.
        draw.polygon([(x * FINE - 0.5, y * FINE - 0.5) for x, y in ring], fill=0 if number else 255)
    return np.asarray(fine.reduce(FINE), np.float32) / 255


def shape_patch(
    shape: str, colour: str, texture: str, side: float, rng: np.random.Generator
) -> tuple[Numbers, Numbers]:
    """A shape whose longer side is about `side` px: its colours [height, width, 3] and its coverage [height, width]."""
    outline = OUTLINES[shape]
    turn = math.radians(rng.uniform(-outline.turn, outline.turn))
    wide, high = side / 2 * rng.uniform(0.88, 1, 2)
    rings = [_placed(points, wide, high, turn) for points in (outline.points, outline.hole) if points]
    xs, ys = zip(*rings[0], strict=True)
    shift = (1 - min(xs), 1 - min(ys))
    size = (math.ceil(max(xs) + shift[0]) + 1, math.ceil(max(ys) + shift[1]) + 1)
    alpha = coverage([[(x + shift[0], y + shift[1]) for x, y in ring] for ring in rings], size)
    base = np.array(COLOURS[colour], np.float32) + rng.uniform(-9, 9, 3).astype(np.float32)
    mark = np.array(MARKS[colour], np.float32) if colour in MARKS else base * 0.22 + 255 * 0.78
    marked = _marked(texture, size, max(side / 5, PERIOD), rng)[..., None]
    return np.clip(base + (mark - base) * marked, 0, 255), alpha


def _placed(points: Points, wide: float, high: float, turn: float) -> Points:
    """Scaled first and then turned."""
    c, s = math.cos(turn), math.sin(turn)
    return [(x * wide * c - y * high * s, x * wide * s + y * high * c) for x, y in points]


def _marked(texture: str, size: tuple[int, int], period: float, rng: np.random.Generator) -> Numbers:
    """How much of each pixel is a stripe, dot or check, [height, width] in [0, 1]."""
    x0, y0, turn = rng.uniform(0, period), rng.uniform(0, period), rng.uniform(0, math.pi)
    if texture == "plain":
        return np.zeros((1, 1), np.float32)
    x = np.arange(size[0], dtype=np.float32) + x0
    y = np.arange(size[1], dtype=np.float32)[:, None] + y0
    across, down = _from_line(x, period), _from_line(y, period)
    if texture == "striped":
        inside = period * 0.22 - _from_line(x * math.cos(turn) + y * math.sin(turn), period)
    elif texture == "dotted":
        inside = period * 0.32 - np.hypot(across, down)
    else:  # marked where both are inside a stripe, or neither
        inside = 2 * np.clip(period / 4 - across, -0.5, 0.5) * np.clip(period / 4 - down, -0.5, 0.5)
    marked: Numbers = np.clip(inside + 0.5, 0, 1)
    return marked


def _from_line(at: Numbers, period: float) -> Numbers:
    """Distance from the next multiple of the period."""
    distance: Numbers = np.abs((at + period / 2) % period - period / 2)
    return distance
