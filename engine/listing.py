"""Which images there are: folders, files, URLs, lists and sets of all kinds become entries, in a fixed order.

No image is opened, but for the first bytes of files whose names say nothing. What is no image by name or content is
counted, so that nobody has to guess what was left out.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from engine import manifest
from engine.entry import Entry, Faults, Given, GivenText
from engine.errors import ConfigError
from engine.images import HEAD_BYTES, format_of
from engine.records import Item
from engine.sources import coco, huggingface, openimages, urls, webdataset
from engine.uris import is_url, reported, resolved, shown, uri_of

IMAGE_EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng"),
        *(".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".avif"),
    }
)
TARS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")  # the packed ones are turned down by name
HIDDEN = frozenset({"__macosx", "thumbs.db"})  # and all names with a leading dot
EXTENSION = re.compile(r"\.[a-z0-9]{1,8}", re.ASCII)  # anything else behind the last dot is a part of the name
UNREADABLE_FOLDER = "unreadable folder"
REPEATED_FOLDER = "folder listed already"
FOLDERS = (UNREADABLE_FOLDER, REPEATED_FOLDER)


class Listing:
    """The inputs under `paths`: folders, image files, URLs, .txt lists, .parquet manifests, and the formats of
    `engine.sources`. Iterating lists them.

    `image_root` is where the images are that COCO's and Open Images' files name. With `class_folders` the label of an
    image is the name of the folder, directly in a listed one, that it is in.

    Every uri comes once; `repeated` counts the others. `skipped` counts what is no image, by extension, and folders
    that can't be read or were met before; `faults` what is wrong with the lists themselves, second texts of a URL among
    it. Raises ConfigError for a path that does not exist, a list or manifest that can't be read, and at the end if
    there was no image at all.
    """

    def __init__(
        self, paths: Sequence[str | Path], *, image_root: str | None = None, class_folders: bool = False
    ) -> None:
        for path in map(str, paths):
            # Of several images one may be gone by now, which is for its row to say; anything else is a slip.
            may_be_gone = len(paths) > 1 and _extension(path) in IMAGE_EXTENSIONS
            if not is_url(path) and not os.path.lexists(path) and not may_be_gone:
                raise ConfigError(f"no such file or folder: {shown(path)}")
        if image_root is not None and not os.path.isdir(image_root):
            raise ConfigError(f"ingest.image_root: no such folder: {shown(image_root)}")
        self.paths = [path if is_url(path) else os.path.abspath(path) for path in map(str, paths)]
        self.image_root = image_root
        self.class_folders = class_folders
        self.skipped: Counter[str] = Counter()
        self.faults = Faults()
        self.repeated = 0

    def __iter__(self) -> Iterator[Entry]:
        self.skipped, self.faults, self.repeated = Counter(), Faults(), 0
        seen: set[bytes] = set()
        held: Entry | None = None
        for entry in chain.from_iterable(self._sources()):
            digest = Item.id_of(entry.uri)
            if digest not in seen:
                seen.add(digest)
                if held:
                    yield held
                held = entry
                continue
            self.repeated += 1
            if held and held.uri == entry.uri:  # a row for each caption, say
                held = _together(held, entry)
            else:
                self._lose(entry)
        if held:
            yield held
        if not seen:
            fault = f"; {self.faults.first[0].where}: {self.faults.first[0].message}" if self.faults.first else ""
            raise ConfigError(
                f"no images in {', '.join(map(shown, self.paths)) or 'no paths'}: "
                f"{self.describe_skipped() or 'no files seen'}{fault}; expected images by name "
                f"({' '.join(sorted(IMAGE_EXTENSIONS))}) or content, folders of them, URLs, .txt, .csv or .tsv lists, "
                ".parquet manifests, WebDataset .tar, COCO .json, Open Images .csv or .jsonl, or folders of Hugging "
                "Face datasets"
            )

    def _sources(self) -> Iterator[Iterator[Entry]]:
        """COCO's files are one source, and so are Open Images': what one has may be of the images of another. They come
        first, for the first to list an image is the one whose annotations come along with it."""
        files = dict.fromkeys(path for path in self.paths if not is_url(path) and not os.path.isdir(path))
        of_coco = [path for path in files if _extension(path) == ".json"]
        of_open_images = [path for path in files if openimages.is_open_images(path)]
        if of_coco:
            yield coco.entries(of_coco, self.image_root, self.faults)
        if of_open_images:
            yield openimages.entries(of_open_images, self.image_root, IMAGE_EXTENSIONS, self.faults)
        for path in self.paths:
            if path not in of_coco and path not in of_open_images:
                yield _entries(path, self.skipped, self.faults, self.class_folders)

    def _lose(self, entry: Entry) -> None:
        """What comes along with an image that was listed before, and not just before, is lost, and counted."""
        kind = "repeated_url" if is_url(entry.uri) else "repeated_image"
        for given in entry.given():
            said = given.text if isinstance(given, GivenText) else given.label
            message = f"{entry.uri[:200]} was listed before; what came along this time was left out: {str(said)[:500]}"
            self.faults.add(given.where, kind, message)
        for label in entry.labels:
            message = f"was listed before; its label {label[:200]} of this time was left out"
            self.faults.add(entry.uri[:200], kind, message)

    def describe_skipped(self) -> str:
        """What was skipped, in words: "skipped 12 files that are ... (.json 10, .txt 2)". Empty if nothing was."""
        folders = [f"{key} {self.skipped[key]}" for key in FOLDERS if self.skipped[key]]
        files = {key: count for key, count in self.skipped.most_common() if key not in FOLDERS}
        if not files:
            return "; ".join(folders)
        kinds = ", ".join(f"{key} {count}" for key, count in files.items())
        skipped = f"skipped {sum(files.values())} files that are not images by name or content ({kinds})"
        return "; ".join([skipped, *folders])


def _together(one: Entry, other: Entry) -> Entry:
    """An image that is listed twice, with all that came along."""
    given = one.given if isinstance(one.given, _Several) else _Several([one.given])
    given.parts.append(other.given)
    labels = tuple(dict.fromkeys((*one.labels, *other.labels)))
    return replace(one, licence=one.licence or other.licence, labels=labels, given=given)


@dataclass(frozen=True)
class _Several:
    """What came along with an image, each time that it was listed; what is the same comes once."""

    parts: list[Callable[[], Sequence[Given]]]

    def __call__(self) -> list[Given]:
        everything = chain.from_iterable(part() for part in self.parts)
        return list({repr(replace(given, where="")): given for given in everything}.values())


def _entries(path: str, skipped: Counter[str], faults: Faults, class_folders: bool) -> Iterator[Entry]:
    if is_url(path):
        return iter([Entry(path)])
    if os.path.isdir(path):
        is_dataset = huggingface.is_dataset(path)
        return huggingface.entries(path, faults) if is_dataset else _folder(path, skipped, class_folders)
    if _extension(path) in (".csv", ".tsv"):
        return urls.entries(path, faults)
    if _extension(path) == ".parquet":
        return urls.parquet_entries(path, faults) if urls.is_parquet_list(path) else manifest.entries(path)
    if path.lower().endswith(TARS):
        return webdataset.entries(path, faults)
    if _extension(path) == ".txt":
        return _list(path)
    return iter([Entry(uri_of(path))])


def _folder(root: str, skipped: Counter[str], class_folders: bool) -> Iterator[Entry]:
    """The images below `root`, depth first, sorted by name at every level. Linked folders are followed, once."""
    try:
        stack = _children(root)
    except OSError as error:
        raise ConfigError(f"folder {shown(root)} can't be read: {error.strerror}") from None
    seen = {_identity(root)}
    while stack:
        child = stack.pop()
        extension = _extension(child.name)
        kind = _kind(child)
        if kind == "folder":
            try:
                identity = _identity(child.path)
                if identity in seen:
                    skipped[REPEATED_FOLDER] += 1
                    continue
                seen.add(identity)
                stack += _children(child.path)
            except OSError:
                skipped[UNREADABLE_FOLDER] += 1
        elif extension in IMAGE_EXTENSIONS or (kind == "file" and _begins_as_image(child.path)):
            yield Entry(uri_of(child.path), labels=_class(child.path, root) if class_folders else ())
        else:
            skipped[extension if EXTENSION.fullmatch(extension) else "no extension"] += 1


def _class(path: str, root: str) -> tuple[str, ...]:
    """The label of an image, as ImageNet has it: the name of the folder that it is in, or below, inside `root`."""
    first, inside, _ = os.path.relpath(path, root).partition("/")
    return (shown(first),) if inside else ()


def _children(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, the last one first, for a stack."""
    with os.scandir(folder) as entries:
        shown = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in HIDDEN]
    return sorted(shown, key=lambda entry: entry.name, reverse=True)


def _kind(entry: os.DirEntry[str]) -> str:
    """What an entry is, links followed: folder, file, or other: a pipe, a device, a link that leads nowhere."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:
        return "other"


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _begins_as_image(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            return format_of(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _list(path: str) -> Iterator[Entry]:
    """A path or URI a line; relative ones are relative to the list's folder."""
    with reported(path, "list of paths"), open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").rstrip(b"\r\n")
            if b"\0" in line:
                raise ValueError(f"line {number} has a zero byte; expected UTF-8 text, one path a line")
            if line.strip():
                yield Entry(resolved(os.fsdecode(line), os.path.dirname(path)))
