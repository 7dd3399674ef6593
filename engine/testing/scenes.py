"""The kit's samples: drawn scenes and odd images; their records are empty, annotated, hostile, or a later round's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from engine.protocols import Image, Sample
from engine.records import Item, Record, digest16
from engine.rounds import begun
from engine.testing.annotated import annotated, later
from engine.testing.hostile import hostile


def samples() -> list[Sample]:
    """Small ones, the same each time; the longest are 300 pixels by one."""
    pictures = {
        "scene": scene(96, 144, 0),
        "portrait": scene(128, 96, 1),
        "grey": np.repeat(scene(80, 112, 2)[:, :, :1], 3, axis=2),
        "noise": np.random.default_rng(3).integers(0, 256, (72, 64, 3), dtype=np.uint8),
        "black": np.zeros((64, 80, 3), np.uint8),
        "white": np.full((64, 80, 3), 255, np.uint8),
        "pixel": np.full((1, 1, 3), 130, np.uint8),
        "flat": scene(48, 300, 4)[24:25],
        "thin": scene(300, 48, 5)[:, 24:25],
        "strip": scene(48, 160, 6)[20:26],
    }
    known = {
        "scene": annotated,
        "pixel": annotated,
        "thin": annotated,
        "strip": annotated,
        "grey": hostile,
        "portrait": later,
    }
    bare = [_sample(name, picture) for name, picture in pictures.items()]
    return bare + [_sample(f"{having.__name__} {name}", pictures[name], having) for name, having in known.items()]


def scene(height: int, width: int, seed: int) -> Image:
    """A disc and a square before a shaded and textured background, and a word on a sign."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    colours = random.integers(0, 256, (4, 3))
    shade = (y / height)[..., None]
    pixels = shade * colours[0] + (1 - shade) * colours[1] + random.normal(0, 8, (height, width, 1))
    radius = min(height, width) / 5
    pixels[(x - width * 0.3) ** 2 + (y - height * 0.4) ** 2 < radius**2] = colours[2]
    pixels[(abs(x - width * 0.7) < radius) & (abs(y - height * 0.35) < radius)] = colours[3]
    picture = Pillow.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    sign = (width * 0.1, height * 0.7, width * 0.9, height * 0.95)
    draw.rectangle(sign, fill="white")
    draw.text((width * 0.2, height * 0.7), "OPEN", fill="black", font=ImageFont.load_default(height * 0.2))
    return np.asarray(picture)


def _sample(name: str, image: Image, having: Callable[[Record], Record] | None = None) -> Sample:
    height, width = image.shape[:2]
    uri = f"/contract-kit/{name}.png"  # where no file is
    record = Record(Item(Item.id_of(uri), uri, content_id=digest16(image.tobytes()), width=width, height=height))
    record = having(record) if having else record
    return Sample(image, record, before=begun(record))


def name_of(sample: Sample) -> str:
    """For messages: which sample, and how much its record has."""
    height, width = sample.image.shape[:2]
    return f"{sample.record.item.uri} ({width} x {height}, {len(sample.record.by_id)} annotations)"


def as_handed(samples: Sequence[Sample]) -> list[Sample]:
    """Fresh copies with read-only images, as the engine hands them to a specialist."""
    handed = []
    for sample in samples:
        image = sample.image.copy()
        image.setflags(write=False)
        handed.append(Sample(image, copy.deepcopy(sample.record), sample.filters, copy.deepcopy(sample.before)))
    return handed
