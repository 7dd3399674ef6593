"""Shards of the manifest that were lost, made anew of the images that they had: exactly, or not at all.

What was made of an image stays, and would be told of another one where the file is another by now. See
`engine.ingest.lost` for which images those are, and `engine.ingest.witnesses` for what is known of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from engine.atomic import is_there
from engine.config import Ingest
from engine.download import Downloader
from engine.entry import Entry
from engine.errors import ImageError, OutputError
from engine.images import decode
from engine.ingest.duplicates import marked
from engine.ingest.items import THREADS_PER_TASK, item_of, threads
from engine.ingest.lost import UNLISTED, Lost, lost_of, missing, unknown_uri
from engine.ingest.shards import taken
from engine.ingest.summary import write_counts
from engine.ingest.witnesses import Seen, made_of
from engine.layout import Output, ShardId
from engine.near import perceptual_hash
from engine.partitions import partitions
from engine.reading import read
from engine.records import Item, ItemError
from engine.schema import items_to_table
from engine.storage import read_table, write_given, write_table

OTHER = "it is another file than it was"
NAMED, PATHS = 3, 24  # images, and paths, that a message names


@dataclass(frozen=True)
class Fault:
    """Why an image can't be restored as it was."""

    shard: ShardId
    item: Item
    reason: str


def restore(output: Output, config: Ingest) -> tuple[ShardId, ...]:
    """Writes the shards that are not there, of partitions that are open, and says which. Images of which nothing was
    made, as they failed, are no fault: those that can't be read now, or are others, are rows with an error.

    Raises OutputError, and nothing is written, where an image of which something was made, or which has copies in other
    shards, is listed no longer, can't be read or is another file by now; and where nothing says which images a shard
    had and too few are listed. ConfigError where none can be. Memory grows with the images of these shards: a kilobyte
    each. They are read in threads of this process.
    """
    shards = missing(output)
    if not shards:
        return ()
    lost = lost_of(output, config, shards)
    downloads = Downloader(output.downloads, config.http, config.max_bytes)
    with threads(config.http.connections, downloads) as pool:
        read_now = {one.shard: _read(one, config, downloads, pool) for one in lost}
    items = _marked(output, lost, read_now)
    with threads(THREADS_PER_TASK, downloads) as pool:  # each may hold the pixels of an image
        faults = [fault for one in lost for fault in _faults(output, one, items[one.shard], config, pool)]
    if faults:
        raise OutputError(_refusal(output, faults, lost))
    digests = {part.number: part.digest for part in partitions(output)}
    for one in lost:
        _write_given(output, one, items[one.shard], digests[one.shard.partition], config.source)
    write_counts(output, items)  # before the last of the items: as long as some are missing all is done again
    for one in lost:
        write_table(output.items(one.shard), items_to_table(items[one.shard]), digests[one.shard.partition])
    return tuple(shards)


def _read(lost: Lost, config: Ingest, downloads: Downloader, pool: ThreadPoolExecutor) -> list[Item]:
    def item(item_id: bytes, entry: Entry | None, of: Sequence[Seen], needed: bool) -> Item:
        if entry is None:
            message = f"{UNLISTED}, and the file that said where it was is lost: list it again"
            return Item(item_id, unknown_uri(item_id), error=ItemError("ingest", "unlisted", message))
        now = item_of(entry, config, downloads)
        return now if needed or now.error else _unread(now, of)

    return list(pool.map(item, lost.ids, lost.entries, lost.seen, lost.needed))


def _unread(item: Item, seen: Sequence[Seen]) -> Item:
    """An image of which nothing was made: what ingest could not read has its error still, and another file than failed
    has one, too. `retry` reads them, and takes anew what came along."""
    for then in seen:
        if then.error and then.error.stage == "ingest":
            return replace(item, content_id=then.content_id, width=None, height=None, error=then.error)
        if then.content_id and then.content_id != item.content_id:
            return replace(item, content_id=None, width=None, height=None, error=ItemError("ingest", "changed", OTHER))
    return item


