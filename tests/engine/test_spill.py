"""What goes to temporary files comes back whole, in order, and says the same as what is held in memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import repeats, spill
from engine.errors import RunError
from engine.records import digest16
from engine.repeats import Repeats
from engine.spill import Digests, Spill
from engine.temporary import NEW_SECONDS

PAIR = np.dtype([("bucket", np.int64), ("nth", np.int64)])
quiet = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["held", "files"])
def somewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in memory, and once by way of files, in small pieces."""
    if request.param == "files":
        monkeypatch.setattr(spill, "HELD", 5)
        monkeypatch.setattr(spill, "FEW", 5)
        monkeypatch.setattr(spill, "PIECE_ROWS", 3)
        monkeypatch.setattr(repeats, "RANGE", 4)


@quiet
@given(parts=st.lists(st.lists(st.sampled_from([0, 1, 7, 255, 123456]), max_size=9), max_size=6))
def test_buckets_keep_their_rows_in_order(somewhere: None, parts: list[list[int]]) -> None:
    rows, nth = Spill(PAIR), 0
    expected: dict[int, list[int]] = {}
    for part in parts:
        table = np.array([(bucket, nth + n) for n, bucket in enumerate(part)], PAIR)
        for bucket, number in table.tolist():
            expected.setdefault(bucket, []).append(number)
        nth += len(part)
        rows.add(table, table["bucket"])
    for _ in range(2):  # it can be gone through again
        together = [np.concatenate(list(pieces)) for pieces in rows.buckets()]
        assert [set(table["bucket"].tolist()) for table in together] == [{bucket} for bucket in sorted(expected)]
        assert [table["nth"].tolist() for table in together] == [expected[bucket] for bucket in sorted(expected)]


# Zeros at the ends and in the middle are digests, too.
digests = st.sampled_from(
    [bytes(16), bytes(15) + b"\1", b"\1" + bytes(15), b"ab" + bytes(14), bytes(8) + b"x" * 8]
) | st.binary(min_size=16, max_size=16)


@quiet
@given(listed=st.lists(digests, max_size=60))
def test_digests_keep_their_first_number(somewhere: None, listed: list[bytes]) -> None:
    plain: dict[bytes, int] = {}
    there = Digests()
    for number, digest in enumerate(listed):
        assert there.number(digest) == plain.get(digest)
        assert there.add(digest, number) == (digest not in plain)
        plain.setdefault(digest, number)
        assert len(there) == len(plain)
    assert {digest: there.number(digest) for digest in plain} == plain


def test_digests_that_meet_in_one_bucket_lead_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "FEW", 2)
    crowd = [bytes(8) + n.to_bytes(8, "little") for n in range(1, 200)]  # all belong into the first one
    there = Digests()
    assert all(there.add(digest) for digest in crowd)
    assert not any(there.add(digest) for digest in crowd)
    assert there.number(bytes(8) + (201).to_bytes(8, "little")) is None


def test_many_digests_come_through_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "FEW", 10)
    there = Digests()
    many = [digest16(str(n).encode()) for n in range(5000)]
    assert all(there.add(digest, 255 * n) for n, digest in enumerate(many))
    assert len(there) == 5000
    assert not any(there.add(digest) for digest in many)
    assert [there.number(digest) for digest in many] == [255 * n for n in range(5000)]
    assert {there.number(digest16(b"x%d" % n)) for n in range(1000)} == {None}


@quiet
@given(parts=st.lists(st.lists(digests, max_size=9), max_size=6))
def test_repeats_are_what_a_plain_loop_finds(somewhere: None, parts: list[list[bytes]]) -> None:
    first: dict[bytes, bytes] = {}
    expected, finder, start = [], Repeats(), 0
    for part in parts:
        ids = [digest16(str(start + n).encode()) for n in range(len(part))]
        for n, (key, id_) in enumerate(zip(part, ids, strict=True)):
            if key in first:
                expected.append((start + n, first[key]))
            first.setdefault(key, id_)
        rows = np.arange(start, start + len(part))
        finder.add(np.array(part, "S16"), rows, np.array(ids, "S16"))
        start += len(part)
    found = [(int(row), of.ljust(16, b"\0")) for piece in finder.found() for row, of in piece.tolist()]
    assert found == expected


def full(*_: Any) -> Iterator[None]:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "FEW", 2)
    monkeypatch.setattr("os.pwrite", full)
    there = Digests()
    with pytest.raises(RunError, match="TMPDIR"):
        for n in range(9):
            there.add(digest16(b"%d" % n))


SPILLING = """
import numpy as np, sys, time
from engine.spill import HELD, Spill
spill = Spill(np.dtype([("nth", np.int64)]))
spill.add(np.zeros(HELD + 1, spill._dtype), np.zeros(HELD + 1, np.int64))
print("there", flush=True)
time.sleep(600)
"""


def test_what_a_killed_process_leaves_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what a living one has is not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    begin = partial(subprocess.Popen, [sys.executable, "-c", SPILLING], env=environment, stdout=subprocess.PIPE)
    with begin() as killed, begin() as living:
        for process in (killed, living):
            assert process.stdout.readline() == b"there\n"
        there = {folder for folder in tmp_path.iterdir() if any(folder.iterdir())}
        assert len(there) == 2
        killed.kill()
        killed.wait()
        for path in (path for folder in there for path in (folder, *folder.iterdir())):
            os.utime(path, (time.time() - 2 * NEW_SECONDS,) * 2)
        mine = Spill(PAIR)
        mine.add(np.zeros(spill.HELD + 1, PAIR), np.zeros(spill.HELD + 1, np.int64))
        left = set(tmp_path.iterdir())
        assert len(left) == 2 and len(left & there) == 1
        living.kill()
    del mine
    assert set(tmp_path.iterdir()) == left & there
