"""Which rows of a large table have a key that an earlier row has: found bucket by bucket, told in the order of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.spill import Rows, Spill

RANGE = 2**18  # rows whose answers come together
ROW = np.dtype([("key", "S16"), ("row", np.int64), ("id", "S16")])
REPEAT = np.dtype([("row", np.int64), ("of", "S16")])  # `of` is the id of the first row that has the key

Keys = npt.NDArray[np.bytes_]


@dataclass
class Repeats:
    """Rows come in order, each with a 16-byte key, a digest, and an id. 40 bytes a row in temporary files; in memory
    what a 256th of the different keys takes, however often one of them repeats."""

    _rows: Spill = field(default_factory=lambda: Spill(ROW))

    def add(self, keys: Keys, rows: npt.NDArray[np.int64], ids: Keys) -> None:
        table = np.empty(len(keys), ROW)
        table["key"], table["row"], table["id"] = keys, rows, ids
        bytes_ = np.ascontiguousarray(keys, "S16").view(np.uint8).reshape(-1, 16)
        self._rows.add(table, bytes_[:, 0])

    def found(self) -> Iterator[Rows]:
        """The rows that repeat an earlier one, as pieces of REPEAT, in order."""
        found = Spill(REPEAT)
        for pieces in self._rows.buckets():
            for repeats in _repeats(pieces):
                found.add(repeats, repeats["row"] // RANGE)
        for pieces in found.buckets():
            together = np.concatenate(list(pieces))
            yield together[np.argsort(together["row"], kind="stable")]


def _repeats(pieces: Iterator[Rows]) -> Iterator[Rows]:
    known = np.empty(0, ROW)  # the first row of each key, by key
    for rows in pieces:
        known = firsts(known, rows, "key")
        first = known[np.searchsorted(known["key"], rows["key"])]
        later = first["row"] != rows["row"]
        repeats = np.empty(int(later.sum()), REPEAT)
        repeats["row"], repeats["of"] = rows["row"][later], first["id"][later]
        yield repeats


def firsts(known: Rows, rows: Rows, key: str) -> Rows:
    """The first row of each key among those `known` and then `rows`, sorted by key."""
    both = np.concatenate([known, rows])
    return both[np.unique(both[key], return_index=True)[1]]
