"""All that leaves of one image as one document: see `engine.sources.documents`, which reads them.

    {"format": "florence-engine/1", "item_id": ..., "uri": ..., "width": ..., "height": ..., "dataset": ...,
     "licence": ..., "labels": [...], "split": ..., "texts": [{...}], "regions": [{...}], "region_texts": [{...}],
     "masks": [{...}], "triplets": [{...}]}

They are made for a part at once, column by column: an Arrow row for each image, with lists of structs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.export.format import Part
from engine.export.images import Picture
from engine.export.json_text import json_of
from engine.flat import Flat, Ints
from engine.sources.documents import FORMAT

ABOUT = ("item_id", "uri", "width", "height", "dataset", "licence", "labels", "split")
FIELDS = {
    "texts": ("id", "source", "detail", "text", "composed", "derived_from"),
    "regions": ("id", "source", "kind", "label", "raw_label", "text", "box", "quad", "crowd", "score"),
    "region_texts": ("id", "source", "region_id", "text"),
    "masks": ("id", "source", "region_id", "size", "counts"),
    "triplets": ("id", "source", "text_id", "start", "stop", "phrase", "region_ids", "score"),
}
BATCH = 256  # images of which the documents are texts at a time


def documents(flat: Flat) -> pa.Table:
    """A row for each of the images, in their order, with the column `row` besides."""
    rows = flat.images["row"].to_numpy().astype(np.int64)
    about = {name: flat.images[name] for name in ABOUT}
    marked = {"row": flat.images["row"], "format": pa.repeat(FORMAT, len(rows)), **about}
    return pa.table(marked | {name: listed(flat[name], rows, fields) for name, fields in FIELDS.items()})


def illustrated(part: Part, split: str) -> Iterator[tuple[Picture, bytes]]:
    """The images of a split whose bytes are there, each with its document in JSON."""
    table = documents(part.flat)
    told = in_json(table.filter(pc.equal(table["split"], split)))
    for picture in part.pictures(split):
        yield picture, next(document for row, document in told if row == picture.row)


def in_json(table: pa.Table) -> Iterator[tuple[int, bytes]]:
    """The rows with their documents, a few at a time."""
    for batch in table.to_batches(max_chunksize=BATCH):
        texts = json_of(batch.drop_columns(["row"]).to_struct_array())
        yield from zip(batch["row"].to_pylist(), texts.cast(pa.binary()).to_pylist(), strict=True)


def listed(table: pa.Table, rows: Ints, fields: Sequence[str]) -> pa.ListArray:
    """For each of the rows the annotations that are of it, as structs of some fields."""
    own = table["row"].to_numpy().astype(np.int64)
    if (np.diff(own) < 0).any():  # rounds come one after the other
        order = np.argsort(own, kind="stable")
        own, table = own[order], table.take(pa.array(order))
    structs = pa.StructArray.from_arrays([_field(table, name) for name in fields], names=list(fields))
    bounds = np.append(np.searchsorted(own, rows), len(own))
    return pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), structs)


def numbers(table: pa.Table, names: Sequence[str]) -> pa.ListArray:
    """Columns of numbers as one of lists."""
    stacked = np.stack([table[name].to_numpy() for name in names], axis=1)
    bounds = np.arange(len(table) + 1, dtype=np.int32) * len(names)
    return pa.ListArray.from_arrays(pa.array(bounds), pa.array(stacked.ravel()))


def _field(table: pa.Table, name: str) -> pa.Array:
    if name == "box":
        return numbers(table, ("x0", "y0", "x1", "y1"))
    if name == "size":
        return numbers(table, ("height", "width"))
    if name == "counts":  # COCO's are ASCII
        return table[name].combine_chunks().cast(pa.string())
    if name == "score" and name not in table.column_names:
        name = "phrase_score"
    return table[name].combine_chunks()
