"""Images: how many are annotated, copies, or in quarantine, and where they come from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.atomic import is_there, read_json
from engine.dataset import Dataset
from engine.flat import Flat
from engine.stats.columns import Bools, Sums, one
from engine.storage import read_table


@dataclass(frozen=True)
class Origin:
    """What images say of where they come from; None where they don't."""

    dataset: str | None
    licence: str | None
    images: int


@dataclass(frozen=True)
class Images:
    """`total` are those of the manifest, `done` those that these statistics are of. Near-duplicates are looked for in
    the whole set, when all of it is done: None before."""

    total: int
    done: int
    annotated: int
    duplicates: int
    quarantined: dict[str, dict[str, int]]
    near_duplicate_groups: int | None
    near_duplicates: int | None
    origins: tuple[Origin, ...]


@dataclass
class ImageCounts:
    done: int = 0
    annotated: int = 0
    duplicates: int = 0
    quarantined: Counter[tuple[str, str]] = field(default_factory=Counter)
    origins: Sums = field(default_factory=Sums)

    def add(self, flat: Flat) -> None:
        images, errors = flat.images, one(flat.images["error"])
        self.done += len(images)
        self.annotated += int(annotated(flat).sum())
        self.duplicates += pc.sum(pc.and_(errors.is_null(), images["duplicate_of"].is_valid())).as_py() or 0
        there = errors.drop_null()
        self.quarantined.update(zip(*(there.field(name).to_pylist() for name in ("stage", "kind")), strict=True))
        self.origins.add(images.select(["dataset", "licence"]), ("dataset", "licence"))

    def result(self, dataset: Dataset) -> Images:
        groups, members = near_duplicates(dataset)
        quarantined: dict[str, dict[str, int]] = {}
        for (stage, kind), count in sorted(self.quarantined.items()):
            quarantined.setdefault(stage, {})[kind] = count
        origins = sorted(
            (Origin(of, licence, sums["count"]) for (of, licence), sums in self.origins.items()),
            key=lambda o: -o.images,
        )
        total = read_json(dataset.output.manifest)["items"]
        counts = (total, self.done, self.annotated, self.duplicates)
        return Images(*counts, quarantined, groups, members, tuple(origins))


def annotated(flat: Flat) -> Bools:
    """Which images were looked at: no copies, and none in quarantine."""
    images = flat.images
    looked_at: Bools = np.asarray(pc.and_(images["error"].is_null(), images["duplicate_of"].is_null()), dtype=bool)
    return looked_at


def near_duplicates(dataset: Dataset) -> tuple[int, int] | tuple[None, None]:
    """How many groups of images that look the same there are, and how many images in them."""
    path = dataset.output.round(0).near_duplicates
    if not is_there(path):
        return None, None
    groups: pa.ChunkedArray = read_table(path, ["group"]).column("group")
    return len(groups.unique()), len(groups)
