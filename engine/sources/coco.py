"""COCO's JSON files, and those made like them, such as Objects365's: images, with boxes, masks and captions.

The files of one command are one set: an image that several of them list is one entry with everything that is given of
it. Ids of images, annotations and categories hold within their file. https://cocodataset.org/#format-data

A name that is an absolute path is read if it leads below `ingest.image_root`, or below the list's folder if there is
none. What `engine.export.coco` adds to COCO's keys is taken along, and its texts to the character.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, TypeAlias

from engine.entry import Entry, Faults, Given, GivenRegion, GivenRegionText, GivenText, Key
from engine.files import absolute, stamp
from engine.records import ItemError
from engine.sources.index import Id, Index, filling
from engine.sources.places import SAMPLE, Place, below, find, inner
from engine.sources.sections import Section, sections
from engine.untrusted import LONGEST_NAME, numbers, shown, too_long
from engine.uris import is_url, reported, uri_of
from engine.uris import shown as shown_path

WHAT = "COCO file"
EXACT = 2**53  # from here on a float may stand for several whole numbers
Stamp: TypeAlias = tuple[str, int, int]  # path, bytes, time of change: what is read of a file holds as long as they do


def entries(paths: Sequence[str], image_root: str | None, faults: Faults) -> Iterator[Entry]:
    """The images that the files list, in their order. Raises ConfigError for a file that isn't COCO's."""
    stamps = [(path, *_stamp(path)) for path in paths]
    roots = (absolute(image_root or os.path.dirname(path)) for path, _, _ in stamps)
    files = tuple((stamp, _place(stamp, image_root), root) for stamp, root in zip(stamps, roots, strict=True))
    yield from _index(files).entries(faults)


def _stamp(path: str) -> tuple[int, int]:
    with reported(path, WHAT):
        return stamp(path)


@lru_cache(maxsize=64)
def _parts(stamp: Stamp) -> dict[str, Section]:
    found = sections(stamp[0])
    if "images" not in found:
        raise ValueError(
            "expected COCO's lists images, annotations and categories, with images at least; "
            f"found {', '.join(sorted(found)[:10]) or 'no lists'}"
        )
    return found


def _place(stamp: Stamp, image_root: str | None) -> Place:
    with reported(stamp[0], WHAT):
        first = islice(_parts(stamp)["images"].items(), SAMPLE)
        names = [inner(image.get("file_name")) for image in first if isinstance(image, dict) and not _url(image)]
        return find(stamp[0], [name for name in names if name], image_root)


@lru_cache(maxsize=1)
def _index(files: Sequence[tuple[Stamp, Place, str]]) -> Index:
    with filling(Index()) as index:
        for scope, (stamp, place, root) in enumerate(files):
            with reported(stamp[0], WHAT):
                _File(index, scope, stamp[0], _parts(stamp), place, root).read()
    return index


@dataclass
class _File:
    """One file on its way into the index. Absolute names have to lead below `root`."""

    index: Index
    scope: int
    path: str
    parts: dict[str, Section]
    place: Place
    root: str

    def read(self) -> None:
        self.name = shown_path(os.path.basename(self.path))
        self.licences = self._names("licenses")
        self.categories = self._names("categories")
        self._read_images()
        if "annotations" in self.parts:
            self.index.give(self._annotations())

    def _names(self, key: str) -> dict[Id, str]:
        items = self.parts[key].items() if key in self.parts else iter(())
        names = {}
        for number, item in enumerate(items):
            id_, name = (_id(item.get("id")), item.get("name")) if isinstance(item, dict) else (None, None)
            if id_ is None or not isinstance(name, str):
                self._fault(f"{key}[{number}]", f"bad_{key}", f"expected an object with id and name, not {shown(item)}")
            elif wrong := too_long(name, LONGEST_NAME):
                self._fault(f"{key}[{number}]", "too_long", wrong)
            else:
                names[id_] = name
        return names

    def _dataset(self) -> str:
        info = self.parts["info"].value() if "info" in self.parts else None
        described = info.get("description") if isinstance(info, dict) else None
        name = described.strip() if isinstance(described, str) else ""
        if wrong := too_long(name, LONGEST_NAME):
            self._fault("info.description", "too_long", wrong)
        return name if name and not wrong else os.path.splitext(self.name)[0]

    def _read_images(self) -> None:
        dataset, any_good = self._dataset(), False
        for number, image in enumerate(self.parts["images"].items()):
            id_ = _id(image.get("id")) if isinstance(image, dict) else None
            if id_ is None:
                self._fault(f"images[{number}]", "bad_image", f"expected id and file_name, not {shown(image)}")
                continue
            any_good = True
            uri, error = self._uri(image, id_)
            name, own = image.get("file_name"), image.get("dataset")
            self.index.image(
                self.scope,
                id_,
                uri,
                f"image {id_} of {self.name}",
                name=_url(image) or below(name, self.root) or inner(name) or "",
                size=_size(image),
                dataset=own if isinstance(own, str) else dataset,
                licence=_named(self.licences, image.get("license")),
                error=error,
            )
        if not any_good:
            raise ValueError("expected images, objects with id and file_name; there is none")

    def _uri(self, image: dict[str, Any], id_: Id) -> tuple[str, ItemError | None]:
        name = image.get("file_name")
        if url := _url(image):
            return url, None
        if absolute := below(name, self.root):
            return absolute, None
        if inside := inner(name):
            return uri_of(self.place.path(inside)), None
        # Not read, but known by: whoever looks for an image of a set finds it by its place.
        return below(name, "/") or f"{uri_of(self.path)}#image={id_}", _outside(name)

    def _annotations(self) -> Iterator[tuple[int, Id, Id | None, Given]]:
        for number, annotation in enumerate(self.parts["annotations"].items()):
            image = _id(annotation.get("image_id")) if isinstance(annotation, dict) else None
            if image is None:
                where = f"annotations[{number}]"
                self._fault(where, "bad_annotation", f"expected an object with image_id, not {shown(annotation)}")
                continue
            id_ = _id(annotation.get("id"))
            where = f"annotations[{number}] of {self.name}" if id_ is None else f"annotation {id_} of {self.name}"
            exported = isinstance(annotation.get("annotation"), str)
            key = (str(self.scope), str(number)) if exported else None
            given = self._given(annotation, where, key)
            if given is not None:
                yield self.scope, image, id_, given
                for text in _strings(annotation.get("descriptions")) if exported else ():
                    yield self.scope, image, None, GivenRegionText(key, text, where)

    def _given(self, annotation: dict[str, Any], where: str, key: Key | None) -> Given | None:
        box, caption = annotation.get("bbox"), annotation.get("caption")
        caption = caption if isinstance(caption, str) else None
        if not box and caption is not None:
            detail = annotation.get("detail")
            return GivenText(caption, where=where, detail=detail if isinstance(detail, str) else None, key=key)
        values = numbers(box) if isinstance(box, list) else None
        if values is None or len(values) != 4:
            what = "a bbox of four numbers, or a caption," if box is None else "a bbox of four numbers"
            self.index.faults.add(where, "bad_box", f"expected {what} not {shown(box)}; it was left out")
            return None
        x, y, width, height = values
        line, polygon = annotation.get("utf8_string"), annotation.get("mask")
        return GivenRegion(
            label=self._label(annotation.get("category_id"), where),
            box=(x, y, x + width, y + height),
            segmentation=annotation.get("segmentation") or None,
            description=caption,
            crowd=annotation.get("iscrowd") in (1, True),
            where=where,
            text=line if isinstance(line, str) else None,
            key=key,
            quad=polygon if isinstance(polygon, list) and len(polygon) == 8 else None,
            score=annotation.get("score"),
        )

    def _label(self, category: object, where: str) -> str | None:
        label = _named(self.categories, category)
        if label is None and category is not None:
            message = f"category {shown(category)} isn't among its categories; its region stays, without a label"
            self.index.faults.add(where, "unknown_category", message)
        return label

    def _fault(self, where: str, kind: str, message: str) -> None:
        self.index.faults.add(f"{where} of {self.name}", kind, f"{message}; it was left out")


def _id(value: object) -> Id | None:
    """An id of images, annotations or categories; 7.0, as pandas writes it, is 7. None for what is none."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < EXACT else None
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _named(names: dict[Id, str], value: object) -> str | None:
    id_ = _id(value)
    return None if id_ is None else names.get(id_)


def _strings(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _url(image: dict[str, Any]) -> str | None:
    """Where on the web an image is of which no file is named: COCO's own URL first, as in LVIS, or Flickr's."""
    name = image.get("file_name")
    urls = [image.get("coco_url"), image.get("flickr_url")] if name in (None, "") else [name]
    return next((url.strip() for url in urls if isinstance(url, str) and is_url(url.strip())), None)


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _outside(name: object) -> ItemError:
    message = f"expected a file_name below the folder of the images, or image_root, not {shown(name)}; it is not read"
    return ItemError("ingest", "outside_root", message)
