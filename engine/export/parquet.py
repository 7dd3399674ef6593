"""Flat Parquet tables, for DuckDB, Polars, pandas and whatever reads columns: an image, or an annotation, a row.

    <to>/images/<split>/*.parquet, texts/, regions/, region_texts/, masks/, triplets/

`item_id`, in hex, and an annotation's `id` belong together. All tables have `split`, `round` is in the id's first part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.atomic import aside
from engine.export.format import Part, Whole
from engine.export.images import How
from engine.export.selection import KINDS

OWN = ("row", "number", "error", "duplicate_of")  # columns of images that mean nothing outside


@dataclass(frozen=True)
class Parquet:
    name: ClassVar[str] = "parquet"
    kinds: ClassVar[tuple[str, ...]] = KINDS
    by_default: ClassVar[tuple[str, ...]] = KINDS
    how: ClassVar[tuple[How, ...]] = ("refer",)  # files in images/ would stand between tables
    needs_classes: ClassVar[bool] = False
    by_record: ClassVar[bool] = False

    def write(self, part: Part) -> None:
        images = part.flat.images
        by_row = {name: _by_row(images, name) for name in ("item_id", "split")}
        tables = {"images": images.drop_columns([name for name in OWN if name in images.column_names])}
        for name, table in part.flat.annotations.items():
            if len(table):
                owned = {key: column.take(table["row"]) for key, column in by_row.items()}
                tables[name] = pa.table({**owned, **{key: table[key] for key in table.column_names if key != "row"}})
        for name, table in tables.items():
            for split in part.splits:
                chosen = table if part.splits == [split] else table.filter(pc.equal(table["split"], split))
                with aside(part.path(split, ".parquet", name)) as file:
                    pq.write_table(chosen, file, compression="zstd")

    def finish(self, whole: Whole) -> None:
        """Nothing is left to do."""


def _by_row(images: pa.Table, name: str) -> pa.Array:
    """The values of a column at their row in the shard; null where no image leaves."""
    rows = images["row"].to_pylist()
    places = dict(zip(rows, range(len(rows)), strict=True))
    indices = [places.get(row) for row in range(max(rows, default=-1) + 1)]
    return images[name].combine_chunks().take(pa.array(indices, pa.int64()))
