"""Files and folders of inputs by the path or URI that names them, on this machine or on an object store.

The functions that a source of images needs, in the words of `os` and `os.path`; they go by the name alone.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast

from engine.errors import ConfigError
from engine.places import checked, fault, filesystem, is_no_bucket, is_remote_uri, reached

# Read at once of a file on a store: what is larger is passed over by a seek, in a tar say.
BLOCK_BYTES = 1 << 20
# Of JSON, or a line, that is parsed at once: what Python makes of it may be thirty times that.
MOST_BYTES = 1 << 24
VERSION = ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "mtime", "created")
DETOUR = re.compile(r"/\.{1,2}(?:/|$)")
Kind = Literal["file", "folder", "other"]


@dataclass(frozen=True, slots=True)
class Child:
    """What is in a folder."""

    name: str
    path: str
    kind: Kind


def absolute(path: str) -> str:
    """Raises ConfigError for a URI that can't be used; see `engine.places`."""
    if not is_remote_uri(path):
        return os.path.abspath(path)
    scheme, bucket, key = checked(path)
    return f"{scheme}://{bucket}{key.rstrip('/')}"


def normal(path: str) -> str:
    """Without detours: `a/../b` is `b`. On a store nothing leads out of its bucket, and `a//b` is a name."""
    if not is_remote_uri(path):
        return os.path.normpath(path)
    if not DETOUR.search(path):
        return path
    scheme, _, inside = path.partition("://")
    bucket, *key = inside.split("/")
    names: list[str] = []
    for name in key:
        if name == "..":
            del names[-1:]
        elif name != ".":
            names.append(name)
    return f"{scheme}://{'/'.join([bucket, *names]).rstrip('/')}"


def exists(path: str, *, links: bool = False) -> bool:
    """With `links` also a link that leads nowhere."""
    if not is_remote_uri(path):
        return os.path.lexists(path) if links else os.path.exists(path)
    return _kind(path) is not None


def is_file(path: str) -> bool:
    return _kind(path) == "file" if is_remote_uri(path) else os.path.isfile(path)


def is_folder(path: str) -> bool:
    return _kind(path) == "directory" if is_remote_uri(path) else os.path.isdir(path)


def opened(path: str, block_bytes: int = BLOCK_BYTES) -> BinaryIO:
    """To be read, by ranges of so many bytes where it is on a store; of exactly what is asked for if that is 0."""
    if not is_remote_uri(path):
        return open(path, "rb")
    file = _Ranges(path)
    return cast(BinaryIO, io.BufferedReader(file, block_bytes) if block_bytes else file)


def piece(path: str, start: int, size: int) -> bytes:
    """The bytes from `start` on, fewer at the end."""
    if is_remote_uri(path):
        with reached(path):
            store, inside = filesystem(path)
            try:
                return cast(bytes, store.cat_file(inside, start=start, end=start + size)) if size else b""
            except OSError:  # by S3 there is no range of an empty file, or behind its end
                if stamp(path)[0] <= start:
                    return b""
                raise
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size)


def whole(path: str, most: int = MOST_BYTES) -> bytes:
    """All of a small file. Raises ValueError for one that isn't."""
    data = piece(path, 0, most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return data


def lines(path: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, with their ends, each with its number from 1 on. Raises ValueError for one without end."""
    with opened(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_BYTES + 1), b""), 1):
            if len(line) > MOST_BYTES:
                raise ValueError(f"line {number} has more than {MOST_BYTES:,} bytes")
            yield number, line


def stamp(path: str) -> tuple[int, int]:
    """Its bytes, and a number that is another one once it has changed: the time of its last change in nanoseconds; on a
    store a digest of what it says of the version."""
    if not is_remote_uri(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    with reached(path):
        store, inside = filesystem(path)
        about = store.info(inside)
    if about["type"] == "directory":
        raise IsADirectoryError(errno.EISDIR, "is a folder", path)
    version = repr([str(about[name]) for name in VERSION if about.get(name)])
    return int(about.get("size") or 0), int.from_bytes(hashlib.sha256(version.encode()).digest()[:7])


def children(folder: str) -> list[Child]:
    """What is in a folder, in the order of names. Raises OSError."""
    if is_remote_uri(folder):
        return sorted(_on_store(folder), key=lambda child: child.name)
    with os.scandir(folder) as entries:
        return sorted((Child(e.name, e.path, _kind_of(e)) for e in entries), key=lambda child: child.name)


def matching(folder: str, pattern: str) -> list[str]:
    """The files and folders of a pattern such as `data/*/*.tar`, in the order of their names."""
    if "/" in pattern:
        first, _, rest = pattern.partition("/")
        return [path for below in matching(folder, first) for path in matching(below, rest)]
    fits = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    if not is_folder(folder):
        return []
    return [child.path for child in children(folder) if fits.fullmatch(child.name)]


class _Ranges(io.RawIOBase):
    """A file on a store, of which each read asks for its bytes: what the store fails at then is told as anywhere."""

    def __init__(self, path: str) -> None:
        self._path = path
        with reached(path):
            store, inside = filesystem(path)
            self._file = store.open(inside, "rb", cache_type="none")
        self.size: int = self._file.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any, /) -> int:
        with reached(self._path):
            return int(self._file.readinto(buffer))

    def readall(self) -> bytes:  # or it would be asked for piece by piece
        with reached(self._path):
            return bytes(self._file.read())


def _on_store(folder: str) -> Iterator[Child]:
    """Every slash of a key counts: `a//b.png` is in a folder without a name in `a`, whose path is `a/`."""
    scheme, _, inside = folder.partition("://")
    start = f"{inside}/"
    there: dict[tuple[str, Kind], Child] = {}
    for one in _found(folder):
        path = f"{one['name'].lstrip('/')}/"
        name, _, below = path.removeprefix(start).partition("/")
        kind: Kind = "folder" if below or one["type"] == "directory" else "file" if name else "other"
        # An object of the folder's own name is its marker if it is empty; to one that is not no path leads.
        if path.startswith(start) and (kind != "other" or one["size"]):
            there[name, kind] = Child(name, f"{scheme}://{start}{name}", kind)
    yield from there.values()


def _found(folder: str) -> list[dict[str, Any]]:
    with reached(folder):
        store, path = filesystem(folder)
        _, bucket, key = checked(folder)
        if key.startswith("//") or key.endswith("/"):  # for which `ls` lists another folder
            return list(store.find(bucket, prefix=f"{key[1:]}/", detail=True).values())
        return list(store.ls(path, detail=True))


def _kind(path: str) -> str | None:
    """ "file" or "directory"; None where there is nothing."""
    with reached(path):
        store, inside = filesystem(path)
        try:
            return cast(str, store.info(inside)["type"])
        except FileNotFoundError as error:
            if is_no_bucket(error):
                raise ConfigError(f"{path} {fault(error)}") from error
            return None


def _kind_of(entry: os.DirEntry[str]) -> Kind:
    """Links followed: file, folder, or other: a pipe, a device, a link that leads nowhere."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:
        return "other"
