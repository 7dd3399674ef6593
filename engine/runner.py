"""The Ray runner: hands shards to a pool of actors, survives the death of any of them, and bounds every retry.

Each actor takes whole shards through all specialists and filters. That is 0.97 of the speed of two bare processes
on two cores (benchmarks/engine.py, 300 photos), where Ray Data's operators reach 0.67 to 0.84. Nothing but orders and
counts goes through Ray.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from engine.annotate import Tally
from engine.config import Run
from engine.errors import RunError, is_no_space
from engine.records import ItemError
from engine.storage import ShardId
from engine.watchdog import Note, read_note
from engine.worker import Orders, Plan, Worker

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray calls home otherwise
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # and warns about a default of its own
# Threads that wait for work spin if not told, and take it from those that have some: 2 to 9 times slower was measured.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import ray
import ray._private.worker
import ray.exceptions

# Ray's memory monitor ends workers, too, when the machine runs out.
DEATHS = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
# Only orders and counts pass through the object store; Ray takes 30 % of the memory if not told.
OBJECT_STORE_BYTES = 100 * 2**20
TOLD_HERE = ("A worker died or was killed", "Raylet is terminated", "has been marked dead")
QUIET = 10.0  # seconds without an answer after which the cluster is looked at


T = TypeVar("T")


class Watcher(Protocol):
    """Who is told how a run goes."""

    def workers(self, ready: int, total: int) -> None: ...

    def progress(self, tally: Tally) -> None: ...

    def warn(self, message: str) -> None: ...


@dataclass
class Job:
    """A shard in an actor's hands."""

    actor: Any
    orders: Orders
    tally: Tally = field(default_factory=Tally)


def run_shards(plan: Plan, shards: Sequence[ShardId], watcher: Watcher) -> Tally:
    """Annotates `shards`; when it returns, all of them are written.

    Raises RunError when the machine is too small, a worker can't start, a disk is full, or a specialist says that the
    run can't go on. KeyboardInterrupt (Ctrl-C, SIGTERM) passes through after the workers were stopped; the shards in
    flight are then to be done again.
    """
    with cluster(plan.run):
        workers = min(_worker_count(plan.run), len(shards))
        return _Pool(plan, deque(Orders(shard) for shard in shards), workers, watcher).run()


def each_shard(
    task: Callable[[ShardId], T], shards: Sequence[ShardId], run: Run, done: Callable[[T], None], weights: bool = False
) -> None:
    """Runs `task`, which holds no state, over `shards` by tasks of Ray; `done` gets what they return, in order. With
    `weights` each has the GPU and the memory of a worker. Raises RunError with what a task raised."""
    with cluster(run):
        needs = {"num_gpus": run.gpus_per_worker, "memory": run.memory_mb_per_worker * 2**20} if weights else {}
        if weights:
            _worker_count(run)
        remote = ray.remote(num_cpus=run.cpus_per_worker, max_retries=2, **needs)(_called)
        known = [ray.put(task)]  # in a list: Ray would bring it anew for each shard otherwise
        ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1) / run.cpus_per_worker))
        waiting: deque[tuple[ShardId, Any]] = deque()
        for shard in shards:
            waiting.append((shard, remote.remote(known, shard)))
            if len(waiting) > ahead:
                done(_result(*waiting.popleft()))
        while waiting:
            done(_result(*waiting.popleft()))


