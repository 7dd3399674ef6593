"""Parquet manifests: which images they list, and the images inside them; and lists of URLs that are Parquet files."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import accumulate, repeat
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as types

from engine.compact import as_value_error, check, compact
from engine.entry import Entry, Given
from engine.errors import ConfigError, ImageError
from engine.files import opened, stamp
from engine.places import is_remote_uri
from engine.sources.features import CAPTIONS, Columns, columns_of, features_in
from engine.sources.places import located
from engine.uris import reported, resolved, shown, uri_of

# A row is read with its row group, and threads at the seam of two row groups need both.
ROW_GROUP_BYTES = 1 << 30
BATCH_ROWS = 8192  # of texts, which are spelt out together
_lock = threading.Lock()


def entries(path: str) -> Iterator[Entry]:
    """The rows of a Parquet manifest. Images inside it are not read: see `_has_bytes`."""
    with reported(path, "Parquet manifest"), as_value_error(), source(path) as opened_:
        file, schema = compact(opened_), pq.ParquetFile(opened_).schema_arrow
        columns = _check_columns(path, schema)
        images, along = _bytes_column(schema), _along(schema)
        _check_row_groups(file, images)
        modified = stamp(path)[1]
        row, known = 0, dict[str, str]()  # labels: one may be said a million times
        for group in range(file.num_row_groups):
            for inside, values in zip(_has_bytes(file, group, images), _rows(file, group, columns), strict=False):
                path_inside = (values.get(along.image or "image") or {}).get("path")
                uri, error = f"{uri_of(path)}#{row}", None
                if not inside and values.get("uri"):
                    uri = resolved(values["uri"], os.path.dirname(path))
                elif not inside and path_inside:
                    uri, error = located(path_inside, os.path.dirname(path), uri)
                yield Entry(
                    uri=uri,
                    dataset=values.get("dataset"),
                    licence=values.get("licence"),
                    labels=tuple(known.setdefault(label, label) for label in along.labels_in(values)),
                    error=error,
                    given=partial(_given, path, modified, row) if along.given else tuple,
                )
                row += 1


def names(path: str) -> list[str]:
    """The names of the columns of a Parquet file."""
    return list(_schema(path).names)


def metadata(path: str) -> dict[bytes, bytes]:
    """What a Parquet file says of its schema as a whole."""
    return dict(_schema(path).metadata or {})


def is_manifest(path: str) -> bool:
    """Whether a Parquet file has a column that `entries` goes by."""
    schema = _schema(path)
    return "uri" in schema.names or _bytes_column(schema) is not None


def _schema(path: str) -> pa.Schema:
    with reported(path, "Parquet manifest"), as_value_error(), source(path) as opened_:
        return pq.ParquetFile(opened_).schema_arrow


def text_rows(path: str, columns: Sequence[str]) -> Iterator[list[str | None]]:
    """The values of columns of strings, row by row. Bytes in them that aren't UTF-8 are replaced."""
    with reported(path, "list of URLs"), as_value_error(), source(path) as opened_:
        file, schema = compact(opened_), pq.ParquetFile(opened_).schema_arrow
        _check_once(path, schema)
        for name in columns:
            if not _is_text(type_ := schema.field(name).type):
                raise ConfigError(f"{shown(path)}: column `{name}` must be string, not {type_}")
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
            check(batch)
            yield from map(list, zip(*(_decoded(batch.column(name)) for name in columns), strict=True))


def _decoded(texts: pa.Array) -> list[str | None]:
    """Arrow takes strings of Parquet files on trust, and stops at the first that is no UTF-8."""
    texts = texts.dictionary_decode() if types.is_dictionary(texts.type) else texts
    values = texts.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
    return [None if value is None else value.decode(errors="replace") for value in values]


def source(path: str) -> pa.NativeFile:
    """A file as Arrow reads it; of what is on a store only the ranges that are asked for."""
    return pa.PythonFile(opened(path, 0), mode="r") if is_remote_uri(path) else pa.OSFile(os.fsencode(path))


