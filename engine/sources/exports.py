"""Folders that `engine export` wrote, and Parquet tables in them: what left comes along again.

Of the tables those of the images are listed, `images/<split>/<name>.parquet`; what is of them lies beside, under the
same name: `texts/<split>/<name>.parquet` and so on.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as types

from engine import manifest
from engine.compact import as_value_error, check, compact
from engine.entry import Entry, Faults, Given
from engine.files import is_file, is_folder, matching, stamp, whole
from engine.records import ItemError
from engine.sources import webdataset
from engine.sources.documents import ANNOTATIONS, given_in
from engine.sources.places import located
from engine.uris import reported, resolved, shown, uri_of

WHAT = "table of an export"
SHARDS = {"webdataset": "*/*.tar", "hf": "data/*/*.parquet", "parquet": "images/*/*.parquet"}
COCO = ("instances", "captions", "text")  # what its files' names begin with
STRINGS = {"images": ("item_id", "uri"), **dict.fromkeys(ANNOTATIONS, ("item_id", "id"))}
_lock = threading.Lock()


def format_of(folder: str) -> str | None:
    """The format in which the engine exported a folder; None if it did not, or in one that others read."""
    name = named(folder)
    return name if name in SHARDS else None


def lists(path: str) -> list[str]:
    """What is to be listed for a path: of a folder that was exported as COCO its files, which are one set."""
    if not is_folder(path) or named(path) != "coco":
        return [path]
    files = sorted(file for kind in COCO for file in matching(path, f"{kind}_*.json"))
    return files or [path]


def named(folder: str) -> str | None:
    """The format that a folder's export.json names; None if it is no such file. Raises ConfigError for a huge one."""
    path = os.path.join(folder, "export.json")
    with reported(path, "description of an export"):
        try:
            data = whole(path)
        except OSError:
            return None
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    name = told.get("format") if isinstance(told, dict) else None
    return name if isinstance(name, str) else None


def is_table(path: str) -> bool:
    """Whether a file is a table of images in an export."""
    images = os.path.dirname(os.path.dirname(path))
    return os.path.basename(images) == "images" and format_of(os.path.dirname(images)) == "parquet"


def entries(folder: str, faults: Faults) -> Iterator[Entry]:
    """The images of an exported folder, with all that is known of them."""
    name = format_of(folder)
    assert name is not None
    for path in matching(folder, SHARDS[name]):
        if name == "webdataset":
            yield from webdataset.entries(path, faults)
        elif name == "hf":
            yield from manifest.entries(path)
        else:
            yield from table_entries(path, faults)


def table_entries(path: str, faults: Faults) -> Iterator[Entry]:
    """The rows of a table for which `is_table`. What the tables beside it have of other images goes to `faults`."""
    with reported(path, WHAT), as_value_error():
        modified = tuple(stamp(file)[1] for file in (path, *_beside(path).values()))
        with _lock:
            tables = _tables(path, modified)
        for name, lost in tables.lost.items():
            message = f"{lost} of its rows are of images that aren't listed; they were left out"
            faults.add(f"{name} beside {shown(os.path.basename(path))}", "no_image", message)
        for number, row in enumerate(tables.images.to_pylist()):
            uri, error = _uri(row, path, number)
            yield Entry(
                uri,
                row.get("dataset"),
                row.get("licence"),
                tuple(label for label in row.get("labels") or () if label),
                error,
                given=partial(_given, path, modified, row["item_id"], (row.get("width"), row.get("height"))),
            )


@dataclass(frozen=True)
class _Tables:
    """The images of a file, and what is of them, sorted by image; `places` are the rows [start, stop) of an image in
    each table."""

    images: pa.Table
    annotations: Mapping[str, pa.Table]
    places: Mapping[str, Mapping[str, tuple[int, int]]]
    lost: Mapping[str, int]


@lru_cache(maxsize=2)
def _tables(path: str, modified: tuple[int, ...]) -> _Tables:
    images = _read(path, "images")
    ids = images["item_id"].combine_chunks().unique()
    annotations, places, lost = {}, {}, {}
    for name, beside in _beside(path).items():
        table = _read(beside, name)
        codes = pc.fill_null(pc.index_in(table["item_id"], ids), -1).to_numpy()
        if (codes < 0).any():
            lost[name] = int((codes < 0).sum())
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(ids) + 1)).tolist()
        annotations[name] = table.take(pa.array(order))
        places[name] = dict(zip(ids.to_pylist(), pairwise(bounds), strict=True))
    return _Tables(images, annotations, places, lost)


def _beside(path: str) -> dict[str, str]:
    """The tables that are there of a file's images, by name."""
    *_, split, file = path.split("/")
    files = {name: "/".join((_folder(path), name, split, file)) for name in ANNOTATIONS}
    return {name: beside for name, beside in files.items() if is_file(beside)}


def _folder(path: str) -> str:
    """The export's, of a table of images."""
    return path.rsplit("/", 3)[0]


def _read(path: str, name: str) -> pa.Table:
    """A table. Raises ValueError where it lacks a column that all depends on, or comes to gigabytes."""
    with manifest.source(path) as source:
        check(compact(source).read())
        table = pq.ParquetFile(source).read()
    for column in STRINGS[name]:
        if column not in table.column_names or not types.is_string(table.schema.field(column).type):
            raise ValueError(f"{shown(path)} must have a column `{column}` of strings")
    return table


def _given(path: str, modified: tuple[int, ...], item_id: str, size: tuple[Any, Any]) -> list[Given]:
    """What is of an image, as its document would have it."""
    with reported(path, WHAT), as_value_error(), _lock:
        tables = _tables(path, modified)
        document: dict[str, Any] = dict(zip(("width", "height"), size, strict=True))
        for name, table in tables.annotations.items():
            start, stop = tables.places[name][item_id]
            document[name] = [_of_row(name, row) for row in table.slice(start, stop - start).to_pylist()]
    return given_in(document, f"{item_id} of {shown(os.path.basename(path))}")


def _of_row(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """An annotation's row as documents have it."""
    if name == "regions":
        return {**row, "box": [row.get(side) for side in ("x0", "y0", "x1", "y1")]}
    if name == "masks":
        return {**row, "size": [row.get("height"), row.get("width")]}
    if name == "triplets":
        return {**row, "score": row.get("phrase_score")}
    return row


def _uri(row: Mapping[str, Any], path: str, number: int) -> tuple[str, ItemError | None]:
    """Where an image is: in the export's folder, if it was copied or linked there, else where it was."""
    folder, file = _folder(path), row.get("file")
    if not isinstance(file, str) or not file or os.path.isabs(file):
        return resolved(row["uri"], folder), None
    return located(file, folder, f"{uri_of(path)}#{number}")
