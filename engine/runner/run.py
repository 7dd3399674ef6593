"""A run: shards go from pool to pool, and back to the first one when a machine took what was made of them along."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ray
import ray.exceptions

from engine.annotate import Tally
from engine.breaker import NEWEST, Breaker, Failure
from engine.errors import RunError, unwritable
from engine.layout import ShardId
from engine.runner.actor import WorkerActor, ask_for_note, remove_notes
from engine.runner.blame import Blame
from engine.runner.connection import OBJECT_STORE_BYTES, brief, cluster, deaf, living
from engine.runner.crew import Crew, Member
from engine.runner.reporter import Reporter
from engine.runner.staffing import Staffing
from engine.runner.supply import Supply
from engine.runner.watcher import Watcher
from engine.worker import Orders, Plan

# Ray's memory monitor ends workers, too, when the machine runs out.
DEATHS = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
HALVES_BYTES = 400 * 2**20  # of a Ray of our own, for what is between pools; more of it goes to the disk
BETWEEN = 2  # shards that may wait between two pools
TALLY_SECONDS = 0.2
NOTE_SECONDS = 30.0  # that a node may take to say what its worker left


def run_shards(plan: Plan, shards: Iterable[ShardId], watcher: Watcher) -> Tally:
    """Annotates `shards`, which are taken as they are needed; when it returns, all of them are written.

    Raises RunError when the resources don't suffice, a worker can't start, a disk is full, too many images in a row
    fail, or a specialist says that the run can't go on. KeyboardInterrupt (Ctrl-C, SIGTERM) passes through after the
    workers were stopped; the shards in flight are then to be done again.
    """
    store = OBJECT_STORE_BYTES if len(plan.pools) == 1 else HALVES_BYTES
    with Reporter(plan, watcher) as reporter, cluster(plan.run, store):
        return _Run(plan, Supply(shards), reporter).run()


@dataclass(eq=False)
class Job:
    """A shard on its way: in a worker's hands, or between two of them with the Half that the next one is given."""

    orders: Orders
    half: Any = None  # a reference: it never comes to the driver
    made: Any = None  # the next one
    half_is_next: bool = False
    made_is_whole: bool = True
    generator: Any = None
    tally: Tally = field(default_factory=Tally)  # of the worker that has it
    rows: int = 0  # of the pool's breaker, when it got there
    failed: deque[Failure] = field(default_factory=lambda: deque(maxlen=NEWEST))  # in all pools so far
    began: float = field(default_factory=time.time)

    def hear(self) -> Tally | None:
        """What its worker says next. Raises StopIteration after the last of it, and what went wrong."""
        try:
            reference = next(self.generator)
        except StopIteration:
            if not self.made_is_whole:
                ray.get(self.made)  # raises the error that stands in its place
            raise
        if self.half_is_next:
            self.made, self.half_is_next, self.made_is_whole = reference, False, False
            return None
        said: Tally | None = ray.get(reference)
        self.half_is_next, self.made_is_whole = said is None, True
        return said

    def given(self, generator: Any, rows: int) -> None:
        """A worker has it now."""
        self.generator, self.made, self.half_is_next, self.made_is_whole = generator, None, False, True
        self.rows = rows

    def passed(self) -> Tally:
        """A pool is done with it, and what it made is the next one's; says what that was."""
        tally, self.tally, self.half, self.made = self.tally, Tally(), self.made, None
        return tally


