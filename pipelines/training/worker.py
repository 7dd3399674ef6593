"""What runs in a Ray Train worker: one model's training, from its start or its last checkpoint to the end."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import ray.exceptions
import ray.train
import ray.train.torch
import torch

from engine.atomic import read_bytes, remove, write_text
from engine.copies import fetched, forget, located
from engine.errors import EngineError, RunError, unwritable
from engine.layout import ShardId
from engine.places import is_local
from florence2.errors import Florence2Error
from florence2.model import Florence2
from florence2.processor import Processor, image_tokens
from florence2.training import ranks
from florence2.training.batch import Batch
from florence2.training.trainer import TaskLoss, Trainer
from pipelines.training.census import wanted
from pipelines.training.checkpoints import Done, keep, kept, prune, publish
from pipelines.training.journal import Journal, Silent, Written
from pipelines.training.picks import Picks, at_places
from pipelines.training.samples import draw_samples
from pipelines.training.settings import ReadyPhase, Settings
from pipelines.training.stream import Passed, Preparation, Prepared, Source, Unprepared, stream

MOST_ANSWER = 1024  # ids of an answer, where the model's positions allow it: longer ones cost more than they teach
MOST_FAULTS = 10_000  # that are told
SHOW_SECONDS = 15.0  # between the journals that go to a store; longer where sending takes more than SHOW_SHARE of it
SHOW_SHARE = 0.02
log = logging.getLogger(__name__)
FAILURE, RUN, SAMPLES = "failure.json", "run", "samples"


@dataclass(frozen=True)
class Job:
    """One model's training. `folder` keeps its checkpoints and journal; `start` is a folder or a hub's id. Each worker
    fetches what it needs of those that are on a store."""

    settings: Settings
    source: Source
    start: str
    folder: Path
    target: Path
    provenance: dict[str, Any]
    picks: Mapping[str, Picks]  # phase -> what it learns
    held_out: tuple[tuple[ShardId, int], ...]
    threads: int | None  # of torch; None: as it is
    data_share: float  # of the object store, for one worker
    run: str = ""  # the run that these workers belong to; see `begin`

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def begin(self) -> None:
        """Says that this run trains here now: workers may outlive a run that was killed, and shall write no more."""
        remove(self.folder / FAILURE)
        write_text(self.folder / RUN, self.run)

    def is_current(self) -> bool:
        return read_bytes(self.folder / RUN).decode() == self.run


def train_worker(config: dict[str, Job]) -> None:
    """Trains config["job"]. An error that would come again is raised as an EngineError, with which the training ends.
    Any other is a death: `fit` starts the workers anew, and they go on from the last checkpoint."""
    job = config["job"]
    if job.threads:
        torch.set_num_threads(job.threads)
    try:
        Worker(job).run()
    except Exception as error:
        raise (_lasting(error, job) or error) from None


def _lasting(error: Exception, job: Job) -> EngineError | None:
    """What is said of an error that would come again."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error  # of what prepares images
    if isinstance(cause, EngineError):
        return cause
    if isinstance(cause, torch.OutOfMemoryError):
        return RunError(f"out of memory: {cause}. Take fewer train.images_at_once, or recipe.checkpoint_gradients")
    told = unwritable(cause, job.checkpoints) or f"{type(cause).__name__}: {cause}"
    if isinstance(cause, Florence2Error | OSError):
        return RunError(told)
    alone = ray.train.get_context().get_world_size() == 1  # else it may be that another worker died
    return RunError(f"{told}\n{traceback.format_exc()}") if alone else None


class Worker:
    """What a worker knows, and its way through the phases."""

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
        self.next_show = 0.0

    def run(self) -> None:
        self.show()  # cut back, for who follows it to know
        self.journal.tell("start", self.step, run=self.job.run, workers=self.world, device=str(self.device))
        for number, phase in enumerate(self.job.settings.phases):
            if number >= self.done.phase + self.done.ended:
                PhaseRun(self, number, phase).run()
        if self.rank == 0:
            publish(self.job.checkpoints, self.job.target, self.job.provenance)
            self.journal.tell("end", self.step)
            self.journal.close()
        if not is_local(self.job.folder):
            ranks.gathered(None)  # nobody reads a copy any more
            forget(self.job.checkpoints)

    def check_current(self) -> None:
        if not self.job.is_current():
            os._exit(1)  # another run trains here now

    def show(self) -> None:
        """The journal to those who look from elsewhere, now and then. A checkpoint insists on it, this does not."""
        if self.rank or is_local(self.job.folder) or time.monotonic() < self.next_show:
            return
        start = time.monotonic()
        try:
            self.check_current()
            self.journal.send()
        except RunError as error:
            log.warning("the journal can't be sent: %s", error)
        end = time.monotonic()
        self.next_show = end + max(SHOW_SECONDS, (end - start) / SHOW_SHARE)

    def fault(self, one: Unprepared) -> None:
        """The first worker, who writes the journal, tells its own at once."""
        if one.message not in self.faults and len(self.faults) < MOST_FAULTS:
            self.faults[one.message] = one.item_id.hex()
            if self.rank == 0:
                self.told += 1
                self.journal.tell("fault", self.step, item=one.item_id.hex(), message=one.message)

    def tell_faults(self) -> None:
        """What the other workers have found since the last time."""
        new = list(self.faults.items())[self.told :]
        self.told += len(new)
        for everybody in ranks.gathered(new):
            for message, item in everybody:
                self.journal.tell("fault", self.step, item=item, message=message)


