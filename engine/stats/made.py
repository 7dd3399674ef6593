"""What was made, by source and kind, and what fell of it, by filter and reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.stats.columns import Sums, listed, places, rows_of
from engine.storage import Tables
from engine.summary import COLUMNS

# What is counted apart. A line is a region of kind "text": a text is of a whole image.
KINDS = ("text", "parse", "object", "line", "proposal", "region_text", "mask", "triplet")


@dataclass(frozen=True)
class Made:
    source: str
    kind: str
    made: int
    standing: int


@dataclass(frozen=True)
class Fall:
    """`share` is of all of this kind that were made."""

    by: str
    reason: str
    kind: str
    count: int
    share: float


@dataclass
class MadeCounts:
    made: Sums = field(default_factory=Sums)
    fell: Sums = field(default_factory=Sums)
    falls: Sums = field(default_factory=Sums)

    def add(self, tables: Tables) -> None:
        """Of masks only `id` and `source` need be there. What several decisions turned down fell by the first."""
        annotations, falls = _annotations(tables), falls_of(tables)
        at = places(rows_of(falls), falls["id"], annotations)
        fallen, first = np.unique(at, return_index=True)
        fallen, first = fallen[fallen >= 0], first[fallen >= 0]
        self.made.add(annotations, ("source", "kind"))
        of = annotations.take(fallen)
        self.fell.add(of, ("source", "kind"))
        self.falls.add(falls.take(first).append_column("kind", of["kind"]), ("by", "reason", "kind"))

    def by_source(self) -> tuple[Made, ...]:
        rows = [
            Made(source, kind, sums["count"], sums["count"] - self.fell[source, kind]["count"])
            for (source, kind), sums in self.made.items()
        ]
        return tuple(sorted(rows, key=lambda row: (row.source, KINDS.index(row.kind))))

    def fallen(self) -> tuple[Fall, ...]:
        """The most frequent first."""
        made = {kind: sum(row.made for row in self.by_source() if row.kind == kind) for kind in KINDS}
        rows = [
            Fall(by, reason, kind, sums["count"], sums["count"] / made[kind])
            for (by, reason, kind), sums in self.falls.items()
        ]
        return tuple(sorted(rows, key=lambda row: -row.count))


def _annotations(tables: Tables) -> pa.Table:
    """row, id, source and kind of everything."""
    parts = [part for layer, _ in tables.layers for part in _of_layer(layer)]
    return pa.concat_tables(parts)


def _of_layer(layer: pa.Table) -> Iterator[pa.Table]:
    for column, kind in COLUMNS.items():
        rows, values = listed(layer[column])
        kinds = values.field("kind") if column == "regions" else pa.repeat(kind, len(values))
        if column == "regions":
            kinds = pc.if_else(pc.equal(kinds, "text"), "line", kinds)
        yield pa.table({"row": rows, "id": values.field("id"), "source": values.field("source"), "kind": kinds})


def falls_of(tables: Tables) -> pa.Table:
    """row, id, by, reason, value and threshold of the decisions by which something fell, in their order."""
    parts = []
    for decisions in (decisions for _, decisions in tables.layers if decisions is not None):
        rows, values = listed(decisions["decisions"])
        named = {"id": "annotation_id", **{name: name for name in ("by", "reason", "value", "threshold")}}
        table = pa.table({"row": rows, **{name: values.field(field) for name, field in named.items()}})
        parts.append(table.filter(pc.is_in(values.field("action"), pa.array(["reject", "supersede"]))))
    return pa.concat_tables(parts)
