"""How a training tells a person how it goes: from the journal that its first worker writes, wherever that runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from engine.progress import duration
from pipelines.training.journal import followed, is_cut_back, journal_size

PLAIN_EVERY = 10.0  # seconds between lines
MOST_FAULTS = 5  # that are told one by one


@dataclass
class Follower:
    """Reads on in a journal and says what is new."""

    console: Console
    name: str  # "train", or "train fold 1"
    folder: Path
    run: str  # whose lines are told: what the journal has of earlier ones was told then
    steps: int  # of all phases
    offset: int = 0
    last: bytes = b""  # line before the offset
    step: dict[str, Any] = field(default_factory=dict)  # the last one
    faults: int = 0
    cut: int = 0  # regions
    pace: list[tuple[int, float]] = field(default_factory=list)  # steps and when they were done, the latest last
    starts: int = 0  # of the run's workers, that were heard: they write the journal anew each time
    _starts_here: int = 0  # in the journal as it is
    _heard: int = 0  # starts whose lines were told before the journal was cut back
    _furthest: int = 0  # step
    _told: float = 0.0

    def look(self) -> None:
        size = journal_size(self.folder)
        if is_cut_back(self.folder, self.offset, size, self.last):  # by workers that go on from a checkpoint
            self.offset, self.last, self._starts_here, self._heard = 0, b"", 0, self.starts
        for raw, line, offset in followed(self.folder, self.offset, size):
            self.offset, self.last = offset, raw
            self.hear(line)
        now = time.monotonic()
        if self.step and (now - self._told >= PLAIN_EVERY or self.step["step"] == self.steps):
            self._told = now
            self.tell()

    def hear(self, line: dict[str, Any]) -> None:
        if line["event"] == "start" and line.get("run") == self.run:
            self._starts_here += 1
            if self._starts_here > self.starts:
                if self.starts:
                    self.say(f"! {self.name}: a worker ended; it goes on after step {line['step']}", "yellow")
                self.starts, self.pace, self.step = self._starts_here, [], {}
        if self._starts_here <= self._heard:
            return
        match line["event"]:
            case "step":
                self.step = line
                if line["step"] > self._furthest:  # else it is done again
                    self._furthest = line["step"]
                    self.cut += line["cut"]
                self.pace = [*self.pace[-50:], (line["step"], line["at"])]
            case "judged":
                losses = ", ".join(f"{task} {loss:.2f}" for task, loss in line["losses"].items())
                self.say(
                    f"{self.name}: loss {line['loss']:.3f} on held-out images after {line['step']} steps ({losses})"
                )
            case "end" if self.cut:
                self.say(f"{self.name}: {self.cut} regions, ends of texts or questions were left out, being too long")
            case "fault":
                self.faults += 1
                if self.faults <= MOST_FAULTS:
                    more = "; further ones are in its log" if self.faults == MOST_FAULTS else ""
                    self.say(f"! not learned: {line['message']}{more}", "yellow")

    def tell(self) -> None:
        if not self.step:
            return
        step, self.step = self.step, {}
        pace = f"{step['images_per_second']:.1f} images/s{self.left(step['step'])}"
        self.say(f"{self.name}: step {step['step']} of {self.steps}, loss {step['loss']:.3f}; {pace}")

    def left(self, step: int) -> str:
        if not self.pace:
            return ""
        (first, start), (last, end) = self.pace[0], self.pace[-1]
        if last == first:
            return ""
        return f", {duration((self.steps - step) * (end - start) / (last - first))} left"

    def say(self, line: str, style: str | None = None) -> None:
        self.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
