"""One training on Ray Train: its workers, their progress, and what became of them."""

from __future__ import annotations

import logging
import shutil
import threading
from contextlib import suppress

from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from engine.atomic import write_json
from engine.copies import near
from engine.errors import EngineError, RunError, StoreAway
from engine.places import is_local
from engine.runner import calls_ray
from pipelines.training.crew import Crew
from pipelines.training.progress import Follower
from pipelines.training.worker import FAILURE, Job, train_worker

LIVES = 3  # deaths of workers from which one training recovers
LOOK_SECONDS, LOOK_FAR_SECONDS = 0.5, 5.0  # between looks at the journal; at one on a store
LOOK_AWAY_SECONDS = 60.0  # after a look that the store did not answer, which took a minute or more
log = logging.getLogger(__name__)


def fit(job: Job, crew: Crew, follower: Follower) -> None:
    """Trains one model to the end. RunError if it can't be; KeyboardInterrupt passes through."""
    job.begin()
    deaths = 0
    while death := _attempted(job, crew, follower):
        deaths += 1
        if deaths > LIVES:
            raise RunError(f"the training's workers ended {deaths} times, the last time so: {_last(death)}")


def _attempted(job: Job, crew: Crew, follower: Follower) -> Exception | None:
    """Trains on, until its workers die, by what is returned, or have nothing left to do. RunError for what would end
    the next ones, too."""
    attempt = Attempt(job, crew)
    attempt.start()
    calls_ray(attempt)
    while attempt.is_alive():
        attempt.join(_look(follower))
    shutil.rmtree(near(job.folder) / RAY, ignore_errors=True)
    reason = _lasting(attempt.error) if attempt.error else None
    if not isinstance(reason, StoreAway):  # or each question would take it another minute
        _look(follower)
        _keep(reason, job)
    if reason:
        raise (StoreAway if isinstance(reason, StoreAway) else RunError)(f"the training stopped: {reason}")
    return attempt.error


def _look(follower: Follower) -> float:
    """The seconds until the next one."""
    try:
        follower.look()
    except RunError as error:  # the store is away; whether the training needs it, its workers find out
        log.warning("how the training goes is not known: %s", error)
        return LOOK_AWAY_SECONDS
    return LOOK_SECONDS if is_local(follower.folder) else LOOK_FAR_SECONDS


def _lasting(error: Exception) -> Exception | None:
    """The reason why workers ended, if it is one that would come again: see `train_worker`."""
    if not isinstance(error, TrainingFailedError):
        return RunError(_last(error))  # Ray Train itself did
    reasons = getattr(error, "worker_failures", {0: error.__cause__}).values()
    return next((reason for reason in reasons if isinstance(reason, EngineError)), None)


def _keep(reason: Exception | None, job: Job) -> None:
    """For the report."""
    if reason:
        with suppress(RunError, OSError):  # of a disk that is full, say, which is told all the same
            write_json(job.folder / FAILURE, {"message": str(reason).partition("\n")[0]})


RAY = "ray"  # where Ray Train keeps its own notes while it runs: on the driver's machine


class Attempt(threading.Thread):
    """Ray Train's own loop, aside: the main thread shows progress, and is interrupted. It starts no worker anew: which
    error would come again, it can't know."""

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
            run_config=RunConfig(name="run", storage_path=str(near(job.folder) / RAY)),
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
