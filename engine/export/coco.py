"""COCO's JSON files, a split each, with all images of the split in each: https://cocodataset.org/#format-data

    <to>/instances_<split>.json  objects: box, class, mask if there is one
    <to>/captions_<split>.json   texts about whole images
    <to>/text_<split>.json       lines of text, in COCO-Text's words: `utf8_string`, and the quad's polygon as `mask`

A file is there if the set has anything for it. Boxes come out exactly, masks pixel by pixel: as run lengths, those of
single things too, for which COCO itself has polygons. Beside COCO's keys an annotation has `source`, `score`, which may
be null, the engine's id as `annotation`, and a region that has some `descriptions`. COCO has no place for an object
without a label, a line without a word, and a second mask of a region: they are left out and counted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pycocotools import mask as coco

from engine.atomic import aside, read_bytes
from engine.export.format import Part, Whole
from engine.export.images import How
from engine.files import opened
from engine.flat import Flat
from engine.records import digest16

KINDS = ("texts", "objects", "lines", "region_texts", "masks")
FILES = ("instances", "captions", "text")
INDEX_BITS = 20  # of an annotation's id, which has to stay below 2**53: from there on floats lose count
Row: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[int, str]  # of a region: its image's row, and its id


@dataclass(frozen=True)
class Coco:
    name: ClassVar[str] = "coco"
    kinds: ClassVar[tuple[str, ...]] = KINDS
    by_default: ClassVar[tuple[str, ...]] = KINDS
    how: ClassVar[tuple[How, ...]] = ("refer", "link", "copy")
    needs_classes: ClassVar[bool] = True
    by_record: ClassVar[bool] = False

    def write(self, part: Part) -> None:
        for split in part.splits:
            rows = _Rows(part, _of_split(part.flat, split))
            _write(part.fragment(f"{split}.images"), list(rows.images()))
            _write(part.fragment(f"{split}.licences"), rows.licences())
            for file in FILES:
                _write(part.fragment(f"{split}.{file}"), list(getattr(rows, file)()))
            rows.leave_out()

    def finish(self, whole: Whole) -> None:
        splits = [split for split in whole.setting.splits if split in whole.totals]
        for file in FILES:
            if any(True for split in splits for _ in whole.fragments(f"{split}.{file}")):
                for split in splits:
                    _join(whole, split, file)


# One part


@dataclass(frozen=True)
class _Rows:
    """What of a part is of one split, as the objects that its files list, image by image."""

    part: Part
    flat: Flat
    silent: set[Key] = field(default_factory=set)  # regions that are left out

    def images(self) -> Iterator[Row]:
        columns = ("number", "file", "width", "height", "licence", "item_id", "dataset")
        for number, file, width, height, licence, item_id, dataset in _values(self.flat.images, *columns):
            row = {"id": number + 1, "file_name": file, "width": width, "height": height}
            if licence is not None:
                row["license"] = _licence_id(licence)
            yield {**row, "item_id": item_id, "dataset": dataset}

    def licences(self) -> list[str]:
        return sorted(pc.unique(self.flat.images["licence"]).drop_null().to_pylist())

    def instances(self) -> Iterator[Row]:
        objects = self._of_kind("object", "label", "objects without a label")
        categories = {label: number for number, label in enumerate(self.part.setting.classes, 1)}
        labels = objects["label"].to_pylist()
        for ids, label, region in zip(self._ids(objects), labels, self._regions(objects), strict=True):
            yield {**ids, "category_id": categories[label], **region}

    def captions(self) -> Iterator[Row]:
        texts = self.flat["texts"]
        columns = ("text", "detail", "source", "composed", "id")
        for ids, (text, detail, source, composed, id_) in zip(self._ids(texts), _values(texts, *columns), strict=True):
            told = {"caption": text, "detail": detail, "source": source, "composed": composed}
            yield {**ids, **told, "annotation": id_}

    def text(self) -> Iterator[Row]:
        lines = self._of_kind("text", "text", "lines without a word")
        words = _values(lines, "text", "quad")
        for ids, (text, quad), region in zip(self._ids(lines), words, self._regions(lines), strict=True):
            polygon = {"mask": quad} if quad else {}
            yield {**ids, "utf8_string": text, **region, **polygon}

    def _ids(self, table: pa.Table) -> Iterator[Row]:
        """Of an image they stay the same whatever else is in the export, but its place in the manifest."""
        rows = table["row"].to_numpy().astype(np.int64)
        numbers = np.zeros(int(self.flat.images["row"].to_numpy().max()) + 1, np.int64)
        numbers[self.flat.images["row"].to_numpy()] = self.flat.images["number"].to_numpy()
        index = np.arange(len(rows)) - np.searchsorted(rows, rows)
        ids = (numbers[rows] << INDEX_BITS | index) + 1
        for id_, number in zip(ids.tolist(), numbers[rows].tolist(), strict=True):
            yield {"id": id_, "image_id": number + 1}

    def _regions(self, table: pa.Table) -> Iterator[Row]:
        x0, y0, x1, y1 = (table[side].to_numpy().astype(np.float64) for side in ("x0", "y0", "x1", "y1"))
        boxes = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1).tolist()  # of float32: exact in float64 but for specks
        columns = ("row", "id", "crowd", "score", "source")
        for box, (row, id_, crowd, score, source) in zip(boxes, _values(table, *columns), strict=True):
            region = {"bbox": box, "area": box[2] * box[3], "iscrowd": int(crowd), **self._masks.get((row, id_), {})}
            region |= {"score": score, "source": source, "annotation": id_}
            if descriptions := self._descriptions.get((row, id_)):
                region["descriptions"] = descriptions
            yield region

    def _of_kind(self, kind: str, field: str, left_out: str) -> pa.Table:
        """Regions of a kind that say something in a field."""
        table = self.flat["regions"].filter(pc.equal(self.flat["regions"]["kind"], kind))
        says = [bool(value and value.strip()) for value in table[field].to_pylist()]
        if all(says):
            return table
        silent = table.filter(pa.array([not one for one in says], pa.bool_()))
        self.part.leave_out("regions", silent["row"].to_pylist(), left_out)
        self.silent.update(_values(silent, "row", "id"))
        return table.filter(pa.array(says, pa.bool_()))

    def leave_out(self) -> None:
        """What is of regions that are left out, once those are known."""
        texts = [key[0] for key in self.silent for _ in self._descriptions.get(key, ())]
        self.part.leave_out("region_texts", texts, "texts of regions that are left out")
        masks = [key[0] for key in self.silent if key in self._masks]
        self.part.leave_out("masks", masks, "masks of regions that are left out")

    @cached_property
    def _masks(self) -> dict[Key, Row]:
        """What masks say of their regions."""
        keys = list(_values(self.flat["masks"], "row", "region_id"))
        rows = _values(self.flat["masks"], "height", "width", "counts")
        masks = [{"size": [height, width], "counts": counts} for height, width, counts in rows]
        told: dict[Key, Row] = {}
        for key, mask in zip(keys, masks, strict=True):
            if key in told:
                self.part.leave_out("masks", key[:1], "further masks of a region")
                continue
            area = int(coco.area(mask))  # of more than 255 at once NumPy 2 makes an error
            told[key] = {"area": area, "segmentation": {**mask, "counts": mask["counts"].decode("ascii")}}
        return told

    @cached_property
    def _descriptions(self) -> dict[Key, list[str]]:
        told: dict[Key, list[str]] = {}
        for row, region_id, text in _values(self.flat["region_texts"], "row", "region_id", "text"):
            told.setdefault((row, region_id), []).append(text)
        return told


def _of_split(flat: Flat, split: str) -> Flat:
    """What is of the images of a split, its annotations in the order of the images."""
    rows = flat.images["row"].to_numpy()
    there = np.zeros(int(rows.max()) + 1, bool)
    there[rows] = pc.equal(flat.images["split"], split).to_numpy()
    flat = flat.of_rows(there)
    orders = {name: np.argsort(table["row"].to_numpy(), kind="stable") for name, table in flat.annotations.items()}
    return Flat(flat.images, {name: table.take(pa.array(orders[name])) for name, table in flat.annotations.items()})


def _values(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _licence_id(licence: str) -> int:
    """The same in all parts, which don't know of one another."""
    return int.from_bytes(digest16(licence.encode())[:6])


