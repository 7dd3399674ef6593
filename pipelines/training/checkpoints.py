"""The checkpoints of one model's training: how far each had come, which are kept, and which becomes the model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from engine.errors import OutputError
from engine.storage import read_json, write_json
from florence2.model import Florence2
from florence2.processor import Processor
from florence2.training.state import TRAINING

MADE_BY = "made_by.json"


@dataclass(frozen=True)
class Done:
    """How far a training has come: what a checkpoint keeps beside weights and optimiser.

    `phase` is the one it was saved in, which `ended` or not; `step` counts over all phases; `places` are where each
    worker goes on in the stream; `loss` is on the held-out images.
    """

    phase: int = 0
    ended: bool = False
    step: int = 0
    places: tuple[int, ...] = (0,)
    loss: float | None = None

    def place(self, rank: int, world: int) -> int:
        """Where a worker goes on. With another number of workers they start where the first of the old ones was: some
        images may be learned once more in that epoch."""
        return self.places[rank] if len(self.places) == world else min(self.places)


def kept(checkpoints: Path) -> list[tuple[Path, Done]]:
    """The checkpoints that are whole, by their step; what a kill amid the writing left is passed over."""
    return [(path.parent, done_of(path.parent)) for path in sorted(checkpoints.glob(f"step-*/{TRAINING}"))]


def done_of(folder: Path) -> Done:
    try:
        return Done(**read_json(folder / TRAINING)["extra"])
    except (KeyError, TypeError) as error:
        raise OutputError(f"{folder} is damaged ({error!r}). Remove it and run again.") from error


def best_of(checkpoints: Path) -> Path:
    """Of the last phase's checkpoints that with the least loss on held-out images; without any judged, the last."""
    there = kept(checkpoints)
    last = there[-1][1].phase
    losses = [(done.loss, folder) for folder, done in there if done.phase == last and done.loss is not None]
    judged = [(loss, folder) for loss, folder in losses if isfinite(loss)]
    return min(judged)[1] if judged else there[-1][0]


def prune(checkpoints: Path) -> None:
    """Keeps the best and the last, and the ends of phases, where the next ones start."""
    best, last = best_of(checkpoints), kept(checkpoints)[-1][0]
    for folder, done in kept(checkpoints):
        if folder not in (best, last) and not done.ended:
            shutil.rmtree(folder)


def publish(checkpoints: Path, target: Path, provenance: Mapping[str, Any]) -> None:
    """The best checkpoint becomes the model in the folder `target`, with what it was made by."""
    best = best_of(checkpoints)
    done = done_of(best)
    aside = target.with_name(f".{target.name}.unpublished")
    shutil.rmtree(aside, ignore_errors=True)
    Florence2.from_pretrained(best).save_pretrained(aside)
    Processor.from_pretrained(best).save_pretrained(aside)
    write_json(aside / MADE_BY, {**provenance, "step": done.step, "held_out_loss": done.loss})
    shutil.rmtree(target, ignore_errors=True)
    os.replace(aside, target)
