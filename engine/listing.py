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
from engine.entry import Entry, Faults, Given, said
from engine.errors import ConfigError
from engine.files import Child, absolute, children, exists, is_folder, lines, piece
from engine.images import HEAD_BYTES, format_of
from engine.places import is_remote_uri, store_of
from engine.records import Item, ItemError
from engine.sources import coco, exports, florence, huggingface, llava, openimages, samples, urls, webdataset, yolo
from engine.sources.places import below
from engine.spill import Digests
from engine.untrusted import LONGEST_NAME, LONGEST_URI, some, too_long
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

    `image_root` is where the images are that COCO's and Open Images' files name, or YOLO's data.yaml. With
    `class_folders` the label of an image is the name of the folder, directly in a listed one, that it is in.

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
            if not is_url(path) and not may_be_gone and not exists(path, links=True):
                raise ConfigError(f"no such file or folder: {shown(path)}")
        if image_root is not None and not is_folder(image_root):
            raise ConfigError(f"ingest.image_root: no such folder: {shown(image_root)}")
        whole = [path if is_url(path) else absolute(path) for path in map(str, paths)]
        self.paths = list(chain.from_iterable(map(exports.lists, whole)))
        self.image_root = None if image_root is None else absolute(image_root)
        self.class_folders = class_folders
        self.skipped: Counter[str] = Counter()
        self.faults = Faults()
        self.repeated = 0

    def __iter__(self) -> Iterator[Entry]:
        self.skipped, self.faults, self.repeated = Counter(), Faults(), 0
        seen = Digests()
        held: Entry | None = None
        for entry in chain.from_iterable(self._allowed(*source) for source in self._sources()):
            if seen.add(Item.id_of(entry.uri)):
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
        if not len(seen):
            fault = f"; {self.faults.first[0].where}: {self.faults.first[0].message}" if self.faults.first else ""
            raise ConfigError(
                f"no images in {some([*map(shown, self.paths)]) or 'no paths'}: "
                f"{self.describe_skipped() or 'no files seen'}{fault}; expected images by name "
                f"({' '.join(sorted(IMAGE_EXTENSIONS))}) or content, folders of them, URLs, .txt, .csv or .tsv lists, "
                ".parquet manifests, WebDataset .tar, COCO .json, Open Images .csv or .jsonl, YOLO's data.yaml, or "
                "folders of Hugging Face datasets"
            )

    def _allowed(self, lists: Sequence[str], entries: Iterator[Entry]) -> Iterator[Entry]:
        """The same, without what lists have no business to lead to: they may come from anybody, and we read with our
        rights. To a bucket a list leads only if the configuration names that bucket, in `images` or `image_root`; to
        a file of this machine only if it lies on this machine itself, or the file below `image_root`."""
        root = self.image_root
        named = {store_of(path) for path in (*self.paths, *([root] if root else []))}
        here = any(not is_remote_uri(path) for path in lists)
        for entry in (_bounded(entry, self.faults) for entry in entries):
            store = store_of(entry.uri)
            is_file = store is None and not is_url(entry.uri)
            if store is not None and store not in named:
                message = f"{entry.uri[:500]}: a list leads to {store}, which ingest.images and image_root don't name"
                yield replace(entry, error=entry.error or ItemError("ingest", "foreign_store", message))
            elif is_file and not here and not (root and below(entry.uri, root)):
                message = f"{entry.uri[:500]}: a list on a store leads to a file of this machine; it is not read"
                yield replace(entry, error=entry.error or ItemError("ingest", "outside_root", message))
            else:
                yield entry

    def _sources(self) -> Iterator[tuple[Sequence[str], Iterator[Entry]]]:
        """Lists, and what they list. COCO's files are one source, and so are Open Images': what one has may be of the
        images of another. They come first, for the first to list an image is the one whose annotations come along."""
        of_samples = {path: found for path in self.paths if not is_url(path) and (found := _samples(path))}
        files = dict.fromkeys(
            path for path in self.paths if not is_url(path) and not is_folder(path) and path not in of_samples
        )
        of_coco = [path for path in files if _extension(path) == ".json"]
        of_open_images = [path for path in files if openimages.is_open_images(path)]
        if of_coco:
            yield of_coco, coco.entries(of_coco, self.image_root, self.faults)
        if of_open_images:
            listed = openimages.entries(of_open_images, self.image_root, IMAGE_EXTENSIONS, self.faults)
            yield of_open_images, listed
        for kind in dict.fromkeys(kind for kind, _ in of_samples.values()):
            of_kind = [path for other, paths in of_samples.values() if other is kind for path in paths]
            yield of_kind, samples.entries(of_kind, kind, self.image_root, self.faults)
        for path in self.paths:
            if path not in of_coco and path not in of_open_images and path not in of_samples:
                yield [path], self._entries(path)

    def _entries(self, path: str) -> Iterator[Entry]:
        if not is_url(path) and yolo.is_set(path):
            return yolo.entries(path, self.image_root, lambda folder: _folder(folder, self.skipped, False), self.faults)
        return _entries(path, self.skipped, self.faults, self.class_folders)

    def _lose(self, entry: Entry) -> None:
        """What comes along with an image that was listed before, and not just before, is lost, and counted."""
        kind = "repeated_url" if is_url(entry.uri) else "repeated_image"
        for given in entry.given():
            what = str(said(given))[:500]
            message = f"{entry.uri[:200]} was listed before; what came along this time was left out: {what}"
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


