"""A worker as an actor of Ray, and the tasks that look after the notes that it leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.annotate import Tally
from engine.metrics import Meters
from engine.temporary import remove_left
from engine.watchdog import Note, note_of, notes_of, read_note
from engine.worker import Half, Orders, Plan, Worker


@dataclass(frozen=True)
class Place:
    """Where an actor lives."""

    node: str
    pid: int


class WorkerActor:
    """`annotate` says None before the Half, which its driver must not fetch."""

    def __init__(self, plan: Plan, pool: int) -> None:
        self.worker = Worker(plan, pool)
        names = tuple(specialist.name for specialist in self.worker.specialists)
        self.meters = Meters("reannotate" if plan.round else "annotate", self.worker.pool.name, names)

    def place(self) -> Place:
        return Place(ray.get_runtime_context().get_node_id(), os.getpid())

    def setup(self) -> Tally:
        return self.worker.setup()

    def annotate(self, orders: Orders, half: Half | None) -> Iterator[Tally | Half | None]:
        for said in self.worker.annotate(orders, half):
            if isinstance(said, Tally):
                self.meters.count(said)
            else:
                yield None
            yield said
        self.meters.shard()


def _read(run_id: str, pid: int) -> Note | None:
    path = note_of(run_id, pid)
    note = read_note(path)
    path.unlink(missing_ok=True)
    return note


def _remove(run_id: str) -> None:
    shutil.rmtree(notes_of(run_id), ignore_errors=True)
    remove_left()


def ask_for_note(run_id: str, place: Place) -> Any:
    """The reference of what a worker left on its node; it fails if the node is gone."""
    return _pinned(_read, place.node).remote(run_id, place.pid)


def remove_notes(run_id: str, nodes: set[str]) -> None:
    """Of all workers of a run on these nodes, and what killed runs left there; of nodes that don't answer, they
    stay."""
    here = ray.get_runtime_context().get_node_id()
    _remove(run_id)
    asked = [_pinned(_remove, node).remote(run_id) for node in nodes - {here}]
    if asked:
        ray.wait(asked, num_returns=len(asked), timeout=3.0)


def _pinned(task: Any, node: str) -> Any:
    on = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(task).options(scheduling_strategy=on)
