"""What runs in a Ray Train worker: one model's training, from its start or its last checkpoint to the end."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from engine.errors import EngineError, OutputError, RunError, is_no_space
from engine.storage import ShardId, read_json, write_json, write_text
from florence2.errors import Florence2Error
from florence2.model import Florence2
from florence2.processor import Processor, image_tokens
from florence2.training import ranks
from florence2.training.batch import Batch
from florence2.training.state import TRAINING
from florence2.training.trainer import TaskLoss, Trainer
from pipelines.training.census import wanted
from pipelines.training.journal import Journal, Silent, Written
from pipelines.training.picks import Picks, at_places
from pipelines.training.samples import draw_samples
from pipelines.training.settings import Settings, Stretch
from pipelines.training.stream import Passed, Preparation, Prepared, Source, Unprepared, stream

MOST_ANSWER = 1024  # ids of an answer, where the model's positions allow it: longer ones cost more than they teach
MOST_FAULTS = 10_000  # that are told
FAILURE, MADE_BY, RUN, SAMPLES = "failure.json", "made_by.json", "run", "samples"


@dataclass(frozen=True)
class Job:
    """One model's training. `folder` keeps its checkpoints and journal; `start` is a folder or a hub's id."""

    settings: Settings
    source: Source
    start: str
    folder: Path
    target: Path
    provenance: dict[str, Any]
    picks: Picks
    held_out: tuple[tuple[ShardId, int], ...]
    threads: int | None  # of torch; None: as it is
    data_share: float  # of the object store, for one worker
    run: str = ""  # the run that these workers belong to; see `begin`

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def begin(self) -> None:
        """Says that this run trains here now: workers may outlive a run that was killed, and shall write no more."""
        (self.folder / FAILURE).unlink(missing_ok=True)
        write_text(self.folder / RUN, self.run)

    def is_current(self) -> bool:
        return (self.folder / RUN).read_text() == self.run


def train_worker(config: dict[str, Job]) -> None:
    """Trains config["job"]. An error that would come again is written into the job's folder and ends the training. Any
    other death ends this worker alone: Ray Train starts the workers anew, and they go on from the last checkpoint."""
    job = config["job"]
    failure = job.folder / FAILURE
    if failure.exists():
        return  # as another worker found out: these were started for nothing
    if job.threads:
        torch.set_num_threads(job.threads)
    try:
        Training(job).run()
    except Exception as error:
        known = isinstance(error, EngineError | Florence2Error | OSError | torch.OutOfMemoryError)
        alone = ray.train.get_context().get_world_size() == 1
        if known or alone:  # else it may be that another worker died
            told = {"message": _explained(error)} | ({} if known else {"traceback": traceback.format_exc()})
            write_json(failure, {"kind": type(error).__name__, **told})
        if not alone:
            raise  # or the others would wait for this one


def _explained(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory: {error}. Take fewer train.images_at_once, or recipe.checkpoint_gradients"
    if is_no_space(error):
        return "no space left for a checkpoint. The last one is whole; make room and run the same again"
    return str(error) or type(error).__name__


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


class Training:
    """One worker's way through the phases."""

    def __init__(self, job: Job) -> None:
        self.job = job
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        there = kept(job.checkpoints)
        self.checkpoint: Path | None = there[-1][0] if there else None
        self.done = there[-1][1] if there else Done()
        self.place = self.done.place(self.rank, self.world)
        self.step = self.done.step
        self.journal: Journal = Written(job.folder, self.step) if self.rank == 0 else Silent()
        self.faults: dict[str, str] = {}  # message -> item, of images that can't be learned; each is told once
        self.told = 0  # of them

    def run(self) -> None:
        self.journal.tell("start", self.step, run=self.job.run, workers=self.world, device=str(self.device))
        for number, stretch in enumerate(self.job.settings.stretches):
            if number >= self.done.phase + self.done.ended:
                Stretching(self, number, stretch).run()
        if self.rank == 0:
            publish(self.job)
            self.journal.tell("end", self.step)
            self.journal.close()

    def fault(self, one: Unprepared) -> None:
        if one.message not in self.faults and len(self.faults) < MOST_FAULTS:
            self.faults[one.message] = one.item_id.hex()

    def tell_faults(self) -> None:
        """What this worker has found since the last time."""
        new = list(self.faults.items())[self.told :]
        self.told += len(new)
        for everybody in ranks.gathered(new):
            for message, item in everybody:
                self.journal.tell("fault", self.step, item=item, message=message)