def read_row(path: str, modified: int, row: int, place: str) -> bytes:
    """The image in a row of the Parquet file at `path`, last modified at `modified`, which errors call `place`.

    Raises ImageError when there is none, or the file can't be read as Parquet.
    """
    try:
        with _lock, as_value_error():  # or every thread would read the row group that all of them wait for
            value = _value(path, modified, row, place)
    except ValueError as error:
        raise ImageError("unreadable", f"{place} can't be read as Parquet: {error}") from error
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ImageError("missing", f"row {row} of {place} has neither bytes nor a uri")
    return data


def _given(path: str, modified: int, row: int) -> list[Given]:
    """What came along in a row."""
    with reported(path, "Parquet manifest"), as_value_error(), _lock:
        _, _, starts = _parquet(path, modified)
        group = bisect_right(starts, row) - 1
        table, along = _row_group_along(path, modified, group)
        check(one := table.slice(row - starts[group], 1))
        values = one.to_pylist()[0]
        return along.given_in(values, f"row {row} of {shown(os.path.basename(path))}")


def _value(path: str, modified: int, row: int, place: str) -> Any:
    _, column, starts = _parquet(path, modified)
    if row >= starts[-1]:
        raise ImageError("missing", f"{place} has no row {row}; it has {starts[-1]} rows")
    if column is None:
        raise ImageError("missing", f"row {row} of {place} has neither bytes nor a uri")
    group = bisect_right(starts, row) - 1
    return _row_group(path, modified, group)[row - starts[group]].as_py()


def _bytes_column(schema: pa.Schema) -> str | None:
    """The column that holds images: `bytes`, or the field `bytes` in Hugging Face's struct, mostly called `image`."""
    if "bytes" in schema.names:
        return "bytes"
    name = _along(schema).image or "image"
    image = schema.field(name).type if name in schema.names else None
    return f"{name}.bytes" if image is not None and pa.types.is_struct(image) and "bytes" in image.names else None


def _along(schema: pa.Schema) -> Columns:
    """The columns that come along with images: those of Hugging Face's features, or `labels` and captions."""
    features = {name: feature for name, feature in features_in(schema.metadata).items() if name in schema.names}
    if features:
        return columns_of(features)
    return Columns(
        labels="labels" if "labels" in schema.names else None,
        texts=tuple(name for name in CAPTIONS if name in schema.names),
    )


@lru_cache(maxsize=2)
def _parquet(path: str, modified: int) -> tuple[pq.ParquetFile, str | None, list[int]]:
    """The open file, its column of images, and the rows at which its row groups begin, and the last one ends."""
    file = compact(source(path))
    sizes = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
    return file, _bytes_column(file.schema_arrow), list(accumulate(sizes, initial=0))


@lru_cache(maxsize=2)
def _row_group(path: str, modified: int, group: int) -> pa.ChunkedArray:
    file, column, _ = _parquet(path, modified)
    return file.read_row_group(group, columns=[column]).column(0)


@lru_cache(maxsize=2)
def _row_group_along(path: str, modified: int, group: int) -> tuple[pa.Table, Columns]:
    file, _, _ = _parquet(path, modified)
    along = _along(file.schema_arrow)
    return file.read_row_group(group, columns=list(along.given)), along


