"""The shards to do: taken as they are needed, so that a set of any size costs its driver the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from engine.layout import ShardId

AHEAD = 1000  # shards that are known before they are needed


class Supply:
    def __init__(self, shards: Iterable[ShardId]) -> None:
        self._rest = iter(shards)
        self._ahead: deque[ShardId] = deque()

    def ahead(self) -> int:
        """How many are left, if those are not many."""
        if len(self._ahead) < AHEAD // 2:
            self._ahead.extend(islice(self._rest, AHEAD - len(self._ahead)))
        return len(self._ahead)

    def take(self) -> ShardId:
        return self._ahead.popleft()
