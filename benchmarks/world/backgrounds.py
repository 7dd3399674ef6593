"""What the world's scenes lie on: middle tones of little colour, so that every colour of a shape stands out."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.world.shapes import Numbers, Pixels
from pipelines.samples import sample_photos

BACKGROUNDS = ("plain", "shaded", "cloudy", "grainy", "photographic")
OTHER_BACKGROUNDS = ("wavy", "tiled")
DARK, LIGHT = 84.0, 176.0  # what their pixels lie between, but for noise
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "gravel.png", "motorcycle_left.png", "rocket.jpg")
LONGEST = 320  # px, of a photo kept in memory


def background(kind: str, size: tuple[int, int], rng: np.random.Generator) -> Numbers:
    """Pixels [height, width, 3] of a background of `size` (width, height).

    "photographic" takes the sample photos: raises ConfigError where scikit-image is not installed.
    """
    width, height = size
    if kind == "photographic":
        return _photo(size, rng)
    if kind == "cloudy":
        grid = _tones(rng, 25).reshape(5, 5, 3)
        return np.asarray(Image.fromarray(grid.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC), np.float32)
    here, there = _tones(rng, 2)
    if kind in ("shaded", *OTHER_BACKGROUNDS):
        mixed: Numbers = here + (there - here) * _pattern(kind, size, rng)
        return mixed
    noise = rng.normal(0, 16, (height, width, 1)) if kind == "grainy" else np.zeros((height, width, 1))
    ground: Numbers = (here + noise).astype(np.float32)
    return ground


def _pattern(kind: str, size: tuple[int, int], rng: np.random.Generator) -> Numbers:
    """A slope from one side to the other, soft waves, or square tiles, [height, width, 1] in [0, 1]."""
    turn = rng.uniform(0, 2 * math.pi)
    if kind == "shaded":
        right, down = (np.linspace(-1, 1, side, dtype=np.float32) for side in size)
        slope: Numbers = np.clip(0.5 + (right * math.cos(turn) + down[:, None] * math.sin(turn)) / 2.4, 0, 1)
        return slope[..., None]
    x, y = np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32)[:, None]
    pace = 2 * math.pi / (max(size) * rng.uniform(0.1, 0.25))
    across, along = x * pace + turn, y * pace + turn
    if kind == "tiled":
        tiles: Numbers = np.where((np.cos(across) > -0.95) & (np.cos(along) > -0.95), 1.0, 0.0)
        return tiles[..., None]
    waves: Numbers = 0.5 + 0.5 * np.sin(along + 1.5 * np.sin(across / 2))
    return waves[..., None]


def _tones(rng: np.random.Generator, count: int) -> Numbers:
    """Colours [count, 3], nearly grey."""
    grey = rng.uniform(DARK + 16, LIGHT - 16, (count, 1))
    tones: Numbers = (grey + rng.uniform(-16, 16, (count, 3))).astype(np.float32)
    return tones


def _photo(size: tuple[int, int], rng: np.random.Generator) -> Numbers:
    """A crop of a sample photo, so blurred that nothing in it is an object, its tones drawn together."""
    photo = _photos()[int(rng.integers(len(PHOTOS)))]
    side = rng.uniform(0.4, 0.9) * min(photo.size)
    scale = side / max(size)
    wide, high = size[0] * scale, size[1] * scale
    x, y = rng.uniform(0, photo.width - wide), rng.uniform(0, photo.height - high)
    crop = photo.resize(size, Image.Resampling.BILINEAR, (x, y, x + wide, y + high))
    pixels = np.asarray(crop.filter(ImageFilter.GaussianBlur(max(size) / 30)), np.float32)
    grey = pixels.mean(axis=2, keepdims=True)
    muted: Numbers = DARK + (grey + (pixels - grey) * 0.5) * ((LIGHT - DARK) / 255)
    return muted


@lru_cache(maxsize=1)
def _photos() -> list[Image.Image]:
    there = {path.rsplit("/", 1)[-1]: path for path in sample_photos()}
    photos = [Image.open(there[name]).convert("RGB") for name in PHOTOS]
    for photo in photos:
        photo.thumbnail((LONGEST, LONGEST))
    return photos


def pixels_of(canvas: Numbers) -> Pixels:
    pixels: Pixels = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return pixels
