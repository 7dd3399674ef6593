"""Shards of the manifest that were lost, made anew of the images that they had: what was made of these is kept.

Which images those are is known by their ids from what came along or was made of them. Where nothing was made of a shard
it gets those that are listed and in no other shard, in the order of the list: of an unchanged set the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from engine.atomic import is_there, names_in
from engine.config import Ingest
from engine.download import Downloader
from engine.entry import Entry
from engine.errors import ImageError, OutputError
from engine.images import decode
from engine.ingest.duplicates import marked
from engine.ingest.items import THREADS_PER_TASK, item_of, threads
from engine.ingest.listed import listing_of
from engine.ingest.shards import taken
from engine.ingest.summary import write_counts
from engine.layout import Output, ShardId
from engine.near import perceptual_hash
from engine.partitions import ingested, opened, partitions
from engine.reading import read
from engine.records import Item, ItemError
from engine.schema import items_to_table
from engine.spill import Digests
from engine.storage import read_table, write_given, write_table


@dataclass(frozen=True)
class Restored:
    """Of the images of `shards`, `unlisted` are listed no longer, and `changed` are other files by now."""

    shards: tuple[ShardId, ...] = ()
    unlisted: int = 0
    changed: int = 0


@dataclass(frozen=True)
class Lost:
    """A shard, and of each of its rows the item id and what the list says of it; None if that is nothing. `known` says
    whether the ids are those that it had, and not only such as it may have had."""

    shard: ShardId
    ids: tuple[bytes, ...]
    entries: tuple[Entry | None, ...]
    known: bool

    @property
    def unlisted(self) -> int:
        return self.entries.count(None)


def restore(output: Output, config: Ingest) -> Restored:
    """Writes the shards that are not there, of partitions that are open. Images that are listed no longer, or that are
    not what was annotated, stay as rows with an error, and are read again when the shard is restored once more.

    Raises OutputError where nothing says which images a shard had and too few are listed, ConfigError where none can
    be. Memory grows with the images of these shards: a kilobyte each. They are read in threads of this process.
    """
    shards = missing(output)
    if not shards:
        return Restored()
    lost = lost_of(output, config, shards)
    downloads = Downloader(output.downloads, config.http, config.max_bytes)
    with threads(config.http.connections, downloads) as pool:
        items = {one.shard: _read(one, config, downloads, pool) for one in lost}
        others = [shard for part in partitions(output) for shard in part.shards if shard not in items]
        now = marked(output, {shard: dict(enumerate(of)) for shard, of in items.items()}, others)
    with threads(THREADS_PER_TASK, downloads) as pool:  # each holds the pixels of an image
        items = {shard: _as_annotated(output, shard, list(now[shard].values()), config, pool) for shard in items}
    digests = {part.number: part.digest for part in partitions(output)}
    for one in lost:
        _write(output, one, items[one.shard], digests[one.shard.partition], config.source)
    write_counts(output)
    changed = sum(item.error is not None and item.error.kind == "changed" for of in items.values() for item in of)
    return Restored(tuple(shards), sum(one.unlisted for one in lost), changed)


def missing(output: Output) -> list[ShardId]:
    """The shards that are not there, of partitions that are open."""
    return [
        shard
        for partition in opened(output, output.round(0))
        for shard in sorted(set(partition.shards) - ingested(output, partition))
    ]


def lost_of(output: Output, config: Ingest, shards: Collection[ShardId], without: Collection[Path] = ()) -> list[Lost]:
    """Which images are in shards, as far as can be said without these, and `without` some more files. The set is listed
    once, and no image read. Raises what `restore` does."""
    sizes, taken_ids = output.counts(), Digests()
    for shard in sizes.keys() - set(shards):
        for item_id in read_table(output.items(shard), ["item_id"]).column("item_id").to_pylist():
            taken_ids.add(item_id)
    ids = {shard: _ids(output, shard, sizes[shard], taken_ids, without) for shard in shards}
    wanted = {item_id for of in ids.values() for item_id in of or ()}
    room = sum(sizes[shard] for shard in shards if ids[shard] is None)
    listed, free = _listed(config, wanted, taken_ids, room)
    if len(free) < room:
        first = next(shard for shard in shards if ids[shard] is None)
        raise OutputError(
            f"nothing says which {sizes[first]} images {output.items(first)} had, and {len(free)} are listed that are "
            f"in no other shard, where {room} are missing. List those of then again, or start afresh with --overwrite."
        )
    rest = iter(free)
    return [_lost(shard, ids[shard], listed, list(islice(rest, 0 if ids[shard] else sizes[shard]))) for shard in shards]


def _lost(shard: ShardId, ids: list[bytes] | None, listed: Mapping[bytes, Entry], free: list[Entry]) -> Lost:
    if ids is None:
        return Lost(shard, tuple(Item.id_of(entry.uri) for entry in free), tuple(free), known=False)
    return Lost(shard, tuple(ids), tuple(map(listed.get, ids)), known=True)


def _listed(
    config: Ingest, wanted: Collection[bytes], taken_ids: Digests, room: int
) -> tuple[dict[bytes, Entry], list[Entry]]:
    """What the list says of the items `wanted`, and the first of all others that are in no shard, `room` at most."""
    found: dict[bytes, Entry] = {}
    free: list[Entry] = []
    for entry in islice(listing_of(config), config.limit):
        item_id = Item.id_of(entry.uri)
        if item_id in wanted:
            found[item_id] = entry
        elif len(free) < room and taken_ids.number(item_id) is None:
            free.append(entry)
        if len(found) == len(wanted) and len(free) == room:
            break
    return found, free


def _ids(
    output: Output, shard: ShardId, size: int, taken_ids: Digests, without: Collection[Path]
) -> list[bytes] | None:
    """The ids of a shard's items by what else there is of it, which are taken then. What is of another shard's images
    is no witness."""
    for path in (*made_of(output, shard), output.given(shard)):
        ids = None if path in without else _item_ids(path)
        if ids and len(set(ids)) == size == len(ids) and all(taken_ids.number(item_id) is None for item_id in ids):
            for item_id in ids:
                taken_ids.add(item_id)
            return ids
    return None


def made_of(output: Output, shard: ShardId) -> Iterator[Path]:
    """Where in all rounds what was made of a shard is, if it is there."""
    for name in names_in(output.root):
        if name.removeprefix("round-").isdigit():
            round_ = output.round(int(name.removeprefix("round-")))
            for layer in (round_, round_.merge):
                yield from (layer.annotations(shard), layer.decisions(shard))


def _item_ids(path: Path) -> list[bytes] | None:
    """None if it can't be read."""
    try:
        ids: list[bytes] = read_table(path, ["item_id"]).column("item_id").to_pylist()
    except OutputError:
        return None
    return ids


