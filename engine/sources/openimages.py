"""Open Images' CSV files, told apart by their headers, and the Localized Narratives that belong to them.

The files of one command are one set, of the images that they name: `ImageID.jpg`, or with the ending of any other image
format, in `ingest.image_root` or beside the files. https://storage.googleapis.com/openimages/web/download_v7.html
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import TextIOWrapper
from itertools import chain, zip_longest
from pathlib import Path
from typing import TypeAlias

from engine.entry import Entry, Faults, Given, GivenRegion, GivenText
from engine.files import children, is_folder, lines, opened, stamp
from engine.places import is_remote_uri
from engine.records import Box
from engine.sources import tables
from engine.sources.index import Index, filling
from engine.sources.masks import with_masks
from engine.untrusted import LONGEST_NAME, shown, too_long
from engine.uris import reported, uri_of
from engine.uris import shown as shown_path

# A file is of the first kind whose columns it has.
COLUMNS = {
    "masks": ("MaskPath", "ImageID", "LabelName", "BoxXMin", "BoxYMin", "BoxXMax", "BoxYMax"),
    "boxes": ("ImageID", "LabelName", "XMin", "YMin", "XMax", "YMax"),
    "labels": ("ImageID", "LabelName", "Confidence"),
    "images": ("ImageID", "License"),
    "classes": ("LabelName", "DisplayName"),
}
CLASS = re.compile(r"/[a-z]/\w+,")  # how a file of classes begins that has no header
SPLITS = ("images", "train", "validation", "test")
Row: TypeAlias = dict[str, str]
Stamp: TypeAlias = tuple[str, int, int]  # path, bytes, time of change


def is_open_images(path: str) -> bool:
    """Whether a .csv has a header that Open Images' files have; .jsonl is taken for Localized Narratives."""
    extension = os.path.splitext(path)[1].lower()
    return extension == ".jsonl" or (extension == ".csv" and _kind(path) is not None)


def entries(
    paths: Sequence[str], image_root: str | None, extensions: frozenset[str], faults: Faults
) -> Iterator[Entry]:
    """The images that the files name, in their order. `extensions` are those of images. Raises ConfigError."""
    stamps = []
    for path in paths:
        with reported(path, "list of Open Images"):
            stamps.append(_stamp(path))
            if is_remote_uri(path) and _kind(path) == "masks":
                raise ValueError("its masks are files that are read on this machine: copy the list and them here")
    folders = tuple(_stamp(folder) for folder in _folders(paths, image_root) if is_folder(folder))
    yield from _index(tuple(stamps), folders, extensions).entries(faults)


def _stamp(path: str) -> Stamp:
    return (path, 0, 0) if is_remote_uri(path) and is_folder(path) else (path, *stamp(path))


def _folders(paths: Sequence[str], image_root: str | None) -> list[str]:
    """Where images may be."""
    roots = [image_root] if image_root is not None else dict.fromkeys(os.path.dirname(path) for path in paths)
    inside = [os.path.join(root, split) for root in roots for split in SPLITS]
    above = [] if image_root is not None else [os.path.join(os.path.dirname(r), s) for r in roots for s in SPLITS]
    return [*roots, *inside, *above]


@lru_cache(maxsize=1)
def _index(files: Sequence[Stamp], folders: Sequence[Stamp], extensions: frozenset[str]) -> Index:
    with filling(Index(arrange=with_masks)) as index:
        images = _Images(index, [folder for folder, _, _ in folders], extensions)
        kinds = [(path, _kind(path)) for path, _, _ in files]
        # What other files' rows are told by comes first; the rest in the order in which it was named.
        classes = _Classes(index, dict(_classes([path for path, kind in kinds if kind == "classes"], index.faults)))
        for path, kind in sorted(kinds, key=lambda file: file[1] != "images"):
            if kind != "classes":
                with reported(path, "list of Open Images"):
                    _File(index, path, images, classes).read(kind)
    return index


def _kind(path: str) -> str | None:
    if path.lower().endswith(".jsonl"):
        return "narratives"
    try:
        with TextIOWrapper(opened(path), encoding="utf-8-sig", errors="replace") as file:
            first = file.readline(10_000)
    except OSError:
        return None
    header = set(next(csv.reader([first]), []))
    kind = next((kind for kind, columns in COLUMNS.items() if header.issuperset(columns)), None)
    return kind or ("classes" if CLASS.match(first) else None)


