"""What manifest.json says: counts, read back from the shards by columns, and how the set was listed and cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from engine.atomic import names_in, read_json, write_json
from engine.ingest.duplicates import Contents
from engine.layout import Output, ShardId
from engine.listing import Listing
from engine.partitions import Partition, listed_in
from engine.records import Item
from engine.schema import ANNOTATION_COLUMNS
from engine.storage import read_table

SOURCES = [f"{column}.list.element.source" for column in ANNOTATION_COLUMNS]
FAULTS = "faults.list.element.kind"
NOTHING: Mapping[ShardId, Sequence[Item]] = {}


def count_given(output: Output, partitions: Iterable[Partition]) -> tuple[dict[str, int], Counter[str]]:
    """How many annotations came along, by source and column, and how many faults were found in them, by kind."""
    given: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for partition in partitions:
        names: set[str] | None = None
        for shard in partition.shards:
            path = output.given(shard)
            names = set(names_in(path.parent)) if names is None else names
            if path.name not in names:
                continue
            table = read_table(path, [*SOURCES, FAULTS])
            for column in ANNOTATION_COLUMNS:
                given.update({f"{source} {column}": count for source, count in _counts(table, column, "source")})
            faults.update(dict(_counts(table, "faults", "kind")))
    return dict(sorted(given.items())), faults


def _counts(table: Any, column: str, name: str) -> Iterator[tuple[str, int]]:
    for row in table.column(column).combine_chunks().flatten().field(name).value_counts().to_pylist():
        yield row["values"], row["counts"]


def write_counts(output: Output, held: Mapping[ShardId, Sequence[Item]] = NOTHING) -> None:
    """Counts again what manifest.json counts of its shards. The items of those that are `held` are not written yet."""
    there = read_json(output.manifest)
    counts = counts_of(output, listed_in(there), held)
    told = {"errors": counts["errors"], "faults": counts["faults"] + Counter(there["list_faults"])}
    write_json(output.manifest, there | counts | {name: dict(sorted(of.items())) for name, of in told.items()})


def counts_of(
    output: Output, partitions: Sequence[Partition], held: Mapping[ShardId, Sequence[Item]] = NOTHING
) -> dict[str, Any]:
    """What manifest.json counts of its shards, some of which may be `held` in hand."""
    given, faults = count_given(output, partitions)
    shards = [shard for partition in partitions for shard in partition.shards]
    contents = Contents(output, [shard for shard in shards if shard not in held])
    for _ in contents:
        pass
    items = [item for of in held.values() for item in of]
    errors = contents.errors + Counter(item.error.kind for item in items if item.error)
    duplicates = contents.marked + sum(item.duplicate_of is not None for item in items)
    return {"duplicates": duplicates, "errors": errors, "given": given, "faults": faults}


def manifest_of(
    partitions: Sequence[Partition],
    digest: str,
    counts: Mapping[str, Any],
    listing: Listing,
    *,
    listed: str,
    gone: int,
    changed: int,
) -> dict[str, Any]:
    """What manifest.json says. `counts` are those of `counts_of`; the listing is through, and `listed` its digest."""
    return {
        "digest": digest,
        "listed": listed,
        "items": sum(partition.items for partition in partitions),
        "gone": gone,
        "changed": changed,
        "duplicates": counts["duplicates"],
        "errors": dict(sorted(counts["errors"].items())),
        "skipped": dict(sorted(listing.skipped.items())),
        "repeated": listing.repeated,
        "given": counts["given"],
        "faults": dict(sorted((counts["faults"] + listing.faults.counts).items())),
        "list_faults": dict(sorted(listing.faults.counts.items())),
        "first_faults": [asdict(fault) for fault in listing.faults.first],
        "partitions": [
            {"items": p.items, "shard_size": p.shard_size, "shards": len(p.shards), "digest": p.digest}
            for p in partitions
        ],
    }
