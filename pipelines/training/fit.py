"""One training on Ray Train: its workers, their progress, and what became of them."""

from __future__ import annotations

import shutil
import threading

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from engine.errors import RunError
from engine.storage import read_json
from pipelines.training.crew import Crew
from pipelines.training.progress import Follower
from pipelines.training.worker import FAILURE, Job, train_worker

LIVES = 3  # deaths of workers from which one training recovers


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
