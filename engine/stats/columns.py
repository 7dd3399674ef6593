"""Small things that are done to columns: words counted, references followed, sums kept over shards."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def words(texts: pa.ChunkedArray | pa.Array) -> pa.Array:
    """How many words each text has: `len(text.split())`, and 0 where there is none."""
    trimmed = pc.utf8_trim_whitespace(pc.fill_null(one(texts), ""))
    parts = pc.list_value_length(pc.utf8_split_whitespace(trimmed))
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(0, pa.int32()), parts)


def one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def listed(column: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """The values of all lists of a column, and the row of the list that each is in."""
    lists = one(column)
    return pc.list_parent_indices(lists).to_numpy().astype(np.int64), lists.flatten()


def rows_of(table: pa.Table) -> Ints:
    rows: Ints = table["row"].to_numpy().astype(np.int64)
    return rows


def places(rows: Ints, ids: pa.ChunkedArray | pa.Array, of: pa.Table) -> Ints:
    """Where the annotations of these images with these ids are in the table `of`; -1 for those that it hasn't."""
    both = pa.concat_arrays([one(ids).cast(pa.string()), one(of["id"]).cast(pa.string())]).dictionary_encode()
    codes = both.indices.to_numpy().astype(np.int64)  # ids repeat over images: few of them are different
    asked = rows * len(both.dictionary) + codes[: len(rows)]
    known = rows_of(of) * len(both.dictionary) + codes[len(rows) :]
    if not len(known):
        return np.full(len(rows), -1)
    order = np.argsort(known, kind="stable")
    found = order[np.searchsorted(known[order], asked).clip(max=len(known) - 1)]
    return np.where(known[found] == asked, found, -1)


def beside(table: pa.Table, refers: str, of: pa.Table, columns: Iterable[str]) -> pa.Table:
    """What refers to something in the table `of`, with columns of that beside its own; the rest is left out."""
    found = places(rows_of(table), table[refers], of)
    there = found >= 0
    table, at = table.filter(there), pa.array(found[there])
    for name in columns:
        table = table.append_column(name, one(of[name]).take(at))
    return table


class Sums:
    """Counts and sums by what they are of, added up over shards."""

    def __init__(self) -> None:
        self._values: defaultdict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)

    def add(self, table: pa.Table, by: Sequence[str], sums: Iterable[str] = (), images: bool = False) -> None:
        """Of each group its "count", the sums of columns, and how many "images" it is of, where that is asked: no image
        may be in two shards. The order of rows doesn't change a sum of floats from one run to the next."""
        if not len(table):  # Arrow's sum of nothing is null, where there is nothing to group by
            return
        asked: list[tuple[Any, str]] = [([], "count_all"), *((name, "sum") for name in sums)]
        if images:
            asked.append(("row", "count_distinct"))
        groups = table.group_by(list(by), use_threads=False).aggregate(asked)
        named = {"count": "count_all", "images": "row_count_distinct", **{name: f"{name}_sum" for name in sums}}
        for row in groups.to_pylist():
            values = self._values[tuple(row[name] for name in by)]
            values.update({name: row[column] for name, column in named.items() if column in row})

    def __getitem__(self, key: tuple[Any, ...]) -> Counter[str]:
        return self._values.get(key, Counter())

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._values)

    def items(self) -> list[tuple[tuple[Any, ...], Counter[str]]]:
        """In the order of their keys, which are strings, null first."""
        return sorted(self._values.items(), key=lambda item: [(part is not None, part or "") for part in item[0]])


def mean(total: float, count: float) -> float | None:
    """None of nothing, and of what is too large for a number."""
    return total / count if count and math.isfinite(total) else None
