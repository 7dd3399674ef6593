"""What runs in a worker: takes whole shards through all specialists and filters, and writes them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from engine.annotate import Tally, annotate, quarantined
from engine.config import Ingest, Run
from engine.decide import Filter
from engine.folds import Folds
from engine.given import canonical
from engine.protocols import Specialist
from engine.records import ItemError, Record
from engine.rounds import added, begun
from engine.schema import annotations_to_table, decisions_to_table
from engine.storage import Output, ShardId, read_given, read_records, write_annotations, write_decisions
from engine.vocabulary import Vocabulary
from engine.watchdog import Watchdog


@dataclass(frozen=True)
class Plan:
    """All a worker needs to know; built on the driver, pickled to every worker."""

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


class Worker:
    """One actor. `setup` loads the weights; `annotate` does a shard and reports after every batch."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def setup(self) -> Tally:
        """Loads every specialist; tells how long each took."""
        tally = Tally()
        for specialist in self.plan.specialists:
            start = time.perf_counter()
            specialist.setup()
            tally.seconds[f"{specialist.name} setup"] = time.perf_counter() - start
        return tally

    def annotate(self, orders: Orders) -> Iterator[Tally]:
        plan, round_ = self.plan, self.plan.output.round(self.plan.round)
        watchdog = Watchdog(round_.note(orders.shard), plan.run.item_seconds)
        records: list[Record] = []
        for batch in orders.batches(self._read(orders.shard), plan.run.batch_size):
            tally = Tally()
            with watchdog.watch([record.item.item_id for record in batch]):
                annotated = self._annotate(batch, orders, tally)
            made = [added(record, begun(before)) for record, before in zip(annotated, batch, strict=True)]
            tally.count(made)
            records += made
            yield tally
        try:
            self._write(orders.shard, records)
        except (TypeError, ValueError, OverflowError):  # a specialist gave what no column can hold
            self._write(orders.shard, [storable(record) for record in records])

    def _read(self, shard: ShardId) -> list[Record]:
        """The records to add to: what came along with the images, or what the rounds before have of them."""
        plan = self.plan
        if plan.round == 0:
            return [canonical(record, plan.vocabulary) for record in read_given(plan.output, shard)]
        before = read_records(plan.output, plan.round - 1, shard)
        # An image that failed in an earlier round has its chance in each.
        return [replace(record, round=plan.round, error=record.item.error) for record in before]

    def _write(self, shard: ShardId, records: Sequence[Record]) -> None:
        round_ = self.plan.output.round(self.plan.round)
        write_annotations(round_, shard, records, self.plan.annotate_digest)
        write_decisions(round_, shard, records, self.plan.filter_digest)

    def _annotate(self, batch: Sequence[Record], orders: Orders, tally: Tally) -> list[Record]:
        plan = self.plan
        if len(batch) == 1 and (error := orders.quarantined.get(batch[0].item.item_id)):
            return [replace(begun(batch[0]), error=error)]
        chosen = [record for record in batch if plan.folds is None or plan.folds.chosen(record.item)]
        annotated = annotate(
            chosen, plan.specialists, plan.filters, plan.ingest, tally.seconds, downloads=plan.output.downloads
        )
        done = {record.item.item_id: record for record in annotated}
        return [done.get(record.item.item_id, record) for record in batch]
