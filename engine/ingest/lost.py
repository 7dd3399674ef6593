"""Which shards of the manifest are lost, and which images they had.

Those are known by their ids from what came along or was made of them. Where nothing was made of a shard it gets those
that are listed and in no other shard, in the order of the list: of an unchanged set the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from engine.config import Ingest
from engine.entry import Entry
from engine.errors import ImageError, OutputError
from engine.ingest.listed import listing_of
from engine.ingest.witnesses import Seen, item_ids, made_of, seen
from engine.layout import Output, ShardId
from engine.partitions import ingested, opened
from engine.reading import check_opens
from engine.records import Item
from engine.spill import Digests
from engine.storage import read_table
from engine.uris import is_url

UNLISTED = "it is listed no longer"


@dataclass(frozen=True)
class Lost:
    """A shard, and of each of its rows the item id, what the list says of it (None if that is nothing), and what others
    say of its image. `known` says whether the ids are those that it had, and not only such as it may have had. Those of
    which something was made, or which have copies, are `needed` as they were."""

    shard: ShardId
    ids: tuple[bytes, ...]
    entries: tuple[Entry | None, ...]
    seen: tuple[tuple[Seen, ...], ...]
    known: bool
    needed: tuple[bool, ...] = ()

    @property
    def missing(self) -> list[tuple[str, str]]:
        """The images that are needed and not to be had, each with its reason, as far as can be said without reading."""
        rows = zip(self.ids, self.entries, self.needed, strict=True)
        needed = [(item_id, entry) for item_id, entry, needed in rows if needed]
        told = [(entry.uri if entry else unknown_uri(item_id), _closed(entry)) for item_id, entry in needed]
        return [(uri, why) for uri, why in told if why]


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
    copies = list(_taken(output, sorted(sizes.keys() - set(shards)), taken_ids))
    copied = {original: content for original, content, _ in copies}
    before = {original: shard for original, _, shard in reversed(copies)}
    ids = _ids(output, {shard: sizes[shard] for shard in shards}, taken_ids, without)
    wanted = {item_id for of in ids.values() for item_id in of or ()}
    room = sum(sizes[shard] for shard in shards if ids[shard] is None)
    listed, free = _listed(config, wanted, taken_ids, room)
    unclear = next((f"{sizes[s]} images {output.items(s)} had" for s in shards if ids[s] is None), "")
    if len(free) < room:
        raise _unclear(unclear, f"{len(free)} are listed that are in no other shard, where {room} are missing")
    there = wanted | {Item.id_of(entry.uri) for entry in free}
    if unclear and (gone := copied.keys() - there):
        raise _unclear(unclear, f"{len(gone)} images of which other shards have copies are listed no longer")
    rest, lost = iter(free), []
    for shard in shards:
        known = ids[shard]
        entries = list(islice(rest, sizes[shard])) if known is None else list(map(listed.get, known))
        now = known or [Item.id_of(entry.uri) for entry in entries if entry]
        if late := sum(before.get(item_id, shard) < shard for item_id in now):
            raise _unclear(unclear, f"{late} images of which other shards have copies are listed behind these")
        told = zip(seen(output, shard, now, without), map(copied.get, now), strict=True)
        of_rows = tuple((*of, *((Seen(None, copy),) if copy else ())) for of, copy in told)
        lost.append(Lost(shard, tuple(now), tuple(entries), of_rows, known is not None))
    return _needed(lost)


def _unclear(what: str, but: str) -> OutputError:
    remedy = "List those of then again, or start afresh with --overwrite."
    return OutputError(f"nothing says which {what}, and {but}. {remedy}")


def _taken(output: Output, shards: Sequence[ShardId], taken_ids: Digests) -> Iterator[tuple[bytes, bytes, ShardId]]:
    """Takes the ids of shards that are there; and of their copies whose originals are in none of them, the original,
    what is in both, and where the copy is. An original comes before its copies."""
    for shard in shards:
        table = read_table(output.items(shard), ["item_id", "duplicate_of", "content_id"])
        for item_id in table.column("item_id").to_pylist():
            taken_ids.add(item_id)
        copies = table.filter(table.column("duplicate_of").is_valid())
        for original, content in zip(copies["duplicate_of"].to_pylist(), copies["content_id"].to_pylist(), strict=True):
            if taken_ids.number(original) is None:
                yield original, content, shard


def _needed(lost: Sequence[Lost]) -> list[Lost]:
    """Also those on which annotating failed, if others are their copies."""
    made = {of.content_id for one in lost for row in one.seen for of in row if not of.error} - {None}

    def needed(row: Sequence[Seen]) -> bool:
        return any(not of.error or of.content_id in made for of in row)

    return [replace(one, needed=tuple(map(needed, one.seen))) for one in lost]


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
    output: Output, sizes: Mapping[ShardId, int], taken_ids: Digests, without: Collection[Path]
) -> dict[ShardId, list[bytes] | None]:
    """The ids of shards' items by what else there is of them, which are taken then. What is of another shard's images
    is no witness: what came along is asked last, where what was made of any of them has said what it has to say."""
    ids = {shard: _said(made_of(output, shard), size, taken_ids, without) for shard, size in sizes.items()}
    for shard, said in ids.items():
        ids[shard] = said or _said((output.given(shard),), sizes[shard], taken_ids, without)
    return ids


def _said(paths: Iterable[Path], size: int, taken_ids: Digests, without: Collection[Path]) -> list[bytes] | None:
    for path in paths:
        ids = None if path in without else item_ids(path)
        if ids and len(set(ids)) == size == len(ids) and all(taken_ids.number(item_id) is None for item_id in ids):
            for item_id in ids:
                taken_ids.add(item_id)
            return ids
    return None


def unknown_uri(item_id: bytes) -> str:
    """Of an image of which only its id is known."""
    return f"unknown:{item_id.hex()}"


def _closed(entry: Entry | None) -> str | None:
    """Why an image can't be had, by what is known without reading it."""
    if entry is None or entry.error:
        return entry.error.message if entry and entry.error else UNLISTED
    try:
        if not is_url(entry.uri):
            check_opens(entry.uri)
    except ImageError as error:
        return error.message
    return None
