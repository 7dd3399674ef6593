"""Where the images of a list are whose names lead elsewhere on the machine that it was made on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.files import is_file, is_folder, normal
from engine.places import LOCAL, SCHEME, is_remote_uri
from engine.records import ItemError
from engine.untrusted import shown
from engine.uris import MEMBER, ROW, path_of, resolved, uri_of

SAMPLE = 50  # names that are tried


@dataclass(frozen=True)
class Place:
    """A folder, and how many of the folders that names begin with are left away in it."""

    folder: str
    dropped: int = 0

    def path(self, name: str) -> str:
        """The path of an image. `name` is one that `inner` gave."""
        parts = name.split("/")
        return os.path.join(self.folder, *parts[min(self.dropped, len(parts) - 1) :])


def inner(name: object) -> str | None:
    """A name as a list has it, without detours; None if it is none, or leads out of the folder that it is in."""
    if not isinstance(name, str) or not name.strip() or "\0" in name or name.startswith("/") or LOCAL.fullmatch(name):
        return None
    if is_remote_uri(name):
        return None
    name = os.path.normpath(name)
    return None if name.split("/")[0] in ("..", ".") else name


def located(name: str, folder: str, place: str) -> tuple[str, ItemError | None]:
    """The uri of a name that a set has: absolute paths and URIs lead where they lead, a relative one into its folder
    alone. One that leads out is not read, but known by its `place` in the list."""
    inside = MEMBER.fullmatch(name) or ROW.fullmatch(name)
    file = inside[1] if inside else name
    if os.path.isabs(file) or SCHEME.match(file) or inner(file):
        return resolved(name, folder), None
    message = f"expected an image in the folder of the set, not {shown(name)}; it is not read"
    return place, ItemError("ingest", "outside_root", message.encode(errors="replace").decode())


def below(name: object, folder: str) -> str | None:
    """The uri of an absolute path, a file:// URI, or a place in a file at one, if it lies in a folder; None for any
    other name."""
    if not isinstance(name, str):
        return None
    path, inside = parted(name)
    return None if "\0" in path or not within(path, folder) else uri_of(path) + inside


def parted(name: str) -> tuple[str, str]:
    """The path of the file that a path, a file:// URI or a place in a file leads to; and, with its #, what in it."""
    inside = MEMBER.fullmatch(name) or ROW.fullmatch(name)
    place = inside[1] if inside else name
    return normal(path_of(place) if LOCAL.fullmatch(place) else place), f"#{inside[2]}" if inside else ""


def within(path: str, folder: str) -> bool:
    """Whether an absolute path without detours lies in a folder, links not followed."""
    return path.startswith(folder.rstrip("/") + "/")


def find(list_path: str, names: Sequence[str], image_root: str | None) -> Place:
    """The first place that has one of the first `names`; if none has, the first place of all."""
    names = names[:SAMPLE]
    folders = [folder for folder in _folders(list_path, image_root) if is_folder(folder)]
    deepest = max((name.count("/") for name in names), default=0)
    places = [Place(folder, dropped) for dropped in range(deepest + 1) for folder in folders]
    return next((place for place in places if any(is_file(place.path(name)) for name in names)), places[0])


def _folders(list_path: str, image_root: str | None) -> Iterator[str]:
    """Where to look: annotations/instances_train2017.json is of the images in train2017/ beside annotations/."""
    here = os.path.dirname(list_path)
    words = os.path.splitext(os.path.basename(list_path))[0].split("_")
    splits = ["_".join(words[start:]) for start in range(1, len(words))]
    if image_root is not None:
        yield from (image_root, *(os.path.join(image_root, name) for name in splits))
    else:
        above = os.path.dirname(here)
        yield from (here, above, os.path.join(here, "images"), os.path.join(above, "images"))
        yield from (os.path.join(above, name) for name in splits)
