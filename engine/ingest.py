"""Ingest: every input becomes an item, read or not. Each file is read once, for its hash and its header.

Two passes: the first reads, shard by shard; the second finds the exact duplicates over the column of hashes alone
(32 bytes an item in memory) and rewrites the shards that have some. A killed ingest, run again, gives the same files:
shards that the same configuration made of the same inputs are kept, all others are made anew or removed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from engine.config import Ingest
from engine.download import Downloader
from engine.entry import Entry, Fault
from engine.errors import ImageError, OutputError
from engine.given import take
from engine.images import probe
from engine.listing import Listing
from engine.reading import read
from engine.records import Item, ItemError, Record, digest16
from engine.schema import ANNOTATION_COLUMNS, items_to_table
from engine.storage import (
    Output,
    ShardId,
    has_given,
    read_faults,
    read_given,
    read_items,
    read_table,
    shard_digest,
    write_given,
    write_json,
    write_table,
)
from engine.uris import is_url

T = TypeVar("T")

THREADS = min(4 * (os.cpu_count() or 1), 32)  # they wait for disks more than they work
# Items that may be under way before the shard that waits for its slowest one is written: hosts that don't answer take
# a minute, and would hold up all others.
AHEAD = 2048
LARGE_BYTES = 16 * 2**20  # a larger file is read while no other large one is, or they might fill the memory
_large = threading.Lock()


@dataclass(frozen=True)
class Partition:
    """At most a million items, in shards of `shard_size`; the last one may be shorter."""

    number: int
    items: int
    shard_size: int

    def shards(self) -> list[ShardId]:
        return [ShardId(self.number, n) for n in range(-(-self.items // self.shard_size))]


def ingest(output: Output, config: Ingest, digest: str, progress: Callable[[int], None]) -> dict[str, Any]:
    """Writes the manifest and returns what manifest.json says. `progress` gets the number of items done since.

    Raises ConfigError when an image set can't be listed or holds no image.
    """
    listing = listing_of(config)
    listed = hashlib.sha256()
    partitions = []
    for number, entries in enumerate(chunks(islice(listing, config.limit), config.partition_size)):
        partition = Partition(number, len(entries), shard_size(len(entries), config))
        _update(listed, entries)
        _write_partition(output, partition, entries, config, digest, progress)
        partitions.append(partition)
    shards = [shard for partition in partitions for shard in partition.shards()]
    _remove_others(output, shards)
    duplicates, errors = _mark_duplicates(output, shards, digest)
    given, faults = _count_given(output, shards)
    summary = {
        "digest": digest,
        "listed": _closed(listed, config),
        "items": sum(partition.items for partition in partitions),
        "duplicates": duplicates,
        "errors": dict(sorted(errors.items())),
        "skipped": dict(sorted(listing.skipped.items())),
        "repeated": listing.repeated,
        "given": dict(sorted(given.items())),
        "faults": dict(sorted((faults + listing.faults.counts).items())),
        "first_faults": [asdict(fault) for fault in listing.faults.first],
        "partitions": [{"items": p.items, "shard_size": p.shard_size, "shards": len(p.shards())} for p in partitions],
    }
    write_json(output.manifest, summary)
    return summary


def listing_of(config: Ingest) -> Listing:
    return Listing(config.images, image_root=config.image_root, class_folders=config.class_folders)


def listed_digest(config: Ingest) -> str:
    """What `listed` in manifest.json would be for the image set as it is now: 12 hex digits over its URIs, and over the
    sizes and times of the files that list them."""
    listed = hashlib.sha256()
    _update(listed, islice(listing_of(config), config.limit))
    return _closed(listed, config)


@dataclass(frozen=True)
class _Reading:
    """A shard whose entries are being read; without `items` if it is there already."""

    shard: ShardId
    entries: list[Entry]
    items: list[Future[Item]] | None


def _write_partition(
    output: Output,
    partition: Partition,
    entries: list[Entry],
    config: Ingest,
    digest: str,
    progress: Callable[[int], None],
) -> None:
    """Writes the shards that aren't there, in order."""
    downloads = Downloader(output.downloads, config.http, config.max_bytes)
    threads = config.http.connections if any(is_url(entry.uri) for entry in entries) else THREADS
    with _threads(threads, downloads) as pool:

        def begin(shard: ShardId, group: list[Entry]) -> _Reading:
            if _is_done(output, shard, group, digest, downloads):
                return _Reading(shard, group, None)
            return _Reading(shard, group, [pool.submit(item_of, entry, config, downloads) for entry in group])

        for reading in _ahead(map(begin, partition.shards(), chunks(entries, partition.shard_size))):
            if reading.items is not None:
                items = [item.result() for item in reading.items]
                write_given(output, reading.shard, _taken(items, reading.entries), digest)
                _write_items(output, reading.shard, items, digest)
            progress(len(reading.entries))


