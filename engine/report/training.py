"""How a round's models were trained, as the page shows it: from the files that trainings leave, finished or not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from engine.atomic import names_in, read_bytes
from engine.files import is_file
from engine.layout import Round
from engine.progress import duration
from engine.report.curves import Curve, Series, curve
from engine.report.journals import Log, is_number, read_log
from engine.report.samples import Sample, read_samples

# What the page shows at most, for it to be of some size whatever is in the files.
MOST_TASKS, MOST_FAULTS, MOST_JUDGED = 20, 5, 200
MOST_PICTURES = 24  # over all folds


@dataclass(frozen=True)
class Beginning:
    """What a training was to be, and whether its model is `made`: `step` and held-out `loss` are that one's."""

    start: str
    folds: int
    steps: int | None
    made: bool
    step: int | None
    loss: float | None
    failure: str


@dataclass(frozen=True)
class Standing:
    """How a loss went, in a phase or of a task: in training lately; on held-out images first, best and last, each with
    its step."""

    name: str
    start: int  # its phase's first step
    recent: float | None
    first: tuple[int, float] | None
    best: tuple[int, float] | None
    last: tuple[int, float] | None


@dataclass(frozen=True)
class Training:
    """One model's training. `whole` is over all its phases, its best that of the model which is the round's."""

    fold: int
    beginning: Beginning
    log: Log
    whole: tuple[Standing, Curve]
    phases: tuple[Standing, ...]
    tasks: tuple[tuple[Standing, Curve], ...]
    left_out: int  # tasks
    judged: tuple[tuple[int, str, float], ...]  # step, phase and loss; the last ones
    faults: tuple[tuple[str, str], ...]  # image and message; the first ones
    samples: tuple[Sample, ...]

    @property
    def worked(self) -> str:
        return duration(self.log.seconds[0]) if self.log.seconds[0] else ""

    @property
    def rested(self) -> str:
        return duration(self.log.seconds[1]) if self.log.seconds[1] else ""

    @property
    def finished(self) -> bool:
        return self.log.ended or self.beginning.made

    @property
    def step(self) -> int:
        return max(self.log.step, self.beginning.step or 0)


def trainings(round_: Round) -> list[Training]:
    """Those of a round, by fold. A folder in which nothing has begun is none."""
    folds = _folds(round_)
    return [_training(round_, fold, max(MOST_PICTURES // len(folds), 1)) for fold in folds]


def _folds(round_: Round) -> list[int]:
    found = {0} if is_file(str(round_.model() / "made_by.json")) else set()
    for folder in (above / name for above in (round_.training, round_.model()) for name in names_in(above)):
        number = re.fullmatch("fold-(0|[1-9][0-9]{0,3})", folder.name)
        if number and any(is_file(str(folder / name)) for name in ("log.jsonl", "begun.json", "made_by.json")):
            found.add(int(number[1]))
    return sorted(found)


def _training(round_: Round, fold: int, pictures: int) -> Training:
    folder = round_.training / f"fold-{fold}"
    log, beginning = read_log(folder / "log.jsonl"), _beginning(round_, fold, folder)
    learned, judged = log.learned, log.judged
    phases = tuple(_standing(name, learned.whole, judged.whole, start, stop) for name, start, stop in log.stretches)
    chosen = _chosen(beginning, phases)
    starts = [phase.start for phase in phases] or [0]

    def drawn(name: str, learned: Series, judged: Series, rows: int) -> tuple[Standing, Curve]:
        standing = _standing(name, learned, judged, chosen=chosen)
        return standing, curve(learned, judged, starts, log.step, chosen, rows)

    tasks = sorted(learned.tasks.keys() | judged.tasks.keys())
    return Training(
        fold=fold,
        beginning=beginning,
        log=log,
        whole=drawn("", learned.whole, judged.whole, 7),
        phases=phases,
        tasks=tuple(
            drawn(task, learned.tasks.get(task, Series()), judged.tasks.get(task, Series()), 4)
            for task in tasks[:MOST_TASKS]
        ),
        left_out=len(tasks[MOST_TASKS:]),
        judged=tuple(_judged(log))[-MOST_JUDGED:],
        faults=tuple(log.faults.items())[:MOST_FAULTS],
        samples=tuple(read_samples(folder / "samples", pictures)),
    )


def _standing(
    name: str, learned: Series, judged: Series, start: int = 0, stop: float = math.inf, *, chosen: int | None = None
) -> Standing:
    """That of the steps from `start` to before `stop`. The best is the one at step `chosen`, or else the least."""
    steps, losses = judged.points(start, stop)
    points = [(int(step), float(loss)) for step, loss in zip(steps, losses, strict=True)]
    if chosen is None:
        best = min(points, key=lambda point: point[1], default=None)
    else:
        best = next((point for point in reversed(points) if point[0] == chosen), None)
    return Standing(
        name=name,
        start=start,
        recent=learned.recent(start, stop),
        first=points[0] if points else None,
        best=best,
        last=points[-1] if points else None,
    )


def _chosen(beginning: Beginning, phases: tuple[Standing, ...]) -> int | None:
    """The step of the round's model; of what is not finished the one that is best so far: phases differ in what they
    learn, and so only the last one's losses are compared."""
    if beginning.step is not None:
        return beginning.step
    return next((phase.best[0] for phase in reversed(phases) if phase.best), None)


def _judged(log: Log) -> Iterator[tuple[int, str, float]]:
    for name, start, stop in log.stretches:
        for step, loss in zip(*log.judged.whole.points(start, stop), strict=True):
            yield int(step), name, float(loss)


def _beginning(round_: Round, fold: int, folder: Path) -> Beginning:
    models = [round_.model(fold, folds=2), *([round_.model()] if fold == 0 else [])]
    made_by = next(filter(None, (_read(model / "made_by.json") for model in models)), {})
    begun = _read(folder / "begun.json") or made_by
    settings = begun.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    folds, step, loss = begun.get("folds"), made_by.get("step"), made_by.get("held_out_loss")
    return Beginning(
        start=str(settings.get("start", "")),
        folds=folds if _is_whole(folds) else 1,
        steps=_steps(settings),
        made=bool(made_by),
        step=step if _is_whole(step) else None,
        loss=loss if is_number(loss) else None,
        failure=str(_read(folder / "failure.json").get("message", "")),
    )


def _steps(settings: dict[str, Any]) -> int | None:
    """The steps of all phases together."""
    phases = settings.get("phases")
    listed = list(phases.values()) if isinstance(phases, dict) and phases else [{}]
    each = [phase.get("steps", settings.get("steps")) for phase in listed if isinstance(phase, dict)]
    known = [steps for steps in each if _is_whole(steps)]
    return sum(known) if known and len(known) == len(each) else None


def _is_whole(value: object) -> TypeGuard[int]:
    return type(value) is int and is_number(value) and value >= 0


def _read(path: Path) -> dict[str, Any]:
    """The object in a file of JSON; an empty one where there is none."""
    try:
        value = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
