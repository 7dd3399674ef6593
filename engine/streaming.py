"""Ray Data: a dataset's rows, streamed to whoever trains or counts."""

from __future__ import annotations

from typing import Any

import ray.data

from engine.dataset import Dataset, TableName
from engine.layout import ShardId


def stream_table(dataset: Dataset, name: TableName, standing: bool) -> ray.data.Dataset:
    """A table of the dataset, a block a shard. No shard is read before somebody asks for its rows."""
    rows = [{"partition": shard.partition, "number": shard.number} for shard in dataset.shards()]

    def read(row: dict[str, Any]) -> Any:
        return dataset.table(name, ShardId(int(row["partition"][0]), int(row["number"][0])), standing=standing)

    return ray.data.from_items(rows, override_num_blocks=max(1, len(rows))).map_batches(read, batch_size=1)