def _write(path: Path, values: list[Any]) -> None:
    """Values of a JSON list, a line each, without its brackets."""
    if values:
        with aside(path) as file:
            file.write(b",\n".join(map(orjson.dumps, values)))


# The whole


def _join(whole: Whole, split: str, name: str) -> None:
    setting = whole.setting
    head: Row = {
        "info": {"description": setting.dataset, "round": setting.round, "sources": setting.sources},
        "licenses": [{"id": _licence_id(licence), "name": licence} for licence in _licences(whole, split)],
    }
    if name == "instances":
        head["categories"] = [{"id": number, "name": label} for number, label in enumerate(setting.classes, 1)]
    with aside(setting.to / f"{name}_{split}.json") as file:
        file.write(orjson.dumps(head)[:-1])
        for key, fragments in (("images", "images"), ("annotations", name)):
            between = f',\n"{key}": [\n'
            for path in whole.fragments(f"{split}.{fragments}"):
                file.write(between.encode())
                with opened(str(path)) as part:
                    shutil.copyfileobj(part, file)
                between = ",\n"
            file.write(b"]" if between == ",\n" else f',\n"{key}": []'.encode())
        file.write(b"}\n")


def _licences(whole: Whole, split: str) -> list[str]:
    paths = whole.fragments(f"{split}.licences")
    return sorted({licence for path in paths for licence in orjson.loads(b"[" + read_bytes(path) + b"]")})
