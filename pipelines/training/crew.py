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


def machines() -> list[Machine]:
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(float(has["CPU"]), int(has.get("GPU", 0))) for has in there if has.get("CPU")]


def data_cpus() -> float:
    """Of a task. Each is a process that takes seconds to start: on two cores there is one beside the model. On any
    machine there is room for one."""
    return min(1.0, min(machine.cpus for machine in machines()) / 2)


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
    reading = data_cpus()
    left = [(machine.cpus - reading, machine.gpus) for machine in there]
    gpus = any(machine.gpus for machine in there)

    def room(size: float) -> int:
        return sum(min(int(cpus / size + 1e-9), have if gpus else workers) for cpus, have in left)

    sizes = {int(cpus / share * 1e4) / 1e4 for cpus, _ in left for share in range(1, workers + 1)}
    return max(size for size in sizes if size and room(size) >= workers)
