"""The watchdog ends a process that hangs, in Python or in native code, and says who was in hand."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from engine.temporary import LEFT, remove_left
from engine.watchdog import Watchdog, note_of, notes_of, read_note

ITEMS = (b"a" * 16, b"b" * 16)


def in_process(tmp_path: Path, body: str, seconds: float = 0.5) -> tuple[int, Path]:
    note = tmp_path / "notes" / "shard"
    code = (
        "import ctypes, os, signal, time; from pathlib import Path; from engine.watchdog import Watchdog\n"
        f"with Watchdog(Path({str(note)!r}), {seconds}).watch([{ITEMS[0]!r}, {ITEMS[1]!r}]):\n    {body}\n"
    )
    return subprocess.run([sys.executable, "-c", code], timeout=60).returncode, note


@pytest.mark.parametrize("body", ["time.sleep(60)", "ctypes.PyDLL(None).sleep(60)", "\n    while True: pass"])
def test_ends_what_hangs(tmp_path: Path, body: str) -> None:
    code, path = in_process(tmp_path, body)
    note = read_note(path)
    assert code == 1
    assert note is not None
    assert note.item_ids == ITEMS
    assert note.hung_at is not None
    assert "<string>" in note.hung_at


@pytest.mark.parametrize(
    "body, ends", [("os.kill(os.getpid(), signal.SIGKILL)", -9), ("raise SystemExit(0)", 0), ("os._exit(4)", 4)]
)
def test_a_death_leaves_the_note_without_a_place(body: str, ends: int, tmp_path: Path) -> None:
    code, path = in_process(tmp_path, body)
    note = read_note(path)
    assert code == ends
    assert note is not None
    assert (note.item_ids, note.hung_at) == (ITEMS, None)


def test_nothing_is_left_of_what_ended_in_time(tmp_path: Path) -> None:
    watchdog = Watchdog(tmp_path / "note", 60)
    with watchdog.watch(ITEMS):
        assert read_note(watchdog.path) is not None
    assert read_note(watchdog.path) is None


def test_an_exception_passes_and_stops_the_clock(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="out"), Watchdog(tmp_path / "note", 60).watch(ITEMS):
        raise ValueError("out")


def test_a_note_that_was_cut_off_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "note").write_text('["6161')
    assert read_note(tmp_path / "note") is None


WORKING = """
import os, sys, time
from engine.watchdog import Watchdog, note_of
with Watchdog(note_of(sys.argv[1], os.getpid()), 600).watch([b"a" * 16]):
    print("there", flush=True)
    time.sleep(600)
"""


def run(number: int) -> str:
    return f"20260101-{number:06d}-0123456789abcdef"


def aged(folder: Path, seconds: float) -> Path:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (time.time() - seconds,) * 2)
    return folder


def test_what_killed_runs_leave_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a living one has is not, nor what its driver may still ask for."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKING, run(n)], env=environment, stdout=subprocess.PIPE)
        for n in range(3)
    ]
    for number, worker in enumerate(workers):
        assert worker.stdout is not None and worker.stdout.readline() == b"there\n"
        aged(notes_of(run(number)), 120)
    for worker in workers[:2]:
        worker.kill()
        worker.wait()
    os.utime(note_of(run(1), workers[1].pid))  # as one that hung is ended
    probes = [tmp_path / "engine-probe-abcd1234", tmp_path / "engine-probe-efgh5678"]
    for probe, seconds in zip(probes, (120, 2 * max(LEFT.values())), strict=True):
        (probe / "all").mkdir(parents=True)
        aged(probe, seconds)
    (tmp_path / "engine-of-others").mkdir()
    aged(tmp_path / "engine-of-others", 1e6)
    remove_left()
    kept = {notes_of(run(1)), notes_of(run(2)), probes[0], tmp_path / "engine-of-others"}
    assert set(tmp_path.iterdir()) == kept
    workers[2].kill()
    workers[2].communicate()


def test_notes_whose_folder_is_removed_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    watchdog = Watchdog(note_of(run(0), 1), 60)
    for _ in range(2):
        with watchdog.watch(ITEMS):
            aged(watchdog.path.parent, 120)
            remove_left()
            assert read_note(watchdog.path) is not None
        aged(watchdog.path.parent, 120)
        remove_left()
        assert not watchdog.path.parent.exists()