def _rows(file: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:
        yield from repeat({}, file.metadata.row_group(group).num_rows)
        return
    for batch in file.iter_batches(row_groups=[group], columns=columns, batch_size=BATCH_ROWS):
        check(batch)
        yield from batch.to_pylist()


def _has_bytes(file: pq.ParquetFile, group: int, column: str | None) -> Iterator[bool]:
    """Whether each row of a row group holds an image.

    The count of nulls in the row group's statistics settles it when it is all or none; only a row group that has both
    is read for it, a few rows at a time, as pyarrow can't read validity alone.
    """
    if column is None:
        return repeat(False)
    statistics = _chunk(file, group, column).statistics
    nulls = statistics.null_count if statistics is not None and statistics.has_null_count else None
    if nulls in (0, file.metadata.row_group(group).num_rows):
        return repeat(nulls == 0)
    batches = file.iter_batches(batch_size=64, row_groups=[group], columns=[column])
    return (valid for batch in batches for valid in _validity(batch.column(0)).to_pylist())


def _validity(images: pa.Array) -> pa.Array:
    return (images.flatten()[0] if types.is_struct(images.type) else images).is_valid()


def _chunk(file: pq.ParquetFile, group: int, column: str) -> pq.ColumnChunkMetaData:
    rows = file.metadata.row_group(group)
    return next(chunk for chunk in map(rows.column, range(rows.num_columns)) if chunk.path_in_schema == column)


def _check_row_groups(file: pq.ParquetFile, column: str | None) -> None:
    if column is None:
        return
    for group in range(file.num_row_groups):
        size = _chunk(file, group, column).total_uncompressed_size
        if size > ROW_GROUP_BYTES:
            raise ValueError(
                f"row group {group} holds {size:,} bytes of images, and each is read at once; write them with at most "
                f"{ROW_GROUP_BYTES:,} bytes (pyarrow: write_table(..., row_group_size=256))"
            )


def _check_columns(path: str, schema: pa.Schema) -> list[str]:
    """The columns to read. Raises ConfigError for a manifest that can't say where images are."""
    _check_once(path, schema)
    images = _bytes_column(schema)
    if images is None and "uri" not in schema.names:
        found = ", ".join(f"{field.name}: {field.type}" for field in schema) or "none"
        raise ConfigError(
            f"{shown(path)} is no manifest: expected a column `uri` (string), `bytes` (binary) or `image` (struct of "
            "bytes and path), and optionally `dataset`, `licence`, `labels` and `captions`; or `url`, and optionally "
            f"`caption`; found {found}"
        )
    along = _along(schema)
    paths = [images.replace(".bytes", ".path")] if images and images != "bytes" else []
    kinds = dict.fromkeys(["uri", "dataset", "licence", *paths], TEXT) | dict.fromkeys(along.texts, TEXTS)
    kinds |= {images: BINARY} if images else {}
    kinds |= {along.labels: TEXTS} if along.labels and not along.classes else {}
    for name, (expected, fits) in kinds.items():
        if (type_ := _type(schema, name)) is not None and not fits(type_):
            raise ConfigError(f"{shown(path)}: column `{name}` must be {expected}, not {type_}")
    wanted = ["uri", "dataset", "licence", *([along.labels] if along.labels else []), *paths]
    return [name for name in wanted if _type(schema, name) is not None]


def _check_once(path: str, schema: pa.Schema) -> None:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise ConfigError(f"{shown(path)} has more than one column called {', '.join(twice)}; rename or drop one")


def _type(schema: pa.Schema, name: str) -> pa.DataType | None:
    """The type of a column, or of a field of a struct column; None if there is none of that name."""
    column, _, field = name.partition(".")
    if column not in schema.names:
        return None
    type_ = schema.field(column).type
    if not field:
        return type_
    return type_.field(field).type if field in type_.names else None


def _is_text(type_: pa.DataType) -> bool:
    value = type_.value_type if types.is_dictionary(type_) else type_
    return bool(types.is_string(value) or types.is_large_string(value) or types.is_null(value))


def _is_binary(type_: pa.DataType) -> bool:
    return bool(types.is_binary(type_) or types.is_large_binary(type_) or types.is_null(type_))


def _is_texts(type_: pa.DataType) -> bool:
    return _is_text(type_) or ((types.is_list(type_) or types.is_large_list(type_)) and _is_text(type_.value_type))


# What a column must be: in words, and whether a type is.
TEXT = ("string", _is_text)
TEXTS = ("string or list of strings", _is_texts)
BINARY = ("binary", _is_binary)
