"""What runs in a worker: takes whole shards through all specialists and filters, and writes them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from engine.annotate import Tally, quarantined, settle
from engine.atomic import remove
from engine.breaker import LONGEST, Failure
from engine.config import Ingest, Run
from engine.decide import Filter
from engine.folds import Folds
from engine.given import canonical
from engine.layout import Output, ShardId
from engine.pools import Pool, pools_of
from engine.protocols import Specialist
from engine.recompute import NOTHING, Known, known_of, look_again, looked_at, needed
from engine.records import ItemError, Record
from engine.rounds import added, begun
from engine.schema import annotations_to_table, decisions_to_table
from engine.storage import read_given, read_records, write_annotations, write_decisions
from engine.vocabulary import Vocabulary
from engine.watchdog import Watchdog, note_of

REPORT_SECONDS = 0.5  # between reports: a thousand workers must not drown their driver


@dataclass(frozen=True)
class Plan:
    """All a worker needs to know; built on the driver, pickled to every worker. A shard goes from pool to pool."""

    output: Output
    round: int
    specialists: Sequence[Specialist]
    filters: Sequence[Filter]
    annotate_digest: str
    filter_digest: str
    vocabulary: Vocabulary
    ingest: Ingest
    run: Run
    folds: Folds | None = None  # None: the round takes all images
    sources: Mapping[str, str] = field(default_factory=dict)  # the digest of each: see `engine.recompute`
    replay: bool = False  # what the shards that are there say by equal digests, or compute all
    run_id: str = field(default_factory=lambda: f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(8)}")

    @cached_property
    def pools(self) -> tuple[Pool, ...]:
        """In the order of work."""
        return pools_of(self.run, [specialist.name for specialist in self.specialists])


@dataclass
class Orders:
    """A shard to annotate, and what is known of its items from workers that ended over them."""

    shard: ShardId
    alone: set[bytes] = field(default_factory=set)
    quarantined: dict[bytes, ItemError] = field(default_factory=dict)

    def batches(self, records: Sequence[Record], size: int) -> Iterator[list[Record]]:
        """The records in order, `size` together; the suspects each by itself."""
        batch: list[Record] = []
        for record in records:
            suspect = record.item.item_id in self.alone
            if batch and (len(batch) == size or suspect):
                yield batch
                batch = []
            batch.append(record)
            if suspect:
                yield batch
                batch = []
        if batch:
            yield batch


def storable(record: Record) -> Record:
    """`record`, what a round adds, or its item in quarantine if an annotation of it can't be written."""
    try:
        annotations_to_table([record])
        decisions_to_table([record])
    except (TypeError, ValueError, OverflowError) as error:
        nothing = Record(record.item, round=record.round)
        return quarantined(nothing, "annotate", "unstorable", f"{type(error).__name__}: {error}")
    return record


@dataclass(frozen=True)
class Half:
    """A shard between two pools: its records as they are so far, and as the round found them."""

    records: Sequence[Record]
    befores: Sequence[Record]
    known: Known = NOTHING


