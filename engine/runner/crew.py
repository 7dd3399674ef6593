"""The workers of one pool: who is on the way, who is free, and how much of their time their models had."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import ray

from engine.annotate import Tally
from engine.breaker import Breaker
from engine.heartbeat import PoolSpeed
from engine.pools import Pool
from engine.runner.actor import Place


@dataclass(eq=False)
class Member:
    """An actor. It has no place until the cluster has found it one, and is ready when its models are loaded."""

    crew: Crew
    handle: Any
    began: float = field(default_factory=time.monotonic)
    place: Place | None = None
    ready_at: float | None = None
    idle_since: float = 0.0

    @property
    def node(self) -> str:
        return self.place.node if self.place else ""


@dataclass(eq=False)
class Crew:
    """`number` is the pool's, in the order of work."""

    number: int
    pool: Pool
    specialists: tuple[str, ...]
    breaker: Breaker
    members: dict[int, Member] = field(default_factory=dict)  # by id()
    idle: deque[Member] = field(default_factory=deque)
    busy: int = 0  # with a shard in hand, or ended over one and not yet mourned
    peak: int = 0  # most of them that were ready at a time
    seconds: float = 0.0  # from ready to the end, of those who have ended
    items: int = 0
    busy_seconds: float = 0.0
    grows_at: float = 0.0  # the next one more than at the beginning may start
    homeless: int = 0  # there is no room for
    homeless_since: float | None = None  # nobody has a place
    told: bool = False  # that some have none

    def add(self, handle: Any) -> Member:
        member = Member(self, handle)
        self.members[id(member)] = member
        return member

    def remove(self, member: Member) -> None:
        """It has ended, or is to end now."""
        if self.members.pop(id(member), None) is None:
            return
        if member in self.idle:
            self.idle.remove(member)
        if member.ready_at is not None:
            self.seconds += time.monotonic() - member.ready_at
        ray.kill(member.handle)

    def welcome(self, member: Member) -> None:
        """Its models are loaded."""
        member.ready_at = time.monotonic()
        self.peak = max(self.peak, self.ready)
        self.rest(member)

    def rest(self, member: Member) -> None:
        member.idle_since = time.monotonic()
        self.idle.append(member)

    def count(self, tally: Tally) -> None:
        self.items += tally.passed
        self.busy_seconds += sum(tally.seconds.get(name, 0.0) for name in self.specialists)

    @property
    def placed(self) -> list[Member]:
        return [member for member in self.members.values() if member.place]

    @property
    def pending(self) -> list[Member]:
        return [member for member in self.members.values() if not member.place]

    @property
    def ready(self) -> int:
        return sum(member.ready_at is not None for member in self.members.values())

    @property
    def speed(self) -> PoolSpeed:
        now = time.monotonic()
        lived = self.seconds + sum(now - m.ready_at for m in self.members.values() if m.ready_at is not None)
        return PoolSpeed(self.items, self.peak, self.busy_seconds, lived / self.peak if self.peak else 0.0)
