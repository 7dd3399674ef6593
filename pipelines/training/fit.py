"""One training on Ray Train: workers for the machine at hand, their progress, and what became of them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from engine.errors import ConfigError, RunError
from engine.storage import read_json
from pipelines.training.progress import Follower
from pipelines.training.settings import Settings
from pipelines.training.stream import Machine, data_cpus, machines
from pipelines.training.worker import FAILURE, Job, train_worker

LIVES = 3  # deaths of workers from which one training recovers


@dataclass(frozen=True)
class Crew:
    """The workers of a training. `threads` are torch's, of each; None on GPUs."""

    workers: int
    cpus: float
    gpus: int
    threads: int | None


def crew_of(settings: Settings) -> Crew:
    """As many workers as are asked for, or as there are GPUs, or one. RunError, with the numbers, if they don't fit:
    Ray would wait for ever."""
    train, there = settings.train, machines()
    cpus, gpus = sum(machine.cpus for machine in there), sum(machine.gpus for machine in there)
    workers = train.workers if train.workers != "auto" else gpus or 1
    most = gpus or int(cpus)
    if workers > most:
        kind = f"one for each of {gpus} GPUs" if gpus else f"one for each of {cpus:g} CPUs"
        raise RunError(f"train.workers: {workers} workers were asked for, and {most} fit: {kind}. Ask for fewer.")
    for phase in settings.phases:
        if phase.config.images_per_step % workers:
            raise ConfigError(
                f"train.images_per_step: {phase.config.images_per_step} images can't be shared by {workers} workers "
                "alike; take a multiple"
            )
    most_cpus = cpus_of_worker(there, workers)
    if gpus:  # they compute: the CPUs prepare images for them
        return Crew(workers, min(most_cpus, 1.0), 1, None)
    threads = min(int(cpus) // workers, int(max(machine.cpus for machine in there)))
    return Crew(workers, most_cpus if most_cpus < 1 else float(int(most_cpus)), 0, threads)


def cpus_of_worker(there: Sequence[Machine], workers: int) -> float:
    """The most that each of the workers can have, to four places as Ray counts. Were all of them to leave on each
    machine what a task of `stream` needs, they would fit: so however Ray places them, there is room on some machine."""
    left = [(machine.cpus - data_cpus(), machine.gpus) for machine in there]
    gpus = any(machine.gpus for machine in there)

    def room(size: float) -> int:
        return sum(min(int(cpus / size + 1e-9), have if gpus else workers) for cpus, have in left)

    sizes = {int(cpus / share * 1e4) / 1e4 for cpus, _ in left for share in range(1, workers + 1)}
    return max(size for size in sizes if size and room(size) >= workers)


def fit(job: Job, crew: Crew, follower: Follower) -> None:
    """Trains one model to the end. RunError if it can't be; KeyboardInterrupt passes through."""
    job.begin()
    attempt = Attempt(job, crew)
    attempt.start()
    while attempt.is_alive():
        follower.look()
        attempt.join(0.5)
    follower.look()
    shutil.rmtree(job.folder / RAY, ignore_errors=True)
    failure = job.folder / FAILURE
    if failure.exists():
        told = read_json(failure)
        trace = f"\n{told['traceback']}" if "traceback" in told else ""
        raise RunError(f"the training stopped: {told['kind']}: {told['message']}{trace}")
    if attempt.error is not None:
        raise RunError(f"the training's workers ended {LIVES + 1} times, the last time so: {_last(attempt.error)}")


RAY = "ray"  # where Ray Train keeps its own notes while it runs


class Attempt(threading.Thread):
    """Ray Train's own loop, aside: the main thread shows progress, and is interrupted."""

    def __init__(self, job: Job, crew: Crew) -> None:
        super().__init__(daemon=True)
        self.error: Exception | None = None
        self.trainer = TorchTrainer(
            train_worker,
            train_loop_config={"job": job},
            scaling_config=ScalingConfig(
                num_workers=crew.workers,
                use_gpu=bool(crew.gpus),
                resources_per_worker={"CPU": crew.cpus} | ({"GPU": 1} if crew.gpus else {}),
            ),
            run_config=RunConfig(
                name="run", storage_path=str(job.folder / RAY), failure_config=FailureConfig(max_failures=LIVES)
            ),
        )

    def run(self) -> None:
        try:
            self.trainer.fit()
        except Exception as error:  # Ray raises whatever there is
            self.error = error


def _last(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