class Stretching:
    """One worker's way through one phase."""

    def __init__(self, training: Training, number: int, stretch: Stretch) -> None:
        self.training, self.job, self.number, self.stretch = training, training.job, number, stretch
        self.last: list[Prepared] = []  # the images of the last step
        ended = [folder for folder, done in kept(self.job.checkpoints) if done.ended]
        start = ended[-1] if ended else self.job.start
        model, processor = Florence2.from_pretrained(start), Processor.from_pretrained(start)
        config, size = model.config, stretch.phase.size or processor.size
        processor = replace(processor, size=size, image_tokens=image_tokens(size, config.vision.stride))
        self.trainer = Trainer(model, stretch.recipe, training.device, processor)
        if training.checkpoint and number == training.done.phase and not training.done.ended:
            self.trainer.restore(training.checkpoint)
        most = min(MOST_ANSWER, config.text.max_position_embeddings)
        self.preparation = Preparation(self.job.source, stretch, processor, self.job.settings.train.seed + number, most)

    def run(self) -> None:
        training, steps = self.training, self.stretch.recipe.steps
        chunks = self.job.picks.chunks(training.place, self.preparation.chunk, training.rank, training.world)
        with closing(stream(self.preparation, chunks, self.job.data_share)) as prepared:
            while self.trainer.done < steps:
                self.train(prepared)
                if self.trainer.done % self.job.settings.train.checkpoint_steps == 0 or self.trainer.done == steps:
                    self.keep()

    def train(self, prepared: Iterator[Prepared | Unprepared | Passed]) -> None:
        """One step."""
        training, phase, start = self.training, self.stretch.phase, time.perf_counter()
        images = self.take(prepared, phase.images_per_step // training.world)
        self.last, waited = images, time.perf_counter() - start
        report = self.trainer.step(list(self.batches(images)))
        training.step += 1
        training.journal.tell(
            "step",
            training.step,
            phase=self.stretch.name,
            loss=report.loss,
            losses=plain(report.losses),
            learning_rate=report.learning_rate,
            grad_norm=report.grad_norm,
            images_per_second=report.images / (time.perf_counter() - start),
            waited=waited,  # seconds for data
            cut=sum(image.cut for image in images),
        )

    def take(self, prepared: Iterator[Prepared | Unprepared | Passed], count: int) -> list[Prepared]:
        """The next `count` images. Those that can't be read are named on the way; RunError if none of an epoch can."""
        training, taken, since = self.training, [], self.training.place
        last = "they have no example that it asks for"
        for one in prepared:
            if isinstance(one, Prepared):
                training.place = one.place + 1
                since = one.place
                taken.append(one)
                if len(taken) == count:
                    return taken
                continue
            if isinstance(one, Unprepared):
                training.fault(one)
                last = one.message
            elif one.place - since > self.job.picks.count:
                raise RunError(f"not one image of the round can be learned in phase {self.stretch.name}: {last}")
        raise AssertionError("the stream of picks has no end")

    def batches(self, images: Iterable[Prepared]) -> Iterator[Batch]:
        """As many images as fit into memory together."""
        images = iter(images)
        while some := list(islice(images, self.stretch.phase.images_at_once)):
            pixels = [torch.from_numpy(image.pixels).permute(2, 0, 1) for image in some]
            ids = [image.item_id.hex() for image in some]
            yield Batch.of(pixels, [image.rows for image in some], ids, self.preparation.processor)

    def keep(self) -> None:
        """Judges the model on the held-out images, and saves it with all that it takes to go on."""
        training, shown = self.training, list[Prepared]()
        loss = self.judge(shown)
        places = ranks.gathered(training.place)
        done = Done(self.number, self.trainer.done == self.stretch.recipe.steps, training.step, tuple(places), loss)
        if not self.job.is_current():
            os._exit(1)  # another run trains here now
        training.tell_faults()
        if training.rank == 0:
            self.draw(shown or self.last)
            self.trainer.save(self.job.checkpoints / f"step-{training.step:09d}", asdict(done))
            training.journal.tell("kept", training.step, phase=self.stretch.name)
            prune(self.job.checkpoints)
        ranks.gathered(None)  # the next phase starts from what was saved

    def judge(self, shown: list[Prepared]) -> float | None:
        """The loss on the examples of held-out images, the first of which are added to `shown`; None without any."""
        training = self.training
        mine = at_places(self.job.held_out)[training.rank :: training.world]
        if not self.job.held_out:
            return None
        judging = replace(self.preparation, judging=True)

        def images() -> Iterator[Prepared]:
            chunks = (mine[at : at + judging.chunk] for at in range(0, len(mine), judging.chunk))
            for one in stream(judging, chunks, self.job.data_share):
                if isinstance(one, Prepared):
                    if len(shown) < self.job.settings.train.samples:
                        shown.append(one)
                    yield one
                elif isinstance(one, Unprepared):
                    training.fault(one)

        losses = self.trainer.evaluate(self.batches(images()))
        tokens: int = sum(task.tokens for task in losses.values())
        if not tokens:
            return None
        loss: float = sum(task.loss * task.tokens for task in losses.values()) / tokens
        training.journal.tell("judged", training.step, phase=self.stretch.name, loss=loss, losses=plain(losses))
        return loss

    def draw(self, images: Sequence[Prepared]) -> None:
        few = images[: self.job.settings.train.samples]
        training = self.training
        draw_samples(
            self.trainer.model,
            self.preparation.processor,
            few,
            wanted(self.stretch),
            self.job.folder / SAMPLES,
            training.step,
        )


def plain(losses: Mapping[str, TaskLoss]) -> dict[str, float]:
    return {task: round(entry.loss, 6) for task, entry in losses.items()}


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


def publish(job: Job) -> None:
    """The best checkpoint becomes the round's model, with what it was made by."""
    best = best_of(job.checkpoints)
    done = done_of(best)
    aside = job.target.with_name(f".{job.target.name}.unpublished")
    shutil.rmtree(aside, ignore_errors=True)
    Florence2.from_pretrained(best).save_pretrained(aside)
    Processor.from_pretrained(best).save_pretrained(aside)
    write_json(aside / MADE_BY, job.provenance | {"step": done.step, "held_out_loss": done.loss})
    shutil.rmtree(job.target, ignore_errors=True)
    os.replace(aside, job.target)
