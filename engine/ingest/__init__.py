"""Ingest: every input becomes an item, read or not. Each file is read once, for its hash and its header.

Two passes: the first reads, shard by shard; the second finds the exact duplicates over the column of hashes alone and
rewrites the shards that have some. A killed ingest, run again, gives the same files: shards that the same configuration
made of the same inputs are kept, all others are made anew or removed. An update adds the images that came since, as
partitions behind those that are there. A shard that is lost is made anew in its place (`engine.ingest.restoring`).

Memory does not grow with the set, but for some hundred bytes a shard: what must be looked up goes to temporary files
(see `engine.spill`), some 250 bytes an image. With shards of 1024, at its peak: 175 MB for 10,000 images, 176 to 185
for 100,000, 187 for a million, in 166 seconds of one core (all of them in a Parquet file, 2 x 2 pixels).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from engine.atomic import is_there, read_json, write_json
from engine.config import Ingest, Run
from engine.ingest.adding import Known
from engine.ingest.duplicates import mark_duplicates
from engine.ingest.items import item_of
from engine.ingest.listed import Listed, listed_digest, listing_of
from engine.ingest.lost import lost_of, missing, unknown_uri
from engine.ingest.partitions import Cut, chunks, shard_size
from engine.ingest.restoring import restore
from engine.ingest.retrying import Retried, retry
from engine.ingest.rewriting import is_of_others, partitions_there, rewrite
from engine.ingest.shards import Writer, remove_others
from engine.ingest.summary import count_given, manifest_of
from engine.ingest.witnesses import made_of
from engine.layout import Output
from engine.partitions import listed_in

__all__ = [
    "Added",
    "Retried",
    "added",
    "chunks",
    "ingest",
    "is_of_others",
    "item_of",
    "listed_digest",
    "listing_of",
    "lost_of",
    "made_of",
    "missing",
    "partitions_there",
    "restore",
    "retry",
    "rewrite",
    "shard_size",
    "unknown_uri",
]


def ingest(
    output: Output,
    config: Ingest,
    digest: str,
    progress: Callable[[int], None],
    *,
    run: Run | None = None,
    update: bool = False,
) -> dict[str, Any]:
    """Writes the manifest and returns what manifest.json says. `progress` gets the number of items done since; `run`
    says whether a cluster reads the images.

    With `update` the images of a manifest that is there keep their items, shards and rows, also those that are listed
    no longer (`gone`); new ones become further partitions. What came along with an image that is there is not taken
    anew: `changed` counts those whose captions, labels or the like are others by now. Nothing is written if nothing is
    new. A manifest without `update` is written anew.

    Raises ConfigError when an image set can't be listed or holds no image.
    """
    there = read_json(output.manifest) if update and is_there(output.manifest) else {"partitions": []}
    before = listed_in(there)
    known = Known(output, [shard for partition in before for shard in partition.shards])
    listing, listed = listing_of(config), Listed(config)
    entries = listed.through(islice(listing, config.limit))
    new = known.new(known.compared(entries, config.source)) if before else entries
    cut = Cut(new, config, digest, first=len(before))
    Writer(output, config, digest, run or Run(), progress).write(cut)
    partitions = [*before, *cut.partitions]
    remove_others(output, partitions)
    shards = [shard for partition in partitions for shard in partition.shards]
    duplicates, errors = mark_duplicates(output, shards, digest, first=len(before))
    given, faults = count_given(output, partitions)
    counts = {"duplicates": duplicates, "errors": errors, "given": given, "faults": faults}
    summary = manifest_of(
        partitions, digest, counts, listing, listed=listed.digest(), gone=known.gone, changed=known.changed
    )
    if summary != there:
        write_json(output.manifest, summary)
    return summary


@dataclass(frozen=True)
class Added:
    """How many listed images a manifest has not, and how many of its own are listed no longer."""

    new: int
    gone: int


def added(output: Output, config: Ingest) -> Added:
    """What an update would find. No image is read. Raises ConfigError when an image set can't be listed or is empty."""
    there = read_json(output.manifest) if is_there(output.manifest) else {"partitions": []}
    if there.get("listed") == listed_digest(config):
        return Added(0, there["gone"])
    known = Known(output, [shard for partition in listed_in(there) for shard in partition.shards])
    new = sum(1 for _ in known.new(islice(listing_of(config), config.limit)))
    return Added(new, known.gone)
