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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pycocotools import mask as coco

from engine.atomic import aside, read_bytes
from engine.export.documents import numbers
from engine.export.format import Part, Whole
from engine.export.images import How
from engine.export.json_text import rows_in_json
from engine.files import opened
from engine.flat import Flat
from engine.records import digest16
from engine.stats.columns import places, rows_of

KINDS = ("texts", "objects", "lines", "region_texts", "masks")
FILES = ("instances", "captions", "text")
INDEX_BITS = 20  # of an annotation's id, which has to stay below 2**53: from there on floats lose count
OPTIONAL = ("license", "segmentation", "descriptions", "mask")
SOME = 255  # masks of which pycocotools can take the areas at once


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
            rows = _Rows(part, split)
            for name in ("images", "licences", *FILES):
                _write(part.fragment(f"{split}.{name}"), getattr(rows, name)())

    def finish(self, whole: Whole) -> None:
        splits = [split for split in whole.setting.splits if split in whole.totals]
        for file in FILES:
            if any(True for split in splits for _ in whole.fragments(f"{split}.{file}")):
                for split in splits:
                    _join(whole, split, file)


# One part


class _Rows:
    """What of a part is of one split, as tables of what its files list, image by image. A key is absent where the value
    of one of OPTIONAL is null."""

    def __init__(self, part: Part, split: str) -> None:
        self.part, self.flat = part, _of_split(part.flat, split)
        rows = rows_of(self.flat.images)
        self.numbers = np.zeros(int(rows.max()) + 1, np.int64)
        self.numbers[rows] = self.flat.images["number"].to_numpy()
        self.masks = self._first_masks()
        self.descriptions = self._descriptions()

    def images(self) -> pa.Table:
        images = self.flat.images
        columns = {name: images[name] for name in ("width", "height", "item_id", "dataset")}
        licences = images["licence"].combine_chunks().dictionary_encode()
        ids = pa.array([_licence_id(licence) for licence in licences.dictionary.to_pylist()], pa.int64())
        named = {"id": pc.add(images["number"], 1), "file_name": images["file"], **columns}
        return pa.table({**named, "license": ids.take(licences.indices)})

    def licences(self) -> pa.Table:
        return pa.table({"name": pc.unique(self.flat.images["licence"]).drop_null().sort()})

    def instances(self) -> pa.Table:
        objects, columns = self._regions("object", "label", "objects without a label")
        categories = pc.add(pc.index_in(objects["label"], pa.array(self.part.setting.classes, pa.string())), 1)
        return pa.table({**self._ids(objects), "category_id": categories, **columns})

    def captions(self) -> pa.Table:
        texts = self.flat["texts"]
        told = {"caption": texts["text"], **{name: texts[name] for name in ("detail", "source", "composed")}}
        return pa.table({**self._ids(texts), **told, "annotation": texts["id"]})

    def text(self) -> pa.Table:
        lines, columns = self._regions("text", "text", "lines without a word")
        return pa.table({**self._ids(lines), "utf8_string": lines["text"], **columns, "mask": lines["quad"]})

    def _ids(self, table: pa.Table) -> dict[str, Any]:
        """Of an image they stay the same whatever else is in the export, but its place in the manifest."""
        rows = rows_of(table)
        numbers, index = self.numbers[rows], np.arange(len(rows)) - np.searchsorted(rows, rows)
        return {"id": (numbers << INDEX_BITS | index) + 1, "image_id": numbers + 1}

    def _regions(self, kind: str, field: str, left_out: str) -> tuple[pa.Table, dict[str, Any]]:
        """Regions of a kind that say something in a field, and what is said of them. The others, and what is of them,
        are left out."""
        regions = self.flat["regions"]
        wanted = pc.equal(regions["kind"], kind).to_numpy()
        words = pc.utf8_trim_whitespace(pc.fill_null(regions[field], ""))
        says = pc.not_equal(words, "").to_numpy()
        rows, silent = rows_of(regions), np.flatnonzero(wanted & ~says)
        self.part.leave_out("regions", rows[silent].tolist(), left_out)
        texts, masks = pc.list_value_length(self.descriptions).to_numpy(), np.asarray(self.masks.is_valid())
        of_texts, of_masks = silent.repeat(texts[silent]), silent[masks[silent]]
        self.part.leave_out("region_texts", rows[of_texts].tolist(), "texts of regions that are left out")
        self.part.leave_out("masks", rows[of_masks].tolist(), "masks of regions that are left out")
        chosen = pa.array(np.flatnonzero(wanted & says))
        told = regions.take(chosen)
        return told, self._about(told, chosen)

    def _about(self, regions: pa.Table, places_: pa.Array) -> dict[str, Any]:
        x0, y0, x1, y1 = (regions[side].to_numpy().astype(np.float64) for side in ("x0", "y0", "x1", "y1"))
        sides = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}  # of float32: exact but for specks
        masks, told = self.masks.take(places_), self.descriptions.take(places_)
        return {
            "bbox": numbers(pa.table(sides), tuple(sides)),
            "area": pc.coalesce(_areas(masks), pa.array(sides["width"] * sides["height"])),
            "iscrowd": regions["crowd"].cast(pa.int8()),
            "segmentation": masks,
            "score": regions["score"],
            "source": regions["source"],
            "annotation": regions["id"],
            "descriptions": pc.if_else(pc.greater(pc.list_value_length(told), 0), told, None),
        }

    def _first_masks(self) -> pa.StructArray:
        """COCO's run lengths of each region's mask, null where it has none."""
        masks, regions = self.flat["masks"], self.flat["regions"]
        at = places(rows_of(masks), masks["region_id"], regions)
        found, first = np.unique(at, return_index=True)
        first, found = first[found >= 0], found[found >= 0]
        further = np.delete(np.arange(len(masks)), first)
        self.part.leave_out("masks", rows_of(masks)[further].tolist(), "further masks of a region")
        indices = np.full(len(regions), -1)
        indices[found] = first
        counts = masks["counts"].combine_chunks().cast(pa.string())  # which are ASCII
        coded = pa.StructArray.from_arrays([numbers(masks, ("height", "width")), counts], names=["size", "counts"])
        return coded.take(pa.array(indices, mask=indices < 0))

    def _descriptions(self) -> pa.ListArray:
        """The texts of each region."""
        texts, regions = self.flat["region_texts"], self.flat["regions"]
        at = places(rows_of(texts), texts["region_id"], regions)
        order = np.argsort(at, kind="stable")
        bounds = np.searchsorted(at[order], np.arange(len(regions) + 1))
        words = texts["text"].combine_chunks().take(pa.array(order))
        return pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), words)


