"""What a training tells: a line of JSON for each event, the same for TensorBoard, both cut back when it goes on.

    {"event": "start", "step": 0, "run": "...", "workers": 1, "device": "cpu", "at": 1767225600.0}
    {"event": "step", "phase": ..., "step": 7, "loss": 2.1, "losses": {"OD": 2.3, ...}, "images_per_second": 41.0, ...}
    {"event": "judged", "phase": ..., "step": 200, "loss": 1.9, "losses": {...}}
    {"event": "fault", "step": 7, "item": "0123...", "message": "..."}
    {"event": "kept", "phase": ..., "step": 200}
    {"event": "end", "step": 1000}

`step` counts the optimiser's steps over all phases. A journal on an object store is written on the worker's machine and
sent as it is now and then, and before each checkpoint: it never lacks what a checkpoint has learned.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from engine.atomic import aside, write_text
from engine.copies import near
from engine.files import piece, stamp
from engine.places import is_local

LOG, BOARD = "log.jsonl", "tensorboard"


class Journal(Protocol):
    """Who is told what happens. Workers but the first have a `Silent` one."""

    def tell(self, event: str, step: int, **values: Any) -> None: ...

    def send(self) -> None: ...

    def close(self) -> None: ...


class Silent:
    def tell(self, event: str, step: int, **values: Any) -> None:
        pass

    def send(self) -> None:
        pass

    def close(self) -> None:
        pass


class Written:
    """A journal in `folder`, which goes on behind step `done`: what came later will come again."""

    def __init__(self, folder: Path, done: int) -> None:
        from tensorboardX import SummaryWriter  # half a second, and only in the worker

        kept = [line for line in read_journal(folder) if line["step"] <= done and line["event"] != "end"]
        self._folder, self._here = folder, near(folder)
        if not is_local(folder):
            shutil.rmtree(self._here / BOARD, ignore_errors=True)  # of a worker before, and sent
        write_text(self._here / LOG, "".join(json.dumps(line) + "\n" for line in kept))
        self._log = open(self._here / LOG, "ab", buffering=0)  # noqa: SIM115 (as long as the worker lives)
        self._board = SummaryWriter(str(self._here / BOARD), purge_step=done + 1, flush_secs=10)

    def tell(self, event: str, step: int, **values: Any) -> None:
        line = {"event": event, "step": step, **values, "at": round(time.time(), 3)}
        self._log.write(json.dumps(line).encode() + b"\n")
        if event in ("step", "judged"):
            where = "train" if event == "step" else "held out"
            for name, value in values.items():
                for tag, number in _numbers(name, value):
                    self._board.add_scalar(f"{where}/{tag}", number, step)

    def send(self) -> None:
        """To the store on which it belongs, if it does."""
        if is_local(self._folder):
            return
        self._board.flush()
        for path in (self._here / LOG, *sorted((self._here / BOARD).iterdir())):
            with open(path, "rb") as written, aside(self._folder / path.relative_to(self._here)) as file:
                shutil.copyfileobj(written, file)

    def close(self) -> None:
        os.fsync(self._log.fileno())
        self.send()
        self._log.close()
        self._board.close()
        if not is_local(self._folder):
            shutil.rmtree(self._here / BOARD)
            (self._here / LOG).unlink()


def journal_size(folder: Path) -> int:
    """In bytes."""
    try:
        return stamp(str(folder / LOG))[0]
    except FileNotFoundError:
        return 0


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal. One that a crash cut off is not there."""
    return [line for _, line, _ in followed(folder, 0, journal_size(folder))]


def is_cut_back(folder: Path, offset: int, size: int, last: bytes) -> bool:
    """Whether a journal that has so many bytes now was written anew since its line `last`, before `offset`, was read;
    it may have grown past that again."""
    if size == offset:
        return False
    return size < offset or piece(str(folder / LOG), offset - len(last), len(last)) != last


def followed(folder: Path, offset: int, size: int) -> Iterator[tuple[bytes, dict[str, Any], int]]:
    """The lines from byte `offset` on, of so many bytes in all: as they are written, what they say, and the offset
    behind each."""
    if size == offset:
        return
    data = piece(str(folder / LOG), offset, size - offset)
    for raw in data.splitlines(keepends=True):
        offset += len(raw)
        if not raw.endswith(b"\n"):
            return
        try:
            line = json.loads(raw)
        except ValueError:  # cut off by a crash, and then written on
            continue
        yield raw, line, offset


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        yield from ((f"{name}/{key}", number) for key, number in value.items())
    elif isinstance(value, int | float):
        yield name, value
