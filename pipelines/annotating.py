"""The annotate stage over one round: what is missing, what is out of date, and what is in quarantine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from engine.annotate import Tally
from engine.atomic import is_there, read_json, remove, write_json
from engine.layout import Output, Round, ShardId
from engine.partitions import MadeBy, closed, decided, is_annotated, is_begun, made_by, opened, partitions
from engine.progress import RunProgress
from engine.storage import read_table
from engine.summary import group_near_duplicates, near_duplicate_counts
from pipelines.build import Pipeline
from pipelines.closing import Closing, Stale, count_closed, quarantined_in


@dataclass(frozen=True)
class Annotating:
    """A round through all specialists and filters of its pipeline."""

    pipeline: Pipeline
    output: Output
    console: Console
    number: int = 0

    @property
    def round(self) -> Round:
        return self.output.round(self.number)

    @property
    def stage(self) -> str:
        return "reannotate" if self.number else "annotate"

    def run(self) -> dict[str, Any]:
        """Every shard whose decisions are missing."""
        self.keep_sources()
        last = self._through(self.missing)
        if last is None:
            self.console.print(f"{self.stage}: nothing to do, every image is annotated", highlight=False)
        return self.summarise(last)

    def update(self) -> dict[str, Any] | None:
        """Every shard whose annotations are missing, or made by other sources; what is the same is replayed. Returns
        how it went, for `summarise`. While sources.json says that it is updating, not all are of one making."""
        if next(self.outdated(), None) is not None:
            write_json(self.round.sources, {**self.sources, "updating": True})
        last = self._through(self.outdated, replay=True)
        if last is None:
            self.console.print(f"{self.stage}: nothing to do, every annotation is up to date", highlight=False)
        return last

    def updated(self) -> None:
        """All that was to be made again is."""
        if read_json(self.round.sources) != self.sources:
            write_json(self.round.sources, self.sources)

    def retry(self, sources: Mapping[str, str]) -> dict[str, Any]:
        """The shards that have failures; all other images of theirs are replayed, by the digests of the `sources` that
        made them."""
        return self.summarise(self._through(self.failed, replay=True, sources=sources))

    @property
    def is_annotated(self) -> bool:
        """Whether every shard has its annotations, if not its decisions."""
        return is_annotated(self.output, self.round)

    def failures(self) -> int:
        """How many images that can be read are in quarantine."""
        return sum(self._failures(shard) for _, shards in self.failed() for shard in shards)

    def quarantined(self) -> int:
        return quarantined_in(count_closed(self.output, self.number))

    def missing(self) -> Iterator[Stale]:
        """The shards without decisions, of each partition that has some."""
        for partition in opened(self.output, self.round):
            there = decided(self.round, partition)
            if waiting := [shard for shard in partition.shards if shard not in there]:
                yield partition, waiting

    def outdated(self) -> Iterator[Stale]:
        """The shards whose annotations are missing or made by others, of each partition that has some."""
        asked, markers = self.asked, closed(self.output, self.round)
        for partition in partitions(self.output):
            if marker := markers.get(partition.number):
                stale = [] if _same(marker.made_by, asked) else partition.shards
            else:
                there = decided(self.round, partition)
                stale = [s for s in partition.shards if s not in there or not _same(made_by(self.round, s), asked)]
            if stale:
                yield partition, stale

    def failed(self) -> Iterator[Stale]:
        """The shards with images in quarantine that can be read, and those that are open, of each partition that has
        some."""
        markers = closed(self.output, self.round)
        for partition in partitions(self.output):
            marker = markers.get(partition.number)
            if marker and not marker.quarantined:
                continue
            there = partition.shards if marker else decided(self.round, partition)
            if some := [shard for shard in partition.shards if shard not in there or self._failures(shard)]:
                yield partition, some

    def _failures(self, shard: ShardId) -> int:
        """How many images of a shard are in quarantine, and no fault of theirs is known to ingest."""
        errors = read_table(self.round.annotations(shard), ["error"]).column("error")
        if errors.null_count == len(errors):
            return 0
        faults = read_table(self.output.items(shard), ["error"]).column("error")
        return sum(failed and not fault for failed, fault in zip(_there(errors), _there(faults), strict=True))

    @property
    def asked(self) -> MadeBy:
        pipeline = self.pipeline
        return MadeBy(pipeline.annotate_digest, pipeline.filter_digest, pipeline.source_digests)

    @property
    def sources(self) -> dict[str, Any]:
        """What sources.json says."""
        return {
            "digest": self.pipeline.annotate_digest,
            "settings": self.pipeline.annotate_settings,
            "filters": self.pipeline.filter_digest,  # by which annotations stood for those who built upon them
            "sources": self.pipeline.sources,
            **({"earlier": self.pipeline.earlier} if self.pipeline.earlier else {}),
        }

    def keep_sources(self) -> None:
        if not is_there(self.round.sources) or not is_begun(self.output, self.round):
            write_json(self.round.sources, self.sources)

    def _through(
        self, stale: Callable[[], Iterable[Stale]], *, replay: bool = False, sources: Mapping[str, str] | None = None
    ) -> dict[str, Any] | None:
        """Takes shards through the plan, and tells how long that took; None if there are none."""
        left = sum(partition.count(shards) for partition, shards in stale())
        if not left:
            return None
        from engine.runner import run_shards  # Ray takes a second to import; --help and filter do without

        total = sum(partition.items for partition in partitions(self.output))
        names = ", ".join(specialist.name for specialist in self.pipeline.specialists) or "no specialist"
        going_on = f", {total - left} are done already" if left < total else ""
        known = "; what is known is replayed" if replay else ""
        line = f"{self.stage}: {total} images through {names}{going_on}{known}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        for path in (self.round.summary, *([] if self.number else [self.round.near_duplicates])):
            remove(path)
        plan = self.pipeline.plan(self.output, self.number, replay=replay)
        plan = plan if sources is None else replace(plan, sources=sources)
        start = time.monotonic()
        with (
            Closing(self.output, self.number) as closing,
            _Progress(self.console, self.stage, total, total - left, closing) as progress,
        ):
            tally = run_shards(plan, closing.shards(stale()), progress)
        return {"stage": self.stage, **_timings(tally, progress, time.monotonic() - start)}

    def summarise(self, last_run: dict[str, Any] | None) -> dict[str, Any]:
        """Writes summary.json. Without a last run that of before stays."""
        if last_run is None:
            last_run = read_json(self.round.summary)["last_run"] if is_there(self.round.summary) else {}
        summary = {
            "round": self.number,
            **count_closed(self.output, self.number),
            **({} if self.number else {"near_duplicates": self._near_duplicates()}),
            "digests": {
                "ingest": self.pipeline.ingest_digest,
                "annotate": read_json(self.round.sources)["digest"],
                "filter": self.pipeline.filter_digest,
            },
            "last_run": last_run,
        }
        write_json(self.round.summary, summary)
        return summary

    def _near_duplicates(self) -> dict[str, int]:
        if is_there(self.round.near_duplicates):  # it goes before an image is annotated
            return near_duplicate_counts(self.output, 0)
        return group_near_duplicates(self.output, 0, self.output.shards())


class _Progress(RunProgress):
    """That also closes partitions."""

    def __init__(self, console: Console, stage: str, total: int, done: int, closing: Closing) -> None:
        super().__init__(console, stage, total, done)
        self.closing = closing

    def finished(self, shard: ShardId) -> None:
        self.closing.finished(shard)


def _there(column: Any) -> list[bool]:
    return list(column.is_valid().to_pylist())


def _same(there: MadeBy, asked: MadeBy) -> bool:
    """Whether the annotations are; decisions are made again by themselves."""
    return there.annotate == asked.annotate and dict(there.sources) == dict(asked.sources)


def _timings(tally: Tally, progress: RunProgress, seconds: float) -> dict[str, Any]:
    return {
        "images": tally.items,
        "seconds": round(seconds, 3),
        "seconds_to": {event: round(value, 3) for event, value in progress.seconds_to.items()},
        "images_per_second": round(progress.images_per_second, 3),
        "worker_seconds": {name: round(value, 3) for name, value in tally.seconds.items()},
        "worker_images": {**tally.looked_at, "filters": tally.items},  # what is replayed takes no seconds
        "pools": {name: round(speed.ratio, 3) for name, speed in tally.pools.items()},  # of their models' own speed
    }
