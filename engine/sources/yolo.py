"""YOLO's sets, as Ultralytics lays them out: a data.yaml names the classes and the splits, beside images/ lies labels/
with a .txt for each image. https://docs.ultralytics.com/datasets/

Nothing is read outside of the folder of data.yaml, or of `ingest.image_root` if that names another one for the set.
In data.yaml `path` counts if it leads to a folder in there, and "../train/images", as Roboflow has it, may mean
"train/images". An image without a .txt has no objects in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import yaml

from engine.entry import Entry, Faults, Given, GivenRegion
from engine.files import absolute, exists, is_file, is_folder, lines, normal, piece, whole
from engine.records import ItemError
from engine.sources.places import within
from engine.untrusted import numbers, shown
from engine.uris import path_of, reported, uri_of
from engine.uris import shown as shown_path

WHAT = "YOLO data.yaml"
DATA = "data.yaml"
EXTENSIONS = (".yaml", ".yml")
NAMES = re.compile(rb"""^["']?names["']?\s*:""", re.MULTILINE)  # as YOLO's have it, and few others
SPLITS = ("train", "val", "validation", "test")
MOST_BYTES = 1 << 21  # of a data.yaml: ImageNet's 21,841 classes are half of it, and PyYAML makes half a gigabyte of it


def is_set(path: str) -> bool:
    """Whether it is a .yaml, or a folder that has a data.yaml that names classes."""
    if not is_folder(path):
        return path.lower().endswith(EXTENSIONS)
    path = os.path.join(path, DATA)
    try:
        return is_file(path) and NAMES.search(piece(path, 0, MOST_BYTES)) is not None
    except (OSError, ValueError):
        return False


def entries(
    path: str, image_root: str | None, images: Callable[[str], Iterator[Entry]], faults: Faults
) -> Iterator[Entry]:
    """The images of all splits of a set, which is named by its folder or its data.yaml. `images` lists those in a
    folder. Raises ConfigError for a data.yaml that can't be read; `faults` gets classes and splits that aren't there.
    """
    path = absolute(os.path.join(path, DATA) if is_folder(path) else path)
    with reported(path, WHAT):
        document = _document(path)
        splits = {split: _listed(document[split]) for split in SPLITS if document.get(split)}
        if not splits:
            raise ValueError(f"expected splits ({', '.join(SPLITS)}), folders or lists of images; there is none")
        folder = os.path.dirname(path)
        root = absolute(image_root or folder)
        there = _Set(
            root=root,
            base=_base(root, document.get("path")),
            dataset=shown_path(os.path.basename(folder)) or WHAT,
            names=_names(document.get("names")),
            has_keypoints="kpt_shape" in document,
            faults=faults,
        )
    for split, names in splits.items():
        for name in names:
            for entry in there.images(name, f"{split} in {shown_path(os.path.basename(path))}", images):
                yield entry if entry.error else there.labelled(entry)


def names_of(path: str) -> list[str]:
    """The classes that a set's YAML lists."""
    return list(_names(_document(path).get("names")).values())


def _document(path: str) -> dict[str, Any]:
    """All scalars are strings: a class may be named "no"."""
    try:
        document = yaml.load(whole(path, MOST_BYTES), yaml.BaseLoader)  # makes nothing but strings, lists and dicts
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"no valid YAML: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"expected a mapping with names and splits, not a {type(document).__name__}")
    return document


def _names(value: object) -> Mapping[int, str]:
    named = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ValueError(f"expected names, the classes' names as a list or by number, not {shown(value)}")
    try:
        return {int(number): name for number, name in named.items()}
    except ValueError:
        raise ValueError(f"expected names by number, not {shown(value)}") from None


def _listed(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    names = [one for one in values if isinstance(one, str)]
    if len(names) < len(values):
        raise ValueError(f"expected a folder or list of images, or several of them, not {shown(value)}")
    return names


def _base(root: str, path: object) -> str:
    """The folder that the splits' names are relative to."""
    base = normal(os.path.join(root, path)) if isinstance(path, str) and "\0" not in path else root
    return base if within(base, root) and is_folder(base) else root


@dataclass(frozen=True)
class _Set:
    """Where a set's images are and what the classes of its labels mean; see `entries` for what it leaves to read."""

    root: str
    base: str
    dataset: str
    names: Mapping[int, str]
    has_keypoints: bool
    faults: Faults

    def images(self, name: str, where: str, listed: Callable[[str], Iterator[Entry]]) -> Iterator[Entry]:
        """The images of what a split names: of a folder, or of a list. A fault for what is not there, or outside."""
        places = [place for one in (name, name.removeprefix("../")) if (place := self._inside(one, self.base))]
        place = next(filter(exists, places), None)
        if not places:
            message = f"{shown(name)} leads out of the folder of the set: name that with image_root; it is not read"
            self.faults.add(where, "outside_root", message)
        elif place is None:
            self.faults.add(where, "missing_split", f"there is no {shown(name)}; it was left out")
        elif is_folder(place):
            yield from listed(place)
        else:
            yield from self._list(place)

    def labelled(self, entry: Entry) -> Entry:
        return replace(entry, dataset=self.dataset, given=partial(self.given, path_of(entry.uri)))

    def given(self, image: str) -> list[Given]:
        """The objects in the .txt of an image."""
        path = self._labels(image)
        name = shown_path(os.path.relpath(path, self.root))
        if not is_file(path):
            return []
        try:
            found = whole(path).splitlines()
        except (OSError, ValueError) as error:
            self.faults.add(name, "bad_labels", f"it can't be read: {error}; it was left out")
            return []
        told = ((f"line {number} of {name}", line.split()) for number, line in enumerate(found, 1))
        return [self._object(words, where) for where, words in told if words]

    def _inside(self, name: str, folder: str) -> str | None:
        """The path of what is named, if that is in the set."""
        path = normal(os.path.join(folder, name.strip()))
        return path if "\0" not in name and (path == self.root or within(path, self.root)) else None

    def _list(self, path: str) -> Iterator[Entry]:
        """A path a line; relative ones are relative to the list's folder, or to the set's."""
        with reported(path, "list of YOLO's images"):
            for number, line in lines(path):
                name = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip())
                folders = (os.path.dirname(path), self.base)
                places = [place for folder in folders if (place := self._inside(name, folder))]
                if not name:
                    continue
                if places:
                    yield Entry(uri_of(next(filter(exists, places), places[0])))
                    continue
                message = f"expected an image in the folder of the set, not {shown(name)}; it is not read"
                error = ItemError("ingest", "outside_root", message.encode(errors="replace").decode())
                yield Entry(f"{uri_of(path)}#line={number}", dataset=self.dataset, error=error)

    def _labels(self, image: str) -> str:
        """Ultralytics puts `labels` for the last `images` among an image's folders; here that is one of the set's."""
        path = os.path.join("/", os.path.relpath(image, self.root))
        before, images, after = path.rpartition("/images/")
        path = f"{before}/labels/{after}" if images else path
        return self.root.rstrip("/") + os.path.splitext(path)[0] + ".txt"

    def _object(self, words: Sequence[bytes], where: str) -> GivenRegion:
        """A class, and a box or a polygon. What is neither goes on as it is, to be turned down with its image."""
        label, values = self._label(words[0], where), [_number(word) for word in words[1:]]
        values = values[:4] if self.has_keypoints else values
        finite = numbers(values) or []
        if len(finite) == 4:
            x, y, width, height = finite
            return GivenRegion(label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), True, where=where)
        if len(finite) >= 6 and len(finite) % 2 == 0:
            xs, ys = finite[::2], finite[1::2]
            box = (min(xs), min(ys), max(xs), max(ys))
            return GivenRegion(label, box, relative=True, segmentation=[finite], where=where)
        as_it_is: Any = tuple(values)
        return GivenRegion(label, as_it_is, relative=True, where=where)

    def _label(self, word: bytes, where: str) -> str | None:
        number = _number(word)
        label = self.names.get(int(number)) if isinstance(number, float) and number.is_integer() else None
        if label is None:
            message = (
                f"class {shown(number)} isn't among the {len(self.names)} that have names; it stays without a label"
            )
            self.faults.add(where, "unknown_category", message)
        return label


def _number(word: bytes) -> float | str:
    """As pandas and NumPy write classes, too: 3.0."""
    try:
        return float(word)
    except ValueError:
        return word.decode(errors="replace")
