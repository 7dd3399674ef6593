"""The train stage as a person runs it: in a process of its own, watched from outside, stopped when its time is over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from engine.layout import Output
from florence2.training.state import OPTIMISER, TRAINING
from pipelines.training.journal import read_journal

INTERRUPTED = 130  # what the engine's command ends with when it is stopped
WORKER = "RayTrainWorker"  # in the name of the process in which the model is
EVERY = 1.0  # seconds between two looks
MB = 1e6
ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-c", "from engine.cli import main; main()", "run", "--stage", "train")


@dataclass
class Watched:
    """A run of the stage: `began` and `ended` are times as the journal has them. Peaks are in MB.

    `worker` is resident memory of the process that trains. `all` adds up shared pages once (PSS), `all_resident` once
    for each of the stage's processes, Ray's and its object store among them.
    """

    began: float = field(default_factory=time.time)
    ended: float = 0.0
    stopped: bool = False  # since its time was over
    peak: dict[str, float] = field(default_factory=lambda: {"worker": 0.0, "all": 0.0, "all_resident": 0.0})
    load: list[float] = field(default_factory=list)  # average over a minute, at each look

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def run_stage(output: Output, settings: Sequence[str], log: Path, models: Path | None, seconds: float) -> Watched:
    """Trains for so many seconds at most. The model of each checkpoint is kept in `models`. What the stage says is
    added to `log`. SystemExit if it fails."""
    command = [*COMMAND, "--out", str(output.root), *(word for one in settings for word in ("--set", one))]
    # Of this checkout, in Ray's workers too, whatever is installed.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with open(log, "a") as file:
        watched = Watched()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            while process.poll() is None and time.time() < watched.began + seconds:
                look(process.pid, output, models, watched)
                time.sleep(EVERY)
            watched.stopped = process.poll() is None
        finally:
            if process.poll() is None:
                # To the stage the same as Ctrl-C, which a shell's "&" would have it ignore.
                process.send_signal(signal.SIGTERM)
                process.wait()
            watched.ended = time.time()
    if process.returncode not in (0, INTERRUPTED):
        raise SystemExit(f"the train stage ended with code {process.returncode}; what it said is in {log}")
    keep_models(output, models)
    return watched


def folder_of(output: Output) -> Path:
    """Where the stage keeps its checkpoints and its journal."""
    return output.round(0).training / "fold-0"


def look(pid: int, output: Output, models: Path | None, watched: Watched) -> None:
    keep_models(output, models)
    watched.load.append(os.getloadavg()[0])
    memory = [found for process in processes(pid) if (found := resident(process))]
    now = {
        "worker": max((rss for name, rss, _ in memory if WORKER in name), default=0.0),
        "all": sum(pss for _, _, pss in memory),
        "all_resident": sum(rss for _, rss, _ in memory),
    }
    watched.peak = {name: max(value, now[name]) for name, value in watched.peak.items()}


def processes(pid: int) -> list[psutil.Process]:
    try:
        stage = psutil.Process(pid)
        return [stage, *stage.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident(process: psutil.Process) -> tuple[str, float, float] | None:
    """Name, RSS and PSS in MB; None of a process that has just ended."""
    try:
        with process.oneshot():
            memory = process.memory_full_info()
            return " ".join(process.cmdline()), memory.rss / MB, memory.pss / MB
    except psutil.Error:
        return None


def keep_models(output: Output, models: Path | None) -> None:
    """Links the files of checkpoints that are new: the stage removes all but its best and its last."""
    if models is None:
        return
    for path in sorted((folder_of(output) / "checkpoints").glob(f"step-*/{TRAINING}")):
        kept = models / path.parent.name
        if not kept.exists():
            shutil.copytree(path.parent, kept, copy_function=os.link, ignore=shutil.ignore_patterns(OPTIMISER))


def journal(output: Output, event: str) -> list[dict[str, Any]]:
    return [line for line in read_journal(folder_of(output)) if line["event"] == event]


def paces(steps: Sequence[dict[str, Any]], kept: Sequence[dict[str, Any]], images: int, began: float) -> dict[str, Any]:
    """What the journal's lines of steps and of kept checkpoints say of the pace.

    start_up: seconds from `began` to the end of the first step.  step: mean seconds of a step, with its wait for data.
    keep: mean seconds of a checkpoint, in which the model is judged.  waited: share of the steps' time.
    images_per_second: from the first step's end to the last's, checkpoints and all.
    """
    at = {line["step"]: line["at"] for line in steps}
    later = steps[1:] or steps  # the first one waits for the first data
    seconds = [images / line["images_per_second"] for line in later]
    keeping = [line["at"] - at[line["step"]] for line in kept]
    learning = steps[-1]["at"] - steps[0]["at"]
    return {
        "steps": len(steps),
        "images": len(steps) * images,
        "start_up": steps[0]["at"] - began,
        "step": sum(seconds) / len(seconds),
        "keep": sum(keeping) / max(len(keeping), 1),
        "waited": sum(line["waited"] for line in later) / sum(seconds),
        "images_per_second": (len(steps) - 1) * images / learning if learning else 0.0,
    }


def steps_in(seconds: float, pace: dict[str, Any], checkpoints: int) -> int:
    """Steps that fit, with start-up and so many checkpoints. SystemExit if none does."""
    left = seconds - pace["start_up"] - checkpoints * pace["keep"]
    steps = int(left / pace["step"])
    if steps < checkpoints:
        raise SystemExit(
            f"{seconds:.0f} s are too few: {pace['start_up']:.0f} to the first step, {checkpoints} checkpoints of "
            f"{pace['keep']:.1f} each, and {pace['step']:.2f} for a step. Give more --minutes."
        )
    return steps
