"""Which images there are: folders, files, lists and Parquet manifests become entries, lazily and in a fixed order.

No image is opened, but for the first bytes of files whose names say nothing. What is no image by name or content is
counted, so that nobody has to guess what was left out.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as types

from engine.errors import ConfigError
from engine.images import FILE, HEAD_BYTES, ROW, ROW_GROUP_BYTES, SCHEME, bytes_column, format_of, path_of
from engine.records import Item

IMAGE_EXTENSIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng"),
    *(".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".avif"),
}
HIDDEN = frozenset({"__macosx", "thumbs.db"})  # and all names with a leading dot
EXTENSION = re.compile(r"\.[a-z0-9]{1,8}", re.ASCII)  # anything else behind the last dot is a part of the name
UNREADABLE_FOLDER = "unreadable folder"
REPEATED_FOLDER = "folder listed already"
FOLDERS = (UNREADABLE_FOLDER, REPEATED_FOLDER)


@dataclass(frozen=True, slots=True)
class Entry:
    """One input: where it is, and what its manifest says of it."""

    uri: str
    dataset: str | None = None
    licence: str | None = None
    labels: tuple[str, ...] = ()


class Listing:
    """The inputs under `paths`: folders, image files, .txt lists and .parquet manifests. Iterating lists them.

    Every uri comes once; `repeated` counts the others. `skipped` counts what is no image, by extension, and folders
    that can't be read or were met before. Raises ConfigError for a path that does not exist, a list or manifest that
    can't be read, and at the end if there was no image at all.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        for path in map(str, paths):
            # Of several images one may be gone by now, which is for its row to say; anything else is a slip.
            may_be_gone = len(paths) > 1 and _extension(path) in IMAGE_EXTENSIONS
            if not os.path.lexists(path) and not may_be_gone:
                raise ConfigError(f"no such file or folder: {_shown(path)}")
        self.paths = [os.path.abspath(path) for path in paths]
        self.skipped: Counter[str] = Counter()
        self.repeated = 0

    def __iter__(self) -> Iterator[Entry]:
        self.skipped, self.repeated = Counter(), 0
        seen: set[bytes] = set()
        for path in self.paths:
            for entry in _entries(path, self.skipped):
                digest = Item.id_of(entry.uri)
                if digest in seen:
                    self.repeated += 1
                else:
                    seen.add(digest)
                    yield entry
        if not seen:
            raise ConfigError(
                f"no images in {', '.join(map(_shown, self.paths)) or 'no paths'}: "
                f"{self.describe_skipped() or 'no files seen'}; expected images by name "
                f"({' '.join(sorted(IMAGE_EXTENSIONS))}) or content, folders of them, .txt lists or .parquet manifests"
            )

    def describe_skipped(self) -> str:
        """What was skipped, in words: "skipped 12 files that are ... (.json 10, .txt 2)". Empty if nothing was."""
        folders = [f"{key} {self.skipped[key]}" for key in FOLDERS if self.skipped[key]]
        files = {key: count for key, count in self.skipped.most_common() if key not in FOLDERS}
        if not files:
            return "; ".join(folders)
        kinds = ", ".join(f"{key} {count}" for key, count in files.items())
        skipped = f"skipped {sum(files.values())} files that are not images by name or content ({kinds})"
        return "; ".join([skipped, *folders])


def uri_of(path: str) -> str:
    """The URI of a local file: its absolute path as it is, links not followed.

    A file:// URI if the path is not valid UTF-8, or if `images.read` would take it for a row of a Parquet file.
    """
    path = os.path.abspath(path)
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(path).as_uri()
    return Path(path).as_uri() if ROW.fullmatch(path) else path


def _entries(path: str, skipped: Counter[str]) -> Iterator[Entry]:
    if os.path.isdir(path):
        return _folder(path, skipped)
    if _extension(path) == ".parquet":
        return _manifest(path)
    if _extension(path) == ".txt":
        return _list(path)
    return iter([Entry(uri_of(path))])


def _folder(root: str, skipped: Counter[str]) -> Iterator[Entry]:
    """The images below `root`, depth first, sorted by name at every level. Linked folders are followed, once."""
    try:
        stack = _children(root)
    except OSError as error:
        raise ConfigError(f"folder {_shown(root)} can't be read: {error.strerror}") from None
    seen = {_identity(root)}
    while stack:
        child = stack.pop()
        extension = _extension(child.name)
        kind = _kind(child)
        if kind == "folder":
            try:
                identity = _identity(child.path)
                if identity in seen:
                    skipped[REPEATED_FOLDER] += 1
                    continue
                seen.add(identity)
                stack += _children(child.path)
            except OSError:
                skipped[UNREADABLE_FOLDER] += 1
        elif extension in IMAGE_EXTENSIONS or (kind == "file" and _begins_as_image(child.path)):
            yield Entry(uri_of(child.path))
        else:
            skipped[extension if EXTENSION.fullmatch(extension) else "no extension"] += 1


