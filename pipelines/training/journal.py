"""What a training tells: a line of JSON for each event, the same for TensorBoard, both cut back when it goes on.

    {"event": "start", "step": 0, "run": "...", "workers": 1, "device": "cpu", "at": 1767225600.0}
    {"event": "step", "phase": ..., "step": 7, "loss": 2.1, "losses": {"OD": 2.3, ...}, "images_per_second": 41.0, ...}
    {"event": "judged", "phase": ..., "step": 200, "loss": 1.9, "losses": {...}}
    {"event": "fault", "step": 7, "item": "0123...", "message": "..."}
    {"event": "kept", "phase": ..., "step": 200}
    {"event": "end", "step": 1000}

`step` counts the optimiser's steps over all phases.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from engine.storage import write_text

LOG, BOARD = "log.jsonl", "tensorboard"


class Journal(Protocol):
    """Who is told what happens. Workers but the first have a `Silent` one."""

    def tell(self, event: str, step: int, **values: Any) -> None: ...

    def close(self) -> None: ...


class Silent:
    def tell(self, event: str, step: int, **values: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Written:
    """A journal in `folder`, which goes on behind step `done`: what came later will come again."""

    def __init__(self, folder: Path, done: int) -> None:
        from tensorboardX import SummaryWriter  # half a second, and only in the worker

        kept = [line for line in read_journal(folder) if line["step"] <= done and line["event"] != "end"]
        write_text(folder / LOG, "".join(json.dumps(line) + "\n" for line in kept))
        self._log = open(folder / LOG, "ab", buffering=0)  # noqa: SIM115 (as long as the worker lives)
        self._board = SummaryWriter(str(folder / BOARD), purge_step=done + 1, flush_secs=10)

    def tell(self, event: str, step: int, **values: Any) -> None:
        line = {"event": event, "step": step, **values, "at": round(time.time(), 3)}
        self._log.write(json.dumps(line).encode() + b"\n")
        if event in ("step", "judged"):
            where = "train" if event == "step" else "held out"
            for name, value in values.items():
                for tag, number in _numbers(name, value):
                    self._board.add_scalar(f"{where}/{tag}", number, step)

    def close(self) -> None:
        os.fsync(self._log.fileno())
        self._log.close()
        self._board.close()


def journal_size(folder: Path) -> int:
    """In bytes."""
    path = folder / LOG
    return path.stat().st_size if path.exists() else 0


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal. One that a crash cut off is not there."""
    return [line for line, _ in followed(folder, 0)]


def followed(folder: Path, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The lines from byte `offset` on, each with the offset behind it."""
    try:
        with open(folder / LOG, "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return
    for raw in data.splitlines(keepends=True):
        offset += len(raw)
        if not raw.endswith(b"\n"):
            return
        try:
            line = json.loads(raw)
        except ValueError:  # cut off by a crash, and then written on
            continue
        yield line, offset


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        yield from ((f"{name}/{key}", number) for key, number in value.items())
    elif isinstance(value, int | float):
        yield name, value
