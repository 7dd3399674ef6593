"""The checkpoints of one model's training: how far each had come, which are kept, and which becomes the model.

Where the output is on an object store, they are written on this machine and sent as they are whole: what the store has
counts, and what it lacks is not there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from engine.atomic import is_there, names_in, read_json, remove, remove_all, write_json
from engine.copies import fetched, forget, moved, near, room_for
from engine.errors import OutputError
from engine.places import is_local
from florence2.model import Florence2
from florence2.processor import Processor
from florence2.training.state import TRAINING, disk_errors

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


def keep(checkpoint: Path, save: Callable[[Path], None]) -> None:
    """Has it saved into a folder of this machine, and brings it where it belongs."""
    if is_local(checkpoint):
        save(checkpoint)
        return
    with room_for(checkpoint):
        save(unsent := near(checkpoint).with_name(f".{checkpoint.name}.unsent"))
    moved(unsent, checkpoint, TRAINING)


def kept(checkpoints: Path) -> list[tuple[Path, Done]]:
    """The checkpoints that are whole, by their step; what a kill amid the writing left is passed over."""
    folders = [checkpoints / name for name in names_in(checkpoints) if name.startswith("step-")]
    return [(folder, _done(folder)) for folder in folders if is_there(folder / TRAINING)]


def _done(folder: Path) -> Done:
    try:
        return Done(**read_json(folder / TRAINING)["extra"])
    except (KeyError, TypeError) as error:
        raise OutputError(f"{folder} is damaged ({error!r}). Remove it and run again.") from error


def best_of(there: Sequence[tuple[Path, Done]]) -> tuple[Path, Done]:
    """Of the last phase's checkpoints that with the least loss on held-out images; without any judged, the last."""
    phase = there[-1][1].phase
    losses = [(done.loss, place) for place, (_, done) in enumerate(there) if done.phase == phase]
    judged = [(loss, place) for loss, place in losses if loss is not None and isfinite(loss)]
    return there[min(judged)[1] if judged else -1]


def prune(checkpoints: Path) -> None:
    """Keeps the best and the last, and the ends of phases, where the next ones start."""
    there = kept(checkpoints)
    wanted = (best_of(there)[0], there[-1][0])
    for folder, done in there:
        if folder not in wanted and not done.ended:
            remove(folder / TRAINING)  # with which it is whole
            remove_all(folder)
            forget(folder)


def publish(checkpoints: Path, target: Path, provenance: Mapping[str, Any]) -> None:
    """The best checkpoint becomes the model in the folder `target`, with what it was made by."""
    best, done = best_of(kept(checkpoints))
    copy, aside = fetched(best), near(target).with_name(f".{target.name}.unpublished")
    shutil.rmtree(aside, ignore_errors=True)
    with disk_errors(target):
        Florence2.from_pretrained(copy).save_pretrained(aside)
        Processor.from_pretrained(copy).save_pretrained(aside)
    write_json(aside / MADE_BY, {**provenance, "step": done.step, "held_out_loss": done.loss})
    moved(aside, target, "config.json")  # without which it is no model, of nobody's
