"""A training's log, as far as it can be read: a killed run leaves it cut off at any byte.

It is lines of JSON, with the events step, judged, fault, end and others that the page has no need of:

    {"event": "step", "step": 7, "phase": ..., "loss": 2.1, "losses": {"OD": 2.3}, "images_per_second": 41.0, "at": ...}
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from pydantic_core import from_json

from engine.files import is_file, opened
from engine.report.curves import Series

LARGEST = 1e12  # of steps and losses: what lies beyond is damage, and would end plain arithmetic
PAUSE = 60.0  # seconds before a step, and SLOWER times the usual, from which a training is taken to have rested
SLOWER = 20
MOST_PHASES = 12  # more are one


@dataclass
class Losses:
    """Losses by step: of an event as a whole, and of each task in it."""

    whole: Series = field(default_factory=Series)
    tasks: dict[str, Series] = field(default_factory=lambda: defaultdict(Series))

    def add(self, step: int, line: Mapping[str, Any]) -> bool:
        """Whether there was a loss in the line."""
        losses = line.get("losses")
        for task, loss in losses.items() if isinstance(losses, dict) else ():
            if is_number(loss):
                self.tasks[task].add(step, loss)
        loss = line.get("loss")
        if is_number(loss):
            self.whole.add(step, loss)
        return is_number(loss)


@dataclass
class Log:
    """What a log says. `phases` are names and the first step of each; `faults` are messages by image."""

    step: int = 0
    ended: bool = False
    learned: Losses = field(default_factory=Losses)
    judged: Losses = field(default_factory=Losses)
    phases: list[tuple[str, int]] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    unread: int = 0  # lines
    without: int = 0  # steps and judgements that have no loss
    _speeds: array[float] = field(default_factory=lambda: array("d"))
    _times: array[float] = field(default_factory=lambda: array("d"))
    _rests: array[int] = field(default_factory=lambda: array("b"))  # whether there may have been one before that time

    def hear(self, line: Mapping[str, Any]) -> bool:
        """Takes in a line. Whether it could be made out."""
        event, step = line.get("event"), line.get("step")
        if type(step) is not int or not 0 <= step < LARGEST or not isinstance(event, str):
            return False
        self.step = max(self.step, step)
        if is_number(at := line.get("at")):
            self._times.append(at)
            self._rests.append(event == "step")
        if event in ("step", "judged"):
            self._enter(line.get("phase"), step)
            losses = self.learned if event == "step" else self.judged
            self.without += not losses.add(step, line)
            if is_number(speed := line.get("images_per_second")):
                self._speeds.append(speed)
        elif event == "fault":
            message = str(line.get("message", ""))
            self.faults.setdefault(str(line.get("item") or message), message)
        self.ended = self.ended or event == "end"
        return True

    def _enter(self, phase: Any, step: int) -> None:
        name = phase if isinstance(phase, str) else ""
        if not self.phases:
            self.phases.append((name, 0))
        elif name != self.phases[-1][0] and step > self.phases[-1][1] and len(self.phases) < MOST_PHASES:
            self.phases.append((name, step))

    @property
    def stretches(self) -> list[tuple[str, int, float]]:
        """The phases, each with its first step and the next one's."""
        stops = [*(start for _, start in self.phases[1:]), math.inf]
        return [(name, start, stop) for (name, start), stop in zip(self.phases, stops, strict=False)]

    @property
    def speed(self) -> float | None:
        """Images a second: the median over all steps."""
        return float(np.median(self._speeds)) if self._speeds else None

    @property
    def seconds(self) -> tuple[float, float]:
        """From the first line to the last: how long was worked, and how long nothing was told before a step, as when
        a run was stopped and went on later."""
        gaps = np.maximum(np.diff(np.array(self._times)), 0)
        if not len(gaps):
            return 0, 0
        rests = (np.array(self._rests, bool)[1:]) & (gaps > max(PAUSE, SLOWER * float(np.median(gaps))))
        return float(gaps[~rests].sum()), float(gaps[rests].sum())


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is one, of a size to be reckoned with: NaN is not, nor is True."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def read_log(path: Path) -> Log:
    """The log at `path`; an empty one if there is none."""
    log = Log()
    if not is_file(str(path)):
        return log
    with opened(str(path)) as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                break  # cut off, or being written
            try:
                line = from_json(raw)  # three times as fast as json's, which counts with a million lines
            except ValueError:
                line = None
            if not isinstance(line, dict) or not log.hear(line):
                log.unread += bool(raw.strip())
    return log
