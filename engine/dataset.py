"""Typed access to what a run wrote: `open_dataset("out").regions()`; and as tables and examples for other libraries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.atomic import is_there, read_json, there
from engine.errors import ConfigError, OutputError
from engine.layout import Output, ShardId
from engine.places import place
from engine.records import Item, Mask, Parse, Record, Region, RegionText, Text, Triplet
from engine.schema import ANNOTATION_COLUMNS
from engine.storage import read_items, read_records, read_shard, read_table
from engine.summary import near_duplicates

if TYPE_CHECKING:
    import pyarrow as pa

TableName = Literal["images", "texts", "parses", "regions", "region_texts", "masks", "triplets"]
# What is read for a table: regions tell which texts are composed, and which regions a triplet still names.
READ: dict[str, tuple[str, ...]] = {
    "images": (),
    "texts": ("texts", "regions"),
    "parses": ("parses",),
    "regions": ("regions",),
    "region_texts": ("region_texts",),
    "masks": ("masks",),
    "triplets": ("triplets", "texts", "regions"),
}


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
        shards = list(self.output.shards())
        done = there(map(round_.decisions, shards))
        return [shard for shard in shards if round_.decisions(shard) in done]

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

    # For other libraries

    def table(self, name: TableName, shard: ShardId, *, standing: bool = True) -> pa.Table:
        """A table of `engine.flat` of one shard, with `item_id` (in hex) and `uri` in the place of its rows' numbers;
        with `standing` False also what fell, and a column `stands`. ConfigError for a name that is none."""
        from engine.flat import flatten

        if name not in READ:
            raise ConfigError(f"expected one of the tables {', '.join(READ)}; got {name!r}")
        flat = flatten(read_shard(self.output, self.round, shard, columns=READ[name]), standing=standing)
        if name == "images":
            return flat.images.drop_columns(["row"])
        table = flat[name]
        for number, column in enumerate(("item_id", "uri")):
            table = table.add_column(number, column, flat.images[column].take(table["row"]))
        return table.drop_columns(["row"])

    def to_pandas(self, table: TableName = "regions", *, standing: bool = True) -> Any:
        """A whole table, see `table`, as a DataFrame: for a set that memory holds. OutputError if no shard is done."""
        from pyarrow import concat_tables

        shards = self.shards()
        if not shards:
            raise OutputError(f"{self.output.root} has nothing annotated in round {self.round} yet")
        return concat_tables([self.table(table, shard, standing=standing) for shard in shards]).to_pandas()

    def to_ray(self, table: TableName = "regions", *, standing: bool = True) -> Any:
        """A table, see `table`, as a Ray Data dataset: a block a shard, read when it is asked for."""
        from engine.streaming import stream_table

        if table not in READ:
            raise ConfigError(f"expected one of the tables {', '.join(READ)}; got {table!r}")
        return stream_table(self, table, standing)

    def to_torch(self, task: str | Sequence[str] = "OD", processor: Any = None, **options: Any) -> Any:
        """Examples of tasks as a torch IterableDataset, for a Florence-2 to learn from: see
        `pipelines.torch_dataset.TorchDataset`, which takes the options, such as split="train" and seed=0."""
        from engine.components import load

        return load("views", "torch", where="to_torch")(self, task, processor, **options)

    def sources(self) -> dict[str, dict[str, Any]]:
        """Source key -> what made its annotations, in all rounds up to this one, as far as it is recorded: specialist,
        version, licence, parameters."""
        layers = [layer for n in range(self.round + 1) for layer in (self.output.round(n), self.output.round(n).merge)]
        known = [read_json(layer.sources)["sources"] for layer in layers if is_there(layer.sources)]
        return {name: made_by for sources in known for name, made_by in sources.items()}

    def near_duplicates(self) -> list[list[bytes]]:
        """Groups of item ids of images that look the same; the first of each group is the first in the set. They are
        found when the images are first opened, in round 0; where that was broken off, they are looked for now."""
        path = self.output.round(0).near_duplicates
        found = read_table(path) if is_there(path) else near_duplicates(self.output, 0, self.shards())
        groups: dict[bytes, list[bytes]] = {}
        for row in found.to_pylist():
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
    output = Output(place(path))
    if not is_there(output.manifest):
        output.check_manifest()
        raise OutputError(f"{path} holds no dataset: expected a folder that `engine run --out` wrote")
    if round and not is_there(output.round(round).folder):
        raise OutputError(f"{path} has no round {round}")
    return Dataset(output, round)


def accepted(output: Output) -> int:
    """The last round that was not refused."""
    number = 0
    while is_there(path := output.round(number + 1).manifest) and read_json(path)["outcome"] != "refused":
        number += 1
    return number
