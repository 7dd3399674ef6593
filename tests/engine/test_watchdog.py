"""The watchdog ends a process that hangs, in Python or in native code, and says who was in hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.watchdog import Watchdog, read_note

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
