"""Reading the bytes of one image, whatever it is that its URI leads to."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import manifest
from engine.errors import ImageError
from engine.sources import huggingface
from engine.uris import ROW, path_of


def read(uri: str, *, max_bytes: int, downloads: Path | None = None) -> bytes:
    """The bytes of one image. Raises ImageError of kind "missing", "unreadable" or "too_large".

    `uri` is an absolute path, a file:// URI, or either of them, of a .parquet or .arrow, with `#<row>`: the bytes in
    that row.
    `downloads` is the folder where the images of http(s) URLs are kept.
    """
    row = ROW.fullmatch(uri)
    place = row[1] if row else uri
    with _file_faults(place):
        path = path_of(place)
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # found out before opening it, as a pipe would wait for a writer
            raise ImageError("unreadable", f"{place} is {_kind(status.st_mode)}, not a file")
        if row:
            rows = huggingface if path.lower().endswith(".arrow") else manifest
            data: bytes = rows.read_row(path, status.st_mtime_ns, int(row[2]), place)
            _check_bytes(len(data), max_bytes)
            return data
        _check_bytes(status.st_size, max_bytes)
        with open(path, "rb") as file:
            data = file.read(min(status.st_size, max_bytes) + 1)  # it may have grown since
        _check_bytes(len(data), max_bytes)
        return data


@contextmanager
def _file_faults(place: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("missing", f"no such file: {place}") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageError("missing", f"no such file: {place} is a link in a circle") from None
        raise ImageError("unreadable", f"{place} can't be read: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in a path
        raise ImageError("missing", f"no such file: {place!r} ({error})") from None


def _kind(mode: int) -> str:
    names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


def _check_bytes(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ImageError("too_large", f"has {size:,} bytes, more than ingest.max_bytes = {max_bytes:,}")