def _has_given(output: Output, lost: Lost) -> bool:
    """Whether what came along is there, whole, and of these images."""
    try:
        return tuple(read_table(output.given(lost.shard)).column("item_id").to_pylist()) == lost.ids
    except OutputError:
        return False


def unknown_uri(item_id: bytes) -> str:
    """Of an image of which only its id is known."""
    return f"unknown:{item_id.hex()}"


def _read(lost: Lost, config: Ingest, downloads: Downloader, pool: ThreadPoolExecutor) -> list[Item]:
    def item(item_id: bytes, entry: Entry | None) -> Item:
        if entry:
            return item_of(entry, config, downloads)
        message = "it is listed no longer, and the file that said where it was is lost: list it again"
        return Item(item_id, unknown_uri(item_id), error=ItemError("ingest", "unlisted", message))

    return list(pool.map(item, lost.ids, lost.entries))


def _as_annotated(
    output: Output, shard: ShardId, items: list[Item], config: Ingest, pool: ThreadPoolExecutor
) -> list[Item]:
    """The same, and what is another image than was annotated has an error: nobody else could tell by now. Known by what
    it looks like; what was looked at was no duplicate."""
    path = output.round(0).annotations(shard)
    if _item_ids(path) != [item.item_id for item in items]:
        return items
    rows = read_table(path, ["error", "perceptual_hash"]).to_pylist()

    def compared(item: Item, row: dict[str, bytes | None]) -> Item:
        then = row["perceptual_hash"]
        item = replace(item, duplicate_of=item.duplicate_of if then is None else None)
        if item.error or row["error"] or item.duplicate_of or _looks(output, item, config) == then:
            return item
        message = "it, or the image that it was a copy of, is another file than was annotated: bring that back"
        return replace(item, content_id=None, width=None, height=None, error=ItemError("ingest", "changed", message))

    return list(pool.map(compared, items, rows))


def _looks(output: Output, item: Item, config: Ingest) -> bytes | None:
    """Its perceptual hash; nobody's if it can't be decoded."""
    try:
        data = read(item.uri, max_bytes=config.max_bytes, downloads=output.downloads)
        return perceptual_hash(decode(data, max_pixels=config.max_pixels))
    except ImageError:
        return b""


def _write(output: Output, lost: Lost, items: list[Item], digest: str, source: str) -> None:
    """What came along is kept where it is whole: it is what the annotations began with."""
    if not lost.known and any(map(is_there, made_of(output, lost.shard))):
        output.forget(lost.shard)
    if not _has_given(output, lost):
        entries = [entry or Entry(item.uri) for entry, item in zip(lost.entries, items, strict=True)]
        write_given(output, lost.shard, taken(items, entries, source), digest)
    write_table(output.items(lost.shard), items_to_table(items), digest)
