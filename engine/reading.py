"""Reading the bytes of one image, whatever it is that its URI leads to."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import manifest
from engine.atomic import is_there
from engine.errors import ImageError, RunError
from engine.files import piece, stamp
from engine.places import is_refusal, is_remote_uri, reached
from engine.sources import huggingface, webdataset
from engine.uris import MEMBER, ROW, download_of, is_url, path_of


def read(uri: str, *, max_bytes: int, downloads: Path | None = None) -> bytes:
    """The bytes of one image. Raises ImageError of kind "missing", "unreadable" or "too_large".

    `uri` is an absolute path, a file:// URI, or one on an object store; or any of them, of a .parquet or .arrow, with
    `#<row>`: the bytes in that row; or of a .tar, with `#<member>`; or an http(s) URL, whose image is in the folder
    `downloads`: nothing is fetched here. RunError where a store can't be reached: that is no fault of the image.
    """
    if is_url(uri):
        uri = _downloaded(uri, downloads)
    member = MEMBER.fullmatch(uri)
    row = None if member else ROW.fullmatch(uri)
    place = member[1] if member else row[1] if row else uri
    with _file_faults(place), _store_faults(place):
        path = path_of(place)
        size, modified = _stamp(path, place)
        if member:
            return webdataset.read_member(path, modified, member[2], max_bytes)
        if row:
            rows = huggingface if path.lower().endswith(".arrow") else manifest
            data: bytes = rows.read_row(path, modified, int(row[2]), place)
        else:
            _check_bytes(size, max_bytes)
            data = piece(path, 0, min(size, max_bytes) + 1)  # it may have grown since
        _check_bytes(len(data), max_bytes)
        return data


def check_opens(uri: str) -> None:
    """Raises what `read` would where the file that an image is in can't be opened; nothing is read of it. For URIs that
    are no URLs."""
    inside = MEMBER.fullmatch(uri) or ROW.fullmatch(uri)
    place = inside[1] if inside else uri
    with _file_faults(place), _store_faults(place):
        path = path_of(place)
        _stamp(path, place)
        if not is_remote_uri(path):
            os.close(os.open(path, os.O_RDONLY))


def _stamp(path: str, place: str) -> tuple[int, int]:
    if not is_remote_uri(path):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # found out before opening it, as a pipe would wait for a writer
            raise ImageError("unreadable", f"{place} is {_kind(mode)}, not a file")
    return stamp(path)


def _downloaded(url: str, downloads: Path | None) -> str:
    if downloads is None:
        raise ImageError("missing", f"{url} is kept in an output folder's downloads/, and none was named to look in")
    path = download_of(downloads, url)
    if not is_there(path):
        raise ImageError(
            "missing",
            f"{url} isn't among the downloads, where ingest puts it: no {path}. "
            f"Remove the shard in {downloads.parent / 'images'} that lists it, and the marker of its partition in "
            f"{downloads.parent / 'round-0' / 'partitions'}, and run again: it is fetched anew",
        )
    return str(path)


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


@contextmanager
def _store_faults(place: str) -> Iterator[None]:
    """A store that keeps one image from us says so of the image; one that fails, or doesn't know us, ends the run."""
    try:
        with reached(place):
            yield
    except RunError as error:
        if error.__cause__ is not None and is_refusal(error.__cause__):
            raise ImageError("forbidden", f"{place} can't be read with the environment's credentials") from error
        raise


def _kind(mode: int) -> str:
    names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


def _check_bytes(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ImageError("too_large", f"has {size:,} bytes, more than ingest.max_bytes = {max_bytes:,}")
