"""What grows with a set and must not be held in memory: it goes to temporary files, and comes back in pieces.

They are in the folder that TMPDIR names. Up to HELD rows, or FEW digests, no file is made at all. What a killed process
leaves there goes with the next one that makes some.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import RunError, is_no_space
from engine.temporary import SPILLED, remove_left

HELD, FEW = 2**15, 2**13
PIECE_ROWS = 2**16  # that come back at a time
DIGEST_BYTES, PLACE_BYTES = 16, 24
BUCKET = 16
BUCKET_BYTES = BUCKET * PLACE_BYTES
FULL = 0.6  # of a table's places are taken before it grows: one bucket in 50 is then full and leads to the next one
GROWTH = 4

Rows = npt.NDArray[Any]


class Spill:
    """Rows of a structured type of numpy's, put into numbered buckets; those of a bucket come back together, in the
    order in which they came."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._held: list[tuple[npt.NDArray[np.int64], Rows]] = []
        self._count = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, rows: Rows, buckets: npt.NDArray[Any]) -> None:
        self._held.append((buckets.astype(np.int64), rows))
        self._count += len(rows)
        if self._count > HELD:
            self._write()

    def buckets(self) -> Iterator[Iterator[Rows]]:
        """The buckets that have rows, by number; each as pieces of at most PIECE_ROWS. Nothing is to be added after."""
        if self._folder is None:
            for _, rows in self._sorted():
                yield iter([rows])
            return
        self._write()
        for path in sorted(Path(self._folder.name).iterdir()):
            yield self._read(path)

    def _sorted(self) -> Iterator[tuple[int, Rows]]:
        """What is held, by bucket."""
        if not self._count:
            return
        buckets, rows = (np.concatenate(parts) for parts in zip(*self._held, strict=True))
        order = np.argsort(buckets, kind="stable")
        buckets, rows = buckets[order], rows[order]
        starts = np.flatnonzero(np.diff(buckets, prepend=-1))
        yield from zip(buckets[starts].tolist(), np.split(rows, starts[1:]), strict=True)

    def _write(self) -> None:
        with _room():
            self._folder = self._folder or self._made()
            for bucket, rows in self._sorted():
                with open(os.path.join(self._folder.name, f"{bucket:09d}"), "ab") as file:
                    file.write(rows.tobytes())
        self._held, self._count = [], 0

    def _made(self) -> tempfile.TemporaryDirectory[str]:
        remove_left()
        folder = tempfile.TemporaryDirectory(prefix=SPILLED)
        lock = os.open(folder.name, os.O_RDONLY)  # which ends with this process, however that ends
        weakref.finalize(self, os.close, lock)
        with suppress(OSError):  # where there are no locks nobody removes it either
            fcntl.flock(lock, fcntl.LOCK_EX)
        return folder

    def _read(self, path: Path) -> Iterator[Rows]:
        with open(path, "rb") as file:
            while data := file.read(PIECE_ROWS * self._dtype.itemsize):
                yield np.frombuffer(data, self._dtype)


class Digests:
    """16-byte digests, which are as good as random, each with a number. Memory does not grow with them: once there are
    many, they are in a file, with 40 to 160 bytes for each, and adding or finding one takes some 10 microseconds."""

    def __init__(self) -> None:
        self._held: dict[bytes, int] | None = {}
        self._count = 0
        self._table = _Table(0)

    def __len__(self) -> int:
        return self._count

    def add(self, digest: bytes, number: int = 0) -> bool:
        """Whether it is new; one that is there keeps its number."""
        if self._held is not None:
            self._held.setdefault(digest, number)
            new = len(self._held) > self._count
        else:
            new = self._table.add(digest, number)
        self._count += new
        if self._held is not None and self._count > FEW:
            self._move(self._held.items())
            self._held = None
        elif self._held is None and self._count > FULL * self._table.places:
            self._move(self._table.items())
        return new

    def number(self, digest: bytes) -> int | None:
        """None if it isn't there."""
        return self._held.get(digest) if self._held is not None else self._table.find(digest)[0]

    def _move(self, items: Iterable[tuple[bytes, int]]) -> None:
        table = _Table(int(GROWTH * self._count / FULL / BUCKET) + 1)
        for digest, number in items:
            table.add(digest, number)
        self._table = table


class _Table:
    """The file of `Digests`: a hash table of buckets of BUCKET places. Those of a bucket are taken from the first on,
    and one that is full leads on to the next. It has no name, and is gone with the last one who holds it."""

    def __init__(self, buckets: int) -> None:
        self._buckets = buckets
        self.places = buckets * BUCKET
        if buckets:
            self._file = tempfile.TemporaryFile(prefix="engine-digests-", buffering=0)  # noqa: SIM115
            self._file.truncate(buckets * BUCKET_BYTES)

    def add(self, digest: bytes, number: int) -> bool:
        found, place = self.find(digest)
        if found is None:
            with _room():
                os.pwrite(self._file.fileno(), digest + (number + 1).to_bytes(8), place)
        return found is None

    def find(self, digest: bytes) -> tuple[int | None, int]:
        """Its number; or None, and the place in the file where it belongs."""
        bucket = int.from_bytes(digest[:8]) % self._buckets
        while True:
            data = os.pread(self._file.fileno(), BUCKET_BYTES, bucket * BUCKET_BYTES)
            end, at = _end(data), data.find(digest)
            while at % PLACE_BYTES and at >= 0:  # it lies across two places
                at = data.find(digest, at + 1)
            if 0 <= at < end:
                return int.from_bytes(data[at + DIGEST_BYTES : at + PLACE_BYTES]) - 1, 0
            if end < BUCKET_BYTES:
                return None, bucket * BUCKET_BYTES + end
            bucket = (bucket + 1) % self._buckets

    def items(self) -> Iterator[tuple[bytes, int]]:
        for bucket in range(self._buckets):
            data = os.pread(self._file.fileno(), BUCKET_BYTES, bucket * BUCKET_BYTES)
            for at in range(0, _end(data), PLACE_BYTES):
                number = int.from_bytes(data[at + DIGEST_BYTES : at + PLACE_BYTES]) - 1
                yield data[at : at + DIGEST_BYTES], number


def _end(data: bytes) -> int:
    """Where the places of a bucket end that are taken: their numbers are kept one higher, and so are not zero."""
    return -(-len(data.rstrip(b"\0")) // PLACE_BYTES) * PLACE_BYTES


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not is_no_space(error):
            raise
        raise RunError(
            f"no space left in {tempfile.gettempdir()} for what is looked up in temporary files, up to 160 bytes an "
            "image. Make room, or name another folder with the variable TMPDIR, and run the same again."
        ) from error
