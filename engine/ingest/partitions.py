"""How a listing is cut into partitions and shards, as it goes by."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count, islice
from typing import TypeVar

from engine.config import Ingest
from engine.entry import Entry, Given
from engine.ingest.items import Shard
from engine.layout import ShardId
from engine.partitions import Partition

T = TypeVar("T")
SHARDS, SMALLEST, LARGEST = 64, 4, 1024  # of a partition, and images in a shard, where nobody says how many


@dataclass
class Cut:
    """Shards of `entries`, in partitions from number `first` on; `partitions` has those that are through."""

    entries: Iterator[Entry]
    config: Ingest
    digest: str
    first: int = 0
    partitions: list[Partition] = field(default_factory=list)

    def __iter__(self) -> Iterator[Shard]:
        for number in count(self.first):
            # A partition with so many has shards of the largest size, whatever follows.
            first = islice(self.entries, min(SHARDS * LARGEST, self.config.partition_size))
            ahead = deque(map(_Packed.of, chunks(first, LARGEST)))
            if not ahead:
                return
            length, items = sum(len(block.given) for block in ahead), 0
            size, rest = shard_size(length, self.config), islice(self.entries, self.config.partition_size - length)
            for shard, entries in enumerate(chunks(chain(_drained(ahead), rest), size)):
                items += len(entries)
                yield Shard(ShardId(number, shard), entries)
            self.partitions.append(Partition(number, items, size, self.digest))


def shard_size(items: int, config: Ingest) -> int:
    """Small sets get small shards, so that all workers end together and a killed run loses little; large sets get
    shards that Parquet likes."""
    if config.shard_size != "auto":
        return config.shard_size
    return min(max(-(-items // SHARDS), SMALLEST), LARGEST)


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


@dataclass(frozen=True, slots=True)
class _Packed:
    """Entries that wait, in a third of their memory."""

    entries: bytes
    given: list[Callable[[], Sequence[Given]]]

    @classmethod
    def of(cls, entries: list[Entry]) -> _Packed:
        bare = [replace(entry, given=tuple) for entry in entries]
        return cls(pickle.dumps(bare), [entry.given for entry in entries])

    def unpacked(self) -> Iterator[Entry]:
        for entry, given in zip(pickle.loads(self.entries), self.given, strict=True):
            yield replace(entry, given=given)


def _drained(held: deque[_Packed]) -> Iterator[Entry]:
    while held:
        yield from held.popleft().unpacked()
