"""Counts of a round, read back from what was written: what was found, what stands, what fell and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.near import group
from engine.storage import Layer, Output, ShardId, read_records, read_table, write_table

# What an annotation of each column is called where it is counted; regions are counted by their kind.
COLUMNS = {
    "texts": "text",
    "parses": "parse",
    "regions": "region",
    "region_texts": "region_text",
    "masks": "mask",
    "triplets": "triplet",
}


def count_round(output: Output, number: int, shards: Iterable[ShardId]) -> dict[str, Any]:
    """Items, quarantine by stage and kind; and of all rounds up to this one annotations (made, standing) by source and
    kind, and falls by filter and reason. Reads column by column and shard by shard; no mask is read."""
    items = 0
    made: Counter[tuple[str, str]] = Counter()
    fell: Counter[tuple[str, str]] = Counter()
    falls: Counter[tuple[str, str]] = Counter()
    quarantine: Counter[tuple[str, str]] = Counter()
    for shard in shards:
        layers = [layer for _, layer in output.layers(number, shard)]
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
    """Writes near_duplicates.parquet: the images that look like another one, each with the first one of its group.
    Returns how many groups, and images in them, there are. 24 bytes an image in memory."""
    round_ = output.round(number)
    tables = [read_table(round_.annotations(shard), ["item_id", "perceptual_hash"]) for shard in shards]
    table = pa.concat_tables(tables) if tables else pa.table({"item_id": [], "perceptual_hash": []})
    table = table.filter(pc.is_valid(table.column("perceptual_hash")))
    ids = table.column("item_id")
    first = group(np.frombuffer(b"".join(table.column("perceptual_hash").to_pylist()), dtype=">u8").astype(np.uint64))
    leaders, sizes = np.unique(first, return_counts=True)
    members = np.flatnonzero(np.isin(first, leaders[sizes > 1]))
    write_table(round_.near_duplicates, pa.table({"item_id": ids.take(members), "group": ids.take(first[members])}))
    return {"groups": int((sizes > 1).sum()), "images": len(members)}


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
