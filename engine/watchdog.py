"""A time limit that holds for native code too, and a note of who was in hand when a worker ended.

`signal.alarm` does not work in an actor, and a Python thread can't act while native code holds the interpreter.
faulthandler's timer is a C thread: it writes where the process hangs and ends it.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from engine.temporary import held


def notes_of(run_id: str) -> Path:
    """Where the workers of a run keep their notes on each machine: in a real folder, which faulthandler asks for. What
    a killed driver leaves of them, `engine.temporary` removes."""
    return Path(tempfile.gettempdir()) / f"engine-{run_id}"


def note_of(run_id: str, pid: int) -> Path:
    return notes_of(run_id) / str(pid)


@dataclass(frozen=True)
class Note:
    """What a worker that ended had in hand, and, if it was the watchdog that ended it, where it hung."""

    item_ids: tuple[bytes, ...]
    hung_at: str | None


@dataclass(frozen=True)
class Watchdog:
    """Guards one worker. `path` holds the note while something is in hand; `seconds` is the limit for one item."""

    path: Path
    seconds: float

    @contextmanager
    def watch(self, item_ids: Sequence[bytes]) -> Iterator[None]:
        """Ends this process if the block outlasts the limit for so many items."""
        with held(self.path.parent), open(self.path, "w") as file:
            file.write(json.dumps([item_id.hex() for item_id in item_ids]) + "\n")
            file.flush()
            leaves = False
            try:
                with within(self.seconds * len(item_ids), file):
                    yield
            except SystemExit:  # it ends this process, and the note says over what
                leaves = True
                raise
            finally:
                if not leaves:
                    self.path.unlink(missing_ok=True)  # a run that ends removes the folder


@contextmanager
def within(seconds: float, file: TextIO | None = None) -> Iterator[None]:
    """Ends this process if the block takes longer; where it hangs is then in `file`, or its standard error."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=file or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def read_note(path: Path) -> Note | None:
    """The note at `path`, if a worker left one; a note that was cut off says nothing."""
    try:
        head, _, rest = path.read_text(errors="replace").partition("\n")
        return Note(tuple(bytes.fromhex(item_id) for item_id in json.loads(head)), _innermost(rest))
    except (FileNotFoundError, ValueError):
        return None


def _innermost(dump: str) -> str | None:
    """The innermost frame of the thread that did the work: faulthandler writes it last, its innermost frame first."""
    if "Timeout" not in dump:
        return None
    threads = dump.split("\n\n")
    frames = [line.strip() for line in threads[-1].splitlines() if line.strip().startswith("File ")]
    return frames[0] if frames else "no Python frame"