def _areas(masks: pa.StructArray) -> pa.Array:
    """How many pixels, as floats; null where there is no mask."""
    there = masks.drop_null().to_pylist()
    areas = np.full(len(masks), np.nan)
    some = (there[start : start + SOME] for start in range(0, len(there), SOME))
    areas[np.asarray(masks.is_valid())] = [area for few in some for area in coco.area(few).tolist()]
    return pa.array(areas, from_pandas=True)


def _of_split(flat: Flat, split: str) -> Flat:
    """What is of the images of a split, its annotations in the order of the images."""
    rows = rows_of(flat.images)
    there = np.zeros(int(rows.max()) + 1, bool)
    there[rows] = pc.equal(flat.images["split"], split).to_numpy()
    flat = flat.of_rows(there)
    orders = {name: np.argsort(rows_of(table), kind="stable") for name, table in flat.annotations.items()}
    return Flat(flat.images, {name: table.take(pa.array(orders[name])) for name, table in flat.annotations.items()})


def _licence_id(licence: str) -> int:
    """The same in all parts, which don't know of one another."""
    return int.from_bytes(digest16(licence.encode())[:6])


def _write(path: Path, table: pa.Table) -> None:
    """Rows of a JSON list, a line each, without its brackets."""
    if len(table):
        with aside(path) as file:
            between = b""
            for texts in rows_in_json(table, OPTIONAL):
                file.write(between)
                file.write(b",\n".join(texts.cast(pa.binary()).to_pylist()))
                between = b",\n"


# The whole


def _join(whole: Whole, split: str, name: str) -> None:
    setting = whole.setting
    head: dict[str, Any] = {
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
    return sorted({one["name"] for path in paths for one in orjson.loads(b"[" + read_bytes(path) + b"]")})
