"""Folders and files in the folder that TMPDIR names, where a process that is killed leaves its own. Whoever needs a
folder holds a lock of it. What nobody holds, the next who makes some removes, and each run at its end on all of its
machines."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NEW_SECONDS = 60  # in which whoever makes a folder has locked it, and a driver has read what a dead worker noted
SPILLED, NOTED = "engine-spill-", "engine-open-"
# How long they are left alone, by their names. A probe, which takes minutes, locks nothing; an opener may live as long
# as the longest export.
LEFT = {
    f"{SPILLED}*": NEW_SECONDS,
    f"engine-{'[0-9]' * 8}-{'[0-9]' * 6}-*": NEW_SECONDS,  # a run's
    "engine-probe-*": 24 * 3600,
    f"{NOTED}*": 7 * 24 * 3600,
}


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """There, and not to be removed; by several at once."""
    lock = _lock(folder)
    while lock is None:
        lock = _lock(folder)
    try:
        yield
    finally:
        os.close(lock)


def _lock(folder: Path) -> int | None:
    """Of a folder that may have to be made; None if it was removed meanwhile."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with suppress(OSError):  # where there are no locks nobody removes it either
        fcntl.flock(lock, fcntl.LOCK_SH)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(lock), os.stat(folder)):
            return lock
    os.close(lock)
    return None


def remove_left() -> None:
    """What no living process has a lock of."""
    for pattern, seconds in LEFT.items():
        for folder in Path(tempfile.gettempdir()).glob(pattern):
            with suppress(OSError):  # it is another user's, or somebody's who lives
                if _changed(folder) < time.time() - seconds:
                    _remove(folder)


def _changed(folder: Path) -> float:
    """When it was, or a file in it."""
    paths = [folder, *folder.iterdir()] if folder.is_dir() else [folder]
    return max(path.stat().st_mtime for path in paths)


def _remove(folder: Path) -> None:
    if folder.is_file():
        folder.unlink()
        return
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)
