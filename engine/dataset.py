"""Typed access to what a run wrote, without Ray: `open_dataset("out").regions()`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import OutputError
from engine.records import Item, Mask, Parse, Record, Region, RegionText, Text, Triplet
from engine.schema import ANNOTATION_COLUMNS
from engine.storage import Output, ShardId, read_items, read_records, read_table


@dataclass(frozen=True)
class Dataset:
    """An output folder as it is in a round. Streams shard by shard; each method reads only the columns that it needs.

    Annotations and decisions are those of all rounds up to it. With `standing=True` (the default) annotations that a
    decision turned down are left out.
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
            yield from read_items(self.output, shard)

    def records(self, *, columns: Sequence[str] = ANNOTATION_COLUMNS) -> Iterator[Record]:
        """The records of the shards that are done, with their decisions and the annotations of `columns`."""
        for shard in self.shards():
            yield from read_records(self.output, self.round, shard, columns=columns)

    def texts(self, *, standing: bool = True) -> Iterator[tuple[Item, Text]]:
        for record in self._records("texts", standing):
            yield from ((record.item, text) for text in record.texts)

    def parses(self, *, standing: bool = True) -> Iterator[tuple[Item, Parse]]:
        for record in self._records("parses", standing):
            yield from ((record.item, parse) for parse in record.parses)

    def regions(self, *, standing: bool = True) -> Iterator[tuple[Item, Region]]:
        for record in self._records("regions", standing):
            yield from ((record.item, region) for region in record.regions)

    def region_texts(self, *, standing: bool = True) -> Iterator[tuple[Item, RegionText]]:
        for record in self._records("region_texts", standing):
            yield from ((record.item, text) for text in record.region_texts)

    def masks(self, *, standing: bool = True) -> Iterator[tuple[Item, Mask]]:
        for record in self._records("masks", standing):
            yield from ((record.item, mask) for mask in record.masks)

    def triplets(self, *, standing: bool = True) -> Iterator[tuple[Item, Triplet]]:
        for record in self._records("triplets", standing):
            yield from ((record.item, triplet) for triplet in record.triplets)

    def near_duplicates(self) -> list[list[bytes]]:
        """Groups of item ids of images that look the same; the first of each group is the first in the set. They were
        found when the images were first opened, in round 0."""
        path = self.output.round(0).near_duplicates
        groups: dict[bytes, list[bytes]] = {}
        for row in read_table(path).to_pylist() if path.exists() else ():
            groups.setdefault(row["group"], []).append(row["item_id"])
        return list(groups.values())

    def leaders(self) -> dict[bytes, bytes]:
        """For each image that looks like another one, the first of its group: what `engine.folds.Folds` asks for."""
        return {item_id: group[0] for group in self.near_duplicates() for item_id in group}

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
