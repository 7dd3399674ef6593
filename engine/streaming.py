"""Ray Data: shards streamed through tasks, and a dataset's rows streamed to whoever trains or counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray.data
import ray.exceptions

from engine.config import Run
from engine.dataset import Dataset, TableName
from engine.errors import EngineError, RunError
from engine.layout import ShardId
from engine.runner import cluster

T = TypeVar("T")


def stream_shards(task: Callable[[ShardId], T], shards: Sequence[ShardId], run: Run, done: Callable[[T], None]) -> None:
    """Runs `task`, which holds no state, over `shards`; `done` gets what each returns, as they come, in any order. Ray
    Data bounds how many run at once. Raises what a task raised if it is an EngineError, else RunError with it."""
    with cluster(run):
        rows = [{"partition": shard.partition, "number": shard.number} for shard in shards]
        parts = ray.data.from_items(rows, override_num_blocks=len(rows))

        def called(row: dict[str, Any]) -> dict[str, Any]:
            try:
                return {"came": [task(ShardId(row["partition"], row["number"]))]}
            except EngineError as error:  # Ray would wrap it up in its own
                return {"came": [error]}

        for result in _rows(parts.map(called, num_cpus=run.cpus_per_worker)):
            if isinstance(came := result["came"][0], EngineError):
                raise came
            done(came)


def _rows(rows: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield from rows.iter_rows()
    except ray.exceptions.RayError as error:
        raise RunError(str(error).strip().splitlines()[-1]) from error


def stream_table(dataset: Dataset, name: TableName, standing: bool) -> ray.data.Dataset:
    """A table of the dataset, a block a shard. No shard is read before somebody asks for its rows."""
    rows = [{"partition": shard.partition, "number": shard.number} for shard in dataset.shards()]

    def read(row: dict[str, Any]) -> Any:
        return dataset.table(name, ShardId(int(row["partition"][0]), int(row["number"][0])), standing=standing)

    return ray.data.from_items(rows, override_num_blocks=max(1, len(rows))).map_batches(read, batch_size=1)
