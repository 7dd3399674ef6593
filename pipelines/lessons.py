"""What a dataset teaches outside of a training: its records as scenes and examples, by what its configuration says.

`train.targets`, `train.exclude`, `train.texts_from` and `train.exhaustive` hold, as they do in a training that has no
phases; but captions that were composed from regions are there: who reads the examples is told, and may leave them out.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from engine.atomic import is_there
from engine.config import Config, Ingest, load_config
from engine.dataset import Dataset
from engine.export.selection import Selection
from engine.files import stamp
from engine.layout import Output
from engine.records import Record
from florence2.examples import Example
from florence2.scene import Scene
from florence2.targets import Targets
from florence2.tasks import Task
from pipelines.scenes import View
from pipelines.training.settings import made


@dataclass(frozen=True)
class Lessons:
    """How records become examples. `exhaustive` are the classes of which a source marks every instance."""

    targets: Targets
    exclude: tuple[str, ...]
    texts_from: tuple[str, ...] | None
    exhaustive: Mapping[str, frozenset[str]]
    ingest: Ingest

    def at(self, size: int) -> Lessons:
        """For a model that sees images of `size` pixels a side: smaller boxes make no target there."""
        return replace(self, targets=replace(self.targets, model_size=size))

    def view(self, record: Record) -> View:
        return View(record, None, None, self.exclude, self.texts_from, self.exhaustive)

    def examples(self, scene: Scene, tasks: Sequence[Task], seed: str) -> Iterator[Example]:
        """All of the tasks, in their order. What is drawn at random hangs on the seed alone."""
        for task in tasks:
            yield from self.targets.examples(scene, task, random.Random(f"{seed} {task}"))


def lessons_of(output: Output, round_number: int) -> Lessons:
    """By the configuration that an output folder keeps, and the defaults where it keeps none."""
    there = output.config
    changed = stamp(str(there))[1] if is_there(there) else 0
    return _lessons_of(output, round_number, changed)


def leaving(output: Output, round_number: int, selection: Selection) -> Lessons:
    """Those of objects as they are chosen: of whoever stays behind, and of classes that do not leave, nothing is known
    to be absent. A class of a label map is exhaustive where all of its words are that anybody in the set says."""
    lessons = lessons_of(output, round_number)
    wanted = selection.label_map is not None and lessons.exhaustive
    said = frozenset[str]().union(*_labels(output, round_number).values()) if wanted else frozenset[str]()
    chosen = {
        source: frozenset(filter(None, (_whole(selection, word, classes, said) for word in classes)))
        for source, classes in lessons.exhaustive.items()
        if "objects" in selection.kinds and (selection.sources is None or source in selection.sources)
    }
    return replace(lessons, exhaustive=chosen)


def _whole(selection: Selection, word: str, classes: Collection[str], said: Collection[str]) -> str:
    """The label under which the word's objects leave; "" if they don't, or others of that label might be missed."""
    label, canonical = selection.label(word), selection.vocabulary.canonical
    if label in selection.vocabulary.ignore:
        return ""
    if selection.label_map is None or not label:
        return label
    named = {canonical(one) for one in (label, *selection.label_map.classes[label].synonyms)}
    return label if named.intersection(said).issubset(classes) else ""


@lru_cache(maxsize=4)
def _lessons_of(output: Output, round_number: int, changed: int) -> Lessons:
    """Kept by each process: which labels a source has is seen by going through all shards."""
    config = load_config(output.config) if changed else Config()
    train, vocabulary = config.train, config.vocabulary
    every = {source for source, classes in train.exhaustive.items() if classes == "all"}
    there = _labels(output, round_number) if every else {}
    seen = {source: there.get(source, frozenset[str]()) for source in every}
    named = {
        source: frozenset(map(vocabulary.canonical, classes))
        for source, classes in train.exhaustive.items()
        if not isinstance(classes, str)
    }
    # Noise is for who weighs the loss of each token, which no file says.
    targets = replace(made(Targets, train.targets, "train.targets"), noise=0)
    return Lessons(targets, train.exclude, train.texts_from, {**named, **seen}, config.ingest)


@lru_cache(maxsize=4)
def _labels(output: Output, round_number: int) -> dict[str, frozenset[str]]:
    """The labels of objects that each source has in the whole round, of what fell, too. Kept as `_lessons_of` is."""
    dataset, found = Dataset(output, round_number), defaultdict[str, set[str]](set)
    for shard in dataset.shards():
        regions = dataset.table("regions", shard, standing=False)
        columns = (regions[name].to_pylist() for name in ("source", "kind", "label", "raw_label"))
        for source, kind, label, raw in zip(*columns, strict=True):
            if kind == "object" and (word := label or raw):
                found[source].add(word)
    return {source: frozenset(labels) for source, labels in found.items()}
