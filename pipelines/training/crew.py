"""Who trains on the machines at hand: how many workers, with what share of a machine, beside the tasks that prepare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ray

from engine.errors import ConfigError, RunError
from pipelines.training.settings import Settings


@dataclass(frozen=True)
class Machine:
    """A node of the cluster that has CPUs."""

    cpus: float
    gpus: int
    left: float  # CPUs, beside a task that prepares images

    def room(self, share: float) -> int:
        """For how many workers of so many CPUs."""
        return int(self.left / share + 1e-9)


def machines() -> list[Machine]:
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    having = [(float(has["CPU"]), int(has.get("GPU", 0))) for has in there if has.get("CPU")]
    reading = min(1.0, min(cpus for cpus, _ in having) / 2)
    return [Machine(cpus, gpus, cpus - reading) for cpus, gpus in having]


def data_cpus() -> float:
    """Of a task. Each is a process that takes seconds to start: on two cores there is one beside the model. On any
    machine there is room for one."""
    first = machines()[0]
    return first.cpus - first.left


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
    most = gpus or max(1, int(cpus))
    if workers > most:
        kind = f"one for each of {gpus} GPUs" if gpus else f"one for each of {cpus:g} CPUs"
        raise RunError(f"train.workers: {workers} workers were asked for, and {most} fit: {kind}. Ask for fewer.")
    for phase in settings.phases:
        if phase.config.images_per_step % workers:
            raise ConfigError(
                f"train.images_per_step: {phase.config.images_per_step} images can't be shared by {workers} workers "
                "alike; take a multiple"
            )
    share = cpus_of_worker(there, workers)
    if gpus:  # they compute: the CPUs prepare images for them
        return Crew(workers, min(share, 1.0), 1, None)
    threads = min(int(machine.cpus / count) for machine in there if (count := machine.room(share)))
    return Crew(workers, share if share < 1 else float(int(share)), 0, max(threads, 1))


def cpus_of_worker(there: Sequence[Machine], workers: int) -> float:
    """The most that each of the workers can have, to four places as Ray counts. Were all of them to leave on each
    machine what a task of `stream` needs, they would fit: so however Ray places them, there is room on some machine."""
    gpus = any(machine.gpus for machine in there)

    def room(share: float) -> int:
        return sum(min(machine.room(share), machine.gpus if gpus else workers) for machine in there)

    shares = {int(machine.left / count * 1e4) / 1e4 for machine in there for count in range(1, workers + 1)}
    return max(share for share in shares if share and room(share) >= workers)
