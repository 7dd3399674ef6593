"""manifest.json, written anew from the shards where it was damaged or lost: an ingest anew might cut a set that has
grown in another way, and what was made of the shards would be lost."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from engine.atomic import is_there, names_in, read_json, write_json
from engine.config import Ingest
from engine.errors import ConfigError, OutputError
from engine.ingest.adding import Known
from engine.ingest.listed import Listed, listing_of
from engine.ingest.summary import counts_of, manifest_of
from engine.layout import Output, ShardId
from engine.listing import Listing
from engine.partitions import Partition
from engine.storage import read_table, shard_digest


def rewrite(output: Output, config: Ingest) -> None:
    """Raises what `partitions_there` does. Where images are listed that no shard has, or none can be listed, nothing is
    said of the list: an update finds out."""
    parts = partitions_there(output)
    known = Known(output, [shard for part in parts for shard in part.shards])
    listing, listed, gone = Listing(()), "", 0
    try:
        through, said = listing_of(config), Listed(config)
        new = sum(1 for _ in known.new(said.through(islice(through, config.limit))))
        listing, listed, gone = through, "" if new else said.digest(), known.gone
    except ConfigError:
        pass
    counts = counts_of(output, parts)
    write_json(
        output.manifest, manifest_of(parts, parts[-1].digest, counts, listing, listed=listed, gone=gone, changed=0)
    )


def partitions_there(output: Output) -> list[Partition]:
    """Those that the shards make up. Raises OutputError where one is damaged, or some must be missing."""
    first, images = ShardId(0, 0), output.manifest.parent
    there = _parts_in(images)
    if not there:
        raise OutputError(f"{images} holds no shards")
    annotations, given = output.round(0).annotations(first), output.given(first)
    _check_whole(images, there, _parts_in(annotations.parents[1]) | _parts_in(given.parents[1]))
    return [_partition(output, number) for number in range(len(there))]


def _partition(output: Output, number: int) -> Partition:
    first = ShardId(number, 0)
    folder, round_ = output.items(first).parent, output.round(0)
    there = _shards_in(folder)
    shards = [ShardId(number, n) for n in range(len(there))]
    sizes = [len(read_table(output.items(shard), ["item_id"])) for shard in shards]
    if not sizes or len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]:
        raise OutputError(f"{folder}: its shards have {sizes[:8]} images, which can't be all of them")
    _check_whole(folder, there, _shards_in(round_.annotations(first).parent) | _shards_in(output.given(first).parent))
    part = Partition(number, sum(sizes), sizes[0], shard_digest(output.items(first)) or "")
    marker = round_.closed(number)
    if is_there(marker) and (said := read_json(marker)["items"]) != part.items:
        raise OutputError(f"{folder} holds {part.items} images, and {said} by {marker}")
    return part


def _check_whole(folder: Path, there: set[str], made: set[str]) -> None:
    if missing := sorted(made - there):
        raise OutputError(f"{folder} has no {missing[0]}, of which there are annotations")


def _parts_in(folder: Path) -> set[str]:
    """Not those of which a killed ingest left an empty folder."""
    return {name for name in names_in(folder) if name.startswith("part-") and _shards_in(folder / name)}


def _shards_in(folder: Path) -> set[str]:
    return {name for name in names_in(folder) if name.startswith("shard-")}