def _rows(path: str, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Numbers of lines and their rows; what can't be read as one goes to `faults`."""
    with tables.opened(path) as file:
        rows = tables.rows(file, False, shown_path(os.path.basename(path)), faults)
        first = next(rows, (1, []))
        names: Sequence[str] = first[1]
        if CLASS.match(",".join(names)):
            names, rows = COLUMNS["classes"], chain([first], rows)
        for number, row in rows:
            yield number, dict(zip_longest(names, row[: len(names)], fillvalue=""))


def _classes(paths: Sequence[str], faults: Faults) -> Iterator[tuple[str, str]]:
    for path in paths:
        with reported(path, "list of Open Images' classes"):
            for number, row in _rows(path, faults):
                if wrong := too_long(row["DisplayName"], LONGEST_NAME):
                    where = f"line {number} of {shown_path(os.path.basename(path))}"
                    faults.add(where, "too_long", f"{wrong}; it was left out")
                else:
                    yield row["LabelName"], row["DisplayName"]


@dataclass
class _Classes:
    """What Open Images' names for classes, such as /m/01yrx, mean."""

    index: Index
    names: dict[str, str]

    def __getitem__(self, label: str) -> str:
        if label not in self.names:
            message = "no file with LabelName,DisplayName says what it means; it stays as it is"
            self.index.faults.add(f"class {label}", "unknown_category", message)
            self.names[label] = label
        return self.names[label]


@dataclass
class _Images:
    """Which file an image id is: what is in the folders, by name without ending."""

    index: Index
    folders: Sequence[str]
    extensions: frozenset[str]
    latest: str = ""

    def __post_init__(self) -> None:
        columns = "stem, folder, path, PRIMARY KEY (stem, folder, path)"
        self.index.connection.execute(f"CREATE TABLE files ({columns}) WITHOUT ROWID")
        for number, folder in enumerate(self.folders):
            self.index.connection.executemany("INSERT INTO files VALUES (?, ?, ?)", self._files(number, folder))

    def _files(self, number: int, folder: str) -> Iterator[tuple[str, int, bytes]]:
        for file in children(folder):
            stem, extension = os.path.splitext(file.name)
            if extension.lower() in self.extensions:
                yield stem.encode(errors="replace").decode(), number, os.fsencode(file.path)

    def add(self, image: str, where: str, licence: str | None = None) -> bool:
        """Lists an image if it isn't listed yet. False for an id that no file can be named by."""
        if image == self.latest:  # rows of one image follow one another
            return True
        if not image or "/" in image or "\0" in image or image in (".", ".."):
            message = f"expected an ImageID that a file may be named by, not {shown(image)}; it was left out"
            self.index.faults.add(where, "outside_root", message)
            return False
        query = "SELECT path FROM files WHERE stem = ? ORDER BY folder, path LIMIT 1"
        file = self.index.connection.execute(query, (image,)).fetchone()
        path = os.fsdecode(file[0]) if file else os.path.join(self.folders[0], f"{image}.jpg")
        self.index.image(0, image, uri_of(path), where, name=image, dataset="Open Images", licence=licence or None)
        self.latest = image
        return True


@dataclass
class _File:
    """One file on its way into the index."""

    index: Index
    path: str
    images: _Images
    classes: _Classes
    name: str = field(init=False)

    def read(self, kind: str | None) -> None:
        self.name = shown_path(os.path.basename(self.path))
        if kind == "narratives":
            self.index.give((0, image, None, given) for image, given in self._narratives())
        elif kind == "labels":
            self.index.label((0, row["ImageID"], self.classes[row["LabelName"]]) for row in self._labels())
        elif kind == "images":
            for number, row in _rows(self.path, self.index.faults):
                self.images.add(row["ImageID"], self._where(number), row["License"])
        else:
            region = self._mask if kind == "masks" else self._box
            self.index.give((0, image, None, given) for image, given in self._regions(region))

    def _where(self, number: int) -> str:
        return f"line {number} of {self.name}"

    def _labels(self) -> Iterator[Row]:
        """The rows of what people saw; those of confidence 0 say what is not in the image."""
        for number, row in _rows(self.path, self.index.faults):
            if self.images.add(row["ImageID"], self._where(number)) and _number(row["Confidence"]) == 1:
                yield row

    def _regions(self, region: Callable[[Row, str], GivenRegion]) -> Iterator[tuple[str, Given]]:
        for number, row in _rows(self.path, self.index.faults):
            where = self._where(number)
            if self.images.add(row["ImageID"], where):
                try:
                    yield row["ImageID"], region(row, where)
                except ValueError as error:
                    self.index.faults.add(where, "bad_box", f"expected numbers: {error}; it was left out")

    def _box(self, row: Row, where: str) -> GivenRegion:
        crowd = row.get("IsGroupOf") == "1"
        return GivenRegion(self.classes[row["LabelName"]], _floats(row, ""), relative=True, crowd=crowd, where=where)

    def _mask(self, row: Row, where: str) -> GivenRegion:
        mask = Path(self.path).parent / os.path.basename(row["MaskPath"])  # the name alone: it may lead anywhere
        label = self.classes[row["LabelName"]]
        return GivenRegion(label, _floats(row, "Box"), relative=True, segmentation=mask, where=where)

    def _narratives(self) -> Iterator[tuple[str, Given]]:
        """Raises ValueError if no line has one."""
        first_fault = ""
        any_good = False
        for number, line in lines(self.path):
            if not line.strip():
                continue
            try:
                image, caption = _narrative(line)
            except ValueError as error:
                first_fault = first_fault or f"line {number} {error}"
                self.index.faults.add(self._where(number), "bad_narrative", f"it {error}; it was left out")
                continue
            any_good = True
            if self.images.add(image, self._where(number)):
                yield image, GivenText(caption, where=self._where(number))
        if first_fault and not any_good:
            raise ValueError(first_fault)


def _narrative(line: bytes) -> tuple[str, str]:
    """Image id and caption. Raises ValueError for a line that is something else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from None
    image, caption = (row.get("image_id"), row.get("caption")) if isinstance(row, dict) else (None, None)
    if not isinstance(image, str) or not isinstance(caption, str):
        raise ValueError(f"isn't an object with image_id and caption, which was expected: {shown(row)}")
    return image, caption


def _floats(row: Row, prefix: str) -> Box:
    x0, y0, x1, y1 = (float(row[f"{prefix}{side}"]) for side in ("XMin", "YMin", "XMax", "YMax"))
    return x0, y0, x1, y1


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
