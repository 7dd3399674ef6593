"""Work that is done shard by shard, without images: by all CPUs where there is much, in this process where it isn't."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from engine.config import Run
from engine.layout import ShardId

MANY_SHARDS = 32  # from here on Ray's start takes less time than it saves
T = TypeVar("T")


def spread(
    task: Callable[[ShardId], T],
    shards: Iterable[ShardId],
    count: int,
    run: Run,
    done: Callable[[T], None],
    weights: bool = False,
) -> None:
    """Gives `done` what a task, which holds no state, gives for each of `count` shards, in order; shards are taken as
    they are needed. With `weights` each needs what a worker does."""
    if count >= MANY_SHARDS:
        from engine.runner import each_shard  # Ray takes a second to import

        each_shard(task, shards, run, done, weights)
    else:
        for shard in shards:
            done(task(shard))
