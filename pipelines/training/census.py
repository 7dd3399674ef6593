"""What a round has to teach, before anything is trained: examples by task, images by use, and its words.

Counted by tasks of Ray, shard by shard. What comes back to the driver are counts, the places of images, which take four
bytes each, and a bounded sample of the texts.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from engine.config import Run
from engine.errors import OutputError
from engine.layout import ShardId
from engine.records import Record
from engine.runner import each_shard
from engine.storage import read_records
from florence2.scene import Scene
from florence2.targets import KINDS, task_of
from florence2.tasks import Task
from pipelines.training.crew import data_cpus
from pipelines.training.picks import Picks
from pipelines.training.settings import ReadyPhase
from pipelines.training.stream import Source

Rows = npt.NDArray[np.uint32]
TEXTS = 200_000  # from which a tokenizer is trained: twice as many change little


@dataclass
class Census:
    """`rows` are the images that a phase learns, in each fold, by shard; `examples` by phase and task; `held_out` are
    the images that judge, as (shard, row); `faults` say what could not be read."""

    rows: dict[str, dict[int, dict[ShardId, Rows]]] = field(default_factory=dict)
    examples: dict[str, Counter[str]] = field(default_factory=dict)
    held_out: list[tuple[ShardId, int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seen: dict[str, set[str]] = field(default_factory=dict)  # source -> the labels that it has

    def add(self, other: Census) -> None:
        for name, counts in other.examples.items():
            self.examples.setdefault(name, Counter()).update(counts)
        for name, folds in other.rows.items():
            for fold, rows in folds.items():
                self.rows.setdefault(name, {}).setdefault(fold, {}).update(rows)
        self.held_out += other.held_out
        self.texts += other.texts
        self.faults += other.faults
        for source, labels in other.seen.items():
            self.seen.setdefault(source, set()).update(labels)

    def learned(self, phase: ReadyPhase, fold: int | None = None) -> int:
        """How many images a phase learns from, without those of `fold`."""
        return sum(len(rows) for shards in self._without(fold, phase) for rows in shards.values())

    def picks(self, phase: ReadyPhase, fold: int | None, seed: int) -> Picks:
        """The stream of images that a phase learns from, without those of `fold`."""
        there: dict[ShardId, list[Rows]] = {}
        for shards in self._without(fold, phase):
            for shard, rows in shards.items():
                there.setdefault(shard, []).append(rows)
        return Picks(tuple(sorted(there)), tuple(np.sort(np.concatenate(there[s])) for s in sorted(there)), seed)

    def _without(self, fold: int | None, phase: ReadyPhase) -> list[dict[ShardId, Rows]]:
        return [shards for of, shards in self.rows.get(phase.name, {}).items() if of != fold]

    def nothing_for(self, phase: ReadyPhase) -> list[Task]:
        """The tasks that the phase's mix asks for, and of which no image has an example."""
        there = self.examples.get(phase.name, Counter())
        return [task for task in wanted(phase) if not there[task]]


def wanted(phase: ReadyPhase) -> list[Task]:
    """The tasks that the phase's mix asks for."""
    asked = {task_of(kind) for kind in phase.mix.weights(list(KINDS))}
    return [task for task in Task if task in asked]


def census(
    source: Source, phases: Sequence[ReadyPhase], shards: Sequence[ShardId], with_texts: bool, run: Run
) -> Census:
    """The whole round's. A shard that can't be read is a fault, and the others are counted."""
    texts = TEXTS // max(1, len(shards)) + 1 if with_texts else 0
    total = Census()
    run = run.model_copy(update={"cpus_per_worker": data_cpus()})
    each_shard(partial(of_shard, source, phases, texts=texts), shards, run, total.add)
    return total


def of_shard(source: Source, phases: Sequence[ReadyPhase], shard: ShardId, texts: int) -> Census:
    found = Census()
    try:
        records = read_records(source.output, source.round, shard)
    except OutputError as error:
        found.faults.append(str(error))
        return found
    words: list[str] = []
    places: dict[tuple[str, int], list[int]] = {}  # of what is learned, by phase and fold
    asked = [(phase, wanted(phase)) for phase in phases]
    for record in records:
        for region in record.regions:
            if region.kind == "object" and (label := region.label or region.raw_label):
                found.seen.setdefault(region.source, set()).add(label)
    source = replace(source, seen={name: frozenset(labels) for name, labels in found.seen.items()})
    for row, record in enumerate(records):
        if source.judges(record):
            found.held_out.append((shard, row))
        elif source.learns(record):
            names, its = _count(found, source, record, asked)
            words += its
            for name in names:
                places.setdefault((name, source.folds.of(record.item)), []).append(row)
    for (name, fold), rows in places.items():
        found.rows.setdefault(name, {})[fold] = {shard: np.array(rows, np.uint32)}
    rng = random.Random(str(shard))
    found.texts = rng.sample(words, texts) if len(words) > texts else words
    return found


def _count(
    found: Census, source: Source, record: Record, phases: Sequence[tuple[ReadyPhase, list[Task]]]
) -> tuple[list[str], list[str]]:
    """Adds what the record has for each phase, which comes with the tasks that it wants. The names of the phases that
    learn from it, and its words."""
    names: list[str] = []
    words: list[str] = []
    for phase, tasks in phases:
        scene = source.scene(record, phase)
        there = {task: number for task, number in phase.targets.available(scene).items() if task in tasks}
        if there:
            found.examples.setdefault(phase.name, Counter()).update({t.value: n for t, n in there.items()})
            names.append(phase.name)
            words += _words(scene)
    return names, words


def _words(scene: Scene) -> Iterator[str]:
    yield from (caption.text for caption in scene.captions)
    yield from (line.text for line in scene.lines)
    for thing in scene.things:
        yield from thing.texts
        if thing.label:
            yield thing.label
