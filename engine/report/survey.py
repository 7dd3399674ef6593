"""One look over a whole round, on columns: which images can be shown, in what order, and what fell, with examples.

No record is made here, which would take ten times as long; only those that are shown become records.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.dataset import Dataset
from engine.layout import ShardId
from engine.report.disputes import Dispute, Fell, Thing, dispute
from engine.storage import Tables, read_shard

_REGION = ("id", "source", "kind", "label", "raw_label", "box")
REGIONS = [f"regions.list.element.{name}" for name in _REGION]
MOST_EXAMPLES = 6  # of each filter and reason
MOST_VALUES = 4000  # that are kept of those that a filter measured
MOST_REASONS = 400  # that are looked at; a reason that says a number would make one an image

Floats = npt.NDArray[np.float64]


class Place(NamedTuple):
    """Where an image's record is."""

    shard: ShardId
    row: int


@dataclass(frozen=True)
class Example:
    """An annotation that fell, to be shown."""

    place: Place
    fell: Fell


@dataclass
class Reason:
    """What fell by one filter and reason: how many, what was measured, and against what.

    `values` are all that were measured, or evenly spaced ones. Examples are of different images, those first that were
    nearest to what they were held against.
    """

    count: int = 0
    low: float | None = None
    high: float | None = None
    thresholds: set[float] = field(default_factory=set)
    values: list[float] = field(default_factory=list)
    _stride: int = 1
    _measured: int = 0
    _nearest: list[tuple[float, int, Example]] = field(default_factory=list)

    def add(self, fell: Fell, place: Place, number: int) -> None:
        """`number` goes up from one to the next."""
        self.count += 1
        if fell.threshold is not None and len(self.thresholds) < 20:
            self.thresholds.add(fell.threshold)
        if fell.value is not None:
            self.low = fell.value if self.low is None else min(self.low, fell.value)
            self.high = fell.value if self.high is None else max(self.high, fell.value)
            self._keep(fell.value)
        self._consider(fell, place, number)

    def _keep(self, value: float) -> None:
        if self._measured % self._stride == 0:
            self.values.append(value)
        self._measured += 1
        if len(self.values) > MOST_VALUES:
            self.values, self._stride = self.values[::2], self._stride * 2

    def _consider(self, fell: Fell, place: Place, number: int) -> None:
        """Keeps it if it is nearer than the farthest one that is kept, and than the one of its own image."""
        key = (-_distance(fell), -number)
        own = next((n for n, (*_, example) in enumerate(self._nearest) if example.place == place), None)
        if own is not None:
            if key > self._nearest[own][:2]:
                self._nearest[own] = (*key, Example(place, fell))
                heapq.heapify(self._nearest)
        elif len(self._nearest) < MOST_EXAMPLES:
            heapq.heappush(self._nearest, (*key, Example(place, fell)))
        else:
            heapq.heappushpop(self._nearest, (*key, Example(place, fell)))

    @property
    def examples(self) -> list[Example]:
        return [example for *_, example in sorted(self._nearest, key=lambda kept: kept[:2], reverse=True)]


@dataclass
class Survey:
    """What is known of the images that can have a card, an element each, in the set's order; and why things fell."""

    places: list[Place] = field(default_factory=list)
    disputes: list[Dispute] = field(default_factory=list)
    fallen: list[int] = field(default_factory=list)
    reasons: dict[tuple[str, str], Reason] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    def add(self, shard: ShardId, tables: Tables) -> None:
        originals, errors = (tables.items.column(name).to_pylist() for name in ("duplicate_of", "error"))
        shown = [original is None and error is None for original, error in zip(originals, errors, strict=True)]
        for row, (things, labels, proposals, falls) in enumerate(_rows(tables)):
            if not shown[row]:
                continue
            place = Place(shard, row)
            first: dict[str, Fell] = {}
            for fell in falls:
                first.setdefault(fell.annotation_id, fell)
            self.places.append(place)
            self.disputes.append(
                dispute(things, [fell for fell in falls if fell.annotation_id not in proposals], labels)
            )
            self.fallen.append(len(first))
            for fell in first.values():
                self._add_fell(fell, place)

    def _add_fell(self, fell: Fell, place: Place) -> None:
        key = (fell.by, fell.reason)
        if key in self.reasons or len(self.reasons) < MOST_REASONS:
            self.reasons.setdefault(key, Reason()).add(fell, place, next(self._numbers))

    def order(self) -> list[int]:
        """Numbers of the images, the most disputed first; of equals that of which more fell, or that comes first."""
        values, fallen = (
            np.array([dispute.value for dispute in self.disputes], np.int64),
            np.array(self.fallen, np.int64),
        )
        order: list[int] = np.lexsort((-fallen, -values)).tolist()  # which is stable
        return order


def survey(dataset: Dataset) -> Survey:
    """Of a round. In memory are the columns of one shard, and for each image what a card is chosen by."""
    found = Survey()
    for shard in dataset.shards():
        found.add(shard, read_shard(dataset.output, dataset.round, shard, columns=REGIONS))
    return found


def _distance(fell: Fell) -> float:
    """From the threshold, in shares of it; infinite where nothing was measured."""
    if fell.value is None or fell.threshold is None:
        return float("inf")
    return abs(fell.value - fell.threshold) / (abs(fell.threshold) or 1.0)


Row = tuple[list[Thing], dict[str, str], set[str], list[Fell]]


def _rows(tables: Tables) -> Iterator[Row]:
    """For each image its objects, the labels of its regions by id, its proposals, and what fell, over all layers."""
    regions = [list(_lists(annotations["regions"], _REGION)) for annotations, _ in tables.layers]
    falls = [list(_lists(decisions["decisions"], Fell._fields)) for _, decisions in tables.layers if decisions]
    for row in range(len(tables.items)):
        here = list(chain.from_iterable(layer[row] for layer in regions))
        labels = {id_: (label or raw or "").casefold() for id_, _, _, label, raw, _ in here}
        things = [
            Thing(id_, source, labels[id_], tuple(box)) for id_, source, kind, _, _, box in here if kind == "object"
        ]
        decided = (Fell(*values) for layer in falls for values in layer[row])
        proposals = {id_ for id_, _, kind, *_ in here if kind == "proposal"}
        yield things, labels, proposals, [fell for fell in decided if fell.action in ("reject", "supersede")]


def _lists(column: Any, fields: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
    """For each row of a column of lists of structs the tuples of these fields."""
    lists = column.combine_chunks()
    values = lists.flatten()
    tuples = list(zip(*(values.field(name).to_pylist() for name in fields), strict=True))
    offsets = lists.offsets.to_pylist()
    yield from (tuples[start - offsets[0] : stop - offsets[0]] for start, stop in pairwise(offsets))
