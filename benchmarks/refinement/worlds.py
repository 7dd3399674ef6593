"""Two worlds that have nothing in common but colours, textures and grammar: one to refine, one where the model begins.

HERE has six common and two rare shapes, THERE twenty-one others; words, backgrounds and letters' company are different,
too. Both are sparse, one to three shapes a picture: a model that is trained in minutes finds no more.
"""

from __future__ import annotations

import numpy as np

from benchmarks.world import World
from benchmarks.world.words import VOCABULARY

SIZE = (64, 64)
HERE = World(
    size=SIZE,
    objects=(1, 3),
    words=(0, 1),
    shapes=("circle", "square", "triangle", "star", "ring", "cross"),
    rare_shapes=("moon", "heart"),
    rare=0.08,
    textures=("plain", "striped"),
    vocabulary=VOCABULARY[:40],
    backgrounds=("plain", "shaded", "grainy"),
    sides=(0.2, 0.5),
)
SYLLABLES = ("ba", "ci", "do", "fu", "ga", "hi", "jo", "ku", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wa", "xe")
ENDS = ("", "b", "d", "g", "k", "l", "m", "n", "p", "r", "s", "t", "z", "q", "y")


def _pseudo_words(count: int) -> tuple[str, ...]:
    """Words that are none, and none of HERE's: what is read in them is letters."""
    rng = np.random.default_rng(7)
    found: dict[str, None] = {}
    while len(found) < count:
        parts = [str(rng.choice(SYLLABLES)) for _ in range(int(rng.integers(1, 3)))]
        word = "".join(parts) + str(rng.choice(ENDS))
        if 2 < len(word) <= 5 and word not in VOCABULARY:
            found[word] = None
    return tuple(found)


THERE = World(
    size=SIZE,
    objects=(1, 3),
    words=(0, 1),
    shapes=(
        *("flower", "house", "hexagon", "dome", "bolt", "frame", "diamond", "arrow", "pentagon", "bucket", "corner"),
        *("hammer", "cup", "hourglass", "crown", "stair", "leaf", "slice", "nut", "bottle", "zigzag"),
    ),
    rare_shapes=(),
    textures=("plain", "striped"),
    vocabulary=_pseudo_words(400),
    backgrounds=("wavy", "tiled"),
    sides=(0.2, 0.5),
)
