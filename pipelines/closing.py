"""Closes partitions of rounds: counts what they come to, for a summary that is the sum of their markers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Event
from types import TracebackType
from typing import Any, Self

from engine.layout import Output, ShardId
from engine.partitions import Each, Partition, close, closed, decided, opened, partitions, reopen_from
from engine.summary import added_up, count_round

Stale = tuple[Partition, list[ShardId]]  # what is to be done of a partition


class Closing:
    """Closes each partition of a round behind a run, as soon as all its shards are done. Counting a million images
    takes a minute or two; a thread does it, so that no worker waits for its next shard."""

    def __init__(self, output: Output, number: int) -> None:
        self.output = output
        self.number = number
        self._left: dict[int, tuple[Partition, set[ShardId]]] = {}
        self._thread = ThreadPoolExecutor(1)
        self._closing: list[Future[None]] = []
        self._broken_off = Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:  # whoever presses Ctrl-C does not wait for it: the next run closes it
            self._broken_off.set()
        self._thread.shutdown(cancel_futures=error is not None)
        for closing in self._closing if error is None else ():
            closing.result()

    def shards(self, stale: Iterable[Stale]) -> Iterator[ShardId]:
        """The shards that are to be done. Their partitions are open before the first of them is."""
        for partition, shards in stale:
            reopen_from(self.output, self.number, partition.number)
            self._left[partition.number] = partition, set(shards)
            yield from shards

    def finished(self, shard: ShardId) -> None:
        partition, left = self._left[shard.partition]
        left.discard(shard)
        if not left:
            del self._left[shard.partition]
            self._closing.append(self._thread.submit(self._close, partition))

    def _close(self, partition: Partition) -> None:
        close_partition(self.output, self.number, partition, self._until_broken_off)

    def _until_broken_off(self, shards: Iterable[ShardId]) -> Iterator[ShardId]:
        for shard in shards:
            if self._broken_off.is_set():
                raise CancelledError
            yield shard


def close_partition(output: Output, number: int, partition: Partition, each: Each = iter) -> None:
    counts = count_round(output, number, each(partition.shards), merged=False)
    close(output, output.round(number), partition, counts, quarantined_in(counts), each)


def quarantined_in(counts: dict[str, Any]) -> int:
    return sum(sum(kinds.values()) for kinds in counts["quarantined"].values())


def count_closed(output: Output, number: int) -> dict[str, Any]:
    """What `engine.summary.count_round` gives, from the markers of the partitions. Those that are done and open yet are
    closed; in those that can't be, what is done counts."""
    round_ = output.round(number)
    for partition in opened(output, round_):
        if len(decided(round_, partition)) == len(partition.shards):
            close_partition(output, number, partition)
    markers = closed(output, round_)
    return added_up(
        markers[partition.number].counts
        if partition.number in markers
        else count_round(output, number, sorted(decided(round_, partition)), merged=False)
        for partition in partitions(output)
    )
