"""Specialists over a folder of pictures on a real Ray, and a watcher that remembers what it was told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toys import Brightness, Dark

from engine.annotate import Tally
from engine.config import Ingest, Run
from engine.ingest import ingest
from engine.layout import Output, ShardId
from engine.protocols import Sample, Specialist
from engine.records import AnyAnnotation, Record
from engine.runner import run_shards
from engine.storage import read_records
from engine.vocabulary import Vocabulary
from engine.watchdog import notes_of
from engine.worker import Plan


@dataclass
class Log:
    """A watcher that remembers."""

    warnings: list[str] = field(default_factory=list)
    tallies: list[int] = field(default_factory=list)
    written: list[ShardId] = field(default_factory=list)
    stage: str = "annotate"
    total: int = 0
    done: int = 0
    tally: Tally = field(default_factory=Tally)

    def workers(self, ready: int, total: int) -> None:
        assert 0 <= ready <= total

    def progress(self, tally: Tally) -> None:
        self.tally = tally
        self.tallies.append(tally.items)

    def finished(self, shard: ShardId) -> None:
        self.written.append(shard)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def plan_of(folder: Path, out: Path, specialists: Sequence[Specialist], **run: Any) -> Plan:
    """Ingests the folder, 4 images a shard."""
    config = Ingest(images=(str(folder),), shard_size=4)
    output = Output(out)
    ingest(output, config, "digest", lambda items: None)
    return Plan(
        output,
        0,
        tuple(specialists),
        (Dark(),),  # type: ignore[arg-type]
        "made",
        "decided",
        Vocabulary(),
        config,
        Run.model_validate({"memory_mb_per_worker": 300, **run}),
    )


def run_plan(plan: Plan, log: Log) -> dict[str, Record]:
    """The records by file name."""
    shards = list(plan.output.shards())
    tally = run_shards(plan, iter(shards), log)
    records = [record for shard in shards for record in read_records(plan.output, 0, shard)]
    assert tally.items == len(records)
    assert sorted(log.written) == shards
    assert not notes_of(plan.run_id).exists()
    return {Path(record.item.uri).name: record for record in records}


def annotated(
    folder: Path, out: Path, *specialists: Specialist, log: Log | None = None, **run: Any
) -> tuple[dict[str, Record], Log]:
    log = log or Log()
    return run_plan(plan_of(folder, out, specialists, **run), log), log


def errors(records: dict[str, Record]) -> dict[str, tuple[str, str]]:
    return {name: (record.error.stage, record.error.kind) for name, record in records.items() if record.error}


@dataclass
class Seen(Brightness):
    """Takes its time over each image, leaves the id of its node in `folder`, and says so much that what it says lies in
    its node's memory, and not in its driver's."""

    folder: str = ""
    seconds: float = 0.0

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation]]:
        import ray

        (Path(self.folder) / self.name).write_text(ray.get_runtime_context().get_node_id())
        time.sleep(self.seconds * len(batch))
        answers = super().annotate(batch)
        return [[replace(region, label="word " * 20_000) for region in answer] for answer in answers]  # type: ignore[arg-type]
