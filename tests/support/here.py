"""A run in this process, without Ray: real workers, one pool after the other."""

from __future__ import annotations

from collections.abc import Iterable

from engine.annotate import Tally
from engine.layout import ShardId
from engine.runner import Watcher
from engine.worker import Half, Orders, Plan, Worker


def run_shards(plan: Plan, shards: Iterable[ShardId], watcher: Watcher) -> Tally:
    """As `engine.runner.run_shards`."""
    workers = [Worker(plan, number) for number in range(len(plan.pools))]
    done = Tally()
    for worker in workers:
        done.add(worker.setup())
    for shard in shards:
        half: Half | None = None
        for worker in workers:
            for said in worker.annotate(Orders(shard), half):
                if isinstance(said, Half):
                    half = said
                else:
                    done.add(said)
        watcher.progress(done)
        watcher.finished(shard)
    return done
