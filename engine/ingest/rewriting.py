"""manifest.json, written anew from the shards where it was damaged or lost: an ingest anew might cut a set that has
grown in another way, and what was made of the shards would be lost.

How many images shards had that are lost as well is known by what was made of them; see `engine.ingest.restoring` for
how those come back then.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from engine.atomic import is_there, names_in, read_json, write_json
from engine.config import Ingest
from engine.errors import ConfigError, OutputError
from engine.ingest.adding import Known
from engine.ingest.listed import Listed, listing_of
from engine.ingest.summary import counts_of, manifest_of
from engine.ingest.witnesses import item_ids, made_of
from engine.layout import Output, ShardId
from engine.listing import Listing
from engine.partitions import Partition, partitions
from engine.storage import read_table, shard_digest


def rewrite(output: Output, config: Ingest) -> None:
    """Raises what `partitions_there` does. Where images are listed that no shard has, or none can be listed, nothing is
    said of the list: an update finds out. Shards that are lost are counted when they are back."""
    parts = partitions_there(output)
    shards = [shard for part in parts for shard in part.shards]
    whole = [shard for shard in shards if _is_whole(output, shard)]
    known = Known(output, whole)
    listing, listed, gone = Listing(()), "", 0
    try:
        through, said = listing_of(config), Listed(config)
        new = sum(1 for _ in known.new(said.through(islice(through, config.limit))))
        listing, listed, gone = through, "" if new else said.digest(), known.gone
    except ConfigError:
        pass
    counts = counts_of(output, parts, {shard: () for shard in set(shards).difference(whole)})
    write_json(
        output.manifest, manifest_of(parts, parts[-1].digest, counts, listing, listed=listed, gone=gone, changed=0)
    )


def partitions_there(output: Output) -> list[Partition]:
    """Those that the shards make up. Raises OutputError where none of a partition is whole, where nothing says how many
    images one had, or where some must be missing."""
    first, images = ShardId(0, 0), output.manifest.parent
    there = _parts_in(images)
    if not there:
        raise OutputError(f"{images} holds no shards")
    made = _parts_in(output.round(0).annotations(first).parents[1]) | _parts_in(output.given(first).parents[1])
    if lost := sorted(made - there):
        raise OutputError(f"{images} has no {lost[0]}, of which there are annotations")
    return [_partition(output, number) for number in range(len(there))]


def is_of_others(output: Output) -> bool:
    """Whether manifest.json is another set's, or was this one's before an update: it lacks shards that are there and
    agree with their annotations, or none of those is made by what it says. One that has them all, and more, may be
    right: more are lost."""
    try:
        there = partitions_there(output)
    except OutputError:
        return False
    said = {part.number: part for part in partitions(output)}
    agreed = {shard: part.count([shard]) for part in there for shard in part.shards if _agrees(output, shard)}
    digests = {shard_digest(output.items(shard)) for shard in agreed}
    lacking = any(not _has(said.get(shard.partition), shard, items) for shard, items in agreed.items())
    return lacking or (bool(digests) and digests.isdisjoint(part.digest for part in said.values()))


def _agrees(output: Output, shard: ShardId) -> bool:
    ids = item_ids(output.items(shard))
    return ids is not None and ids == item_ids(output.round(0).annotations(shard))


def _has(said: Partition | None, shard: ShardId, items: int) -> bool:
    return said is not None and shard in said.shards and said.count([shard]) == items


def _partition(output: Output, number: int) -> Partition:
    first, round_ = ShardId(number, 0), output.round(0)
    paths = (output.items(first), round_.annotations(first), output.given(first))
    folder, names = paths[0].parent, {name for path in paths for name in _shards_in(path.parent)}
    shards = [ShardId(number, n) for n in range(len(names))]
    sizes = [_size(output, shard) for shard in shards]
    if 0 in sizes:
        raise OutputError(f"nothing says how many images {output.items(shards[sizes.index(0)])} had")
    whole = next((shard for shard in shards if _is_whole(output, shard)), None)
    if whole is None:
        raise OutputError(f"{folder} holds no shard that is whole")
    if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]:
        raise OutputError(f"{folder}: its shards have {sizes[:8]} images, which can't be all of them")
    part = Partition(number, sum(sizes), sizes[0], shard_digest(output.items(whole)) or "")
    if (said := _closed_items(round_.closed(number))) not in (None, part.items):
        raise OutputError(f"{folder} holds {part.items} images, and {said} by {round_.closed(number)}")
    return part


def _size(output: Output, shard: ShardId) -> int:
    """How many images a shard has; of one that is lost, by what was made of it or came along. 0: nothing says it."""
    paths = (output.items(shard), *made_of(output, shard), output.given(shard))
    return next((len(ids) for path in paths if (ids := item_ids(path))), 0)


def _is_whole(output: Output, shard: ShardId) -> bool:
    try:
        read_table(output.items(shard))
    except OutputError:
        return False
    return True


def _closed_items(marker: Path) -> int | None:
    """How many images a partition has by its marker; None where that is damaged, or not there."""
    try:
        return int(read_json(marker)["items"]) if is_there(marker) else None
    except (OutputError, KeyError, TypeError, ValueError):
        return None


def _parts_in(folder: Path) -> set[str]:
    """Not those of which a killed ingest left an empty folder."""
    return {name for name in names_in(folder) if name.startswith("part-") and _shards_in(folder / name)}


def _shards_in(folder: Path) -> set[str]:
    return {name for name in names_in(folder) if name.startswith("shard-")}
