"""Groups of near-duplicates in a whole set, as `engine.near` has them, without holding the set in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from engine.near import BANDS, MAX_DISTANCE, MOST_TOGETHER, Hashes
from engine.repeats import firsts
from engine.spill import Rows, Spill

SEEN = np.dtype([("hash", np.uint64), ("row", np.int64)])
MIX = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio: spreads hashes that are alike over buckets

Numbers = npt.NDArray[np.int64]


def groups(parts: Iterable[tuple[Numbers, Hashes]]) -> tuple[Numbers, Numbers]:
    """The rows that have a near-duplicate, in order, and for each the first row of its group; groups are joined by
    chains of near-duplicates. `parts` are row numbers, which count up, and their hashes.

    48 bytes a row in temporary files. In memory some 50 bytes for each row that shares a band with some others, which
    is a 256th of them where hashes are as good as random, and for each that has a near-duplicate: 1 MB above the start
    for 10,000 random rows, 6 for 100,000, 9 for a million; 6 seconds of one core.
    """
    links, once = [], Spill(SEEN)
    for same, unique in _by_hash(parts):
        links.append(same)
        once.add(unique, np.zeros(len(unique)))
    for band in range(BANDS - 1):
        links += [_near(seen, band) for seen in _by_band(once, band)]
    return _joined(np.concatenate(links)) if links else (np.empty(0, np.int64), np.empty(0, np.int64))


def _by_hash(parts: Iterable[tuple[Numbers, Hashes]]) -> Iterator[tuple[Numbers, Rows]]:
    """Rows with the first row of the same hash [n, 2]; and the first ones themselves."""
    spill = Spill(SEEN)
    for numbers, hashes in parts:
        table = np.empty(len(numbers), SEEN)
        table["hash"], table["row"] = hashes, numbers
        spill.add(table, hashes * MIX >> np.uint64(56))
    for pieces in spill.buckets():
        unique, same = np.empty(0, SEEN), []
        for seen in pieces:
            unique = firsts(unique, seen, "hash")
            first = unique["row"][np.searchsorted(unique["hash"], seen["hash"])]
            same.append(np.stack([seen["row"], first], 1)[seen["row"] != first])
        yield np.concatenate(same), unique


def _by_band(once: Spill, band: int) -> Iterator[Rows]:
    """The hashes that share a band, together."""
    spill = Spill(SEEN)
    for pieces in once.buckets():
        for seen in pieces:
            spill.add(seen, _band(seen["hash"], band))
    for pieces in spill.buckets():
        yield np.concatenate(list(pieces))


def _near(seen: Rows, band: int) -> Numbers:
    """Rows with an earlier one of their group [n, 2], among different hashes that share a band and another, later
    one."""
    seen = seen[np.argsort(seen["hash"])]
    hashes, leader = np.ascontiguousarray(seen["hash"]), np.arange(len(seen))
    for other in range(band + 1, BANDS):
        keys = _band(hashes, other)
        order = np.argsort(keys, kind="stable")
        for one, two in _close(keys[order], hashes[order]):
            _join(leader, order[one], order[two])
    first = _roots(leader, np.arange(len(seen)))
    links: Numbers = np.stack([seen["row"], seen["row"][first]], 1)[first != np.arange(len(seen))]
    return links


def _close(keys: npt.NDArray[np.uint8], hashes: Hashes) -> Iterator[tuple[Numbers, Numbers]]:
    """Places of hashes within MAX_DISTANCE bits of each other, of the same key; keys are sorted."""
    here = np.arange(len(hashes))
    # Each with the next of the same key, then with the one after that, and so on.
    for step in range(1, MOST_TOGETHER):
        here = here[: np.searchsorted(here, len(hashes) - step)]
        here = here[keys[here] == keys[here + step]]
        if not len(here):
            return
        close = here[np.bitwise_count(hashes[here] ^ hashes[here + step]) <= MAX_DISTANCE]
        yield close, close + step


def _band(hashes: Hashes, band: int) -> npt.NDArray[np.uint8]:
    return (hashes >> np.uint64(64 // BANDS * band)).astype(np.uint8)


def _joined(links: Numbers) -> tuple[Numbers, Numbers]:
    rows, places = np.unique(links, return_inverse=True)
    leader = np.arange(len(rows))
    _join(leader, *places.reshape(-1, 2).T)
    return rows, rows[_roots(leader, leader.copy())]


def _join(leader: Numbers, ones: Numbers, others: Numbers) -> None:
    """Joins the groups of `ones` and `others`, pair by pair; each group's first is its root."""
    while len(ones):
        ones, others = _roots(leader, ones), _roots(leader, others)
        apart = ones != others
        ones, others = np.minimum(ones, others)[apart], np.maximum(ones, others)[apart]
        np.minimum.at(leader, others, ones)


def _roots(leader: Numbers, places: Numbers) -> Numbers:
    roots = leader[places]
    while (roots != leader[roots]).any():
        roots = leader[roots]
    leader[places] = roots
    return roots
