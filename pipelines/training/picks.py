"""In which order images are learned: a stream without end that any worker can compute and begin anywhere.

A pick is a row of a shard that the phase learns; pick number p belongs to epoch p // count. An epoch takes the shards
in a random order, some at a time, and their rows in a random order among them: a shard is read once or a few times an
epoch, not once a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.layout import ShardId

AT_A_TIME = 8  # shards that are mixed with each other


class Pick(NamedTuple):
    """A row of a shard, its place in the stream, and the epoch that place is in."""

    place: int
    epoch: int
    shard: ShardId
    row: int


@dataclass(frozen=True, eq=False)  # compared by identity: hashing all shards for every pick would take long
class Picks:
    """The stream over `rows` of each of the `shards`."""

    shards: tuple[ShardId, ...]
    rows: tuple[npt.NDArray[np.uint32], ...]
    seed: int

    @cached_property
    def count(self) -> int:
        """Picks in an epoch."""
        return sum(map(len, self.rows))

    def chunks(self, start: int, size: int, rank: int = 0, world: int = 1) -> Iterator[list[Pick]]:
        """From place `start` on, `size` picks at a time: every `world`-th one, which are worker `rank`'s."""
        first = start + (rank - start) % world
        for number in count():
            at = first + number * size * world
            yield [self.pick(place) for place in range(at, at + size * world, world)]

    def patience(self, world: int) -> int:
        """Places after which one of `world` workers that could learn none of its picks will learn none at all.

        A row that comes first in one epoch and last in the next has nearly two epochs in between. A worker looks at
        every `world`-th place: the chance that a row passes it by in all of these epochs is below 1e-6.
        """
        return self.count * (2 + 20 * (world - 1))

    def pick(self, place: int) -> Pick:
        epoch, place_in_epoch = divmod(place, self.count)
        ends = _epoch(self, epoch)[1]
        group = int(np.searchsorted(ends, place_in_epoch, side="right"))
        start = int(ends[group - 1]) if group else 0
        shard, row = _group(self, epoch, group)[place_in_epoch - start]
        return Pick(place, epoch, self.shards[shard], int(row))

    def grouped(self, order: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        return [order[at : at + AT_A_TIME] for at in range(0, len(order), AT_A_TIME)]


@lru_cache(maxsize=4)
def _epoch(picks: Picks, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The order of the shards, and where each group of them ends."""
    order = np.random.default_rng((picks.seed, epoch)).permutation(len(picks.shards))
    counts = np.array([len(rows) for rows in picks.rows])
    return order, np.cumsum([counts[group].sum() for group in picks.grouped(order)])


@lru_cache(maxsize=4)
def _group(picks: Picks, epoch: int, group: int) -> npt.NDArray[np.int64]:
    """[rows, 2]: shard and row, in the order in which they are learned."""
    order, _ = _epoch(picks, epoch)
    members = picks.grouped(order)[group]
    pairs = np.concatenate([np.stack([np.full(len(picks.rows[s]), s), picks.rows[s]], axis=1) for s in members])
    shuffled: npt.NDArray[np.int64] = np.random.default_rng((picks.seed, epoch, group)).permutation(pairs)
    return shuffled


def at_places(picks: Sequence[tuple[ShardId, int]]) -> list[Pick]:
    """Given rows, in the given order, once."""
    return [Pick(place, 0, shard, row) for place, (shard, row) in enumerate(picks)]
