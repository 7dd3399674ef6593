"""The learning curve: a world's truth as round 0, the train stage on it for some minutes, and what each of its
checkpoints answers about scenes that it has never seen, beside the best that a model does which never looks."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.train.measures import ask, measure
from benchmarks.train.stage import Watched, journal, paces, run_stage, steps_in
from benchmarks.world import Picture, World, floor
from benchmarks.world.writing import write_round
from engine.config import Config
from engine.layout import Output
from engine.records import DETAILS
from florence2.annotate import Annotator
from florence2.model import Florence2
from florence2.processor import Processor

SEED, HELD_OUT_SEED = 0, 1  # of the scenes in the folder, and of those that no training sees
FLOOR = 1000  # scenes from which the floor's answers are tuned
PROBE = 30  # steps from which the pace is measured
CHECKPOINTS = 10
MARGIN = 0.97  # of the time: a machine that grows slower should still end in it
MOST_TOKENS = 192  # of an answer: the longest of 400 captions took 64, and untrained models do not end


@dataclass(frozen=True)
class Course:
    """What is asked for. `root` gets `dataset/`, `models/` and `stage.log`."""

    root: Path
    world: World
    config: Config
    scenes: int
    held_out: int
    minutes: float

    @property
    def output(self) -> Output:
        return Output(self.root / "dataset")

    @property
    def models(self) -> Path:
        return self.root / "models"


def curve(course: Course) -> dict[str, Any]:
    train = course.config.train
    if train.phases:
        raise SystemExit("train.phases: the steps of one phase can be fitted to the time, those of several can't")
    tell(f"drawing {course.scenes} scenes")
    write_round(course.output, course.world, SEED, course.scenes, config=course.config)
    settings, probe = fitted(course)
    tell(f"training for {course.minutes:g} minutes: {', '.join(settings)}")
    watched = run_stage(course.output, settings, course.root / "stage.log", course.models, course.minutes * 60)
    steps, kept = journal(course.output, "step"), journal(course.output, "kept")
    if not kept:
        raise SystemExit(f"no checkpoint was written in {watched.seconds:.0f} s; see {course.root / 'stage.log'}")
    pace = paces(steps, kept, train.images_per_step, watched.began)
    tell("the floor, and what the checkpoints answer")
    held_out = [course.world.picture(HELD_OUT_SEED, n) for n in range(course.held_out)]
    return {
        "settings": settings,
        "train": train.model_dump(mode="json"),
        "probe": probe,
        "pace": pace,
        "seconds": watched.seconds,
        "stopped": watched.stopped,
        "peak_mb": watched.peak,
        "load": {"mean": sum(watched.load) / len(watched.load), "most": max(watched.load)},
        "floor": lowest(course.world, min(FLOOR, course.scenes), held_out),
        "curve": list(points(course, watched, held_out)),
    }


def fitted(course: Course) -> tuple[list[str], dict[str, Any]]:
    """The settings with which the cosine ends when the time does, and the pace that says so. The probe's model goes."""
    train, log = course.config.train, course.root / "stage.log"
    tell(f"a probe of {PROBE} steps")
    watched = run_stage(course.output, lengths(PROBE, PROBE // 2, 0), log, None, 3600)
    steps, kept = journal(course.output, "step"), journal(course.output, "kept")
    pace = paces(steps, kept, train.images_per_step, watched.began)
    round_ = course.output.round(0)
    for folder in (round_.model(), round_.training):
        shutil.rmtree(folder)
    count = steps_in(MARGIN * course.minutes * 60, pace, CHECKPOINTS)
    warm_up = min(int(train.recipe.get("warmup_steps", 0)), count // 5)
    return lengths(count, -(-count // CHECKPOINTS), warm_up), pace


def lengths(steps: int, between: int, warm_up: int) -> list[str]:
    return [f"train.steps={steps}", f"train.checkpoint_steps={between}", f"train.recipe.warmup_steps={warm_up}"]


def points(course: Course, watched: Watched, held_out: Sequence[Picture]) -> Iterator[dict[str, Any]]:
    """One for each checkpoint, and one for the model that the stage ended with, if it came to its end."""
    steps = {line["step"]: line for line in journal(course.output, "step")}
    kept = {line["step"]: line["at"] for line in journal(course.output, "kept")}
    judged = {line["step"]: line["loss"] for line in journal(course.output, "judged")}
    first = min(line["at"] for line in steps.values())
    for folder in sorted(course.models.glob("step-*")):
        step = int(folder.name.removeprefix("step-"))
        yield {
            "model": folder.name,
            "step": step,
            "images": step * course.config.train.images_per_step,
            "seconds": kept[step] - watched.began,
            "seconds_learning": kept[step] - first,
            "loss": steps[step]["loss"],
            "held_out_loss": judged.get(step),
            **asked(folder, held_out),
        }
    if not watched.stopped:
        yield {"model": "the stage's", "seconds": watched.seconds, **asked(course.output.round(0).model(), held_out)}


def asked(folder: Path, pictures: Sequence[Picture]) -> dict[str, float | None]:
    """The measures of a model: greedy, without a rule against repetition, which would forbid what captions repeat."""
    start = time.perf_counter()
    annotator = Annotator(
        Florence2.from_pretrained(folder),
        Processor.from_pretrained(folder),
        num_beams=1,
        max_new_tokens=MOST_TOKENS,
        no_repeat_ngram_size=0,
    )
    found = measure(ask(annotator, pictures), pictures)
    tell(f"{folder.name}: F1 {found['f1']:.3f}, in {time.perf_counter() - start:.0f} s")
    return found


def lowest(world: World, scenes: int, held_out: Sequence[Picture]) -> dict[str, float]:
    """What a model gets that never looks, under the names of the measures that it has."""
    best = floor([world.picture(SEED, n) for n in range(scenes)], held_out)
    facts = {f"facts_{detail}": f1 for detail, f1 in best.facts.items()}
    return {"f1": best.regions, **facts, "characters": best.characters}


COLUMNS = {
    "f1": "F1",
    "f1_boxes": "boxes",
    "ap": "AP",
    "ap50": "AP50",
    **{f"facts_{detail}": name for detail, name in zip(DETAILS, ("brief", "detail", "more"), strict=True)},
    "characters": "CER",
    "characters_matched": "CER at",
    "words": "words",
}


def table(found: dict[str, Any]) -> str:
    """For a terminal."""
    head = f"{'':16s} {'step':>7s} {'images':>8s} {'s':>6s} {'loss':>6s} " + " ".join(
        f"{n:>6s}" for n in COLUMNS.values()
    )
    lines = [head, row("floor", found["floor"]), *(row(point["model"], point) for point in found["curve"])]
    pace, peak = found["pace"], found["peak_mb"]
    end = "stopped when its time was over" if found["stopped"] else "ended by itself"
    lines += [
        "",
        "F1, boxes: objects at IoU 0.5, with their label and without; no threshold.  AP: COCO's, of label times place.",
        "brief, detail, more: F1 of what captions state.  CER: character error rate of all text in a picture, of words",
        "found at IoU 0.5, and F1 of finding them.  loss: of the stage's own held-out scenes.  s: from its start.",
        f"{pace['steps']} steps in {found['seconds']:.0f} s ({end}): {pace['step']:.3f} s a step, "
        f"{pace['images_per_second']:.1f} images/s, {pace['waited']:.1%} of a step spent waiting for data, "
        f"{pace['keep']:.1f} s a checkpoint",
        f"start-up {pace['start_up']:.1f} s to the first step's end; load {found['load']['mean']:.1f} on average, "
        f"{found['load']['most']:.1f} at most",
        f"peak: {peak['worker']:.0f} MB the training worker, {peak['all']:.0f} MB all processes, shared pages counted "
        f"once ({peak['all_resident']:.0f} once for each)",
    ]
    return "\n".join(lines)


def row(name: str, point: dict[str, Any]) -> str:
    def number(key: str, form: str, width: int) -> str:
        return f"{point[key]:{width}{form}}" if point.get(key) is not None else f"{'':{width}s}"

    head = [number("step", "d", 7), number("images", "d", 8), number("seconds", ".0f", 6)]
    return " ".join([f"{name:16s}", *head, number("held_out_loss", ".3f", 6), *(number(k, ".3f", 6) for k in COLUMNS)])


def tell(line: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)
