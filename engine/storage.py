"""Shards as they are stored: items, what came along, annotations and decisions, in the files of `engine.layout`."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.atomic import aside, damage_named, is_there, read_bytes, remedy, remove
from engine.compact import as_value_error
from engine.entry import Fault
from engine.errors import OutputError
from engine.files import opened
from engine.layout import Layer, Output, ShardId
from engine.places import is_local, reached
from engine.records import Item, Record
from engine.rounds import joined
from engine.schema import (
    ANNOTATION_COLUMNS,
    VERSION,
    annotations_to_table,
    decisions_to_table,
    faults_from_table,
    given_to_table,
    items_from_table,
    records_from_tables,
)

IMAGES = b"engine.images"  # where annotations keep the content ids of their images: 16 bytes a row, as base64
NO_CONTENT = bytes(16)
SMALL_BYTES = 1 << 20  # of a file on a store: reading some columns takes three requests, and all of it one


def read_items(output: Output, shard: ShardId) -> list[Item]:
    return items_from_table(read_table(output.items(shard)))


def read_records(
    output: Output,
    round_number: int,
    shard: ShardId,
    *,
    columns: Sequence[str] = ANNOTATION_COLUMNS,
    decided: bool = True,
    merged: bool = True,
) -> list[Record]:
    """A shard's records as they are in a round: with the annotations of `columns`, and the decisions, of all rounds up
    to it; without the decisions of any if `decided` is False, and as the round was before merging if `merged` is."""
    return read_shard(output, round_number, shard, columns=columns, decided=decided, merged=merged).records()


def read_shard(
    output: Output,
    round_number: int,
    shard: ShardId,
    *,
    columns: Sequence[str] = ANNOTATION_COLUMNS,
    decided: bool = True,
    merged: bool = True,
) -> Tables:
    """As `read_records`, but nothing is made a record yet: that takes 50 times as long as reading."""
    items = read_table(output.items(shard))
    layers = output.layers(round_number, shard, merged=merged)
    there = [_of_layer(layer, shard, items, output.items(shard), columns, decided) for _, layer in layers]
    return Tables(items, tuple(there), tuple(number for number, _ in layers))


@dataclass(frozen=True)
class Tables:
    """What was read of a shard: its items, and of each layer annotations and, if they were read, decisions; and the
    rounds that the layers are of."""

    items: pa.Table
    layers: tuple[tuple[pa.Table, pa.Table | None], ...]
    numbers: tuple[int, ...]

    def records(self, rows: Sequence[int] | None = None) -> list[Record]:
        """Those of the rows, in their order; of all if none are named."""

        def chosen(table: pa.Table | None) -> pa.Table | None:
            return table if rows is None or table is None else table.take(list(rows))

        of_layers = (
            records_from_tables(chosen(self.items), chosen(annotations), chosen(decisions), number)
            for number, (annotations, decisions) in zip(self.numbers, self.layers, strict=True)
        )
        return reduce(lambda before, new: list(map(joined, before, new)), of_layers)


def _of_layer(
    layer: Layer, shard: ShardId, items: pa.Table, items_path: Path, columns: Sequence[str], decided: bool
) -> tuple[pa.Table, pa.Table | None]:
    """What was added together."""
    annotations = read_table(layer.annotations(shard), ["item_id", "error", "perceptual_hash", *columns])
    decisions = read_table(layer.decisions(shard)) if decided else None
    for table, path in ((annotations, layer.annotations(shard)), (decisions, layer.decisions(shard))):
        if table is not None and table.column("item_id") != items.column("item_id"):
            raise OutputError(f"{path} is of other images than {items_path}. {remedy(path)}")
    return annotations, decisions


def content_digest(output: Output, shard: ShardId) -> str:
    """Of which images a shard has, and of what came along with them: 12 hex digits."""
    ids = read_table(output.items(shard), ["item_id"]).column("item_id")
    given = read_bytes(output.given(shard)) if is_there(output.given(shard)) else b""
    return digest_of_content(b"".join(ids.to_pylist()), given)


def digest_of_content(ids: bytes, given: bytes) -> str:
    """As `content_digest`, of what was read: item ids, one behind the other, and the file of what came along."""
    return hashlib.sha256(ids + given).hexdigest()[:12]


def write_given(output: Output, shard: ShardId, taken: Sequence[tuple[Record, Sequence[Fault]]], digest: str) -> None:
    """What came along with a shard's images; no file if nothing did."""
    if any(record.by_id or faults for record, faults in taken):
        write_table(output.given(shard), given_to_table(taken), digest)
    else:
        remove(output.given(shard))


def has_given(output: Output, shard: ShardId, taken: Sequence[tuple[Record, Sequence[Fault]]]) -> bool:
    """Whether `write_given` wrote the same."""
    table = given_to_table(taken)
    if is_there(output.given(shard)):
        return bool(read_table(output.given(shard)).equals(table))
    return not any(record.by_id or faults for record, faults in taken)


