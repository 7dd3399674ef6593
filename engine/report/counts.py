"""Statistics of a round, and its texts beside FLD-5B's, as their template (counts.html.jinja) takes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from engine.records import DETAILS
from engine.report.plots import Plot, bars, histogram
from engine.stats import Statistics
from engine.stats.cells import (
    ANNOTATIONS,
    KINDS,
    SIZES,
    THINGS,
    annotation_cells,
    mean,
    named,
    number,
    size_cells,
)
from engine.stats.histograms import bin_names
from engine.stats.published import FLD, MEASURES, NOTES
from engine.stats.regions import RARE, Distributions
from engine.stats.scores import Scores
from engine.stats.tables import COMPOSED, PUBLISHED, WRITTEN

SHADES = 8
NAMES = {WRITTEN: "written", COMPOSED: "composed from regions", PUBLISHED: FLD}


@dataclass(frozen=True)
class Map:
    """Where things are in their images: a path of unit cells for each shade, darkest last, and how opaque it is."""

    name: str
    side: int
    shades: tuple[tuple[float, str], ...]
    said: str


def counted(statistics: Statistics) -> dict[str, Any]:
    made = ((f"{one.source}: {one.kind.replace('_', ' ')}", one.made, one.standing) for one in statistics.made)
    classes = statistics.classes
    kinds = [kind for kind in statistics.regions if kind.regions]
    return {
        "made": bars(made),
        "labels": bars((one.label, one.instances, one.instances) for one in classes.top),
        "classes": classes,
        "few": RARE,
        "regions": [plot for kind in kinds for plot in _distributions(kind)],
        "places": [_map(kind) for kind in kinds if kind.regions > kind.unmeasured],
        "lengths": [
            histogram(f"{named(one.detail, one.origin).capitalize()}: words", one.words, whole=True)
            for one in statistics.lengths
            if one.words.total
        ],
        "scores": [_score_plot(scores) for scores in statistics.scores],
        "semantics": list(_semantics(statistics)),
        "measures": ("count", "words", *MEASURES),
        "annotations": [
            (KINDS[kind], [(row.origin == PUBLISHED, annotation_cells(row)) for row in rows])
            for kind, rows in groupby(statistics.annotations, key=lambda row: row.kind)
        ],
        "annotation_names": ANNOTATIONS,
        "sizes": [size_cells(row) for row in statistics.datasets],
        "size_names": SIZES,
        "notes": NOTES,
    }


def _distributions(kind: Distributions) -> Iterator[Plot]:
    things = THINGS[kind.kind].capitalize()
    if kind.size.total:
        yield histogram(f"{things}: size", kind.size)
        yield histogram(f"{things}: aspect", kind.aspect)
    yield histogram(f"{things} an image", kind.number, whole=True)


def _map(kind: Distributions) -> Map:
    side, most = len(kind.positions), max(map(max, kind.positions))
    cells: dict[int, list[str]] = {}
    for y, row in enumerate(kind.positions):
        for x, count in enumerate(row):
            if count:
                cells.setdefault(math.ceil(SHADES * count / most), []).append(f"M{x} {y}h1v1h-1z")
    top, left = next((y, row.index(most)) for y, row in enumerate(kind.positions) if most in row)
    said = f"most, {most:,}, at {left / side:.0%} to {(left + 1) / side:.0%} of the width, "
    said += f"{top / side:.0%} to {(top + 1) / side:.0%} of the height"
    shades = tuple((shade / SHADES, "".join(cells[shade])) for shade in sorted(cells))
    return Map(f"{THINGS[kind.kind].capitalize()}: where their centres are", side, shades, said)


def _score_plot(scores: Scores) -> Plot:
    rows = zip(bin_names(scores.made), scores.made.counts, scores.standing.counts, strict=True)
    held = scores.thresholds
    notes = [f"held against {', '.join(f'{value:g}' for value in held[:3])}"] if held else []
    notes += [f"{scores.outside} scores outside 0 to 1"] if scores.outside else []
    threshold = 100 * held[0] if len(held) == 1 and 0 <= held[0] <= 1 else None
    return Plot(f"{scores.source}, {THINGS[scores.kind]}", bars(rows), threshold, "; ".join(notes))


def _semantics(statistics: Statistics) -> Iterator[tuple[str, list[tuple[bool, str, tuple[str, ...]]]]]:
    """For each granularity the texts that somebody wrote, the composed ones, and FLD-5B's figures."""
    texts = {(row.of, row.origin): row for row in statistics.annotations if row.kind == "text"}
    for detail in DETAILS:
        rows = []
        for row in (row for row in statistics.semantics if row.detail == detail):
            of, published = texts[detail, row.origin], row.origin == PUBLISHED
            means = (mean(of.tokens), *(mean(getattr(row, name)) for name in MEASURES))
            rows.append((published, NAMES[row.origin], ("" if published else number(of.texts), *means)))
        yield detail.replace("_", " "), rows
