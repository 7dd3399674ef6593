"""The world, and a picture of it: drawn in depth order, with all that is true of it kept to the pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.world.backgrounds import BACKGROUNDS, OTHER_BACKGROUNDS, background, pixels_of
from benchmarks.world.shapes import COLOURS, TEXTURED, TEXTURES, Numbers, Pixels, Points, shape_patch
from benchmarks.world.words import MARGIN, OTHER_VOCABULARY, VOCABULARY, width_of, word_patch
from engine.geometry import encode_mask
from engine.records import Box, Quad

VISIBLE = 0.4  # of a shape's pixels at least: what would be hidden by more than 60 % is drawn elsewhere
FEWEST = 12  # px of a shape that are seen, at least
TRIES = 12
LETTERS = (0.1, 0.19)  # height of words, of the image's shorter side
SMALLEST = 11  # px, of a word's font
STEEP = 12.0  # degrees that a word may be turned, to either side
INKS = ((20.0, 20.0, 20.0), (245.0, 245.0, 245.0))
SIGNS = ((250, 250, 250), (252, 236, 150), (170, 220, 250), (30, 30, 30), (20, 70, 40), (60, 20, 90))


@dataclass(frozen=True)
class World:
    """What scenes are drawn from: everything in a scene follows from this, a seed and an index.

    `size` is (width, height) of a picture in px. `objects` and `words` are how many are drawn, at least and at most;
    one that finds no place is left away. `shapes` grow rarer in their order; `rare_shapes` have `rare` of all shapes
    between them. `sides` are the longer sides of shapes, of the image's shorter one, small ones as likely as large
    ones by their logarithm.
    """

    size: tuple[int, int] = (128, 128)
    objects: tuple[int, int] = (1, 6)
    words: tuple[int, int] = (0, 2)
    shapes: tuple[str, ...] = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "diamond")
    rare_shapes: tuple[str, ...] = ("moon", "arrow")
    rare: float = 0.03
    textures: tuple[str, ...] = TEXTURES
    vocabulary: tuple[str, ...] = VOCABULARY
    backgrounds: tuple[str, ...] = BACKGROUNDS
    sides: tuple[float, float] = (0.06, 0.6)
    smallest: float = 7.0  # px

    @property
    def labels(self) -> tuple[str, ...]:
        return self.shapes + self.rare_shapes

    @property
    def shares(self) -> tuple[float, ...]:
        """How often each label is drawn; they add up to 1."""
        rare = self.rare if self.rare_shapes else 0.0
        common = [(n + 2) ** -0.8 for n in range(len(self.shapes))]
        shares = [(1 - rare) * share / sum(common) for share in common]
        return tuple(shares + [rare / len(self.rare_shapes) for _ in self.rare_shapes])

    def picture(self, seed: int, index: int) -> Picture:
        """The same for the same arguments, whatever was drawn before, and on every machine with the same Pillow."""
        return _Drawing(self, np.random.default_rng(np.random.SeedSequence((seed, index)))).picture()


EASY = World(objects=(1, 3), words=(0, 0), backgrounds=("plain",), sides=(0.15, 0.6))
FULL = World()
# Nothing of it is in FULL but the colours and the textures: for a model that is to begin elsewhere.
OTHER = World(
    shapes=("flower", "house", "hexagon", "dome"),
    rare_shapes=("bolt", "frame"),
    vocabulary=OTHER_VOCABULARY,
    backgrounds=OTHER_BACKGROUNDS,
)
PRESETS = {"easy": EASY, "full": FULL, "other": OTHER}


@dataclass(frozen=True)
class Shape:
    """A shape as far as it is seen: the smallest box around its pixels, and these as COCO's run lengths over the image.

    `visible` is their share of those that it would have if nothing lay upon it.
    """

    label: str
    colour: str
    texture: str
    box: Box
    mask: bytes
    area: int
    visible: float


@dataclass(frozen=True)
class Word:
    """A word as it stands there; its corners clockwise from its own top left."""

    text: str
    quad: Quad


@dataclass(frozen=True)
class Picture:
    """Pixels, and the truth about them. `shapes` lie upon each other in their order, the last on top."""

    world: World
    pixels: Pixels
    background: str
    shapes: tuple[Shape, ...]
    words: tuple[Word, ...]


@dataclass(frozen=True)
class _Place:
    """Where a patch lies in the image, and which of the image's pixels are its own: those covered by half or more."""

    rows: slice
    columns: slice
    alpha: Numbers
    own: npt.NDArray[np.bool_]