def read_given(output: Output, shard: ShardId) -> list[Record]:
    """A shard's records before anybody annotates: its items, and what came along with them."""
    return [replace(record, error=record.item.error) for record in given_tables(output, shard).records()]


def given_tables(output: Output, shard: ShardId) -> Tables:
    """As `read_given`, but nothing is made a record yet."""
    items = read_table(output.items(shard))
    path = output.given(shard)
    if not is_there(path):
        nothing = annotations_to_table([Record(item) for item in items_from_table(items)])
        return Tables(items, ((nothing, None),), (0,))
    given = read_table(path).drop_columns(["faults"])
    if given.column("item_id") != items.column("item_id"):
        raise OutputError(f"{path} is of other images than {output.items(shard)}. {remedy(path)}")
    return Tables(items, ((given, None),), (0,))


def read_faults(output: Output, shard: ShardId) -> list[tuple[bytes, Fault]]:
    """What was wrong with what came along with a shard's images: item ids and faults."""
    if not is_there(output.given(shard)):
        return []
    return faults_from_table(read_table(output.given(shard), ["item_id", "faults"]))


def write_annotations(
    layer: Layer, shard: ShardId, records: Sequence[Record], digest: str, sources: Mapping[str, str] | None = None
) -> None:
    """`sources` has the digest of each source by itself: see `engine.recompute`. The content ids of the images are kept
    beside the table, from which a shard of items that is lost is restored."""
    content_ids = [record.item.content_id for record in records]
    write_table(layer.annotations(shard), annotations_to_table(records), digest, sources or {}, content_ids)


def write_decisions(layer: Layer, shard: ShardId, records: Sequence[Record], digest: str) -> None:
    write_table(layer.decisions(shard), decisions_to_table(records), digest)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A shard, or some of its columns; "regions.list.element.kind" names one inside."""
    with damage_named(path), _parquet(path, whole=columns is None) as file:
        return file.read(columns=None if columns is None else list(columns))


def write_table(
    path: Path,
    table: pa.Table,
    digest: str = "",
    sources: Mapping[str, str] | None = None,
    images: Sequence[bytes | None] | None = None,
) -> None:
    """Writes `table` as Parquet, with the schema's version and the digest of the configuration that made it. `images`
    are content ids, one a row."""
    metadata = {"engine.schema": str(VERSION), "engine.digest": digest}
    if sources is not None:
        metadata["engine.sources"] = json.dumps(dict(sources))
    table = table.replace_schema_metadata(metadata)
    with (
        aside(path) as file,
        pq.ParquetWriter(file, table.schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        writer.write_table(table)
        if images is not None:  # not in the schema's metadata, which Parquet files have twice
            ids = b"".join(content_id or NO_CONTENT for content_id in images)
            writer.add_key_value_metadata({IMAGES: base64.b64encode(ids)})


def read_content_ids(path: Path) -> list[bytes | None] | None:
    """Of the images that annotations are of, one a row; None where they don't say, which older engines made."""
    with damage_named(path), _parquet(path) as file:
        return content_ids_in(file.metadata)


def content_ids_in(metadata: pq.FileMetaData) -> list[bytes | None] | None:
    """As `read_content_ids`, of a file that was opened. Raises ValueError where they are of other rows."""
    told = (metadata.metadata or {}).get(IMAGES)
    if told is None:
        return None
    ids = base64.b64decode(told, validate=True)
    if len(ids) != 16 * metadata.num_rows:
        raise ValueError(f"it has content ids of {len(ids) // 16} images, and {metadata.num_rows} rows")
    return [content_id if any(content_id := ids[at : at + 16]) else None for at in range(0, len(ids), 16)]


def shard_digest(path: Path) -> str | None:
    """The digest that a shard was written with; None when it isn't there."""
    return shard_digests(path)[0] if is_there(path) else None


def shard_digests(path: Path) -> tuple[str, dict[str, str]]:
    """The digest that a shard, which is there, was written with, and of annotations that of each of their sources."""
    with damage_named(path), _parquet(path) as file:
        metadata = file.schema_arrow.metadata or {}
    version = metadata.get(b"engine.schema", b"").decode()
    if version != str(VERSION):
        raise OutputError(
            f"{path} has schema version {version or 'none'}; this engine reads version {VERSION}. "
            "Name another folder with --out, or start afresh with --overwrite."
        )
    return metadata[b"engine.digest"].decode(), json.loads(metadata.get(b"engine.sources", b"{}"))


@contextmanager
def _parquet(path: Path, whole: bool = False) -> Iterator[pq.ParquetFile]:
    """A file of ours. On a store only what is asked for is read, unless it is `whole`, or small."""
    with reached(path):
        source: Any = path
        if not is_local(path):
            source = pa.BufferReader(read_bytes(path)) if whole else opened(str(path), 0)
            if not whole and source.size <= SMALL_BYTES:
                source = pa.BufferReader(source.read())
        options = {"pre_buffer": not is_local(path), "page_checksum_verification": True}
        with as_value_error(), pq.ParquetFile(source, **options) as file:
            yield file
