"""Regions: what they are called and what is said of them, their classes, and how they lie in their images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.flat import Flat, flatten
from engine.stats.columns import Sums, listed, one, places, rows_of, words
from engine.stats.histograms import Histogram, counted, of_whole_numbers, tally
from engine.stats.images import annotated
from engine.storage import Tables

KINDS = ("object", "text")
GRID = 24  # cells of the map of positions, each way
SIZES = np.arange(21) / 20
ASPECTS = 2.0 ** np.arange(-3, 3.5, 0.5)
TOP_CLASSES = 20
RARE = 10  # instances; a class with fewer belongs to the long tail

Floats = npt.NDArray[np.float64]


@dataclass
class RegionCounts:
    """`phrases` of regions with one; `briefs`, texts about regions, by whether they were composed; `told`, regions with
    such a text; `classes` of objects that are no crowd; `number` in an image."""

    phrases: Sums = field(default_factory=Sums)
    briefs: Sums = field(default_factory=Sums)
    told: Sums = field(default_factory=Sums)
    classes: Sums = field(default_factory=Sums)
    number: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    shapes: dict[str, Shapes] = field(default_factory=lambda: {kind: Shapes() for kind in KINDS})

    def add(self, flat: Flat, briefs: pa.Table) -> None:
        """`briefs` are the texts about regions that stand, with a column `composed`."""
        regions = flat["regions"]
        named = regions.select(["row", "kind", "crowd"]).append_column("phrase", phrases(regions))
        named = named.filter(named["phrase"].is_valid())
        self.phrases.add(named.append_column("words", words(named["phrase"])), (), ("words",), images=True)
        classes = named.filter(pc.and_(pc.equal(named["kind"], "object"), pc.invert(named["crowd"])))
        self.classes.add(classes, ("phrase",), images=True)
        self._add_briefs(briefs, regions)
        looked_at = annotated(flat)
        for kind, shapes in self.shapes.items():
            here = regions.filter(pc.equal(regions["kind"], kind))
            self.number[kind].update(tally(np.bincount(rows_of(here), minlength=len(looked_at))[looked_at]))
            shapes.add(here, flat.images)

    def _add_briefs(self, briefs: pa.Table, regions: pa.Table) -> None:
        at = places(rows_of(briefs), briefs["region_id"], regions)
        briefs = briefs.append_column("region", pa.array(at)).filter(at >= 0)
        briefs = briefs.append_column("words", words(briefs["text"]))
        self.briefs.add(briefs.select(["row", "composed", "words"]), ("composed",), ("words",), images=True)
        told = briefs.select(["composed", "region"])
        self.told.add(told.group_by(["composed", "region"]).aggregate([]), ("composed",))


def phrases(regions: pa.Table) -> pa.Array:
    """What objects are called, and what is read in texts; null for what has no word, and for proposals."""
    kinds, labels = one(regions["kind"]), pc.coalesce(one(regions["label"]), one(regions["raw_label"]))
    said = pc.case_when(
        pc.make_struct(pc.equal(kinds, "object"), pc.equal(kinds, "text")), labels, one(regions["text"])
    )
    return pc.if_else(pc.equal(words(said), 0), pa.scalar(None, pa.string()), said)


def about_regions(tables: Tables, composers: Collection[str]) -> pa.Table:
    """The texts about regions that stand, with a column `composed`: whether they are of the sources `composers`, which
    put words together from what was found, or were carried over from such ones when rounds were merged."""
    layers = tuple((layer.select(["error", "region_texts"]), decisions) for layer, decisions in tables.layers)
    texts = flatten(replace(tables, layers=layers), standing=False)["region_texts"]
    composed = np.array(pc.is_in(one(texts["source"]), pa.array(sorted(composers), pa.string())), dtype=bool)
    child, parents = listed(texts["derived_from"])
    parent = places(rows_of(texts)[child], parents, texts)
    child, parent = child[parent >= 0], parent[parent >= 0]
    for _ in tables.layers:  # each carries over at most what the one before it did
        composed[child[composed[parent]]] = True
    columns = texts.select(["row", "region_id", "text"]).append_column("composed", pa.array(composed))
    return columns.filter(texts["stands"])


@dataclass
class Shapes:
    """Of boxes of one kind, cut to their images. `unmeasured` are those of which nothing is left, and those of images
    whose size isn't known."""

    unmeasured: int = 0
    sizes: Any = field(default_factory=lambda: np.zeros(len(SIZES) - 1, np.int64))
    aspects: Any = field(default_factory=lambda: np.zeros(len(ASPECTS) + 1, np.int64))
    positions: Any = field(default_factory=lambda: np.zeros((GRID, GRID), np.int64))

    def add(self, regions: pa.Table, images: pa.Table) -> None:
        rows = rows_of(regions)
        width, height = (_floats(images[name])[rows] for name in ("width", "height"))
        x0, x1 = (np.clip(_floats(regions[name]), 0, width) for name in ("x0", "x1"))
        y0, y1 = (np.clip(_floats(regions[name]), 0, height) for name in ("y0", "y1"))
        there = (x1 > x0) & (y1 > y0)
        self.unmeasured += int((~there).sum())
        x0, x1, y0, y1, width, height = (values[there] for values in (x0, x1, y0, y1, width, height))
        share = (x1 - x0) * (y1 - y0) / (width * height)
        self.sizes += counted(np.sqrt(share), SIZES)
        self.aspects += counted((x1 - x0) / (y1 - y0), [0, *ASPECTS, np.inf])
        column, row = (x0 + x1) / 2 / width * GRID, (y0 + y1) / 2 / height * GRID
        np.add.at(self.positions, (row.astype(int), column.astype(int)), 1)


@dataclass(frozen=True)
class Distributions:
    """Figure 5 of the paper for the regions of one kind. `positions` are counts of centres, rows from the top;
    `number` is that of regions in an image."""

    kind: str
    regions: int
    unmeasured: int
    size: Histogram
    aspect: Histogram
    number: Histogram
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Class:
    label: str
    instances: int
    images: int


@dataclass(frozen=True)
class Classes:
    """`rare` have fewer than RARE instances."""

    classes: int
    instances: int
    rare: int
    top: tuple[Class, ...]


def distributions(counts: RegionCounts) -> Iterator[Distributions]:
    for kind, shapes in counts.shapes.items():
        size = Histogram(tuple(SIZES.tolist()), tuple(shapes.sizes.tolist()))
        aspect = Histogram((0.0, *ASPECTS.tolist(), None), tuple(shapes.aspects.tolist()))
        number = of_whole_numbers(counts.number[kind])
        positions = tuple(tuple(row) for row in shapes.positions.tolist())
        yield Distributions(kind, size.total + shapes.unmeasured, shapes.unmeasured, size, aspect, number, positions)


def classes(counts: RegionCounts) -> Classes:
    each = [Class(key[0], sums["count"], sums["images"]) for key, sums in counts.classes.items()]
    each.sort(key=lambda one: -one.instances)
    rare = sum(one.instances < RARE for one in each)
    return Classes(len(each), sum(one.instances for one in each), rare, tuple(each[:TOP_CLASSES]))


def _floats(column: pa.ChunkedArray) -> Floats:
    """Null is NaN."""
    values: Floats = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return values
