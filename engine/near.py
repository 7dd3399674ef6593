"""Near-duplicates: images that look the same, whatever their size, format and quality.

The perceptual hash is imagehash's pHash: 64 signs of the lowest frequencies of a 32 x 32 grey copy. Two images are
near-duplicates if their hashes differ in at most MAX_DISTANCE bits. To find such pairs without comparing all with all,
a hash is cut into 8 bands of 8 bits, and only hashes that share two whole bands are compared: 6 bits that differ leave
at least two bands untouched, so none is missed. `engine.grouping` finds those of a whole set.
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
MOST_DISTANCE = 16  # beyond it are images that have nothing to do with each other: two random hashes differ in 32
BLOCK = 2**22  # pairs of hashes that are compared at a time
CACHED = 2**17  # likewise, where all are compared with all: what a processor's cache holds

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


def between(
    hashes: Hashes, others: Hashes, distance: int = MAX_DISTANCE
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices into both of all pairs within `distance` bits of each other. A pair may come more than once.

    Bands are looked up among the others: those should be the fewer. Beyond MAX_DISTANCE bits all are compared.
    """
    if not len(hashes) or not len(others):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    found = list(_sharing(hashes, others) if distance <= MAX_DISTANCE else _all(hashes, others, distance))
    one, other = (np.concatenate(parts) for parts in zip(*found, strict=True))
    close = np.bitwise_count(hashes[one] ^ others[other]) <= distance
    return one[close], other[close]


Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _sharing(hashes: Hashes, others: Hashes) -> Iterator[Pairs]:
    """Pairs within MAX_DISTANCE bits, by the bands that they share."""
    shifts = np.arange(0, 64, 64 // BANDS, dtype=np.uint64)
    for a, b in combinations(shifts, 2):
        keys, there = (_key(values, a, b) for values in (hashes, others))
        order = np.argsort(there, kind="stable")
        counts = np.bincount(there, minlength=2**16)
        starts = np.cumsum(counts) - counts
        for block in _blocks(counts[keys]):
            own = keys[block]
            one = np.repeat(block, counts[own])
            nth = np.arange(len(one)) - np.repeat(np.cumsum(counts[own]) - counts[own], counts[own])
            other = order[starts[keys[one]] + nth]
            close = np.bitwise_count(hashes[one] ^ others[other]) <= MAX_DISTANCE
            yield one[close], other[close]


def _key(values: Hashes, a: np.uint64, b: np.uint64) -> npt.NDArray[np.int64]:
    byte = np.uint64(0xFF)
    return ((values >> a & byte) << np.uint64(8) | values >> b & byte).astype(np.int64)


def _blocks(counts: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of what is to be compared with something, about BLOCK comparisons at a time."""
    there = np.flatnonzero(counts)
    ends = np.cumsum(counts[there])
    total = int(ends[-1]) if len(ends) else 0
    yield from np.split(there, np.searchsorted(ends, np.arange(BLOCK, total, BLOCK)))


def _all(hashes: Hashes, others: Hashes, distance: int) -> Iterator[Pairs]:
    size = max(CACHED // len(others), 1)
    for start in range(0, len(hashes), size):
        bits = np.bitwise_count(hashes[start : start + size, None] ^ others).ravel()
        places = np.flatnonzero(bits <= distance)
        yield places // len(others) + start, places % len(others)
