"""Images that could not be read or used, once more: a host that was down answers, a broken file was replaced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from itertools import islice

from engine.atomic import remove
from engine.config import Ingest
from engine.download import Downloader
from engine.entry import Entry
from engine.given import take
from engine.ingest.duplicates import Places, marked
from engine.ingest.items import item_of, threads
from engine.ingest.listed import listing_of
from engine.ingest.summary import write_counts
from engine.layout import Output, ShardId
from engine.partitions import partitions, reopen_from
from engine.records import Item
from engine.schema import items_to_table
from engine.storage import read_faults, read_given, read_items, read_table, shard_digest, write_given, write_table


@dataclass(frozen=True)
class Retried:
    """`tried` items had an error of ingest. `read` are those that can be read now, by shard and row; `unlisted` is the
    number of those that are listed no longer, which stay as they are. `replaced` are others whose file is another."""

    tried: int
    unlisted: int
    read: dict[ShardId, list[int]] = field(default_factory=dict)
    replaced: dict[ShardId, list[int]] = field(default_factory=dict)


def retry(output: Output, config: Ingest, rows: Mapping[ShardId, Set[int]]) -> Retried:
    """Reads again the items in these rows of shards, those that ingest could not read and others of which nothing was
    made: they are taken as they are by now. Those that can be read are written into the manifest, with what came along;
    the other items of their shards, and all that was made of them, stay as they are. Copies of a file that was replaced
    are none any more: their shards lose their decisions, and are to be annotated again. What ingest could
    not use of a URL is fetched anew.

    What is wrong with an item by its list stays wrong. A later image with the same bytes, read long ago, is not made a
    duplicate. Memory grows with the items that are tried: 3 kB each. Images are read in threads of this process.
    """
    before = {shard: _tried(output, shard, rows[shard]) for shard in sorted(rows)}
    unread = {item.item_id for items in before.values() for item in items.values() if item.error}
    entries = _entries(config, {item.item_id for items in before.values() for item in items.values()})
    now = _read(output, config, before, entries)
    read = _rows(now, before, lambda item: item.error is not None)
    replaced = _rows(now, before, lambda item: item.error is None)
    copies = _copies(output, {before[shard][row].item_id for shard, rows in replaced.items() for row in rows}, now)
    if copies:
        more = _entries(config, {item.item_id for items in copies.values() for item in items.values()})
        for shard, items in _read(output, config, copies, more, all_of_them=True).items():
            copies[shard].update(items)
        for shard, items in copies.items():
            reopen_from(output, 0, shard.partition)
            remove(output.round(0).decisions(shard))
            now.setdefault(shard, {}).update(items)
        entries |= more
    whole = marked(output, now, (shard for partition in partitions(output) for shard in partition.shards))
    for shard, items in copies.items():  # first: of what was replaced already nobody would look for copies
        _write(output, shard, {row: whole[shard][row] for row in items}, entries, config.source)
    for shard, items in whole.items():
        _write(output, shard, items, entries, config.source)
    if entries:  # also where nothing is new: an earlier retry may have been killed before this
        write_counts(output)
    return Retried(len(unread), len(unread - entries.keys()), read, replaced)


def _tried(output: Output, shard: ShardId, rows: Set[int]) -> dict[int, Item]:
    """Not those in which something is wrong by their list."""
    items = enumerate(read_items(output, shard))
    return {row: item for row, item in items if row in rows and (not item.error or item.error.stage == "ingest")}


def _rows(now: Places, before: Places, kind: Callable[[Item], bool]) -> dict[ShardId, list[int]]:
    """Of the items that can be read now, those that were of a kind."""
    rows = {shard: sorted(row for row in items if kind(before[shard][row])) for shard, items in now.items()}
    return {shard: rows[shard] for shard in sorted(rows) if rows[shard]}


def _copies(output: Output, replaced: set[bytes], but: Places) -> Places:
    """The items that are marked as duplicates of those."""
    copies: Places = {}
    for shard in (shard for partition in partitions(output) for shard in partition.shards if replaced):
        of = read_table(output.items(shard), ["duplicate_of"]).column("duplicate_of").to_pylist()
        rows = [row for row, one in enumerate(of) if one in replaced and row not in but.get(shard, {})]
        if rows:
            items = read_items(output, shard)
            copies[shard] = {row: items[row] for row in rows}
    return copies


def _entries(config: Ingest, wanted: set[bytes]) -> dict[bytes, Entry]:
    """What the list says of the items `wanted`: it ends with the last one of them."""
    found: dict[bytes, Entry] = {}
    if not wanted:
        return found
    for entry in islice(listing_of(config), config.limit):
        if (item_id := Item.id_of(entry.uri)) in wanted:
            found[item_id] = entry
            if len(found) == len(wanted):
                break
    return found


def _read(
    output: Output, config: Ingest, before: Places, entries: dict[bytes, Entry], all_of_them: bool = False
) -> Places:
    """Those that can be read and are not what they were, or all of them."""
    of_no_use = {item.uri for items in before.values() for item in items.values() if item.error}
    downloads = Downloader(output.downloads, config.http, config.max_bytes, anew=of_no_use)
    places = {item.item_id: (shard, row) for shard, items in before.items() for row, item in items.items()}
    found: Places = defaultdict(dict)
    with threads(config.http.connections, downloads) as pool:
        for item in pool.map(lambda entry: item_of(entry, config, downloads), entries.values()):
            shard, row = places[item.item_id]
            was = before[shard][row]
            if all_of_them or (not item.error and (was.error or item.content_id != was.content_id)):
                found[shard][row] = item
    return found


def _write(output: Output, shard: ShardId, readable: dict[int, Item], entries: dict[bytes, Entry], source: str) -> None:
    digest = shard_digest(output.items(shard)) or ""
    faults = defaultdict(list)
    for item_id, fault in read_faults(output, shard):
        faults[item_id].append(fault)
    taken = [(record, tuple(faults[record.item.item_id])) for record in read_given(output, shard)]
    for row, item in readable.items():
        if entry := entries.get(item.item_id):  # a copy may be listed no longer
            taken[row] = take(item, entry.given(), source)
    items = [readable.get(row, item) for row, item in enumerate(read_items(output, shard))]
    write_given(output, shard, taken, digest)
    write_table(output.items(shard), items_to_table(items), digest)