class PhaseRun:
    """One worker's way through one phase."""

    def __init__(self, worker: Worker, number: int, phase: ReadyPhase) -> None:
        self.worker, self.job, self.number, self.phase = worker, worker.job, number, phase
        self.last: list[Prepared] = []  # the images of the last step
        ended = [folder for folder, done in kept(self.job.checkpoints) if done.ended]
        start = located(ended[-1] if ended else self.job.start)
        model, processor = Florence2.from_pretrained(start), Processor.from_pretrained(start)
        config, size = model.config, phase.config.size or processor.size
        processor = replace(processor, size=size, image_tokens=image_tokens(size, config.vision.stride))
        self.trainer = Trainer(model, phase.recipe, worker.device, processor)
        if worker.checkpoint and number == worker.done.phase and not worker.done.ended:
            self.trainer.restore(fetched(worker.checkpoint))
        most = min(MOST_ANSWER, config.text.max_position_embeddings)
        self.preparation = Preparation(self.job.source, phase, processor, self.job.settings.train.seed + number, most)

    def run(self) -> None:
        worker, steps = self.worker, self.phase.recipe.steps
        chunks = self.job.picks[self.phase.name].chunks(worker.place, self.preparation.chunk, worker.rank, worker.world)
        with closing(stream(self.preparation, chunks, self.job.data_share)) as prepared:
            while self.trainer.done < steps:
                self.train(prepared)
                if self.trainer.done % self.job.settings.train.checkpoint_steps == 0 or self.trainer.done == steps:
                    self.keep()

    def train(self, prepared: Iterator[Prepared | Unprepared | Passed]) -> None:
        """One step."""
        worker, start = self.worker, time.perf_counter()
        images = self.take(prepared, self.phase.config.images_per_step // worker.world)
        self.last, waited = images[: self.job.settings.train.samples], time.perf_counter() - start
        report = self.trainer.step(list(self.batches(images)))
        worker.step += 1
        worker.journal.tell(
            "step",
            worker.step,
            phase=self.phase.name,
            loss=report.loss,
            losses=plain(report.losses),
            learning_rate=report.learning_rate,
            grad_norm=report.grad_norm,
            images_per_second=report.images / (time.perf_counter() - start),
            waited=waited,  # seconds for data
            cut=sum(image.cut for image in images),
        )
        worker.show()

    def take(self, prepared: Iterator[Prepared | Unprepared | Passed], count: int) -> list[Prepared]:
        """The next `count` images. Those that can't be read are named on the way. RunError if there is none."""
        worker, taken, since = self.worker, [], self.worker.place
        most = self.job.picks[self.phase.name].patience(worker.world)
        last = "they have no example that it asks for"
        for one in prepared:
            if isinstance(one, Prepared):
                worker.place = one.place + 1
                since = one.place
                taken.append(replace(one, pixels=one.pixels.copy()))  # or the object store is full of a step's images
                if len(taken) == count:
                    return taken
                continue
            if isinstance(one, Unprepared):
                worker.fault(one)
                last = one.message
            elif one.place - since > most:
                raise RunError(f"not one image of the round can be learned in phase {self.phase.name}: {last}")
        raise AssertionError("the stream of picks has no end")

    def batches(self, images: Iterable[Prepared]) -> Iterator[Batch]:
        """As many images as fit into memory together."""
        images = iter(images)
        while some := list(islice(images, self.phase.config.images_at_once)):
            pixels = [torch.from_numpy(image.pixels).permute(2, 0, 1) for image in some]
            ids = [image.item_id.hex() for image in some]
            yield Batch.of(pixels, [image.rows for image in some], ids, self.preparation.processor)

    def keep(self) -> None:
        """Judges the model on the held-out images, and saves it with all that it takes to go on."""
        worker, shown = self.worker, list[Prepared]()
        loss = self.judge(shown)
        places = ranks.gathered(worker.place)
        done = Done(self.number, self.trainer.done == self.phase.recipe.steps, worker.step, tuple(places), loss)
        worker.check_current()
        worker.tell_faults()
        if worker.rank == 0:
            worker.journal.send()
            checkpoint = self.job.checkpoints / f"step-{worker.step:09d}"
            keep(checkpoint, lambda folder: self.trainer.save(folder, asdict(done)))
            worker.journal.tell("kept", worker.step, phase=self.phase.name)
            prune(self.job.checkpoints)
            self.draw(shown or self.last)
        ranks.gathered(None)  # the next phase starts from what was saved

    def judge(self, shown: list[Prepared]) -> float | None:
        """The loss on the examples of held-out images, the first of which are added to `shown`; None without any."""
        worker = self.worker
        mine = at_places(self.job.held_out)[worker.rank :: worker.world]
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
                    worker.fault(one)

        losses = self.trainer.evaluate(self.batches(images()))
        tokens: int = sum(task.tokens for task in losses.values())
        if not tokens:
            return None
        loss: float = sum(task.loss * task.tokens for task in losses.values()) / tokens
        worker.journal.tell("judged", worker.step, phase=self.phase.name, loss=loss, losses=plain(losses))
        return loss

    def draw(self, images: Sequence[Prepared]) -> None:
        folder, few = self.job.folder / SAMPLES, images[: self.job.settings.train.samples]
        processor, tasks = self.preparation.processor, wanted(self.phase)
        self.trainer.model.eval()  # the next step is in training mode again
        draw_samples(self.trainer.model, processor, few, tasks, folder, self.worker.step)


def plain(losses: Mapping[str, TaskLoss]) -> dict[str, float]:
    return {task: round(entry.loss, 6) for task, entry in losses.items()}
