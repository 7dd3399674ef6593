"""Everything that is said of a run: to its watcher, to the log, and to those who look from elsewhere."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from engine.annotate import Tally
from engine.errors import EngineError
from engine.heartbeat import Heartbeat, write_heartbeat
from engine.layout import Layer, ShardId
from engine.logs import RunLog
from engine.places import is_local
from engine.runner.watcher import Watcher
from engine.worker import Plan

BEAT_SECONDS, BEAT_SECONDS_ON_STORES = 5.0, 15.0
PART_SECONDS = 30.0  # of the log, on stores
LAST_SECONDS = 5.0  # that the last words may take


class Pulse:
    """Writes the newest heartbeat from a thread of its own: the run does not wait for a slow store."""

    def __init__(self, layer: Layer, log: RunLog) -> None:
        self.layer, self.log = layer, log
        self.seconds = BEAT_SECONDS if is_local(layer.folder) else BEAT_SECONDS_ON_STORES
        self._given = threading.Condition()
        self._newest: Heartbeat | None = None
        self._last = 0.0
        self._ends = False
        self._thread = threading.Thread(target=self._write, name="heartbeat", daemon=True)
        self._thread.start()

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self.seconds

    def give(self, beat: Heartbeat, last: bool = False) -> None:
        with self._given:
            self._newest, self._last, self._ends = beat, time.monotonic(), last
            self._given.notify()
        if last:
            self._thread.join(LAST_SECONDS)

    def _write(self) -> None:
        put = time.monotonic()
        ends = False
        while not ends:
            with self._given:
                self._given.wait_for(lambda: self._newest is not None)
                beat, self._newest, ends = self._newest, None, self._ends
            try:
                if beat:
                    write_heartbeat(self.layer, beat)
                if ends or time.monotonic() - put >= PART_SECONDS:
                    put = time.monotonic()
                    self.log.flush_part()
            except (OSError, EngineError) as error:  # it hinders nobody; what can't be written there stops the run
                self.log.event("heartbeat lost", f"{type(error).__name__}: {error}")


class Reporter:
    """Of one run, from before Ray is there until after it is gone."""

    def __init__(self, plan: Plan, watcher: Watcher) -> None:
        self.plan, self.watcher = plan, watcher
        self.began = time.time()
        self.tally = Tally()
        self.ready = self.workers = 0
        self.first_ready: float | None = None
        self.in_flight: Mapping[ShardId, float] = {}

    def __enter__(self) -> Self:
        self.log = RunLog(self.plan.output.root, self.plan.run_id, self.plan.round)
        self.pulse = Pulse(self.plan.output.round(self.plan.round), self.log)
        self.pulse.give(self._beat())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = isinstance(error, KeyboardInterrupt | GeneratorExit | SystemExit)
        how = "done" if error is None else "stopped" if stopped else f"failed: {error}"[:2000]
        self.in_flight = {}
        self.log.event(
            "ended",
            how,
            images=self.tally.items,
            quarantined=self.tally.quarantined,
            pools={name: round(speed.ratio, 3) for name, speed in self.tally.pools.items()},
        )
        self.pulse.give(self._beat(how), last=True)
        self.log.close()

    def begun(self, resources: dict[str, dict[str, float]]) -> None:
        plan = self.plan
        self.log.event(
            "begun",
            f"{self.watcher.stage}: {self.watcher.total} images, {self.watcher.done} of them done before",
            annotate=plan.annotate_digest,
            filter=plan.filter_digest,
            specialists={specialist.name: specialist.version for specialist in plan.specialists},
            pools=[pool.name for pool in plan.pools],
            nodes=resources,
        )

    def crews(self, ready: int, workers: int) -> None:
        """How many workers there are."""
        if ready and self.first_ready is None:
            self.first_ready = time.monotonic()
        if (ready, workers) != (self.ready, self.workers):
            self.ready, self.workers = ready, workers
            if workers:
                self.watcher.workers(ready, workers)

    def progress(self, tally: Tally, in_flight: Mapping[ShardId, float]) -> None:
        """`in_flight` are shards with the times at which they were begun."""
        self.tally, self.in_flight = tally, in_flight
        self.watcher.progress(tally)
        if self.pulse.is_due:
            self.pulse.give(self._beat())

    def finished(self, shard: ShardId) -> None:
        self.watcher.finished(shard)

    def warn(self, event: str, message: str, **where: Any) -> None:
        self.log.event(event, message, **where)
        self.watcher.warn(message)

    def quarantined(self, tally: Tally, shard: ShardId, node: str) -> None:
        for failure in tally.failures.newest:
            self.log.quarantine(
                failure.message, shard=shard, items=[failure.item_id], node=node, stage=failure.stage, kind=failure.kind
            )

    def _beat(self, ended: str = "") -> Heartbeat:
        tally = self.tally
        since = time.monotonic() - self.first_ready if self.first_ready else 0.0
        return Heartbeat(
            run=self.plan.run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            stage=self.watcher.stage,
            began=self.began,
            at=time.time(),
            total=self.watcher.total,
            done=self.watcher.done + tally.items,
            quarantined=tally.quarantined,
            images_per_second=tally.items / since if since else 0.0,
            workers_ready=self.ready,
            workers=self.workers,
            in_flight={str(shard): round(began, 1) for shard, began in self.in_flight.items()},
            pools=tally.pools,
            ended=ended,
            settings=self.plan.run.model_dump(mode="json", exclude_defaults=True),
        )
