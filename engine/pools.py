"""Which workers run which specialists: one pool of all, or as `run.pools` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.config import Run
from engine.errors import ConfigError


@dataclass(frozen=True)
class Pool:
    """Workers of one kind: what each of them needs, and which of the specialists it runs, [start, stop)."""

    name: str
    start: int
    stop: int
    cpus: float
    gpus: float
    memory_mb: int
    min: int = 1
    max: int | Literal["auto"] = "auto"  # auto: as many as the resources allow

    @property
    def needs(self) -> dict[str, float]:
        """Of each worker, by Ray's names of resources; memory in bytes."""
        needs = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_mb * 2.0**20}
        return {kind: need for kind, need in needs.items() if need}


def pools_of(run: Run, names: Sequence[str]) -> tuple[Pool, ...]:
    """The pools, in the order of work, of a stage whose specialists are `names`.

    Annotating and annotating again have other specialists: each takes of every pool those that it has, and a pool of
    which it has none is not started. Without any, there is one pool. Raises ConfigError unless the pools have all
    specialists, each once, in the order of the pipeline.
    """
    by_pool = {name: [s for s in pool.specialists if s in names] for name, pool in run.pools.items()}
    if not any(by_pool.values()):
        workers = run.workers
        least = 1 if workers == "auto" else workers
        cpus, gpus, memory = run.cpus_per_worker, run.gpus_per_worker, run.memory_mb_per_worker
        return (Pool("all", 0, len(names), cpus, gpus, memory, least, workers),)
    listed = [name for specialists in by_pool.values() for name in specialists]
    if listed != list(names):
        raise ConfigError(
            f"run.pools: expected all specialists, each in one pool, in the order of the pipeline: {', '.join(names)}; "
            f"got {', '.join(listed)}"
        )
    pools: list[Pool] = []
    for name, specialists in by_pool.items():
        if specialists:
            start, has = pools[-1].stop if pools else 0, run.pools[name]
            stop = start + len(specialists)
            pools.append(Pool(name, start, stop, has.cpus, has.gpus, has.memory_mb, has.min, has.max))
    return tuple(pools)