@dataclass
class _Drawing:
    """A picture on its way. `owner` [height, width] says whose pixel is seen: a shape's number, -1 the background's,
    -2 a word's."""

    world: World
    rng: np.random.Generator
    canvas: Numbers = field(init=False)
    owner: npt.NDArray[np.int8] = field(init=False)
    whole: list[int] = field(default_factory=list)
    kinds: list[tuple[str, str, str]] = field(default_factory=list)

    def picture(self) -> Picture:
        world, rng = self.world, self.rng
        kind = world.backgrounds[int(rng.integers(len(world.backgrounds)))]
        self.canvas = background(kind, world.size, rng).copy()
        self.owner = np.full(self.canvas.shape[:2], -1, np.int8)
        for _ in range(int(rng.integers(world.objects[0], world.objects[1] + 1))):
            self._shape()
        wanted = int(rng.integers(world.words[0], world.words[1] + 1))
        words = [word for word in (self._word() for _ in range(wanted)) if word]
        return Picture(world, pixels_of(self.canvas), kind, tuple(self._shapes()), tuple(words))

    def _shape(self) -> None:
        world, rng = self.world, self.rng
        label = str(rng.choice(world.labels, p=world.shares))
        colour, texture = (str(rng.choice(some)) for some in (list(COLOURS), world.textures))
        shorter = min(world.size)
        side = max(shorter * math.exp(rng.uniform(math.log(world.sides[0]), math.log(world.sides[1]))), world.smallest)
        for _ in range(TRIES):
            worn = texture if side >= TEXTURED else "plain"
            colours, alpha = shape_patch(label, colour, worn, side, rng)
            for place in self._places(alpha, 3):
                if place.own.sum() >= FEWEST and self._leaves_enough(place):
                    self._paint(place, colours, len(self.whole))
                    self.kinds.append((label, colour, worn))
                    self.whole.append(int(place.own.sum()))
                    return
            side = max(side * 0.8, world.smallest)

    def _word(self) -> Word | None:
        world, rng = self.world, self.rng
        text = str(rng.choice(world.vocabulary))
        text = text.upper() if rng.random() < 0.5 else text
        size = max(round(min(world.size) * rng.uniform(*LETTERS)), SMALLEST)
        room = world.size[0] * 0.9 - 2 * MARGIN
        size = max(min(size, int(size * room / width_of(text, size))), SMALLEST)
        turn = float(rng.uniform(-STEEP, STEEP)) if rng.random() < 0.5 else 0.0
        on_sign, ink = rng.random() < 0.5, np.array(INKS[int(rng.integers(2))], np.float32)
        sign = np.array(SIGNS[int(rng.integers(len(SIGNS)))], np.float32)
        if on_sign:
            ink = np.array(INKS[int(sign.mean() < 128)], np.float32)
        letters, plate, corners = word_patch(text, size, turn, on_sign)
        for place in self._places(np.maximum(letters, plate), TRIES):
            if self._is_free(place, on_sign):
                self._paint(place, sign + (ink - sign) * letters[..., None] if on_sign else ink, -2)
                return Word(text, self._quad(corners, place))
        return None

    def _places(self, alpha: Numbers, tries: int) -> Iterator[_Place]:
        """Places inside the image; none if the patch is too large."""
        height, width = alpha.shape
        columns, rows = self.world.size
        if height > rows or width > columns:
            return
        for _ in range(tries):
            y, x = int(self.rng.integers(rows - height + 1)), int(self.rng.integers(columns - width + 1))
            yield _Place(slice(y, y + height), slice(x, x + width), alpha, alpha >= 0.5)

    def _leaves_enough(self, place: _Place) -> bool:
        """Whether of every shape enough would still be seen."""
        if not self.whole:
            return True
        owner = self.owner.copy()
        owner[place.rows, place.columns][place.own] = -2
        seen = np.bincount(owner[owner >= 0], minlength=len(self.whole))
        return all(n >= max(VISIBLE * whole, FEWEST) for n, whole in zip(seen, self.whole, strict=True))

    def _is_free(self, place: _Place, on_sign: bool) -> bool:
        """A word keeps off other words, and without a sign off shapes, too: nobody could read it there."""
        there = self.owner[place.rows, place.columns]
        return not (there == -2).any() and (self._leaves_enough(place) if on_sign else bool((there == -1).all()))

    def _paint(self, place: _Place, colours: Numbers, owner: int) -> None:
        under, alpha = self.canvas[place.rows, place.columns], place.alpha[..., None]
        under += (colours - under) * alpha
        self.owner[place.rows, place.columns][place.own] = owner

    def _quad(self, corners: Points, place: _Place) -> Quad:
        width, height = self.world.size
        moved = [(x + place.columns.start, y + place.rows.start) for x, y in corners]
        a, b, c, d = [(min(max(x, 0.0), width), min(max(y, 0.0), height)) for x, y in moved]
        return (*a, *b, *c, *d)

    def _shapes(self) -> Iterator[Shape]:
        for number, (whole, (label, colour, texture)) in enumerate(zip(self.whole, self.kinds, strict=True)):
            mask = self.owner == number
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = tuple(map(float, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)))
            area = int(mask.sum())
            yield Shape(label, colour, texture, box, encode_mask(mask), area, area / whole)  # type: ignore[arg-type]
