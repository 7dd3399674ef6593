"""What is said, by a disk that takes nothing more, and by whoever passes it on."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from engine.atomic import write_bytes
from engine.errors import CutShort, is_forbidden, unwritable


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left in out. "),
        (errno.EDQUOT, "no space left in out. "),
        (errno.EROFS, "out can't be written: its disk is read-only. "),
        (errno.EACCES, ""),
    ],
)
def test_disks_that_take_nothing_more(number: int, words: str) -> None:
    """Also where it is what another error was raised from."""
    of_disk = OSError(number, os.strerror(number), "file")
    other = ValueError("a shard can't be written")
    other.__cause__ = of_disk
    for error in (of_disk, other):
        said = unwritable(error, "out")
        assert said.startswith(words) and said.endswith("run the same again" if words else "")
    assert unwritable(ValueError("no space left"), "out") == ""


@pytest.mark.parametrize(
    ("number", "forbidden"),
    [(errno.EROFS, True), (errno.EACCES, True), (errno.EPERM, True), (errno.ENOSPC, False), (errno.ENOENT, False)],
)
def test_places_that_are_not_ours(number: int, forbidden: bool) -> None:
    assert is_forbidden(OSError(number, os.strerror(number))) is forbidden


def test_a_full_disk_is_said_with_the_file_that_it_does_not_take() -> None:
    """A write of its own names none."""
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        write_bytes(Path("/dev/full"), b"x")


def test_what_was_said_once_is_said_once() -> None:
    """By whoever gets it of a task."""
    error = CutShort("The raylet ended")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
