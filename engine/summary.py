"""Counts of a round, read back from what was written: what was found, what stands, what fell and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.atomic import is_there
from engine.grouping import Numbers, groups
from engine.layout import Layer, Output, ShardId
from engine.near import Hashes
from engine.storage import read_records, read_table, write_table

# What an annotation of each column is called where it is counted; regions are counted by their kind.
COLUMNS = {
    "texts": "text",
    "parses": "parse",
    "regions": "region",
    "region_texts": "region_text",
    "masks": "mask",
    "triplets": "triplet",
}


def count_round(output: Output, number: int, shards: Iterable[ShardId], *, merged: bool = True) -> dict[str, Any]:
    """Items, quarantine by stage and kind; and of all rounds up to this one annotations (made, standing) by source and
    kind, and falls by filter and reason; of what merging added to the last round only if `merged`. Reads column by
    column and shard by shard; no mask is read."""
    items = 0
    made: Counter[tuple[str, str]] = Counter()
    fell: Counter[tuple[str, str]] = Counter()
    falls: Counter[tuple[str, str]] = Counter()
    quarantine: Counter[tuple[str, str]] = Counter()
    for shard in shards:
        layers = [layer for _, layer in output.layers(number, shard, merged=merged)]
        errors = read_table(layers[-1].annotations(shard), ["error"]).column("error")
        items += len(errors)
        quarantine.update((error["stage"], error["kind"]) for error in errors.drop_null().to_pylist())
        annotations = pa.concat_tables(_annotations(layer, shard) for layer in layers)
        decisions = pa.concat_tables(_decisions(layer, shard) for layer in layers)
        made.update(_pairs(annotations, "source", "kind"))
        falls.update(_pairs(decisions, "by", "reason"))
        fell.update(_pairs(annotations.join(decisions, ["row", "id"], join_type="left semi"), "source", "kind"))
    return {
        "items": items,
        "quarantined": _nested(quarantine),
        "annotations": {
            source: {
                kind: {"made": count, "standing": count - fell[source, kind]}
                for (name, kind), count in sorted(made.items())
                if name == source
            }
            for source in sorted({source for source, _ in made})
        },
        "fallen": _nested(falls),
    }


def added_up(counts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What `count_round` would give for all shards, from what it gives for some of them at a time."""
    result: dict[str, Any] = {"items": 0, "quarantined": {}, "annotations": {}, "fallen": {}}
    for some in counts:
        result = {name: summed(result[name], some[name]) for name in result}
    return result


def summed(one: Any, other: Any) -> Any:
    """Two nested dictionaries of counts as one."""
    if not isinstance(one, dict):
        return one + other
    zero: Any = {} if any(isinstance(value, dict) for value in (*one.values(), *other.values())) else 0
    return {key: summed(one.get(key, zero), other.get(key, zero)) for key in sorted({*one, *other})}


def class_counts(output: Output, number: int, shards: Iterable[ShardId]) -> dict[str, tuple[int, int]]:
    """Of each class of objects how many regions of it stand in a round, and in how many images; "" are proposals."""
    regions: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for shard in shards:
        for record in read_records(output, number, shard, columns=("regions",)):
            stand = [r for r in record.standing.regions if r.kind != "text" and not r.crowd]
            here = Counter(("" if r.kind == "proposal" else r.label) or "" for r in stand)
            regions.update(here)
            images.update(here.keys())
    return {label: (count, images[label]) for label, count in sorted(regions.items())}


def group_near_duplicates(output: Output, number: int, shards: Iterable[ShardId]) -> dict[str, int]:
    """Writes near_duplicates.parquet. Returns how many groups, and images in them, there are."""
    table = near_duplicates(output, number, shards)
    write_table(output.round(number).near_duplicates, table)
    return {"groups": pc.count_distinct(table["group"]).as_py(), "images": len(table)}


def near_duplicates(output: Output, number: int, shards: Iterable[ShardId]) -> pa.Table:
    """The images that look like another one, each with the first one of its group. For memory see
    `engine.grouping.groups`."""
    round_, sizes = output.round(number), dict.fromkeys(shards, 0)
    rows, first = groups(_hashes(round_, sizes))
    ids = pa.chunked_array(_ids(round_, sizes, rows), pa.binary(16))
    return pa.table({"item_id": ids, "group": ids.take(pa.array(np.searchsorted(rows, first)))})


def grouped(output: Output, shards: Iterable[ShardId]) -> None:
    """Groups near-duplicates, unless that is done: a run was stopped just before."""
    if not is_there(output.round(0).near_duplicates):
        group_near_duplicates(output, 0, shards)


def near_duplicate_counts(output: Output, number: int) -> dict[str, int]:
    """What `group_near_duplicates` returned when it wrote what is there."""
    table = read_table(output.round(number).near_duplicates, ["group"])
    return {"groups": pc.count_distinct(table.column("group")).as_py(), "images": len(table)}


def _hashes(layer: Layer, sizes: dict[ShardId, int]) -> Iterator[tuple[Numbers, Hashes]]:
    """The rows that have a perceptual hash, counted over all shards, and their hashes. Fills in the shards' sizes."""
    start = 0
    for shard in sizes:
        column = read_table(layer.annotations(shard), ["perceptual_hash"]).column("perceptual_hash")
        hashes = np.frombuffer(b"".join(column.drop_null().to_pylist()), ">u8").astype(np.uint64)
        yield start + np.flatnonzero(column.is_valid()), hashes
        sizes[shard] = len(column)
        start += len(column)


def _ids(layer: Layer, sizes: dict[ShardId, int], rows: Numbers) -> Iterator[pa.Array]:
    """The item ids of `rows`, which count up over all shards."""
    start = 0
    for shard, size in sizes.items():
        here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + size)] - start
        if len(here):
            ids = read_table(layer.annotations(shard), ["item_id"]).column("item_id")
            yield ids.combine_chunks().take(pa.array(here))
        start += size


def _annotations(layer: Layer, shard: ShardId) -> pa.Table:
    """row, id, source, kind of every annotation of the shard."""
    fields = [f"{column}.list.element.{field}" for column in COLUMNS for field in ("id", "source")]
    table = read_table(layer.annotations(shard), [*fields, "regions.list.element.kind"])
    parts = []
    for column, kind in COLUMNS.items():
        lists = table.column(column).combine_chunks()
        values = lists.flatten()
        kinds = values.field("kind") if column == "regions" else pa.repeat(kind, len(values))
        rows = pc.list_parent_indices(lists)
        parts.append(pa.table({"row": rows, "id": values.field("id"), "source": values.field("source"), "kind": kinds}))
    return pa.concat_tables(parts)


def _decisions(layer: Layer, shard: ShardId) -> pa.Table:
    """row, id, by, reason of the decisions by which an annotation of the shard falls."""
    lists = read_table(layer.decisions(shard)).column("decisions").combine_chunks()
    values = lists.flatten()
    table = pa.table(
        {
            "row": pc.list_parent_indices(lists),
            "id": values.field("annotation_id"),
            "by": values.field("by"),
            "reason": values.field("reason"),
        }
    )
    return table.filter(pc.is_in(values.field("action"), pa.array(["reject", "supersede"])))


def _pairs(table: pa.Table, first: str, second: str) -> dict[tuple[str, str], int]:
    counts = table.group_by([first, second]).aggregate([([], "count_all")]).to_pylist()
    return {(row[first], row[second]): row["count_all"] for row in counts}


def _nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    result: dict[str, dict[str, int]] = {}
    for (first, second), count in sorted(counts.items()):
        result.setdefault(first, {})[second] = count
    return result
