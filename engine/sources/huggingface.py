"""Hugging Face datasets as `save_to_disk` writes them: folders of Arrow streams, with what their columns are beside.

Files are mapped into memory and stay on the disk, or on their store, until a row is read. https://huggingface.co/docs/datasets
"""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.types as types

from engine.compact import as_value_error
from engine.entry import Entry, Faults, Given
from engine.errors import ConfigError, ImageError
from engine.files import is_file, opened, stamp, whole
from engine.places import is_remote_uri
from engine.sources.features import Columns, columns_of
from engine.sources.places import located
from engine.uris import reported, shown, uri_of

WHAT = "Hugging Face dataset"
MOST_BYTES = 1 << 26  # of JSON; `datasets` may write down a checksum of each file that a set was made of
INFO, STATE, SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"
_lock = threading.Lock()


def is_dataset(folder: str) -> bool:
    has_data = all(is_file(os.path.join(folder, name)) for name in (INFO, STATE))
    return has_data or is_file(os.path.join(folder, SPLITS))


def entries(folder: str, faults: Faults | None = None) -> Iterator[Entry]:
    """The rows of a dataset, or of all its splits. Raises ConfigError for one without images, or with files missing.

    `faults` gets what is wrong with labels as they are listed, and with objects once they are asked for.
    """
    faults = Faults() if faults is None else faults
    if is_file(os.path.join(folder, SPLITS)):
        splits = _json(folder, SPLITS).get("splits")
        folders = [os.path.join(folder, _inside(folder, split)) for split in splits or ()]
    else:
        folders = [folder]
    for part in folders:
        info, files = _json(part, INFO), _files(part)
        name, licence = _text(info.get("dataset_name")), _text(info.get("license"))
        for file in files:
            yield from _entries(file, name or shown(os.path.basename(folder)), licence, faults)


def read_row(path: str, modified: int, row: int, place: str) -> bytes:
    """The image in a row of the Arrow file at `path`, last modified at `modified`, which errors call `place`.

    Raises ImageError when there is none, or the file can't be read.
    """
    try:
        with _lock, as_value_error():
            value = _row(path, modified, row, (_table(path, modified).columns.image or "",))
    except (ValueError, ConfigError) as error:
        raise ImageError("unreadable", f"{place} can't be read as a {WHAT}: {error}") from error
    except IndexError as error:
        raise ImageError("missing", f"{place} has no row {row}: {error}") from None
    (image,) = value.values()
    data = image.get("bytes") if image else None
    if not isinstance(data, bytes):
        raise ImageError("missing", f"row {row} of {place} has neither bytes nor a path")
    return data


@dataclass(frozen=True)
class _Table:
    """An Arrow stream in memory: where its batches begin in the file, and with which row."""

    source: pa.NativeFile
    schema: pa.Schema
    columns: Columns
    places: Sequence[int]
    rows: Sequence[int]


def _entries(path: str, dataset: str, licence: str | None, faults: Faults) -> Iterator[Entry]:
    told: set[int] = set()
    with reported(path, WHAT), _as_value_error():
        modified = stamp(path)[1]
        with _lock:
            table = _table(path, modified)
        for number in range(len(table.places)):
            with _lock:
                batch = _batch(path, modified, number)
            references = _references(batch, table.columns)
            names = [name for name in (table.columns.labels, *table.columns.about) if name]
            about = batch.select(names).to_pylist() if names else [{}] * len(references)
            for offset, reference in enumerate(references):
                row = table.rows[number] + offset
                place = f"{uri_of(path)}#{row}"
                uri, error = located(reference, os.path.dirname(path), place) if reference else (place, None)
                yield Entry(
                    uri,
                    about[offset].get("dataset", dataset),
                    about[offset].get("licence", licence),
                    table.columns.labels_in(about[offset], _where(path, row), faults),
                    error,
                    given=partial(_given, path, modified, row, faults, told) if table.columns.given else tuple,
                )


def _references(batch: pa.RecordBatch, columns: Columns) -> list[str | None]:
    """For each row the path of its image; None where it is inside, or there is none."""
    images = batch.column(columns.image)
    fields = {field.name: column for field, column in zip(images.type, images.flatten(), strict=True)}
    inside, paths = fields["bytes"].is_valid().to_pylist(), fields["path"].to_pylist()
    return [None if is_inside else path for is_inside, path in zip(inside, paths, strict=True)]


def _given(path: str, modified: int, row: int, faults: Faults, told: set[int]) -> list[Given]:
    """What came along in a row. Its faults are told once: `told` are the rows that had some."""
    with reported(path, WHAT), _as_value_error(), _lock:
        columns = _table(path, modified).columns
        values, before = _row(path, modified, row, columns.given), faults.counts.total()
        given = columns.given_in(values, _where(path, row), None if row in told else faults)
        if faults.counts.total() > before:
            told.add(row)
        return given


