"""Writing shards of the manifest: what is there already is kept, all else is read, here or on a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from engine.atomic import names_in, remove
from engine.config import Ingest, Run
from engine.download import Downloader
from engine.entry import Entry, Fault
from engine.errors import OutputError
from engine.given import take
from engine.ingest.items import THREADS, Reader, Shard, item_of, threads
from engine.layout import Output, ShardId
from engine.partitions import Partition
from engine.records import Item, Record
from engine.schema import items_to_table
from engine.storage import has_given, read_items, shard_digest, write_given, write_table
from engine.uris import is_url

# Items that may be under way before the shard that waits for its slowest one is written: hosts that don't answer take
# a minute, and would hold up all others.
AHEAD = 2048

Done = Callable[[Shard, list[Item]], None]


@dataclass
class Writer:
    """Writes shards in order. Images are read in threads of this process; with a `run.address` of a cluster, by its
    machines, but for those at URLs: ingest.http.connections bounds how many are fetched at once, from here."""

    output: Output
    config: Ingest
    digest: str
    run: Run
    progress: Callable[[int], None]
    downloads: Downloader = field(init=False)
    _there: tuple[Path, set[str]] | None = None  # a partition's folder, and what is in it

    def __post_init__(self) -> None:
        self.downloads = Downloader(self.output.downloads, self.config.http, self.config.max_bytes)

    def write(self, shards: Iterable[Shard]) -> None:
        for urls, group in groupby(shards, lambda shard: shard.has_urls):
            if urls or self.run.address == "local":
                self._read_here(group, self.config.http.connections if urls else THREADS)
            else:
                self._read_on_cluster(group)

    def _read_here(self, shards: Iterable[Shard], count: int) -> None:
        with threads(count, self.downloads) as pool:

            def begin(shard: Shard) -> _Reading:
                if self._is_done(shard):
                    return _Reading(shard, None)
                return _Reading(shard, [pool.submit(item_of, e, self.config, self.downloads) for e in shard.entries])

            for reading in _ahead(map(begin, shards)):
                if reading.items is None:
                    self.progress(len(reading.shard.entries))
                else:
                    self._write(reading.shard, [item.result() for item in reading.items])

    def _read_on_cluster(self, shards: Iterable[Shard]) -> None:
        """Two shards a CPU are under way at a time."""
        from engine.runner import each_shard  # Ray takes a second to import

        waiting: deque[Shard] = deque()

        def orders() -> Iterator[Shard]:
            for shard in shards:
                if self._is_done(shard):
                    self.progress(len(shard.entries))
                    continue
                waiting.append(shard)
                yield replace(shard, entries=[replace(entry, given=tuple) for entry in shard.entries])

        def done(items: list[Item]) -> None:
            self._write(waiting.popleft(), items)

        each_shard(Reader(self.config, self.output.downloads), orders(), self.run, done)

    def _write(self, shard: Shard, items: list[Item]) -> None:
        write_given(self.output, shard.id, taken(items, shard.entries, self.config.source), self.digest)
        write_items(self.output, shard.id, items, self.digest)
        self.progress(len(items))

    def _is_done(self, shard: Shard) -> bool:
        """Whether an earlier ingest wrote this shard, with the same configuration and of the same entries."""
        path = self.output.items(shard.id)
        if self._there is None or self._there[0] != path.parent:
            self._there = path.parent, set(names_in(path.parent))
        if path.name not in self._there[1]:
            return False
        try:
            if shard_digest(path) != self.digest:
                return False
            there = read_items(self.output, shard.id)
            listed = [Entry(item.uri, item.dataset, item.licence, item.labels) for item in there]
            if listed != [replace(entry, error=None) for entry in shard.entries]:
                return False
            if not all(item.error or self.downloads.has(item.uri) for item in there if is_url(item.uri)):
                return False
            return has_given(self.output, shard.id, taken(there, shard.entries, self.config.source))
        except OutputError:  # damaged, or of another version
            return False


@dataclass(frozen=True)
class _Reading:
    """A shard whose entries are being read; without `items` if it is there already."""

    shard: Shard
    items: list[Future[Item]] | None


def _ahead(readings: Iterable[_Reading]) -> Iterator[_Reading]:
    """The same shards, in order; by the time that one is waited for the next ones have begun, about AHEAD items."""
    begun: deque[_Reading] = deque()
    for reading in readings:
        begun.append(reading)
        while begun and (begun[0].items is None or sum(len(there.items or ()) for there in begun) > AHEAD):
            yield begun.popleft()
    yield from begun


def taken(items: Sequence[Item], entries: Sequence[Entry], source: str) -> list[tuple[Record, tuple[Fault, ...]]]:
    """`source` signs what came along where nobody else is named."""
    return [take(item, entry.given(), source) for item, entry in zip(items, entries, strict=True)]


def write_items(output: Output, shard: ShardId, items: Sequence[Item], digest: str) -> None:
    output.forget(shard)
    write_table(output.items(shard), items_to_table(items), digest)


def remove_others(output: Output, partitions: Sequence[Partition]) -> None:
    """Removes the shards of a killed ingest that found more images: whoever reads the folder would take them along."""
    images = output.manifest.parent
    shards = {partition.number: len(partition.shards) for partition in partitions}
    folders = [images / name for name in names_in(images) if name.startswith("part-")]
    for folder in folders:
        for path in (folder / name for name in names_in(folder) if name.startswith("shard-")):
            shard = ShardId.of(path)
            if shard.number >= shards.get(shard.partition, 0):
                output.forget(shard)
                remove(output.given(shard))
                remove(output.items(shard))
