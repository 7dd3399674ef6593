"""YOLO's layout, as Ultralytics trains on it: https://docs.ultralytics.com/datasets/

    <to>/images/<split>/<item_id>.<extension>  upright; nothing else is in there
    <to>/labels/<split>/<item_id>.txt          an object a line; empty if there is none
    <to>/data.yaml                             the splits that there are, and the classes' names

A line is `class x y width height`, the middle of a box, in shares of the image's width and height. If masks are chosen,
an object that has one is `class x y x y ...`, a polygon: its pixels are no longer exact (see `engine.export.polygons`),
and its box is the polygon's. Readers take all lines of a file for polygons once one is, so that the boxes beside it are
written as four corners; back from there they look like masks. Left out, and counted, are crowds, which YOLO would take
for single things, objects without a label, and boxes that have no area in the image. Scores and sources have no place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from engine.atomic import write_bytes, write_text
from engine.export.format import Part, Whole
from engine.export.images import How
from engine.export.polygons import MOST_RINGS, polygon

DIGITS = 9  # a box of an image of 100,000 px comes back to a thousandth of one
Key: TypeAlias = tuple[int, str]  # of a region: its image's row, and its id


@dataclass(frozen=True)
class Yolo:
    name: ClassVar[str] = "yolo"
    kinds: ClassVar[tuple[str, ...]] = ("objects", "masks")
    by_default: ClassVar[tuple[str, ...]] = ("objects",)
    how: ClassVar[tuple[How, ...]] = ("link", "copy")
    needs_classes: ClassVar[bool] = True
    by_record: ClassVar[bool] = False

    def write(self, part: Part) -> None:
        """Labels are written in place, as images are: a part that is broken off is written again."""
        images = part.flat.images
        lines = _lines(part)
        for row, file in zip(images["row"].to_pylist(), images["file"].to_pylist(), strict=True):
            path = part.setting.to / "labels" / Path(file).relative_to("images").with_suffix(".txt")
            write_bytes(path, "".join(lines.get(row, ())).encode("ascii"))

    def finish(self, whole: Whole) -> None:
        """There is no `path`: Ultralytics would take "." for where it was started, and takes none for this folder.
        In ASCII, as some readers go by the language of the machine."""
        splits = {split: f"images/{split}" for split in whole.setting.splits if split in whole.totals}
        document = {**splits, "names": dict(enumerate(whole.setting.classes))}
        write_text(whole.setting.to / "data.yaml", yaml.safe_dump(document, sort_keys=False))


def _lines(part: Part) -> dict[int, list[str]]:
    """By the row of their image."""
    lines: defaultdict[int, list[str]] = defaultdict(list)
    objects, boxes = _objects(part)
    keys = list(zip(objects["row"].to_pylist(), objects["id"].to_pylist(), strict=True))
    classes = pc.index_in(objects["label"], pa.array(part.setting.classes, pa.string())).to_pylist()
    polygons = _polygons(part, set(keys))
    of_polygons = {row for row, _ in polygons}
    for key, class_, (x0, y0, x1, y1) in zip(keys, classes, boxes.tolist(), strict=True):
        if key in polygons:
            values = polygons[key]
        elif key[0] in of_polygons:
            values = [x0, y0, x1, y0, x1, y1, x0, y1]
        else:
            values = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
        lines[key[0]].append(" ".join([str(class_), *(f"{value:.{DIGITS}f}" for value in values)]) + "\n")
    return lines


def _objects(part: Part) -> tuple[pa.Table, npt.NDArray[np.float64]]:
    """Those that YOLO has a place for, and their boxes [n, 4], x0, y0, x1, y1 in shares of the image's sides."""
    table, images = part.flat["regions"], part.flat.images
    sides = np.ones((int(images["row"].to_numpy().max(initial=-1)) + 1, 2))
    sides[images["row"].to_numpy()] = np.stack([images["width"].to_numpy(), images["height"].to_numpy()], axis=1)
    corners = np.stack([table[side].to_numpy() for side in ("x0", "y0", "x1", "y1")], axis=1)
    boxes = (corners / np.tile(sides[table["row"].to_numpy()], 2)).clip(0, 1).round(DIGITS)
    kept = np.ones(len(table), bool)
    for reason, fits in (
        ("crowds", pc.invert(table["crowd"]).to_numpy()),
        ("objects without a label", pc.is_valid(table["label"]).to_numpy()),
        ("boxes without area in the image", (boxes[:, 2:] > boxes[:, :2]).all(axis=1)),
    ):
        part.leave_out("regions", table["row"].filter(pa.array(kept & ~fits)).to_pylist(), reason)
        kept &= fits
    return table.filter(pa.array(kept)), boxes[kept]


def _polygons(part: Part, objects: Collection[Key]) -> dict[Key, list[float]]:
    """Of the objects that have a mask its polygon, x, y, x, y, ... in shares of the image's sides."""
    polygons: dict[Key, list[float]] = {}
    table = part.flat["masks"]
    columns = (table[name].to_pylist() for name in ("row", "region_id", "height", "width", "counts"))
    for row, region_id, height, width, counts in zip(*columns, strict=True):
        key = (row, region_id)
        if key not in objects or key in polygons:
            reason = "further masks of a region" if key in polygons else "masks of regions that are left out"
            part.leave_out("masks", [row], reason)
            continue
        points, rings = polygon(counts, (height, width))
        part.leave_out("masks", [] if rings else [row], "masks without a pixel")
        part.counts["masks whose parts and holes are joined by seams"] += rings > 1
        part.counts["masks of noise whose small parts are left out"] += rings > MOST_RINGS
        if rings:
            polygons[key] = (points / (width, height)).ravel().tolist()
    return polygons
