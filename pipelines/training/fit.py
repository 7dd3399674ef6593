"""One training on Ray Train: its workers, their progress, and what became of them."""

from __future__ import annotations

import logging
import shutil
import threading

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from engine.atomic import is_there, read_json
from engine.copies import near
from engine.errors import RunError
from engine.places import is_local
from engine.runner import calls_ray
from pipelines.training.crew import Crew
from pipelines.training.progress import Follower
from pipelines.training.worker import FAILURE, Job, train_worker

LIVES = 3  # deaths of workers from which one training recovers
LOOK_SECONDS, LOOK_FAR_SECONDS = 0.5, 5.0  # between looks at the journal; at one on a store
log = logging.getLogger(__name__)


def fit(job: Job, crew: Crew, follower: Follower) -> None:
    """Trains one model to the end. RunError if it can't be; KeyboardInterrupt passes through."""
    job.begin()
    attempt = Attempt(job, crew)
    attempt.start()
    calls_ray(attempt)
    while attempt.is_alive():
        _look(follower)
        attempt.join(LOOK_SECONDS if is_local(job.folder) else LOOK_FAR_SECONDS)
    _look(follower)
    shutil.rmtree(near(job.folder) / RAY, ignore_errors=True)
    failure = job.folder / FAILURE
    if is_there(failure):
        told = read_json(failure)
        trace = f"\n{told['traceback']}" if "traceback" in told else ""
        raise RunError(f"the training stopped: {told['kind']}: {told['message']}{trace}")
    if attempt.error is not None:
        raise RunError(f"the training's workers ended {LIVES + 1} times, the last time so: {_last(attempt.error)}")


def _look(follower: Follower) -> None:
    try:
        follower.look()
    except RunError as error:  # the store is away; whether the training needs it, its workers find out
        log.warning("how the training goes is not known: %s", error)


RAY = "ray"  # where Ray Train keeps its own notes while it runs: on the driver's machine


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
                name="run", storage_path=str(near(job.folder) / RAY), failure_config=FailureConfig(max_failures=LIVES)
            ),
        )

    def run(self) -> None:
        try:
            self.trainer.fit()
        except Exception as error:  # Ray raises whatever there is
            self.error = error


def _last(error: Exception) -> str:
    """In a line; Ray's own on memory is the address of a manual."""
    if "out of memory" in str(error):
        return "its machine had no memory left. Take fewer train.images_at_once, or move away what takes so much"
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
