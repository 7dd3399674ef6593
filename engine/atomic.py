"""Files of an output folder, on this machine or on an object store: each is there whole, or not at all.

They are written aside and renamed, so that a file that is there is whole, whoever was killed when. On an object store
(`engine.places`), which renames nothing, they are put together on this machine and sent as a whole: what breaks off is
no object. Whoever looks for many files lists their folder (`there`): each question of its own is a request.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from engine.errors import OutputError
from engine.places import filesystem, is_local, reached

ASIDE = re.compile(r"\..+\.aside-[0-9a-f]{32}")


def read_json(path: Path) -> Any:
    with damage_named(path):
        return json.loads(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    if is_local(path):
        return path.read_bytes()
    with reached(path):
        store, inside = filesystem(path)
        try:
            return cast(bytes, store.cat_file(inside, start=0))  # without a start it would ask for the size first
        except OSError as error:
            if error.errno != errno.EINVAL:  # by S3 there is no range of an empty file
                raise
            return cast(bytes, store.cat_file(inside))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    with aside(path) as file:
        file.write(text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """In place, and not waiting for the disk: for what is written again if that breaks off."""
    if is_local(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return
    with reached(path):
        store, inside = filesystem(path)
        store.pipe_file(inside, data)


@contextmanager
def aside(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when it is whole and on the disk, or sent, and is gone if that fails."""
    if not is_local(path):
        with tempfile.NamedTemporaryFile(prefix="engine-") as spool:
            yield cast(BinaryIO, spool)
            spool.flush()
            with reached(path):
                store, inside = filesystem(path)
                store.put_file(spool.name, inside)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.aside-{uuid.uuid4().hex}")
    try:
        with open(unfinished, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or the name might outlive a power cut, and the content not
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder."""
    if is_local(path):
        return path.exists()
    with reached(path):
        store, inside = filesystem(path)
        return bool(store.exists(inside))


def there(paths: Iterable[Path]) -> set[Path]:
    """Those of the files that are there. Each folder is listed once, however many files in it are asked for."""
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    found: set[Path] = set()
    for folder, asked in folders.items():
        names = set(names_in(folder))
        found.update(path for path in asked if path.name in names)
    return found


def names_in(folder: Path) -> list[str]:
    """What is in a folder, sorted; nothing if it isn't there."""
    try:
        if is_local(folder):
            return sorted(os.listdir(folder))
        with reached(folder):
            store, inside = filesystem(folder)
            below = (name.strip("/").removeprefix(inside.strip("/")) for name in store.ls(inside, detail=False))
            return sorted({name.strip("/") for name in below} - {""})
    except FileNotFoundError:
        return []


def remove(path: Path) -> None:
    """A file, if it is there."""
    if is_local(path):
        path.unlink(missing_ok=True)
        return
    with reached(path):
        store, inside = filesystem(path)
        with suppress(FileNotFoundError):  # of which S3 says nothing
            store.rm_file(inside)


def remove_all(path: Path) -> None:
    """A file, or a folder with all that is in it, if it is there. Links are removed, not followed."""
    if is_local(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return
    with reached(path):
        store, inside = filesystem(path)
        with suppress(FileNotFoundError):
            store.rm(inside, recursive=True)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turns what goes wrong with a file that the engine wrote into an OutputError with a way out."""
    try:
        yield
    except (FileNotFoundError, ValueError, KeyError) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise OutputError(f"{path} {what}. {remedy(path)}") from error


def remedy(path: Path) -> str:
    """What brings a lost file back: a shard is done again if its last file is not there."""
    for folder in path.parents:
        if folder.name == "given":
            return f"Remove {folder.with_name('images') / 'manifest.json'} and {path}, and run again."
        if folder.name == "images":
            return f"Remove {folder / 'manifest.json'} and run again: the images are ingested anew."
        if folder.name in ("annotations", "decisions"):
            decisions = folder.with_name("decisions") / path.relative_to(folder)
            marker = folder.with_name("partitions") / f"{path.parent.name}.json"
            also = f"{marker} and " if is_there(marker) else ""  # or nobody looks for a shard of the partition
            return f"Remove {also}{decisions} and run again: its images are annotated anew."
    return f"Remove {path} and run again, or start afresh with --overwrite."
