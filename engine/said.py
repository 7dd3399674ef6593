"""What is said of some images, as flat tables over all shards: for whoever compares what one says with another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.flat import NAMES, Bools, Flat, Ints
from engine.stats.columns import one, rows_of

Boxes = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Said:
    """Tables as `engine.flat` has them, but `row` is the number of an image among those that are looked at."""

    tables: dict[str, pa.Table]

    def __getitem__(self, name: str) -> pa.Table:
        return self.tables[name]

    def only(self, name: str, kept: Bools) -> Said:
        """With those rows of one table alone."""
        return replace(self, tables=self.tables | {name: self.tables[name].filter(pa.array(kept))})

    def by(self, source: str, number: int, names: Sequence[str]) -> Said:
        """With what of the tables `names` a source made in a round. What it refers to may be others'."""
        said = self
        for name in names:
            table = said[name]
            kept = equal(table["source"], source) & (rounds_of(table) == number)
            said = said.only(name, kept)
        return said

    def is_all_of(self, other: Said, names: Sequence[str]) -> bool:
        """Whether these tables have what another's have, which may have more columns."""
        return all(self[name].equals(other[name].select(self[name].column_names)) for name in names)

    def makers(self, names: Sequence[str]) -> list[tuple[str, int]]:
        """Who made something of these tables, and in which round."""
        found: set[tuple[str, int]] = set()
        for name in names:
            table = self[name]
            pairs = pa.table({"source": table["source"], "round": pa.array(rounds_of(table))})
            found |= {
                (row["source"], row["round"]) for row in pairs.group_by(["source", "round"]).aggregate([]).to_pylist()
            }
        return sorted(found)


def gathered(parts: Iterable[tuple[Flat, Ints]]) -> Said:
    """Of shards what is said of images that are looked at. Each comes with the number of every row's image, -1 where
    that is not looked at. There must be at least one."""
    tables: dict[str, list[pa.Table]] = {name: [] for name in NAMES}
    for flat, numbers in parts:
        chosen = flat.of_rows(numbers >= 0)
        for name, those in tables.items():
            table = chosen[name]
            rows = pa.array(numbers[rows_of(table)])
            those.append(table.set_column(table.column_names.index("row"), "row", rows))
    return Said({name: pa.concat_tables(those).combine_chunks() for name, those in tables.items()})


def rounds_of(table: pa.Table) -> Ints:
    """The round that each annotation was made in, as its id has it."""
    ids = one(table["id"]).dictionary_encode()
    rounds = [_round(id_) for id_ in ids.dictionary.to_pylist()]  # ids repeat over images: few of them are different
    made: Ints = np.array(rounds, np.int64)[ids.indices.to_numpy()]
    return made


def _round(id_: str) -> int:
    first = id_.partition(".")[0]
    return int(first) if first.isascii() and first.isdecimal() and len(first) < 10 else 0


def equal(column: pa.ChunkedArray, word: object) -> Bools:
    """Where a column has a value; not where it has none."""
    found: Bools = pc.fill_null(pc.equal(column, word), False).to_numpy()
    return found


def numbers_of(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """NaN where there is none."""
    values: npt.NDArray[np.float64] = column.to_numpy().astype(np.float64)
    return values


def boxes_of(regions: pa.Table) -> Boxes:
    """[n, 4]"""
    return np.stack([numbers_of(regions[name]) for name in ("x0", "y0", "x1", "y1")], axis=1)


def coded(*columns: pa.ChunkedArray) -> tuple[Ints, list[str | None]]:
    """Words as codes, and the words: of several columns the first that has one."""
    words = pc.coalesce(*map(one, columns)).dictionary_encode(null_encoding="encode")
    codes: Ints = words.indices.to_numpy().astype(np.int64)
    return codes, words.dictionary.to_pylist()


def listed(column: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """The values of all lists, and the place of the list that each is in."""
    lists = one(column)
    return pc.list_parent_indices(lists).to_numpy().astype(np.int64), lists.flatten()


def split(places: Ints, count: int) -> Iterator[Ints]:
    """For each of `count` images the places of what is of it, in their order."""
    order = np.argsort(places, kind="stable")
    bounds = np.searchsorted(places[order], np.arange(count + 1))
    for start, stop in pairwise(bounds):
        yield order[start:stop]
