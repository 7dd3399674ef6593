"""What sources say of their own certainty: scores of regions by source and kind, made and standing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.stats.columns import listed, places, rows_of
from engine.stats.histograms import Histogram, bin_of
from engine.stats.made import falls_of
from engine.storage import Tables

BINS = 20
EDGES = np.arange(BINS + 1) / BINS
MOST_THRESHOLDS = 20
OF = ("source", "kind")


@dataclass(frozen=True)
class Scores:
    """Of the regions of one source and kind. `outside` are scores that are not in 0..1; `thresholds`, what scores were
    held against that were too low, the first MOST_THRESHOLDS of them."""

    source: str
    kind: str
    made: Histogram
    standing: Histogram
    outside: int
    thresholds: tuple[float, ...]


def _bins() -> Any:
    return np.zeros(BINS + 1, np.int64)  # the last one is of what is outside


@dataclass
class ScoreCounts:
    made: dict[tuple[str, str], Any] = field(default_factory=lambda: defaultdict(_bins))
    standing: dict[tuple[str, str], Any] = field(default_factory=lambda: defaultdict(_bins))
    thresholds: dict[tuple[str, str], set[float]] = field(default_factory=lambda: defaultdict(set))

    def add(self, tables: Tables) -> None:
        regions, falls = _regions(tables), falls_of(tables)
        at, first = np.unique(places(rows_of(falls), falls["id"], regions), return_index=True)
        at, first = at[at >= 0], first[at >= 0]
        stands = np.ones(len(regions), bool)
        stands[at] = False
        for counts, some in ((self.made, regions), (self.standing, regions.filter(stands))):
            groups = some.group_by([*OF, "bin"]).aggregate([([], "count_all")])
            for row in groups.to_pylist():
                counts[row["source"], row["kind"]][row["bin"]] += row["count_all"]
        self._add_thresholds(regions.take(at), falls.take(first))

    def _add_thresholds(self, regions: pa.Table, falls: pa.Table) -> None:
        held = pc.fill_null(pc.equal(falls["value"], regions["score"]), False)
        table = regions.select(list(OF)).append_column("threshold", falls["threshold"])
        table = table.filter(pc.and_(held, falls["threshold"].is_valid()))
        for row in table.group_by([*OF, "threshold"]).aggregate([]).sort_by("threshold").to_pylist():
            held_against = self.thresholds[row["source"], row["kind"]]
            if len(held_against) < MOST_THRESHOLDS:
                held_against.add(row["threshold"])


def scores(counts: ScoreCounts) -> Iterator[Scores]:
    edges = tuple(EDGES.tolist())
    for key, made in sorted(counts.made.items()):
        of_made, of_standing = (Histogram(edges, tuple(bins[:BINS].tolist())) for bins in (made, counts.standing[key]))
        yield Scores(*key, of_made, of_standing, int(made[BINS]), tuple(sorted(counts.thresholds[key])))


def _regions(tables: Tables) -> pa.Table:
    """row, id, source, kind, score and its bin of the regions that have a score (`Region.score`)."""
    parts = []
    for layer, _ in tables.layers:
        rows, values = listed(layer["regions"])
        kinds, given = values.field("kind"), values.field("scores")
        score = pc.if_else(pc.equal(kinds, "proposal"), given.field("box"), given.field("label"))
        columns = {name: values.field(name) for name in ("id", *OF)}
        parts.append(pa.table({"row": rows, **columns, "score": score}))
    regions = pa.concat_tables(parts)
    regions = regions.filter(regions["score"].is_valid())
    values = regions["score"].to_numpy()
    inside = (values >= 0) & (values <= 1)
    bins = np.where(inside, bin_of(values, EDGES), BINS)
    return regions.append_column("bin", pa.array(bins))
