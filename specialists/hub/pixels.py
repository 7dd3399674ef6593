"""Images on their way into a network, and what comes out: cut, widened, and put together where shapes allow it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from engine.geometry import clip
from engine.protocols import Image
from engine.records import Box

GREY = 128
NARROWEST = 64  # longer sides a shorter one; a DETR's 1333 px leave it 21


def crop(image: Image, box: Box, margin: float = 0.0) -> Image:
    """The pixels [height, width, 3] of a box and a margin around it, as far as the image has them: maybe none."""
    x0, y0, x1, y1 = box
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    height, width = image.shape[:2]
    left, top, right, bottom = (round(side) for side in clip((x0 - dx, y0 - dy, x1 + dx, y1 + dy), width, height))
    return image[top:bottom, left:right]


def widened(image: Image, narrowest: int = NARROWEST) -> Image:
    """An image so narrow that nothing would be left of its shorter side gets grey at its right or bottom."""
    least = math.ceil(max(image.shape[:2]) / narrowest)
    missing = [(0, max(least - side, 0)) for side in image.shape[:2]]
    return np.pad(image, [*missing, (0, 0)], constant_values=GREY)


def alike(pixels: Sequence[Any]) -> Iterator[tuple[list[int], Any]]:
    """Tensors [1, ...] that have one shape together, [n, ...], with their places."""
    import torch

    places: dict[Any, list[int]] = {}
    for place, one in enumerate(pixels):
        places.setdefault(tuple(one.shape), []).append(place)
    for some in places.values():
        yield some, torch.cat([pixels[place] for place in some])


def in_full(outputs: Any) -> Any:
    """A model's outputs in float32: in half of that the corners of boxes are off by pixels."""
    import torch

    for key, value in list(outputs.items()):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            outputs[key] = value.float()
    return outputs
