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

from engine.errors import OutputError, is_no_space
from engine.files import exists
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
        with _place_named(path):
            path.write_bytes(data)
        return
    with reached(path):
        store, inside = filesystem(path)
        store.pipe_file(inside, data)


@contextmanager
def aside(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when it is whole and on the disk, or sent, and is gone if that fails."""
    if not is_local(path):
        spooled = Path(tempfile.gettempdir(), path.name)
        with _place_named(spooled), tempfile.NamedTemporaryFile(prefix="engine-") as spool:
            yield cast(BinaryIO, spool)
            spool.flush()
            with reached(path):
                store, inside = filesystem(path)
                store.put_file(spool.name, inside)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.aside-{uuid.uuid4().hex}")
    try:
        with _place_named(path), open(unfinished, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or the name might outlive a power cut, and the content not
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _place_named(path: Path) -> Iterator[None]:
    """Says which file it is that a full disk does not take: a write knows no name."""
    try:
        yield
    except OSError as error:
        if is_no_space(error) and error.filename is None:
            error.filename = str(path)
        raise


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder. A store that fails has not said no: that is a RunError."""
    return path.exists() if is_local(path) else exists(str(path))


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
    """What brings a lost file back: a shard is done again if its last file is not there, nor the marker that says that
    all of its partition are."""
    if path.name == "manifest.json" and path.parent.name == "images":
        return f"engine verify {path.parents[1]} --repair --yes writes it anew from the shards."
    folder, name = path.parent.parent, f"{path.parent.name}/{path.name}"
    marker = Path("partitions", f"{path.parent.name}.json")
    if folder.name in ("images", "given"):
        remove = [folder.with_name("round-0") / marker, folder.with_name("images") / name]
        return f"{_run_again(remove)}: its images are ingested anew, and what was made of them stays."
    if folder.name in ("annotations", "decisions"):
        remove = [folder.parent / marker, folder.with_name("decisions") / name]
        remove += [path] if folder.name == "annotations" else []
        return f"{_run_again(remove)}: its images are annotated anew."
    return f"Remove {path} and run again, or start afresh with --overwrite."


def _run_again(without: Iterable[Path]) -> str:
    paths = " and ".join(str(path) for path in without if is_there(path))
    return f"Remove {paths} and run again" if paths else "Run again"
