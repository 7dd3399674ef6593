"""Output folders without a model: real images, ingested, and records that a test makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.atomic import write_json
from engine.config import Ingest
from engine.ingest import ingest
from engine.layout import Output
from engine.records import Record
from engine.storage import read_given, write_annotations, write_decisions
from engine.summary import group_near_duplicates


def write_dataset(
    images: Path,
    out: Path,
    annotate: Callable[[Record], Record],
    shard_size: int = 3,
    hashes: dict[str, bytes] | None = None,
) -> Output:
    """Ingests the folder `images` into `out`, and writes what `annotate` makes of each record that was read. `hashes`
    are perceptual hashes, by file name."""
    output = Output(out)
    ingest(output, Ingest(images=(str(images),), shard_size=shard_size), "test", lambda done: None)
    (out / ".engine-lock").touch()
    for shard in output.shards():
        records = [
            record if record.error or record.item.duplicate_of else annotate(record)
            for record in read_given(output, shard)
        ]
        if hashes:
            names = [record.item.uri.rpartition("/")[2] for record in records]
            records = [replace(r, perceptual_hash=hashes.get(name)) for r, name in zip(records, names, strict=True)]
        write_annotations(output.round(0), shard, records, "test")
        write_decisions(output.round(0), shard, records, "test")
    group_near_duplicates(output, 0, list(output.shards()))
    made_by = {"specialist": "tests:Detector", "version": "1", "licence": "Apache-2.0", "parameters": {}}
    write_json(
        output.round(0).sources, {"digest": "test", "settings": "", "filters": "", "sources": {"detector": made_by}}
    )
    return output
