"""COCO's files: instances_val2017.json, captions_val2017.json, and Karpathy's splits of its captions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from florence2.errors import Florence2Error
from florence2.evaluation.detection import Objects
from florence2.evaluation.files import Entry, Photo, are_numbers, found, photo, read_json
from florence2.evaluation.masks import Rle, mask_of, mask_of_runs, masks_of
from florence2.tasks import Box


@dataclass(frozen=True)
class Captioned:
    """Images and what people say of them, by image id; an image without captions has an empty list."""

    photos: list[Photo]
    references: dict[int, list[str]]
    file: Path
    split: str


@dataclass(frozen=True)
class Labelled:
    """Images, their objects by image id, and the categories, also those without an object."""

    photos: list[Photo]
    objects: dict[int, Objects]
    categories: dict[int, str]
    file: Path
    split: str


def read_captions(data: Path, split: str | None = None) -> Captioned:
    """COCO's captions (`split` val2017 unless said), or those of a split of Karpathy's dataset_coco.json (test)."""
    year = f"captions_{split or 'val2017'}.json"
    names = [year, f"annotations/{year}", "dataset_coco.json"]
    if split in ("test", "val", "train", "restval"):
        names = names[2:]
    path = found(data, names, "COCO's captions")
    root = Entry(read_json(path), str(path))
    if "annotations" not in root.values and "images" in root.values:
        return karpathy(root, path, split or "test")
    photos = photos_of(root)
    references: dict[int, list[str]] = {int(one.id): [] for one in photos}
    for entry in root.entries("annotations"):
        references[image_of(entry, references)].append(entry.get("caption", str))
    return Captioned(photos, references, path, path.stem.removeprefix("captions_"))


def karpathy(root: Entry, path: Path, split: str) -> Captioned:
    photos, references, splits = [], {}, set()
    for entry in root.entries("images"):
        splits.add(entry.get("split", str))
        if entry.values["split"] == split:
            id = entry.get("cocoid", int)
            folder, file = entry.values.get("filepath") or "", entry.get("filename", str)
            photos.append(photo(id, f"{folder}/{file}" if folder else file, None, entry.where))
            references[id] = [sentence.get("raw", str) for sentence in entry.entries("sentences")]
    if not photos:
        raise Florence2Error(f"{path}: expected a split, one of {', '.join(sorted(splits))}; got {split!r}")
    return Captioned(by_id(photos, path), references, path, f"Karpathy {split}")


def read_instances(data: Path, split: str | None = None) -> Labelled:
    name = f"instances_{split or 'val2017'}.json"
    path = found(data, [name, f"annotations/{name}"], "COCO's instances")
    root = Entry(read_json(path), str(path))
    photos = photos_of(root)
    categories: dict[int, str] = {}
    for entry in root.entries("categories"):
        id, name = entry.get("id", int), entry.get("name", str)
        if id in categories or name in categories.values():
            raise Florence2Error(f"{entry.where}: expected ids and names that occur once; got {id}, {name!r} again")
        categories[id] = name
    rows: dict[int, list[tuple[int, Box, bool, float]]] = {int(one.id): [] for one in photos}
    for entry in root.entries("annotations"):
        label = entry.get("category_id", int)
        if label not in categories:
            raise Florence2Error(f"{entry.where}: expected a category_id that is among the categories, got {label}")
        row = label, box_of(entry), bool(entry.values.get("iscrowd", 0)), area_of(entry)
        rows[image_of(entry, rows)].append(row)
    objects = {}
    for image, own in rows.items():
        labels, boxes, crowd, areas = zip(*own, strict=True) if own else ((), (), (), ())
        objects[image] = Objects(labels, boxes, crowd=crowd, areas=areas)
    return Labelled(photos, objects, categories, path, path.stem.removeprefix("instances_"))


def photos_of(root: Entry) -> list[Photo]:
    """In order of id."""
    photos = [
        photo(e.get("id", int), e.get("file_name", str), (e.get("width", int), e.get("height", int)), e.where)
        for e in root.entries("images")
    ]
    return by_id(photos, root.where)


def by_id(photos: Iterable[Photo], where: object) -> list[Photo]:
    ordered = sorted(photos, key=lambda one: one.id)
    for one, other in pairwise(ordered):
        if one.id == other.id:
            raise Florence2Error(f"{where}: expected an image id once, got {one.id} for {one.file} and {other.file}")
    return ordered


def image_of(entry: Entry, images: dict[int, Any]) -> int:
    id = entry.get("image_id", int)
    if id not in images:
        raise Florence2Error(f"{entry.where}: expected an image_id that is among the images, got {id}")
    return id


def box_of(entry: Entry) -> Box:
    x, y, width, height = entry.numbers("bbox", 4)
    if width < 0 or height < 0:
        raise Florence2Error(f"{entry.where}: expected a bbox x, y, width, height, got {entry.values['bbox']}")
    return x, y, x + width, y + height


def area_of(entry: Entry) -> float:
    area = entry.values.get("area")
    if not are_numbers([area]):
        raise Florence2Error(f"{entry.where}: expected 'area', a finite number; got {area!r:.200}")
    return float(area or 0)


def mask_in(entry: Entry, size: tuple[int, int]) -> Rle:
    """The mask of an annotation, polygons or run lengths, in an image of (width, height)."""
    given, shape = entry.values.get("segmentation"), size[::-1]
    if isinstance(given, list) and given:
        return mask_of(given, shape, entry.where)
    if isinstance(given, dict) and given.get("size") == list(shape):
        counts = given.get("counts")
        return (
            mask_of_runs(counts, shape, entry.where) if isinstance(counts, list) else masks_of([given], entry.where)[0]
        )
    raise Florence2Error(
        f"{entry.where}: expected a segmentation of an image {size[0]} x {size[1]}; got {given!r:.200}"
    )
