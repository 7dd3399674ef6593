"""Exact duplicates: images whose bytes an earlier one has. They are found by the column of hashes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.ingest.shards import write_items
from engine.layout import Output, ShardId
from engine.records import Item
from engine.repeats import REPEAT, Keys, Repeats
from engine.spill import Rows
from engine.storage import read_items, read_table

COLUMNS = ["item_id", "content_id", "duplicate_of", "error.kind"]
Places = dict[ShardId, dict[int, Item]]  # items by their shards and rows there


@dataclass
class Contents:
    """What the shards of a manifest hold, by the columns that duplicates and errors go by. Memory by the shard."""

    output: Output
    shards: list[ShardId]
    errors: Counter[str] = field(default_factory=Counter)  # by their kind
    marked: int = 0  # as duplicates

    def __iter__(self) -> Iterator[tuple[ShardId, Keys, Keys, npt.NDArray[np.bool_], int]]:
        """Each shard with item ids, content ids, whether an image can be read, and how many are marked."""
        for shard in self.shards:
            table = read_table(self.output.items(shard), COLUMNS)
            errors = table.column("error").combine_chunks()
            self.errors.update(error["kind"] for error in errors.drop_null().to_pylist())
            marked = len(table) - table.column("duplicate_of").null_count
            self.marked += marked
            yield shard, _keys(table, "item_id"), _keys(table, "content_id"), np.array(errors.is_null()), marked


def mark_duplicates(output: Output, shards: list[ShardId], digest: str, first: int = 0) -> tuple[int, Counter[str]]:
    """Sets `duplicate_of` on every readable item whose bytes an earlier item has, in the partitions from `first` on.

    Returns the number of duplicates, and of unreadable items by the kind of their error. Per item 56 bytes are kept in
    temporary files; see `engine.repeats` for memory.
    """
    contents, repeats = Contents(output, shards), Repeats()
    sizes, marked, start = [], [], 0
    for _, ids, content_ids, readable, count in contents:
        rows = np.flatnonzero(readable)
        repeats.add(content_ids[rows], start + rows, ids[rows])
        sizes.append(len(ids))
        marked.append(count)
        start += len(ids)
    duplicates = 0
    for shard, before, found in zip(shards, marked, _by_shard(repeats.found(), sizes), strict=True):
        if shard.partition < first:
            duplicates += before
            continue
        duplicates += len(found)
        if before or len(found):
            _mark(output, shard, found, digest)
    return duplicates, contents.errors


def marked(output: Output, now: Places, among: Iterable[ShardId]) -> Places:
    """The items of `now`, which are new in their places, with `duplicate_of` where an earlier item has the same bytes:
    one of them, or another of the shards `among` which are there."""
    if not now:
        return now
    read = {shard: {row: item for row, item in items.items() if not item.error} for shard, items in now.items()}
    wanted = {item.content_id for items in read.values() for item in items.values() if item.content_id}
    other = {item.item_id for items in now.values() for item in items.values()}
    first = _earliest(output, (shard for shard in among if shard <= max(now)), wanted, other)
    for shard, items in sorted(read.items()):
        for row, item in sorted(items.items()):
            assert item.content_id is not None
            here = (shard, row, item.item_id)
            first[item.content_id] = min(first.get(item.content_id, here), here)
    return {
        shard: {
            row: replace(item, duplicate_of=of if (of := first[item.content_id or b""][2]) != item.item_id else None)
            if row in read[shard]
            else item
            for row, item in items.items()
        }
        for shard, items in now.items()
    }


def _earliest(
    output: Output, shards: Iterable[ShardId], wanted: set[bytes], other: set[bytes]
) -> dict[bytes, tuple[ShardId, int, bytes]]:
    """Of the content ids `wanted` where the first readable item is that has each, and is none of the `other` items:
    shard, row, item id."""
    found: dict[bytes, tuple[ShardId, int, bytes]] = {}
    keys = np.array(sorted(wanted), "S16")
    for shard, ids, content_ids, readable, _ in Contents(output, list(shards)):
        for row in np.flatnonzero(readable & np.isin(content_ids, keys)).tolist():
            if (item_id := whole(ids[row])) not in other:
                found.setdefault(whole(content_ids[row]), (shard, row, item_id))
    return found


def whole(digest: np.bytes_) -> bytes:
    """numpy takes the zeros at a string's end for nothing."""
    return bytes(digest).ljust(16, b"\0")


def _keys(table: Any, name: str) -> Keys:
    """A column of 16 bytes each; what is null may be anything."""
    column = table.column(name).combine_chunks()
    return np.frombuffer(column.buffers()[1], "S16")[column.offset : column.offset + len(column)]


def _by_shard(found: Iterator[Rows], sizes: Sequence[int]) -> Iterator[Rows]:
    """The repeats in each shard; rows are then counted in it."""
    held, start = np.empty(0, REPEAT), 0
    for size in sizes:
        stop = start + size
        while not len(held) or held["row"][-1] < stop:
            piece = next(found, None)
            if piece is None:
                break
            held = np.concatenate([held, piece])
        here, held = np.split(held, [int(np.searchsorted(held["row"], stop))])
        here["row"] -= start
        yield here
        start = stop


def _mark(output: Output, shard: ShardId, found: Rows, digest: str) -> None:
    of = {row: whole(first) for row, first in found.tolist()}
    items = read_items(output, shard)
    marked = [replace(item, duplicate_of=of.get(row)) for row, item in enumerate(items)]
    if marked != items:
        write_items(output, shard, marked, digest)