def _where(path: str, row: int) -> str:
    return f"row {row} of {shown(os.path.basename(path))}"


def _row(path: str, modified: int, row: int, names: Sequence[str]) -> dict[str, Any]:
    """Some columns of a row. Raises IndexError for a row that isn't there."""
    rows = _table(path, modified).rows
    if row >= rows[-1]:
        raise IndexError(f"it has {rows[-1]} rows")
    number = bisect_right(rows, row) - 1
    batch = _batch(path, modified, number)
    return {name: batch.column(name)[row - rows[number]].as_py() for name in names}


@lru_cache(maxsize=4)
def _table(path: str, modified: int) -> _Table:
    """Raises ValueError or ConfigError for what is no stream of a dataset with images."""
    source = pa.PythonFile(opened(path), mode="r") if is_remote_uri(path) else pa.memory_map(os.fsencode(path))
    messages = _messages(source)
    _, first = next(messages, (0, None))
    if first is None or first.type != "schema":
        raise ValueError("expected an Arrow stream, which begins with a schema")
    schema = pa.ipc.read_schema(first)
    columns = _columns(path, schema)
    places, rows = [], [0]
    for place, message in messages:
        if message.type != "record batch":
            raise ValueError(f"expected batches of rows, not a {message.type}")
        places.append(place)
        rows.append(rows[-1] + pa.ipc.read_record_batch(message, schema).num_rows)
    return _Table(source, schema, columns, places, rows)


def _messages(source: pa.NativeFile) -> Iterator[tuple[int, pa.Message]]:
    while True:
        place = source.tell()
        try:
            message = pa.ipc.read_message(source)
        except EOFError:  # the mark at the end of a stream, or the end of the file
            return
        yield place, message


@lru_cache(maxsize=4)
def _batch(path: str, modified: int, number: int) -> pa.RecordBatch:
    """A batch, not copied but checked: what lies in a damaged one might lead anywhere in memory."""
    table = _table(path, modified)
    table.source.seek(table.places[number])
    batch = pa.ipc.read_record_batch(pa.ipc.read_message(table.source), table.schema)
    names = [table.columns.image, table.columns.labels, *table.columns.about, *table.columns.given]
    batch = batch.select(list(dict.fromkeys(name for name in names if name)))
    batch.validate(full=True)
    return batch


def _columns(path: str, schema: pa.Schema) -> Columns:
    folder = os.path.dirname(path)
    features = _json(folder, INFO).get("features")
    columns = columns_of(features if isinstance(features, dict) else {})
    if columns.image is None:
        found = ", ".join(features) if isinstance(features, dict) else "no features"
        raise ConfigError(f"{shown(folder)}: expected a feature of type Image in {INFO}; found {found}")
    named = (columns.image, columns.labels, *columns.about, *columns.given)
    missing = [name for name in named if name and name not in schema.names]
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}, which {INFO} names")
    kind = schema.field(columns.image).type
    if not types.is_struct(kind) or not {"bytes", "path"} <= set(kind.names):
        raise ValueError(f"column `{columns.image}` must be a struct of bytes and path, not {kind}")
    return columns


def _files(folder: str) -> list[str]:
    state = _json(folder, STATE)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise ConfigError(
            f"{shown(folder)} is a selection of rows that is kept apart from them: load it with "
            "`datasets.load_from_disk`, and save what `flatten_indices()` gives"
        )
    files = state.get("_data_files")
    if not isinstance(files, list):
        raise ConfigError(f"{shown(folder)}: expected a list `_data_files` in {STATE}")
    names = [file.get("filename") if isinstance(file, dict) else None for file in files]
    return [os.path.join(folder, _inside(folder, name)) for name in names]


def _text(value: object) -> str | None:
    """A text of a dataset_info.json as a column holds it; None for what is none."""
    return value.encode(errors="replace").decode() if isinstance(value, str) and value else None


def _inside(folder: str, name: object) -> str:
    if not isinstance(name, str) or os.path.basename(name) != name or name in ("", ".", ".."):
        raise ConfigError(f"{shown(folder)}: expected the name of a file or folder in it, not {name!r}")
    return name


def _json(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    with reported(path, WHAT):
        try:
            found = json.loads(whole(path, MOST_BYTES))
        except RecursionError:
            raise ValueError("it is nested too deep") from None
        if not isinstance(found, dict):
            raise ValueError(f"expected a JSON object, not a {type(found).__name__}")
        return found


@contextmanager
def _as_value_error() -> Iterator[None]:
    try:
        with as_value_error():
            yield
    except IndexError as error:
        raise ValueError(str(error)) from error