@contextmanager
def _threads(count: int, downloads: Downloader) -> Iterator[ThreadPoolExecutor]:
    """Threads that end at once, and their downloads, when something goes wrong or somebody presses Ctrl-C."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException:
        downloads.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(readings: Iterable[_Reading]) -> Iterator[_Reading]:
    """The same shards, in order; by the time that one is waited for the next ones have begun, about AHEAD items."""
    begun: deque[_Reading] = deque()
    for reading in readings:
        begun.append(reading)
        while begun and (begun[0].items is None or sum(len(there.items or ()) for there in begun) > AHEAD):
            yield begun.popleft()
    yield from begun


def item_of(entry: Entry, config: Ingest, downloads: Downloader) -> Item:
    """The item of one input, fetched if it is at a URL; what can't be read becomes its error."""
    item = Item(
        Item.id_of(entry.uri),
        entry.uri,
        dataset=entry.dataset,
        licence=entry.licence,
        labels=tuple(entry.labels),
        error=entry.error,
    )
    if item.error:
        return item
    try:
        if is_url(item.uri):
            downloads.fetch(item.uri)
    except ImageError as error:
        return replace(item, error=ItemError("ingest", error.kind, error.message[:1000]))
    measured = _measured(item, config, min(config.max_bytes, LARGE_BYTES), downloads.folder)
    if measured.error and measured.error.kind == "too_large":
        with _large:
            return _measured(item, config, config.max_bytes, downloads.folder)
    return measured


def _measured(item: Item, config: Ingest, max_bytes: int, downloads: Path) -> Item:
    try:
        data = read(item.uri, max_bytes=max_bytes, downloads=downloads)
        item = replace(item, content_id=digest16(data))
        width, height = probe(data, max_pixels=config.max_pixels)
    except ImageError as error:
        return replace(item, error=ItemError("ingest", error.kind, error.message[:1000]))
    return replace(item, width=width, height=height)


def shard_size(items: int, config: Ingest) -> int:
    """Small sets get small shards, so that all workers end together and a killed run loses little; large sets get
    shards that Parquet likes."""
    return config.shard_size if config.shard_size != "auto" else min(max(-(-items // 64), 4), 1024)


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _update(listed: hashlib._Hash, entries: Iterable[Entry]) -> None:
    for entry in entries:
        listed.update(entry.uri.encode() + b"\n")


def _closed(listed: hashlib._Hash, config: Ingest) -> str:
    """What comes along may change where the URIs don't."""
    for path in config.images:
        if os.path.isfile(path):
            status = os.stat(path)
            listed.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return listed.hexdigest()[:12]


def _is_done(output: Output, shard: ShardId, entries: Sequence[Entry], digest: str, downloads: Downloader) -> bool:
    """Whether an earlier ingest wrote this shard, with the same configuration and of the same entries."""
    try:
        if shard_digest(output.items(shard)) != digest:
            return False
        there = read_items(output, shard)
        listed = [Entry(item.uri, item.dataset, item.licence, item.labels) for item in there]
        if listed != [replace(entry, error=None) for entry in entries]:
            return False
        if not all(item.error or downloads.has(item.uri) for item in there if is_url(item.uri)):
            return False
        return has_given(output, shard, _taken(there, entries))
    except OutputError:  # damaged, or of another version
        return False


def _taken(items: Sequence[Item], entries: Sequence[Entry]) -> list[tuple[Record, tuple[Fault, ...]]]:
    return [take(item, entry.given()) for item, entry in zip(items, entries, strict=True)]


def _remove_others(output: Output, shards: Sequence[ShardId]) -> None:
    """Removes the shards of a killed ingest that found more images: whoever reads the folder would take them along."""
    ours = set(shards)
    for path in output.manifest.parent.glob("part-*/shard-*.parquet"):
        shard = ShardId.of(path)
        if shard not in ours:
            output.forget(shard)
            output.given(shard).unlink(missing_ok=True)
            path.unlink()


def _write_items(output: Output, shard: ShardId, items: Sequence[Item], digest: str) -> None:
    output.forget(shard)
    write_table(output.items(shard), items_to_table(items), digest)


def _count_given(output: Output, shards: Sequence[ShardId]) -> tuple[Counter[str], Counter[str]]:
    """How many annotations came along, by source and column, and how many faults were found in them, by kind."""
    given: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for shard in shards:
        if output.given(shard).exists():
            for record in read_given(output, shard):
                given.update(f"{a.source} {column}" for column in ANNOTATION_COLUMNS for a in getattr(record, column))
            faults.update(fault.kind for _, fault in read_faults(output, shard))
    return given, faults


def _mark_duplicates(output: Output, shards: Sequence[ShardId], digest: str) -> tuple[int, Counter[str]]:
    """Sets `duplicate_of` on every readable item whose bytes an earlier item has.

    Returns the number of duplicates, and of unreadable items by the kind of their error.
    """
    ids, of = _duplicates(output, shards)
    errors: Counter[str] = Counter()
    start = 0
    for shard in shards:
        items = read_items(output, shard)
        marked = [
            replace(item, duplicate_of=ids[of[row]].as_py() if row in of else None)
            for row, item in enumerate(items, start)
        ]
        if marked != items:
            _write_items(output, shard, marked, digest)
        errors.update(item.error.kind for item in items if item.error)
        start += len(items)
    return len(of), errors


def _duplicates(output: Output, shards: Sequence[ShardId]) -> tuple[pa.ChunkedArray, dict[int, int]]:
    """The column of item ids, and for each row that is a duplicate the row that it repeats."""
    columns = ["item_id", "content_id", "error"]
    table = pa.concat_tables(read_table(output.items(shard), columns) for shard in shards)
    readable = np.flatnonzero(table.column("error").is_null().to_numpy())
    codes = table.column("content_id").take(readable).combine_chunks().dictionary_encode().indices.to_numpy()
    first = readable[np.unique(codes, return_index=True)[1]][codes]  # codes count up in order of appearance
    repeats = first != readable
    return table.column("item_id"), dict(zip(readable[repeats].tolist(), first[repeats].tolist(), strict=True))
