"""Typed access to what a run wrote, without Ray: `open_dataset("out").regions()`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow.parquet as pq

from engine.errors import OutputError
from engine.records import Item, Mask, Record, Region, Text, Triplet
from engine.schema import items_from_table, records_from_tables
from engine.storage import Output, ShardId

A = TypeVar("A", Text, Region, Mask, Triplet)


@dataclass(frozen=True)
class Dataset:
    """One round of an output folder. Streams shard by shard; each method reads only the columns that it needs.

    With `standing=True` (the default) annotations that a decision turned down are left out.
    """

    output: Output
    round: int = 0

    def shards(self) -> list[ShardId]:
        """The shards that are done in this round, in order."""
        round_ = self.output.round(self.round)
        return [shard for shard in self.output.shards() if round_.decisions(shard).exists()]

    def items(self) -> Iterator[Item]:
        """Every input, annotated or not."""
        for shard in self.output.shards():
            yield from items_from_table(pq.read_table(self.output.items(shard), partitioning=None))

    def records(self, *, columns: tuple[str, ...] = ("texts", "regions", "masks", "triplets")) -> Iterator[Record]:
        """The records of the shards that are done, with all annotations and decisions of `columns`."""
        round_ = self.output.round(self.round)
        for shard in self.shards():
            yield from records_from_tables(
                pq.read_table(self.output.items(shard), partitioning=None),
                pq.read_table(round_.annotations(shard), columns=["item_id", "error", *columns], partitioning=None),
                pq.read_table(round_.decisions(shard), partitioning=None),
                self.round,
            )

    def texts(self, *, standing: bool = True) -> Iterator[tuple[Item, Text]]:
        for record in self._records("texts", standing):
            yield from ((record.item, text) for text in record.texts)

    def regions(self, *, standing: bool = True) -> Iterator[tuple[Item, Region]]:
        for record in self._records("regions", standing):
            yield from ((record.item, region) for region in record.regions)

    def masks(self, *, standing: bool = True) -> Iterator[tuple[Item, Mask]]:
        for record in self._records("masks", standing):
            yield from ((record.item, mask) for mask in record.masks)

    def triplets(self, *, standing: bool = True) -> Iterator[tuple[Item, Triplet]]:
        for record in self._records("triplets", standing):
            yield from ((record.item, triplet) for triplet in record.triplets)

    def _records(self, column: str, standing: bool) -> Iterator[Record]:
        for record in self.records(columns=(column,)):
            yield record.standing if standing else record


def open_dataset(path: str | Path, round: int = 0) -> Dataset:
    """The dataset in the output folder `path`. Raises OutputError if there is none, or no such round."""
    output = Output(Path(path))
    if not output.manifest.exists():
        raise OutputError(f"{path} holds no dataset: expected a folder that `engine run --out` wrote")
    if round and not output.round(round).folder.exists():
        raise OutputError(f"{path} has no round {round}")
    return Dataset(output, round)
