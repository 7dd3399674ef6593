"""What holds no state runs over shards as tasks of Ray."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import ray
import ray.exceptions

from engine.config import Run
from engine.errors import EngineError, RunError
from engine.pools import Pool
from engine.runner.connection import brief, cluster, lacking, living

S = TypeVar("S")
T = TypeVar("T")

RETRIES = 2  # of a task whose process died
LOOK_SECONDS = 2.0  # between two looks at whether there is a place for a task
# What then comes of it.
DEATHS = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError)


def each_shard(
    task: Callable[[S], T], shards: Iterable[S], run: Run, done: Callable[[T], None], weights: bool = False
) -> None:
    """Runs `task`, which holds no state, over `shards`, ids or what else says which they are, by tasks of Ray; `done`
    gets what they return, in order. With `weights` each has the GPU and the memory of a worker. Raises what a task
    raised if it is an EngineError, else RunError: with it, or where a task's process died again and again."""
    pool = Pool("tasks", 0, 0, run.cpus_per_worker, 0, 0)
    if weights:
        pool = replace(pool, gpus=run.gpus_per_worker, memory_mb=run.memory_mb_per_worker)
    with cluster(run):
        needs = {"num_cpus": pool.cpus, "num_gpus": pool.gpus, "memory": pool.memory_mb * 2**20}
        remote = ray.remote(max_retries=RETRIES, **needs)(_called)
        known = [ray.put(task)]  # in a list: Ray would bring it anew for each shard otherwise
        waiting: deque[tuple[S, Any]] = deque()
        wait_for_room = _Room(pool, 0 if run.address == "local" else run.wait_seconds)
        try:
            for shard in shards:
                waiting.append((shard, remote.remote(known, shard)))
                if len(waiting) > _ahead(pool):
                    wait_for_room(waiting[0][1])
                    done(_result(*waiting.popleft()))
            while waiting:
                wait_for_room(waiting[0][1])
                done(_result(*waiting.popleft()))
        finally:
            for _, reference in waiting:
                ray.cancel(reference)


def _ahead(pool: Pool) -> int:
    """How many tasks are given to Ray before the first of them is waited for. A cluster may grow meanwhile."""
    return 2 * max(1, int(ray.cluster_resources().get("CPU", 1) / pool.cpus))


@dataclass
class _Room:
    """Waits for a task; for so many seconds if no node is there that could take it, as Ray would do for ever."""

    pool: Pool
    patience: float

    def __call__(self, reference: Any) -> None:
        end = time.monotonic() + self.patience
        while not ray.wait([reference], timeout=LOOK_SECONDS)[0]:
            if not (why := lacking((self.pool,), [1], living())):
                end = time.monotonic() + self.patience
            elif time.monotonic() >= end:
                raise RunError(why)


def _result(shard: object, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EngineError):  # which says it all
            raise error.cause from None
        raise RunError(f"{shard}: {brief(error.cause)}") from error.cause
    except DEATHS as error:
        raise _died(shard, error) from error


def _died(shard: object, error: ray.exceptions.RayError) -> RunError:
    """What is said of a shard that each process ended over which had it in hand."""
    why = "a crash in native code, an exit, or the kernel's out-of-memory killer"
    way_out = "Mend what kills its readers, an image most likely, or move it away"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        why = "its machine had no memory left"
        way_out = "Let fewer run at a time (a larger run.cpus_per_worker), or move away what takes so much"
    elif isinstance(error, ray.exceptions.NodeDiedError):
        why, way_out = "its machine was lost", "See to the cluster"
    return RunError(
        f"{shard}: the process that had it in hand died, and died when it was tried again: {why}. {way_out}, and run "
        "the same again"
    )


def _called(known: list[Any], shard: object) -> Any:
    return _fetched(known[0])(shard)


@lru_cache(maxsize=2)
def _fetched(task: Any) -> Any:
    """Kept by each of Ray's processes."""
    return ray.get(task)
