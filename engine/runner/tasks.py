"""What holds no state runs over shards as tasks of Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeVar

import ray
import ray.exceptions

from engine.config import Run
from engine.errors import RunError
from engine.pools import pools_of
from engine.runner.connection import brief, cluster, lacking, living

S = TypeVar("S")
T = TypeVar("T")


def each_shard(
    task: Callable[[S], T], shards: Iterable[S], run: Run, done: Callable[[T], None], weights: bool = False
) -> None:
    """Runs `task`, which holds no state, over `shards`, ids or what else says which they are, by tasks of Ray; `done`
    gets what they return, in order. With `weights` each has the GPU and the memory of a worker. Raises RunError with
    what a task raised."""
    with cluster(run):
        needs = {"num_gpus": run.gpus_per_worker, "memory": run.memory_mb_per_worker * 2**20} if weights else {}
        if weights:
            (pool,) = pools_of(run, ())
            if why := lacking((pool,), [pool.min], living()):
                raise RunError(why)
        remote = ray.remote(num_cpus=run.cpus_per_worker, max_retries=2, **needs)(_called)
        known = [ray.put(task)]  # in a list: Ray would bring it anew for each shard otherwise
        ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1) / run.cpus_per_worker))
        waiting: deque[tuple[S, Any]] = deque()
        for shard in shards:
            waiting.append((shard, remote.remote(known, shard)))
            if len(waiting) > ahead:
                done(_result(*waiting.popleft()))
        while waiting:
            done(_result(*waiting.popleft()))


def _result(shard: object, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise RunError(f"{shard}: {brief(error.cause)}") from error.cause


def _called(known: list[Any], shard: object) -> Any:
    return _fetched(known[0])(shard)


@lru_cache(maxsize=2)
def _fetched(task: Any) -> Any:
    """Kept by each of Ray's processes."""
    return ray.get(task)