def _result(shard: ShardId, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise RunError(f"{shard}: {_brief(error.cause)}") from error.cause


def _called(known: list[Any], shard: ShardId) -> Any:
    return _fetched(known[0])(shard)


@lru_cache(maxsize=2)
def _fetched(task: Any) -> Any:
    """Kept by each of Ray's processes."""
    return ray.get(task)


@contextmanager
def cluster(run: Run, object_store: int = OBJECT_STORE_BYTES) -> Iterator[None]:
    """Ray, of the run's own with an object store of so many bytes, or the one at run.address. RunError if it does not
    answer. Ctrl-C and SIGTERM are KeyboardInterrupt in it. Inside of one it is that one: stages share it."""
    if ray.is_initialized():
        yield
        return
    local = run.address == "local"
    options: dict[str, Any] = {"object_store_memory": object_store, "include_dashboard": False} if local else {}
    try:
        _knock(run.address)
        with chdir("/"):  # Ray lets workers import from the current folder, which may hold anything
            ray.init(address=run.address, logging_level="ERROR", log_to_driver=False, **options)
    except Exception as error:  # Ray raises whatever there is, plain Exception too
        raise RunError(f"Ray at {run.address!r} (run.address) does not answer: {_brief(error)}") from error
    except SystemExit:  # what Ray's handler of SIGTERM, which it sets on the way, raises
        raise KeyboardInterrupt from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        with _deaf():
            ray.shutdown()


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignores Ctrl-C: people press it twice, and a shutdown that is broken off leaves Ray's processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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


def _worker_count(run: Run) -> int:
    """How many workers to start. Raises RunError, with the numbers, if they don't fit: Ray would wait in silence."""
    has = ray.cluster_resources()
    needs = {"CPU": run.cpus_per_worker, "GPU": run.gpus_per_worker, "memory": run.memory_mb_per_worker * 2.0**20}
    fits = int(min(has.get(kind, 0) / need for kind, need in needs.items() if need))
    wanted = fits if run.workers == "auto" else run.workers
    if 0 < wanted <= fits:
        return wanted
    raise RunError(
        f"{max(wanted, 1)} worker(s) of {run.cpus_per_worker:g} CPU, {run.gpus_per_worker:g} GPU and "
        f"{run.memory_mb_per_worker} MB were asked for, and {fits} fit: there are {has.get('CPU', 0):g} CPU, "
        f"{has.get('GPU', 0):g} GPU and {has.get('memory', 0) / 2**20:.0f} MB. Change run.workers, "
        "run.cpus_per_worker, run.gpus_per_worker or run.memory_mb_per_worker."
    )


@dataclass
class _Pool:
    """The actors of one run and what they have in hand. One shard an actor: a queue would double what a death costs."""

    plan: Plan
    waiting: deque[Orders]
    workers: int
    watcher: Watcher
    done: Tally = field(default_factory=Tally)
    starting: dict[Any, Any] = field(default_factory=dict)  # setup's reference -> actor
    jobs: dict[Any, Job] = field(default_factory=dict)  # annotate's generator -> job
    ended_idle: int = 0  # deaths of workers that had no item in hand, since a shard was done
    ended_over: dict[bytes, int] = field(default_factory=dict)  # item -> deaths of workers that had it alone in hand

    def run(self) -> Tally:
        self.watcher.workers(0, self.workers)
        for _ in range(self.workers):
            self._start()
        answered = time.monotonic()
        while self.starting or self.jobs:
            ready, _ = ray.wait([*self.starting, *self.jobs], num_returns=1, timeout=0.5)
            if ready:
                answered = time.monotonic()
            elif time.monotonic() - answered > QUIET:
                answered = time.monotonic()
                _check_alive(self.plan)
            for reference in ready:
                if reference in self.starting:
                    self._started(reference)
                else:
                    self._advance(reference)
            self.watcher.progress(self._total())
        return self.done

    def _total(self) -> Tally:
        total = Tally()
        for tally in (self.done, *(job.tally for job in self.jobs.values())):
            total.add(tally)
        return total

    def _start(self) -> None:
        run = self.plan.run
        actor = (
            ray.remote(Worker)
            .options(
                num_cpus=run.cpus_per_worker, num_gpus=run.gpus_per_worker, memory=run.memory_mb_per_worker * 2**20
            )
            .remote(self.plan)
        )
        self.starting[actor.setup.remote()] = actor

    def _started(self, reference: Any) -> None:
        actor = self.starting.pop(reference)
        try:
            self.done.add(ray.get(reference))
        except DEATHS as error:
            if getattr(error, "actor_init_failed", False):  # the same would happen again
                raise RunError(f"a worker can't start: {_brief(error)}") from error
            self._ended_idle("while it was loading its models")
            self._start()
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RunError):
                raise RunError(str(error.cause)) from error.cause
            raise RunError(f"a worker can't load its models: {_brief(error.cause)}") from error.cause
        else:
            self.watcher.workers(self.workers - len(self.starting), self.workers)
            self._hand_out(actor)

    def _hand_out(self, actor: Any) -> None:
        """Gives the actor its next shard; without one, it ends and frees its memory."""
        if self.waiting:
            orders = self.waiting.popleft()
            generator = actor.annotate.options(num_returns="streaming").remote(orders)
            self.jobs[generator] = Job(actor, orders)
        else:
            ray.kill(actor)

    def _advance(self, generator: Any) -> None:
        job = self.jobs[generator]
        try:
            job.tally.add(ray.get(next(generator)))
        except StopIteration:
            del self.jobs[generator]
            self.ended_idle = 0
            self.done.add(job.tally)
            self._hand_out(job.actor)
        except DEATHS:
            del self.jobs[generator]
            self._mourn(job.orders)
            self.waiting.appendleft(job.orders)
            self._start()
        except ray.exceptions.RayTaskError as error:
            raise _explained(error.cause, self.plan, job.orders.shard) from error.cause

    def _mourn(self, orders: Orders) -> None:
        """A worker ended over a shard: learns what can be learned, so that the next one gets further."""
        path = self.plan.output.round(self.plan.round).note(orders.shard)
        note = read_note(path)
        path.unlink(missing_ok=True)
        if note is None:
            self._ended_idle(f"with no image in hand, over {orders.shard}")
        elif len(note.item_ids) > 1:
            orders.alone.update(note.item_ids)
            self.watcher.warn(f"A worker ended over {len(note.item_ids)} images; they are tried again one by one.")
        else:
            self._suspect(note, orders)

    def _suspect(self, note: Note, orders: Orders) -> None:
        (item_id,) = note.item_ids
        times = self.ended_over[item_id] = self.ended_over.get(item_id, 0) + 1
        limit = self.plan.run.item_seconds
        how = "killed its worker" if note.hung_at is None else f"took longer than {limit:g} s, in {note.hung_at}"
        orders.alone.add(item_id)
        if times < self.plan.run.attempts:
            self.watcher.warn(f"Image {item_id.hex()[:8]} {how}; it is tried again.")
            return
        kind = "killed" if note.hung_at is None else "timeout"
        orders.quarantined[item_id] = ItemError("annotate", kind, f"{how}; given up after {times} attempt(s)")
        self.watcher.warn(f"Image {item_id.hex()[:8]} {how}; after {times} attempt(s) it goes to quarantine.")

    def _ended_idle(self, when: str) -> None:
        self.ended_idle += 1
        if self.ended_idle > self.workers * self.plan.run.attempts:
            raise RunError(
                f"workers ended {self.ended_idle} times without an image to blame, the last {when}. Out of memory? "
                "Fewer of them may fit (run.workers)."
            )
        self.watcher.warn(f"A worker ended {when}; another one starts.")


def _check_alive(plan: Plan) -> None:
    """Raises RunError if no machine of the cluster lives: Ray would go on waiting for it."""
    if not any(node["Alive"] for node in ray.nodes()):
        raise RunError(
            f"Ray's own process on this machine has ended (run.address {plan.run.address!r}); out of memory? "
            "What is done is safe; run the same again to go on."
        )


def _explained(cause: BaseException, plan: Plan, shard: ShardId) -> RunError:
    if isinstance(cause, RunError):  # a specialist's, which says itself what to do
        return RunError(str(cause))
    if is_no_space(cause):
        return RunError(f"no space left in {plan.output.root}. What is done is safe; make room and run the same again.")
    return RunError(f"{shard} can't be annotated: {_brief(cause)}")


def _brief(error: BaseException) -> str:
    """One line. What Ray raises is a report whose last line is the error."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1] if isinstance(error, ray.exceptions.RayError) else f"{type(error).__name__}: {lines[0]}"
