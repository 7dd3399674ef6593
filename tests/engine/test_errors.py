"""What is said, by a disk that takes nothing more, and by whoever passes it on."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

from engine.errors import CutShort, unwritable


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


def test_what_was_said_once_is_said_once() -> None:
    """By whoever gets it of a task."""
    error = CutShort("The raylet ended")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