class _Run:
    def __init__(self, plan: Plan, supply: Supply, reporter: Reporter) -> None:
        self.plan, self.supply, self.reporter = plan, supply, reporter
        names, limit = [specialist.name for specialist in plan.specialists], plan.run.failures_in_a_row
        self.crews = [
            Crew(number, pool, tuple(names[pool.start : pool.stop]), Breaker(limit))
            for number, pool in enumerate(plan.pools)
        ]
        self.queues: list[deque[Job]] = [deque() for _ in self.crews]
        self.awaited: dict[Any, Callable[[], None]] = {}  # reference or generator -> who takes what came
        self.running: dict[ShardId, Job] = {}
        self.mourned: dict[Any, tuple[float, Callable[[], None]]] = {}  # a note's reference -> since when, who reads it
        self.done = Tally()
        self.blame = Blame(plan.run)
        self.staffing = Staffing(plan, self.crews, self._could_use, self._is_waiting, self._start, reporter)
        self.known: Any = None
        self.nodes: set[str] = set()

    def run(self) -> Tally:
        counted = 0.0
        try:
            # What is small goes along with each call: what was put could end the driver when Ray's own process ends.
            self.known = self.plan if self.plan.folds is None else ray.put(self.plan)
            self.reporter.begun(living())
            if self.supply.ahead():
                self.staffing.check()
                self.staffing.look()
                self._count()
            while self.supply.ahead() or self.running:
                self.staffing.look()
                self._hand_out()
                self._listen()
                if time.monotonic() - counted > TALLY_SECONDS:
                    counted = time.monotonic()
                    self._tell()
            self._tell()
            return self._total()
        finally:
            self._leave()

    # Workers

    def _start(self, crew: Crew) -> None:
        pool = crew.pool
        actor = (
            ray.remote(WorkerActor)
            .options(num_cpus=pool.cpus, num_gpus=pool.gpus, memory=pool.memory_mb * 2**20)
            .remote(self.known, crew.number)
        )
        member = crew.add(actor)
        self._await(actor.place.remote(), partial(self._placed, member))

    def _placed(self, member: Member, reference: Any) -> None:
        try:
            member.place = ray.get(reference)
        except DEATHS as error:
            self._ended_starting(member, error)
        else:
            self.nodes.add(member.node)
            self._await(member.handle.setup.remote(), partial(self._ready, member))

    def _ready(self, member: Member, reference: Any) -> None:
        try:
            self.done.add(ray.get(reference))
        except DEATHS as error:
            self._ended_starting(member, error)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RunError):
                raise RunError(str(error.cause)) from error.cause
            raise RunError(f"a worker can't load its models: {brief(error.cause)}") from error.cause
        else:
            if id(member) in member.crew.members:
                member.crew.welcome(member)
                self.reporter.log.event("worker ready", member.crew.pool.name, node=member.node)
                self._count()

    def _ended_starting(self, member: Member, error: Exception) -> None:
        if id(member) not in member.crew.members:  # it was let go meanwhile
            return
        member.crew.remove(member)
        self.staffing.hurry()
        if getattr(error, "actor_init_failed", False):  # the same would happen again
            raise RunError(f"a worker can't start: {brief(error)}") from error
        if self.staffing.went_with_its_node(member):
            return
        self.reporter.warn("worker died", self.blame.nobody("while it was loading its models", self._workers))

    @property
    def _workers(self) -> int:
        """As many as there were."""
        return sum(max(crew.peak, len(crew.members), 1) for crew in self.crews)

    def _count(self) -> None:
        self.reporter.crews(sum(crew.ready for crew in self.crews), sum(len(crew.members) for crew in self.crews))

    # Shards

    def _could_use(self, crew: Crew) -> int:
        """How many workers would have a shard now, or from the pools before."""
        before = self.crews[: crew.number + 1]
        return sum(len(self.queues[other.number]) + other.busy for other in before) + self.supply.ahead()

    def _is_waiting(self, crew: Crew) -> bool:
        """Whether a shard waits for a worker of the pool."""
        return not crew.idle and (bool(self.queues[crew.number]) or (crew.number == 0 and self._may_begin))

    @property
    def _may_begin(self) -> bool:
        """Whether another shard may be in flight."""
        if not self.supply.ahead():
            return False
        bound = sum(len(crew.placed) for crew in self.crews) + BETWEEN * (len(self.crews) - 1)
        return len(self.crews) == 1 or len(self.running) < bound

    def _hand_out(self) -> None:
        """Gives every free worker a shard, those of the last pools first."""
        for crew in reversed(self.crews):
            while crew.idle and (job := self._next(crew)):
                member = crew.idle.popleft()
                crew.busy += 1
                called = member.handle.annotate.options(num_returns="streaming").remote(job.orders, job.half)
                job.given(called, crew.breaker.rows)
                self.awaited[job.generator] = partial(self._advance, member, job)

    def _next(self, crew: Crew) -> Job | None:
        queue = self.queues[crew.number]
        if queue:
            return queue.popleft()
        if crew.number or not self._may_begin:
            return None
        shard = self.supply.take()
        job = self.running[shard] = Job(Orders(shard))
        self.reporter.log.event("shard begun", "", shard=shard)
        return job

    def _advance(self, member: Member, job: Job) -> None:
        crew, shard = member.crew, job.orders.shard
        try:
            said = job.hear()
        except StopIteration:
            self._released(member, job)
            self._passed(crew, job)
        except DEATHS:
            del self.awaited[job.generator]
            self._ended_over(member, job)
        except (ray.exceptions.ObjectLostError, ray.exceptions.RayTaskError) as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
            if not isinstance(cause, ray.exceptions.ObjectLostError):
                raise _explained(cause, self.plan, shard) from cause
            self._released(member, job)
            self.reporter.warn("retry", f"What was made of {shard} is gone with its node; it begins anew.", shard=shard)
            job.half = None
            job.failed.clear()
            self.blame.gone(str(shard))
            self._again(job, self.crews[0])
        else:
            if said is not None:
                self._heard(member, job, said)

    def _heard(self, member: Member, job: Job, said: Tally) -> None:
        job.tally.add(said)
        member.crew.count(said)
        if said.failures.total:
            self.reporter.quarantined(said, job.orders.shard, member.node)
        job.failed.extend(replace(failure, node=member.node) for failure in said.failures.newest)
        with self._breaking():
            member.crew.breaker.saw(said.failures, member.node)

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """A breaker that trips is in the log, too."""
        try:
            yield
        except RunError as error:
            self.reporter.log.event("breaker", str(error))
            raise

    def _released(self, member: Member, job: Job) -> None:
        del self.awaited[job.generator]
        member.crew.busy -= 1
        member.crew.rest(member)

    def _passed(self, crew: Crew, job: Job) -> None:
        """A pool is done with a shard."""
        with self._breaking():
            crew.breaker.passed(job.failed, job.rows)
        self.done.add(job.passed())
        if crew.number + 1 < len(self.crews):
            self.queues[crew.number + 1].append(job)
            return
        shard = job.orders.shard
        del self.running[shard]
        self.blame.finished(str(shard))
        self.reporter.log.event("shard finished", "", shard=shard)
        self.reporter.finished(shard)

    def _again(self, job: Job, crew: Crew) -> None:
        job.tally = Tally()
        self.queues[crew.number].appendleft(job)

    # Ends

    def _ended_over(self, member: Member, job: Job) -> None:
        """A worker ended over a shard: asks its node what it had in hand. Until it answers, the shard waits."""
        member.crew.remove(member)
        self.staffing.hurry()
        assert member.place is not None
        job.tally = Tally()
        self.reporter.log.event("worker died", member.crew.pool.name, shard=job.orders.shard, node=member.node)
        reference = ask_for_note(self.plan.run_id, member.place)
        read = partial(self._mourn, member, job, reference)
        self.mourned[reference] = (time.monotonic(), read)
        self.awaited[reference] = read

    def _mourn(self, member: Member, job: Job, reference: Any) -> None:
        """Learns what can be learned, so that the next worker gets further."""
        del self.awaited[reference], self.mourned[reference]
        crew, shard = member.crew, job.orders.shard
        crew.busy -= 1
        try:
            note = ray.get(reference, timeout=0)
        except ray.exceptions.RayError:  # the node is gone, or doesn't answer: no image is to blame
            self.blame.gone(str(shard))
            self._again(job, crew)
            return
        message = (
            self.blame.note(note, job.orders)
            if note
            else self.blame.nobody(f"with no image in hand, over {shard}", self._workers)
        )
        self.reporter.warn("retry", message, shard=shard, items=note.item_ids if note else (), node=member.node)
        self._again(job, crew)

    # What comes

    def _await(self, reference: Any, take: Callable[[Any], None]) -> None:
        def came() -> None:
            del self.awaited[reference]
            take(reference)

        self.awaited[reference] = came

    def _listen(self) -> None:
        """Takes what came; waits for it, half a second at most."""
        if not self.awaited:
            time.sleep(0.1)
            return
        everyone = list(self.awaited)
        ready, left = ray.wait(everyone, num_returns=1, timeout=0.5, fetch_local=False)
        if ready and left:
            ready += ray.wait(left, num_returns=len(left), timeout=0, fetch_local=False)[0]
        for reference in ready:
            if take := self.awaited.get(reference):
                take()
        for since, read in list(self.mourned.values()):
            if time.monotonic() - since > NOTE_SECONDS:
                read()

    # What is told

    def _tell(self) -> None:
        self._count()
        self.reporter.progress(self._total(), {shard: job.began for shard, job in self.running.items()})

    def _total(self) -> Tally:
        total = Tally()
        for tally in (self.done, *(job.tally for job in self.running.values())):
            total.add(tally)
        total.pools = {crew.pool.name: crew.speed for crew in self.crews}
        return total

    def _leave(self) -> None:
        """Ends all workers, and removes what they noted."""
        with deaf():
            for crew in self.crews:
                for member in list(crew.members.values()):
                    crew.remove(member)
            remove_notes(self.plan.run_id, self.nodes)


def _explained(cause: BaseException, plan: Plan, shard: ShardId) -> RunError:
    if isinstance(cause, RunError):  # a specialist's, which says itself what to do
        return RunError(str(cause))
    if why := unwritable(cause, plan.output.root):
        return RunError(why)
    return RunError(f"{shard} can't be annotated: {brief(cause)}")
