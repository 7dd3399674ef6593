"""Near-duplicates: images that look the same, whatever their size, format and quality.

The perceptual hash is imagehash's pHash: 64 signs of the lowest frequencies of a 32 x 32 grey copy. Two images are
near-duplicates if their hashes differ in at most MAX_DISTANCE bits. To find such pairs without comparing all with all,
a hash is cut into 8 bands of 8 bits, and only hashes that share two whole bands are compared: 6 bits that differ leave
at least two bands untouched, so none is missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from engine.protocols import Image

MAX_DISTANCE = 6
BANDS = 8
LONGEST_SIDE = 256  # px: an image is made smaller by whole factors to about this, which costs little, before pHash does
FAINT = 1.0  # grey levels, standard deviation: below it there is nothing but noise
MOST_TOGETHER = 2048  # a hash is compared with so many that share two bands with it; it has 15 in a million images

Hashes = npt.NDArray[np.uint64]


def perceptual_hash(image: Image) -> bytes | None:
    """The pHash of an image [height, width, 3] RGB, as 8 bytes; None for one without anything to see: all blank images
    would be one group, whatever their colour."""
    import imagehash

    picture = Pillow.fromarray(image)
    factor = max(min(picture.size) // LONGEST_SIDE, 1)
    small = picture.reduce(factor) if factor > 1 else picture
    if np.asarray(small.convert("L").resize((32, 32))).std() < FAINT:
        return None
    bits = imagehash.phash(small).hash
    return np.packbits(bits.reshape(-1)).tobytes()


def group(hashes: Hashes) -> npt.NDArray[np.int64]:
    """For each hash the index of the first one of its group; groups are joined by chains of near-duplicates."""
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    leader = np.arange(len(unique))
    for one, other in _pairs(unique):
        _join(leader, one, other)
    roots = np.array([_root(leader, n) for n in range(len(unique))], dtype=np.int64)
    earliest = np.full(len(unique), len(hashes), dtype=np.int64)
    np.minimum.at(earliest, roots, first)
    members: npt.NDArray[np.int64] = earliest[roots][inverse]
    return members


def _pairs(hashes: Hashes) -> Iterator[tuple[int, int]]:
    """Indices of hashes within MAX_DISTANCE bits of each other; a pair may come more than once."""
    bands = hashes[:, None] >> np.arange(0, 64, 64 // BANDS, dtype=np.uint64) & np.uint64(0xFF)
    for a, b in combinations(range(BANDS), 2):
        keys = bands[:, a] << np.uint64(8) | bands[:, b]
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], hashes[order]
        here = np.arange(len(hashes))
        # Each with the next of the same key, then with the one after that, and so on.
        for step in range(1, MOST_TOGETHER):
            here = here[here + step < len(hashes)]
            here = here[keys[here] == keys[here + step]]
            if not len(here):
                break
            close = here[np.bitwise_count(values[here] ^ values[here + step]) <= MAX_DISTANCE]
            yield from zip(order[close].tolist(), order[close + step].tolist(), strict=True)


def _root(leader: npt.NDArray[np.int64], n: int) -> int:
    while leader[n] != n:
        leader[n] = leader[leader[n]]
        n = int(leader[n])
    return n


def _join(leader: npt.NDArray[np.int64], one: int, other: int) -> None:
    low, high = sorted((_root(leader, one), _root(leader, other)))
    leader[high] = low
