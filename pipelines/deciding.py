"""The filter stage: decides again on what other filters decided on. No specialist runs, no image is opened."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from rich.console import Console

from engine.annotate import Tally
from engine.atomic import is_there
from engine.decide import Filter, FilterFault, decide
from engine.errors import RunError
from engine.layout import Output, ShardId
from engine.partitions import Partition, close, reopen_from, stale_by
from engine.progress import RunProgress
from engine.records import Record
from engine.storage import read_records, shard_digest, write_decisions
from engine.summary import added_up, count_round
from pipelines.build import Pipeline
from pipelines.closing import quarantined_in
from pipelines.spread import spread


class Decided(NamedTuple):
    """A shard that this run, or one before it, decided on, and its counts."""

    shard: ShardId
    again: bool
    counts: dict[str, Any]


@dataclass(frozen=True)
class DecideShard:
    """Decides again on a shard, unless these filters did already: plain and without state, so that any process can."""

    output: Output
    filters: tuple[Filter, ...]
    digest: str
    specialists: frozenset[str]

    def __call__(self, shard: ShardId) -> Decided:
        round_ = self.output.round(0)
        again = shard_digest(round_.decisions(shard)) != self.digest
        if again:
            decided = [self._decided(record) for record in self._undecided(shard)]
            write_decisions(round_, shard, decided, self.digest)
        return Decided(shard, again, count_round(self.output, 0, [shard]))

    def _undecided(self, shard: ShardId) -> list[Record]:
        """A shard's records without the filters' decisions; the opinions of specialists are no filter's to renew."""
        there = is_there(self.output.round(0).decisions(shard))
        records = read_records(self.output, 0, shard, decided=there)
        return [
            replace(record, decisions=tuple(d for d in record.decisions if d.by in self.specialists))
            for record in records
        ]

    def _decided(self, record: Record) -> Record:
        try:
            return decide(record, self.filters)
        except FilterFault as fault:
            raise RunError(
                f"filter {fault.filter_name} failed on {record.item.uri}: {fault}. "
                "The decisions of its shard are as they were."
            ) from fault


@dataclass
class Deciding:
    """Deciding on all partitions that are not closed by these filters; each is closed behind it."""

    pipeline: Pipeline
    output: Output
    console: Console
    done: Tally = field(default_factory=Tally, init=False)
    again: int = field(default=0, init=False)  # shards
    _counts: list[dict[str, Any]] = field(default_factory=list, init=False)  # of the partition in hand, a shard each

    def run(self) -> float:
        """Returns the seconds that it took."""
        start, names = time.monotonic(), frozenset(specialist.name for specialist in self.pipeline.specialists)
        stale = stale_by(self.output, self.output.round(0), self.pipeline.filter_digest)
        task = DecideShard(self.output, self.pipeline.filters, self.pipeline.filter_digest, names)
        of_number = {partition.number: partition for partition in stale}
        with RunProgress(self.console, "filter", sum(partition.items for partition in stale)) as progress:

            def done(one: Decided) -> None:
                self._count(one, of_number[one.shard.partition])
                progress.progress(replace(self.done))

            count = sum(len(partition.shards) for partition in stale)
            spread(task, self._shards(stale), count, self.pipeline.config.run, done)
        return time.monotonic() - start

    def _shards(self, stale: Iterable[Partition]) -> Iterator[ShardId]:
        for partition in stale:
            reopen_from(self.output, 0, partition.number)
            yield from partition.shards

    def _count(self, one: Decided, partition: Partition) -> None:
        self.again += one.again
        self._counts.append(one.counts)
        made = [kind for kinds in one.counts["annotations"].values() for kind in kinds.values()]
        self.done.items += one.counts["items"]
        self.done.annotations += sum(kind["made"] for kind in made)
        self.done.fallen += sum(kind["made"] - kind["standing"] for kind in made)
        self.done.quarantined += quarantined_in(one.counts)
        if len(self._counts) == len(partition.shards):
            counts, self._counts = added_up(self._counts), []
            close(self.output, self.output.round(0), partition, counts, quarantined_in(counts))