def _children(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, the last one first, for a stack."""
    with os.scandir(folder) as entries:
        shown = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in HIDDEN]
    return sorted(shown, key=lambda entry: entry.name, reverse=True)


def _kind(entry: os.DirEntry[str]) -> str:
    """What an entry is, links followed: folder, file, or other: a pipe, a device, a link that leads nowhere."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:
        return "other"


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _begins_as_image(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            return format_of(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _list(path: str) -> Iterator[Entry]:
    """A path or URI a line; relative ones are relative to the list's folder."""
    with _reported(path, "list of paths"), open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").rstrip(b"\r\n")
            if b"\0" in line:
                raise ValueError(f"line {number} has a zero byte; expected UTF-8 text, one path a line")
            if line.strip():
                yield Entry(_resolved(os.fsdecode(line), os.path.dirname(path)))


def _resolved(reference: str, folder: str) -> str:
    """The uri of a reference in a list or manifest: a path, relative to `folder` or not, or a URI; row or not."""
    row = ROW.fullmatch(reference)
    place = row[1] if row else reference
    if SCHEME.match(place) and not FILE.fullmatch(place):
        return reference  # from elsewhere; reading it says so
    return uri_of(os.path.join(folder, path_of(place))) + (f"#{row[2]}" if row else "")


def _manifest(path: str) -> Iterator[Entry]:
    """The rows of a Parquet manifest. Images inside it are not read: see `_has_bytes`."""
    with _reported(path, "Parquet manifest"), pa.OSFile(os.fsencode(path)) as source:
        file = pq.ParquetFile(source)
        columns = _check_columns(path, file.schema_arrow)
        images = bytes_column(file.schema_arrow)
        _check_row_groups(file, images)
        row = 0
        for group in range(file.num_row_groups):
            for inside, values in zip(_has_bytes(file, group, images), _rows(file, group, columns), strict=False):
                reference = None if inside else values.get("uri") or (values.get("image") or {}).get("path")
                labels = values.get("labels") or ()
                yield Entry(
                    uri=_resolved(reference, os.path.dirname(path)) if reference else f"{uri_of(path)}#{row}",
                    dataset=values.get("dataset"),
                    licence=values.get("licence"),
                    labels=(labels,) if isinstance(labels, str) else tuple(filter(None, labels)),
                )
                row += 1


def _rows(file: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:
        return repeat({}, file.metadata.row_group(group).num_rows)
    batches = file.iter_batches(row_groups=[group], columns=columns)
    return (values for batch in batches for values in batch.to_pylist())


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
    images = bytes_column(schema)
    if images is None and "uri" not in schema.names:
        found = ", ".join(f"{field.name}: {field.type}" for field in schema) or "none"
        raise ConfigError(
            f"{_shown(path)} is no manifest: expected a column `uri` (string), `bytes` (binary) or `image` (struct of "
            f"bytes and path), and optionally `dataset`, `licence` and `labels`; found {found}"
        )
    wanted = ["uri", "dataset", "licence", "labels"] + ["image.path"] * (images == "image.bytes")
    columns = {name: type_ for name in wanted if (type_ := _type(schema, name)) is not None}
    for name, type_ in {**columns, **({images: _type(schema, images)} if images else {})}.items():
        expected, fits = COLUMNS[name]
        if not fits(type_):
            raise ConfigError(f"{_shown(path)}: column `{name}` must be {expected}, not {type_}")
    return list(columns)


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


def _is_labels(type_: pa.DataType) -> bool:
    return _is_text(type_) or ((types.is_list(type_) or types.is_large_list(type_)) and _is_text(type_.value_type))


COLUMNS: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "uri": ("string", _is_text),
    "image.path": ("string", _is_text),
    "bytes": ("binary", _is_binary),
    "image.bytes": ("binary", _is_binary),
    "dataset": ("string", _is_text),
    "licence": ("string", _is_text),
    "labels": ("string or list of strings", _is_labels),
}


@contextmanager
def _reported(path: str, what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(f"no such file: {_shown(path)}") from None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ConfigError(f"{_shown(path)} can't be read as a {what}: {error}") from error


def _shown(path: str) -> str:
    return os.fsencode(path).decode(errors="replace")
