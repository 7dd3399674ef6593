"""The connection to Ray: one of the run's own, or a cluster that is there; what it has, and how it is left."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from typing import Any

from engine import process
from engine.config import Run
from engine.errors import CutShort, RunError
from engine.pools import Pool
from engine.runner.lifeline import Lifeline, our_own_parent

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray calls home otherwise
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # and warns about a default of its own
# Threads that wait for work spin if not told, and take it from those that have some: 2 to 9 times slower was measured.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# A task that the memory monitor killed is tried again for ever if not told, whatever its max_retries; with pauses of 1,
# 2, 4 and 8 seconds, in which others may end that took the memory.
os.environ.setdefault("RAY_task_oom_retries", "4")

import ray
import ray._private.utils
import ray._private.worker
import ray.exceptions

# Only orders and counts pass through the object store; Ray takes 30 % of the memory if not told.
OBJECT_STORE_BYTES = 100 * 2**20
CALLER_SECONDS = 2.0
TOLD_HERE = ("A worker died or was killed", "Raylet is terminated", "has been marked dead", " retries remaining")


@contextmanager
def cluster(run: Run, object_store: int = OBJECT_STORE_BYTES) -> Iterator[None]:
    """Ray, of the run's own with an object store of so many bytes, or the one at run.address. RunError if it does not
    answer; CutShort if its own ends. Ctrl-C and SIGTERM are KeyboardInterrupt in it. Inside of one it is that one:
    stages share it."""
    if ray.is_initialized():
        yield
        return
    local = run.address == "local"
    options: dict[str, Any] = {"object_store_memory": object_store, "include_dashboard": False} if local else {}
    lifeline, at_once, before = Lifeline(), True, signal.getsignal(signal.SIGTERM)
    try:
        try:
            _at_sigterm(process.stop)
            if local:
                # Seconds, of 30, for which Ray waits at a time for its own process: in between it hears of stops.
                os.environ.setdefault("RAY_raylet_start_wait_time_s", "1")
                lifeline.start()
            _connect(run.address, options)
            yield
            at_once = False
        finally:
            try:
                with deaf():
                    _leave(lifeline, at_once)
            finally:
                _at_sigterm(before)
    except BaseException as error:  # whatever an interruption has become by now
        if lifeline.end:
            raise CutShort(f"Ray's own process on this machine {lifeline.end}") from error
        raise


def _leave(lifeline: Lifeline, at_once: bool) -> None:
    """`at_once` is for an end that somebody waits for. A command's process then ends without a farewell to Ray, whose
    own processes end with it: that would take seconds, and any thread that still calls Ray would spoil it."""
    lifeline.let_go()
    if at_once or lifeline.end:
        lifeline.end_workers()
        if process.is_command:
            return
    if _others_ended():
        with _nothing_freed():
            ray.shutdown()


def calls_ray(thread: threading.Thread) -> None:
    """Says of a thread that it calls Ray. When Ray is left its workers end, on which it may wait, and then it must end,
    too: Ray ends a process that calls it after its shutdown, with code 1 and without a word."""
    _callers.append(thread)


_callers: list[threading.Thread] = []


def _others_ended() -> bool:
    """Whether no other thread calls Ray any more."""
    end = time.monotonic() + CALLER_SECONDS
    for caller in _callers:
        caller.join(max(end - time.monotonic(), 0))
    _callers[:] = [caller for caller in _callers if caller.is_alive()]
    return not _callers


def _connect(address: str, options: dict[str, Any]) -> None:
    try:
        _knock(address)
        with chdir("/"), our_own_parent():  # Ray lets workers import from the current folder, which may hold anything
            ray.init(address=address, logging_level="ERROR", log_to_driver=False, **options)
    except Exception as error:  # Ray raises whatever there is, plain Exception too
        raise RunError(f"Ray at {address!r} (run.address) does not answer: {brief(error)}") from error
    except SystemExit:  # what Ray's handler of SIGTERM, which it sets on the way, raises
        raise KeyboardInterrupt from None
    _at_sigterm(process.stop)


def _at_sigterm(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread() and handler is not None:  # none: it is no Python function
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _nothing_freed() -> Iterator[None]:
    """What the garbage collector, in any thread, frees of Ray's while it shuts down would end the process at once, with
    code 1 and without a word."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def deaf() -> Iterator[None]:
    """Puts Ctrl-C and the like off, or Ray's processes would be left behind; KeyboardInterrupt is raised afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = {number: handler for number in process.STOPS if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        process.stop(heard[0], None)


def _knock(address: str) -> None:
    """Raises OSError if nobody listens at host:port: `ray.init` would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _print_but_deaths(data: dict[str, Any], ignore_prefix: bool) -> None:
    """Ray's printer of messages from the cluster, without the paragraphs on deaths, for which there is a line here."""
    if not any(death in line for death in TOLD_HERE for line in data["lines"]):
        _print(data, ignore_prefix)


