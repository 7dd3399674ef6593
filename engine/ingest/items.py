"""What one input comes to: it is fetched if it is at a URL, and read once, for its hash and its header."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from engine.config import Ingest
from engine.download import Downloader
from engine.entry import Entry
from engine.errors import ImageError
from engine.images import probe
from engine.layout import ShardId
from engine.reading import read
from engine.records import Item, ItemError, digest16
from engine.uris import is_url

THREADS = min(4 * (os.cpu_count() or 1), 32)  # they wait for disks more than they work
THREADS_PER_TASK = 4
LARGE_BYTES = 16 * 2**20  # a larger file is read while no other large one is, or they might fill the memory
_large = threading.Lock()


@dataclass(frozen=True)
class Shard:
    """A shard, and the inputs that it is of."""

    id: ShardId
    entries: list[Entry]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def has_urls(self) -> bool:
        return any(is_url(entry.uri) for entry in self.entries)


@dataclass(frozen=True)
class Reader:
    """Reads a shard's images, on any machine that sees them; none of them is at a URL."""

    config: Ingest
    downloads: Path

    def __call__(self, shard: Shard) -> list[Item]:
        downloads = Downloader(self.downloads, self.config.http, self.config.max_bytes)
        with threads(THREADS_PER_TASK, downloads) as pool:
            return list(pool.map(lambda entry: item_of(entry, self.config, downloads), shard.entries))


@contextmanager
def threads(count: int, downloads: Downloader) -> Iterator[ThreadPoolExecutor]:
    """Threads that end at once, and their downloads, when something goes wrong or somebody presses Ctrl-C."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException:
        downloads.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


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
