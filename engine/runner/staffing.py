"""How many workers each pool has: at first its min; more while shards wait and there is room; fewer when they idle, or
when another pool waits for what they hold. On a cluster it waits for what is to come."""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.errors import CutShort, RunError
from engine.runner.connection import Room, lacking, living
from engine.runner.crew import Crew, Member
from engine.runner.reporter import Reporter
from engine.worker import Plan

LOOK_SECONDS = 1.0
GROW_SECONDS = 5.0  # between two workers more of one of several pools: each loads its models
SPARE_SECONDS = 5.0  # that a worker is idle before another pool gets its place
IDLE_SECONDS = 60.0  # that it is idle before it ends
SAY_SECONDS = 10.0  # without a place before it is spoken of
START_SECONDS = 60.0  # that a process may take where there is room


class Staffing:
    """`could_use` says how many workers of a pool would have a shard now or soon, `is_waiting` whether one waits."""

    def __init__(
        self,
        plan: Plan,
        crews: list[Crew],
        could_use: Callable[[Crew], int],
        is_waiting: Callable[[Crew], bool],
        start: Callable[[Crew], None],
        reporter: Reporter,
    ) -> None:
        self.plan, self.crews, self.reporter = plan, crews, reporter
        self.could_use, self.is_waiting, self.start = could_use, is_waiting, start
        self.nodes: dict[str, dict[str, float]] = {}
        self.homes: set[str] = set()  # those that have or had workers
        self._looked = self._lost = 0.0

    def check(self) -> None:
        """Raises RunError, with the numbers, if the first workers don't fit together on this machine: Ray would wait
        in silence. On a cluster it may be on its way."""
        if why := self._lacking(living(), least=False):
            if self.plan.run.address == "local":
                raise RunError(why)
            self.reporter.warn("waiting", f"{why} Waiting for them, up to {self._patience:g} s (run.wait_seconds).")

    def hurry(self) -> None:
        """Something changed."""
        self._looked = 0.0

    def look(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._lose(living())
        self.homes |= {member.node for crew in self.crews for member in crew.placed} & self.nodes.keys()
        room = self._room()
        for crew in reversed(self.crews):
            self._dismiss(crew, now)
            self._staff(crew, room, now)
        for crew in self.crews:
            self._make_way(crew, room, now)
            self._wait(crew, now)

    @property
    def _patience(self) -> float:
        return self.plan.run.wait_seconds

    def _lacking(self, nodes: dict[str, dict[str, float]], least: bool) -> str:
        """Why the workers of the beginning don't fit, or one of each pool."""
        counts = [1 if least else crew.pool.min for crew in self.crews]
        return lacking(self.plan.pools, counts, nodes)

    def _lose(self, nodes: dict[str, dict[str, float]]) -> None:
        """Says which nodes are gone, and lets go of those who idled there: nobody hears of their end until they are
        given a shard. RunError if all nodes are: Ray would go on waiting for them."""
        if not nodes:
            raise CutShort(f"No node of Ray is left (run.address {self.plan.run.address!r})")
        for node in self.nodes.keys() - nodes.keys():
            if node in self.homes:
                self.homes.remove(node)
                message = f"Node {node[:8]} is gone; what its workers had in hand goes on elsewhere."
                self.reporter.warn("node lost", message, node=node)
            self._lost = time.monotonic()
        self.nodes = nodes
        for crew in self.crews:
            for member in [member for member in crew.idle if member.node not in nodes]:
                crew.remove(member)

    def went_with_its_node(self, member: Member) -> bool:
        """Whether a worker that has ended may have ended with its node; where that was it may not have said yet."""
        self._lose(living())
        return member.node not in self.nodes if member.node else self._lost > member.began

    def _room(self) -> Room:
        """What is left beside our own workers; those on their way go where there is room."""
        room = Room(self.nodes)
        for crew in self.crews:
            for member in crew.placed:
                if member.node in self.nodes:
                    room.take(crew.pool, member.node)
        for crew in self.crews:
            crew.homeless = sum(not room.take(crew.pool) for _ in crew.pending)
        return room

    def _dismiss(self, crew: Crew, now: float) -> None:
        """Ends whom no shard is left for, and whom none has come to for long."""
        spare = len(crew.members) - self.could_use(crew)
        for member in [*crew.pending, *crew.idle][: max(spare, 0)]:
            crew.remove(member)
        while crew.idle and len(crew.members) > crew.pool.min and now - crew.idle[0].idle_since > IDLE_SECONDS:
            crew.remove(crew.idle[0])
        for member in crew.pending:  # others have what it was to get
            if len(crew.members) > crew.pool.min and now - member.began > SAY_SECONDS:
                crew.remove(member)
                crew.grows_at = now + IDLE_SECONDS

    def _staff(self, crew: Crew, room: Room, now: float) -> None:
        useful, alone = self.could_use(crew), len(self.crews) == 1
        while len(crew.members) < min(crew.pool.min, useful):  # wherever there is none yet: a cluster may grow by it
            room.take(crew.pool)
            self.start(crew)
        most = useful if crew.pool.max == "auto" else min(crew.pool.max, useful)
        if now < crew.grows_at or (len(crew.members) > crew.ready and not alone):
            return
        while len(crew.members) < most and self.is_waiting(crew) and room.take(crew.pool):
            self.start(crew)
            if not alone:
                crew.grows_at = now + GROW_SECONDS
                return

    def _make_way(self, crew: Crew, room: Room, now: float) -> None:
        """Ends an idle worker of another pool if a shard waits for this one, which has no room to grow."""
        placed = len(crew.placed)
        coming = len(crew.members) - crew.ready - crew.homeless
        if not self.is_waiting(crew) or coming or room.count(crew.pool):
            return
        if placed and (crew.pool.max != "auto" and len(crew.members) >= crew.pool.max):
            return
        for other in self.crews:
            least = other.pool.min if placed else 1
            if other is crew or len(other.placed) <= least or not other.idle:
                continue
            member = other.idle[0]
            spare = now - member.idle_since > SPARE_SECONDS or not placed
            if spare and room.without(other.pool, member.node).count(crew.pool):
                other.remove(member)
                self.hurry()
                return

    def _wait(self, crew: Crew, now: float) -> None:
        """Waits for the first place of a pool as long as is asked for; goes on with fewer if it has some."""
        pending = [member for member in crew.pending if now - member.began > SAY_SECONDS]
        if crew.placed or not crew.pending:
            crew.homeless_since = None
            if pending and not crew.told:
                crew.told = True
                few = f"{len(crew.placed)} of {len(crew.members)} workers of pool {crew.pool.name!r}"
                self.reporter.warn("fewer", f"There is room for {few}; the run goes on with these.")
            crew.told = crew.told and bool(crew.pending)
            return
        since = crew.homeless_since = crew.homeless_since or _first(crew.pending).began
        why = self._lacking(self.nodes, least=True)
        patience = self._patience if why else max(self._patience, START_SECONDS)
        if now - since > patience:
            raise RunError(
                f"no worker of pool {crew.pool.name!r} got a place in {now - since:.0f} s (run.wait_seconds). "
                f"{why or 'Others may use what there is.'} What is done is safe; run the same again to go on."
            )
        if pending and not crew.told:
            crew.told = True
            message = f"No worker of pool {crew.pool.name!r} has a place yet. {why}".rstrip()
            self.reporter.warn("waiting", f"{message} Waiting up to {patience:g} s (run.wait_seconds).")


def _first(members: list[Member]) -> Member:
    return min(members, key=lambda member: member.began)