if hasattr(ray._private.worker, "print_to_stdstream"):  # it is Ray's own business where it has its printer
    _print = ray._private.worker.print_to_stdstream
    ray._private.worker.print_to_stdstream = _print_but_deaths


def living() -> dict[str, dict[str, float]]:
    """What each node that lives has in all, by its id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def found_here() -> dict[str, float]:
    """What Ray will say that this machine has, before it is started: what a container may use, and the memory that
    others leave."""
    cpus = ray._private.utils.get_num_cpus(override_docker_cpu_warning=True)
    return {"CPU": float(cpus), "memory": float(ray._private.utils.estimate_available_memory() - OBJECT_STORE_BYTES)}


class Room:
    """What workers find on nodes: a worker needs one node that has all it asks for."""

    def __init__(self, nodes: Mapping[str, Mapping[str, float]]) -> None:
        self.free = {node: dict(has) for node, has in nodes.items()}

    def take(self, pool: Pool, node: str | None = None) -> bool:
        """Puts a worker on `node`, or on the first that has room, those without GPU first. False if there is none."""
        places = [node] if node else sorted(self.free, key=lambda name: self.free[name].get("GPU", 0))
        for name in places:
            free = self.free.get(name, {})
            if node or all(free.get(kind, 0) >= need - 1e-6 for kind, need in pool.needs.items()):
                for kind, need in pool.needs.items():
                    free[kind] = free.get(kind, 0) - need
                return True
        return False

    def give(self, pool: Pool, node: str) -> None:
        """Takes a worker from `node`."""
        for kind, need in pool.needs.items():
            self.free[node][kind] = self.free[node].get(kind, 0) + need

    def without(self, pool: Pool, node: str | None) -> Room:
        """As it would be if a worker were not there."""
        room = Room(self.free)
        if node in room.free:
            room.give(pool, node)
        return room

    def count(self, pool: Pool) -> int:
        """How many more workers of a pool there is room for."""
        return sum(
            max(0, int(min(free.get(kind, 0) / need + 1e-6 for kind, need in pool.needs.items())))
            for free in self.free.values()
        )


def lacking(pools: tuple[Pool, ...], counts: list[int], nodes: Mapping[str, Mapping[str, float]]) -> str:
    """Why so many workers of each pool don't fit together, with the numbers; "" if they do."""
    room, placed = Room(nodes), [0] * len(pools)
    order = sorted(range(len(pools)), key=lambda p: (-pools[p].gpus, -pools[p].memory_mb))
    for p in order:
        while placed[p] < counts[p] and room.take(pools[p]):
            placed[p] += 1
    if placed == counts:
        return ""
    asked = ", ".join(
        f"{count} worker(s) of {pool.cpus:g} CPU, {pool.gpus:g} GPU and {pool.memory_mb} MB"
        + (f" ({pool.name})" if len(pools) > 1 else "")
        for pool, count in zip(pools, counts, strict=True)
    )
    fit = " and ".join(f"{count}" for count in placed)
    has = {kind: sum(node.get(kind, 0) for node in nodes.values()) for kind in ("CPU", "GPU", "memory")}
    keys = (
        "cpus, gpus, memory_mb and min in run.pools"
        if len(pools) > 1
        else "run.workers, run.cpus_per_worker, run.gpus_per_worker or run.memory_mb_per_worker"
    )
    on = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
    return (
        f"{asked} were asked for, and {fit} fit: there are {has['CPU']:g} CPU, {has['GPU']:g} GPU and "
        f"{has['memory'] / 2**20:.0f} MB{on}. Change {keys}."
    )


def brief(error: BaseException) -> str:
    """One line. What Ray raises is a report whose last line is the error."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1] if isinstance(error, ray.exceptions.RayError) else f"{type(error).__name__}: {lines[0]}"