def _marked(output: Output, lost: Sequence[Lost], items: Mapping[ShardId, Sequence[Item]]) -> dict[ShardId, list[Item]]:
    """With their duplicates. What was looked at was none."""
    others = [shard for part in partitions(output) for shard in part.shards if shard not in items]
    now = marked(output, {shard: dict(enumerate(of)) for shard, of in items.items()}, others)
    return {
        one.shard: [
            replace(item, duplicate_of=None) if any(by.perceptual_hash for by in of) else item
            for item, of in zip(now[one.shard].values(), one.seen, strict=True)
        ]
        for one in lost
    }


def _faults(
    output: Output, lost: Lost, items: Sequence[Item], config: Ingest, pool: ThreadPoolExecutor
) -> Iterator[Fault]:
    def reason(item: Item, of: Sequence[Seen], needed: bool) -> str | None:
        if not needed:
            return None
        if item.error:
            return item.error.message
        same = all(_is_same(output, item, one, config) for one in of if one.content_id or not one.error)
        return None if same else OTHER

    for item, why in zip(items, pool.map(reason, items, lost.seen, lost.needed), strict=True):
        if why:
            yield Fault(lost.shard, item, why)


def _is_same(output: Output, item: Item, then: Seen, config: Ingest) -> bool:
    if then.pixels is None:
        return item.content_id == then.content_id
    if not then.pixels.fit(item):
        return False
    return not then.pixels.hashed or bool(item.duplicate_of) or _looks(output, item, config) == then.perceptual_hash


def _looks(output: Output, item: Item, config: Ingest) -> bytes | None:
    """Its perceptual hash; nobody's if it can't be decoded."""
    try:
        data = read(item.uri, max_bytes=config.max_bytes, downloads=output.downloads)
        return perceptual_hash(decode(data, max_pixels=config.max_pixels))
    except ImageError:
        return b""


def _refusal(output: Output, faults: Sequence[Fault], lost: Sequence[Lost]) -> str:
    told = "; ".join(f"{fault.item.uri} ({fault.reason})" for fault in faults[:NAMED])
    paths = [path.relative_to(output.root).as_posix() for path in _in_the_way(output, faults, lost)]
    more = f" and {len(paths) - PATHS} more, which are named then" if len(paths) > PATHS else ""
    shards = sorted({fault.shard for fault in faults})
    which = f"{output.items(shards[0])}{', ...' if len(shards) > 1 else ''}"
    return (
        f"{len(faults)} images of shards that are lost ({which}) are not to be had as they were: {told}. Bring those "
        f"back, list them, and run again. Or, to take these shards' images as they are now, remove in {output.root} "
        f"{', '.join(paths[:PATHS])}{more}, and run again: they are annotated anew."
    )


def _in_the_way(output: Output, faults: Sequence[Fault], lost: Sequence[Lost]) -> Iterator[Path]:
    """What says of images that they are what they were: what was made of them, and shards that have copies of them."""
    faulty = {fault.item.item_id for fault in faults}
    rows = [
        (one.shard, item_id, of.content_id)
        for one in lost
        for item_id, row in zip(one.ids, one.seen, strict=True)
        for of in row
    ]
    contents = {content for _, item_id, content in rows if item_id in faulty} - {None}
    shards = {shard for shard, item_id, content in rows if item_id in faulty or content in contents}
    there = {shard for part in partitions(output) for shard in part.shards} - {one.shard for one in lost}
    for shard in sorted(there):
        if faulty & set(read_table(output.items(shard), ["duplicate_of"]).column("duplicate_of").to_pylist()):
            shards.add(shard)
            yield from filter(is_there, (output.items(shard), output.round(0).closed(shard.partition)))
    for shard in sorted(shards):
        yield from filter(is_there, made_of(output, shard))


def _write_given(output: Output, lost: Lost, items: Sequence[Item], digest: str, source: str) -> None:
    """What came along is kept where it is whole and something was made of it: that began with it."""
    made = lost.known and any(map(is_there, made_of(output, lost.shard)))
    if not made:
        output.forget(lost.shard)
    if not (made and _has_given(output, lost)):
        entries = [entry or Entry(item.uri) for entry, item in zip(lost.entries, items, strict=True)]
        write_given(output, lost.shard, taken(items, entries, source), digest)


def _has_given(output: Output, lost: Lost) -> bool:
    """Whether what came along is there, whole, and of these images."""
    try:
        return tuple(read_table(output.given(lost.shard)).column("item_id").to_pylist()) == lost.ids
    except OutputError:
        return False