class Worker:
    """One actor of a pool. `setup` loads the weights; `annotate` does its pool's part of a shard and reports after
    every batch: the first pool reads the shard, the last one decides and writes."""

    def __init__(self, plan: Plan, pool: int = 0) -> None:
        self.plan = plan
        self.pool = plan.pools[pool]
        self.specialists = plan.specialists[self.pool.start : self.pool.stop]
        self.is_last = pool == len(plan.pools) - 1
        self.watchdog = Watchdog(note_of(plan.run_id, os.getpid()), plan.run.item_seconds)
        self.loaded: set[str] = set()

    def setup(self) -> Tally:
        """Loads every specialist of the pool, but those of which much is known when one is needed; tells how long each
        took."""
        return self._load([] if self.plan.replay else self.specialists)

    def _load(self, specialists: Sequence[Specialist]) -> Tally:
        tally = Tally()
        for specialist in specialists:
            if specialist.name not in self.loaded:
                start = time.perf_counter()
                specialist.setup()
                self.loaded.add(specialist.name)
                tally.seconds[f"{specialist.name} setup"] = time.perf_counter() - start
        return tally

    def annotate(self, orders: Orders, half: Half | None = None) -> Iterator[Tally | Half]:
        """Tallies; before the last of them, of all pools but the last, the Half that the next one is given."""
        half = half or self._read(orders.shard)
        if self.plan.replay:
            yield self._load(needed(self.specialists, half.records, half.known))
        before_of = {before.item.item_id: before for before in half.befores}
        done: list[Record] = []
        tally, reported = Tally(), -REPORT_SECONDS
        for batch in orders.batches(half.records, self.plan.run.batch_size):
            befores = [before_of[record.item.item_id] for record in batch]
            with self.watchdog.watch([record.item.item_id for record in batch]):
                records = self._annotate(batch, befores, orders, tally, half.known)
            if self.is_last:
                records = [added(record, before) for record, before in zip(records, befores, strict=True)]
                tally.count(records)
            done += records
            if time.monotonic() - reported >= REPORT_SECONDS:
                yield tally
                tally, reported = Tally(), time.monotonic()
        if self.is_last:
            self._write(orders.shard, done, tally)
        else:
            yield Half(done, half.befores, half.known)
        yield tally

    def _read(self, shard: ShardId) -> Half:
        """The records to add to: what came along with the images, or what the rounds before have of them."""
        plan = self.plan
        if plan.round == 0:
            records = [canonical(record, plan.vocabulary) for record in read_given(plan.output, shard)]
        else:  # an image that failed in an earlier round has its chance in each
            before = read_records(plan.output, plan.round - 1, shard)
            records = [replace(record, round=plan.round, error=record.item.error) for record in before]
        known = known_of(plan.output, plan.round, shard, plan.sources) if plan.replay else NOTHING
        return Half(records, [begun(record) for record in records], known)

    def _write(self, shard: ShardId, records: Sequence[Record], tally: Tally) -> None:
        plan, round_ = self.plan, self.plan.output.round(self.plan.round)
        if plan.replay:
            remove(round_.decisions(shard))  # or they would be read with annotations that they aren't of
        try:
            write_annotations(round_, shard, records, plan.annotate_digest, plan.sources)
        except (TypeError, ValueError, OverflowError):  # a specialist gave what no column can hold
            given, records = records, [storable(record) for record in records]
            write_annotations(round_, shard, records, plan.annotate_digest, plan.sources)
            for before, after in zip(given, records, strict=True):
                if after.error and not before.error:
                    tally.quarantined += 1
                    tally.failures.add(_failure(after, after.error))
        write_decisions(round_, shard, records, plan.filter_digest)

    def _annotate(
        self, batch: Sequence[Record], befores: Sequence[Record], orders: Orders, tally: Tally, known: Known
    ) -> Sequence[Record]:
        plan = self.plan
        tally.passed += len(batch)
        if len(batch) == 1 and (error := orders.quarantined.get(batch[0].item.item_id)):
            if not batch[0].error:  # or the pool before has told
                tally.failures.add(_failure(batch[0], error))
            return [replace(befores[0], error=error)]
        chosen = [
            (record, before)
            for record, before in zip(batch, befores, strict=True)
            if plan.folds is None or plan.folds.chosen(record.item)
        ]
        records, begun_ = [record for record, _ in chosen], [before for _, before in chosen]
        tally.looked_at.update(looked_at(self.specialists, records, known))
        looked = look_again(
            records, begun_, self.specialists, plan.filters, plan.ingest, tally.seconds, plan.output.downloads, known
        )
        if self.is_last:
            looked = settle(looked, begun_, plan.filters, tally.seconds)
        for before, after in zip(records, looked, strict=True):
            if after.error and not before.error:
                tally.failures.add(_failure(after, after.error))
            elif not after.error and not after.item.duplicate_of:
                tally.failures.came()
        done = {record.item.item_id: record for record in looked}
        return [done.get(record.item.item_id, record) for record in batch]


def _failure(record: Record, error: ItemError) -> Failure:
    return Failure(record.item.item_id, record.item.uri, error.stage, error.kind, error.message[:LONGEST])