def _bounded(entry: Entry, faults: Faults) -> Entry:
    """The same, without labels and names that are too long for one, which are faults; an image whose uri is too long is
    not read, and goes by the beginning of it."""
    names = [name for name in (entry.dataset, entry.licence, *entry.labels) if name]
    if len(entry.uri) <= LONGEST_URI and all(len(name) <= LONGEST_NAME for name in names):
        return entry

    def kept(name: str | None) -> str | None:
        if wrong := too_long(name or "", LONGEST_NAME):
            faults.add(entry.uri[:200], "too_long", f"{wrong}, for a label, or the name of a set or licence; left out")
        return None if wrong else name

    uri, error = entry.uri, entry.error
    if wrong := too_long(uri, LONGEST_URI):
        error = error or ItemError("ingest", "too_long", f"expected where an image is, not {wrong}; it is not read")
        uri = f"{uri[:200]}...{Item.id_of(uri).hex()}"
    labels = tuple(label for label in entry.labels if kept(label))
    return replace(entry, uri=uri, dataset=kept(entry.dataset), licence=kept(entry.licence), labels=labels, error=error)


def _samples(path: str) -> tuple[samples.Kind, list[str]] | None:
    """The format of questions and answers that a file or an export's folder is of, and its files."""
    if is_folder(path):
        kinds = {florence.FLORENCE: florence.files_of(path), llava.LLAVA: llava.files_of(path)}
    else:
        kinds = {
            florence.FLORENCE: [path] if florence.is_lines(path) else [],
            llava.LLAVA: [path] if llava.is_conversations(path) else [],
        }
    return next(((kind, files) for kind, files in kinds.items() if files), None)


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
    if is_folder(path):
        if huggingface.is_dataset(path):
            return huggingface.entries(path, faults)
        return exports.entries(path, faults) if exports.format_of(path) else _folder(path, skipped, class_folders)
    if _extension(path) in (".csv", ".tsv"):
        return urls.entries(path, faults)
    if _extension(path) == ".parquet" and exports.is_table(path):
        return exports.table_entries(path, faults)
    if _extension(path) == ".parquet":
        return urls.parquet_entries(path, faults) if urls.is_parquet_list(path) else manifest.entries(path)
    if path.lower().endswith(TARS):
        return webdataset.entries(path, faults)
    if _extension(path) == ".txt":
        return _list(path)
    return iter([Entry(uri_of(path))])


def _folder(root: str, skipped: Counter[str], class_folders: bool) -> Iterator[Entry]:
    """The images below `root`, depth first, sorted by name at every level. Linked folders are followed, once."""
    root = absolute(root)  # on a store `a/` is another folder than `a`, but nobody means that
    try:
        stack = _children(root)
    except OSError as error:
        raise ConfigError(f"folder {shown(root)} can't be read: {error.strerror}") from None
    seen = {_identity(root)}
    while stack:
        child = stack.pop()
        extension = _extension(child.name)
        if child.kind == "folder":
            try:
                identity = _identity(child.path)
                if identity in seen:
                    skipped[REPEATED_FOLDER] += 1
                    continue
                seen.add(identity)
                stack += _children(child.path)
            except OSError:
                skipped[UNREADABLE_FOLDER] += 1
        elif extension in IMAGE_EXTENSIONS or (child.kind == "file" and _begins_as_image(child.path)):
            yield Entry(uri_of(child.path), labels=_class(child.path, root) if class_folders else ())
        else:
            skipped[extension if EXTENSION.fullmatch(extension) else "no extension"] += 1


def _class(path: str, root: str) -> tuple[str, ...]:
    """The label of an image, as ImageNet has it: the name of the folder that it is in, or below, inside `root`."""
    first, inside, _ = os.path.relpath(path, root).partition("/")
    return (shown(first),) if inside else ()


def _children(folder: str) -> list[Child]:
    """What is in a folder, the last one first, for a stack."""
    found = children(folder)
    return [one for one in reversed(found) if not one.name.startswith(".") and one.name.lower() not in HIDDEN]


def _identity(folder: str) -> tuple[int, int] | str:
    if is_remote_uri(folder):  # which has no links
        return folder
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _begins_as_image(path: str) -> bool:
    try:
        return format_of(piece(path, 0, HEAD_BYTES)) is not None
    except OSError:
        return False


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _list(path: str) -> Iterator[Entry]:
    """A path or URI a line; relative ones are relative to the list's folder."""
    with reported(path, "list of paths"):
        for number, line in lines(path):
            line = line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").rstrip(b"\r\n")
            if b"\0" in line:
                raise ValueError(f"line {number} has a zero byte; expected UTF-8 text, one path a line")
            if line.strip():
                yield Entry(resolved(os.fsdecode(line), os.path.dirname(path)))
