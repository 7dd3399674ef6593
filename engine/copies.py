"""Folders on an object store as copies on this machine, for what is read as files: models and checkpoints.

    ~/.cache/florence-engine/stores/s3/bucket/out/round-0/model/@0123456789abcdef/config.json, ...

A copy is named by what the store says of its files: each machine fetches it once, and anew when they have changed. A
copy that is there is whole, whoever was killed when. One of what the store no longer has stays for an hour after its
last use, as others may be reading it. XDG_CACHE_HOME names another folder than ~/.cache. What lies on this machine is
its own copy.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from engine.atomic import remove, remove_all
from engine.errors import RunError, is_no_space
from engine.files import VERSION
from engine.places import checked, filesystem, is_local, is_remote_uri, place, reached

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,99}")  # of a store's names those that are one here, too
UNFINISHED, FETCHING = ".unfinished", ".fetching"
READING_SECONDS = 3600


def near(path: Path) -> Path:
    """The folder of this machine for what belongs to `path`: itself, unless that is on a store."""
    if is_local(path):
        return path
    scheme, bucket, key = checked(str(path))
    names = [name if PLAIN.fullmatch(name) else _digest(name) for name in (bucket, *key.split("/")) if name]
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.abspath(os.path.expanduser(caches)), "florence-engine", "stores", scheme, *names)


def fetched(path: Path) -> Path:
    """The folder `path` on this machine. Of several processes one fetches it, and the others wait. FileNotFoundError
    where a store has no file in it; RunError where there is no place for it here."""
    if is_local(path):
        return path
    files = _listed(path)
    if not files:
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path))
    copy = near(path) / _version(files)
    if not _is_used(copy):
        with room_for(path), _alone(near(path)):
            if not _is_used(copy):
                _fetch(path, list(files), near(path) / UNFINISHED)
                _clear(near(path), READING_SECONDS)
                os.replace(near(path) / UNFINISHED, copy)
    return copy


def located(source: str | Path) -> str | Path:
    """A folder's path or a hub's id as it is; a folder on a store as its copy here."""
    return fetched(place(str(source))) if is_remote_uri(str(source)) else source


def moved(folder: Path, path: Path, last: str) -> None:
    """`folder`, which is on this machine, becomes the folder `path`, in place of what was there. On a store its file
    `last` is sent last, and says that the others are there; `folder` becomes the copy."""
    if is_local(path):
        before = path.with_name(f".{path.name}.before")  # or a kill would leave half of it
        shutil.rmtree(before, ignore_errors=True)
        if path.exists():
            os.replace(path, before)
        os.replace(folder, path)
        shutil.rmtree(before, ignore_errors=True)
        return
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    remove(path / last)
    remove_all(path)
    with reached(path):
        store, inside = filesystem(path)
        for name in sorted(names, key=lambda name: name == last):
            store.put_file(str(folder / name), f"{inside}/{name}")
    files = _listed(path)
    if sorted(files) == names:
        with _alone(near(path)):
            _clear(near(path), 0)
            os.replace(folder, near(path) / _version(files))
    else:  # somebody else writes there, too
        shutil.rmtree(folder)


def forget(path: Path) -> None:
    """Removes the copies of a folder on a store, and of those in it."""
    if not is_local(path):
        shutil.rmtree(near(path), ignore_errors=True)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turns what this machine's disk fails at into a RunError: `path`, where that is on a store, is not at fault."""
    try:
        yield
    except OSError as error:
        if is_local(path) or isinstance(error, FileNotFoundError):
            raise
        why = "has no space left" if is_no_space(error) else f"can't be used ({error.strerror or error})"
        raise RunError(
            f"{near(path)}, for the copy of {path} on this machine, {why}. Make room, or name another folder with "
            "XDG_CACHE_HOME, and run the same again: what is on the store is whole"
        ) from error


def _listed(path: Path) -> dict[str, str]:
    """The files in a folder on a store, by their names in it, with what is said of their versions."""
    with reached(path):
        store, inside = filesystem(path)
        found = store.find(inside, detail=True)
    start = inside.strip("/") + "/"
    below = {name.strip("/"): about for name, about in found.items()}
    return {
        name.removeprefix(start): repr([str(about.get(key)) for key in ("size", "blob_id", *VERSION)])
        for name, about in sorted(below.items())
        if name.startswith(start)
    }


def _version(files: dict[str, str]) -> str:
    return f"@{_digest(repr(sorted(files.items())))}"


def _fetch(path: Path, names: list[str], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        if {"", ".", ".."} & set(name.split("/")):
            raise RunError(f"{path} has a file named {name!r}, which leads elsewhere on a disk: remove it there")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with reached(path):
            store, inside = filesystem(path)
            store.get_file(f"{inside}/{name}", str(target))


def _is_used(copy: Path) -> bool:
    """Whether it is there; if so, it was used now."""
    with suppress(OSError):  # it is not there, or where nothing can be written
        os.utime(copy)
    return copy.is_dir()


def _clear(folder: Path, seconds: float) -> None:
    """Removes copies in a folder that were not used for so long."""
    for copy in folder.glob("@*"):
        if copy.stat().st_mtime <= time.time() - seconds:
            shutil.rmtree(copy)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of the processes of this machine one at a time."""
    with ExitStack() as stack:
        while not _locked(folder, stack):
            pass
        yield


def _locked(folder: Path, stack: ExitStack) -> bool:
    """Waits for the lock. False if `forget` has removed it meanwhile: others lock another one."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(folder / FETCHING, os.O_WRONLY | os.O_CREAT, 0o644)
        stack.callback(os.close, file)
        fcntl.flock(file, fcntl.LOCK_EX)
        return os.path.samestat(os.fstat(file), os.stat(folder / FETCHING))
    except FileNotFoundError:
        return False


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
