"""Who is told how a run goes."""

from __future__ import annotations

from typing import Protocol

from engine.annotate import Tally
from engine.layout import ShardId


class Watcher(Protocol):
    """`total` images are in the stage, of which an earlier run did `done`."""

    stage: str
    total: int
    done: int

    def workers(self, ready: int, total: int) -> None: ...

    def progress(self, tally: Tally) -> None: ...

    def finished(self, shard: ShardId) -> None:
        """`shard` is written."""

    def warn(self, message: str) -> None: ...
