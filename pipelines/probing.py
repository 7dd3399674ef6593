"""What an image costs, measured on a few of them: in this process, through the real specialists, into a folder that is
gone afterwards."""

from __future__ import annotations

import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from engine.annotate import annotate
from engine.download import Downloader
from engine.entry import Entry
from engine.errors import ConfigError
from engine.given import canonical, take
from engine.ingest import item_of, listing_of
from engine.layout import Output, ShardId
from engine.records import Record
from engine.storage import write_annotations, write_decisions
from pipelines.build import Pipeline

SURE = 2.0  # standard errors either side, which hold the mean 19 times of 20
FEW = 8  # images below which an interval says nothing
EVERYWHERE = ("decode", "filters")  # what is no specialist's


@dataclass(frozen=True)
class Probe:
    """Seconds of each image by specialist, decode and filters; the first image ran once before, to warm up."""

    images: int
    unread: int  # could not be read, or failed: no cost is known of these
    seconds: dict[str, tuple[float, ...]] = field(repr=False)
    setup: dict[str, float]
    peak_mb: float
    bytes_an_image: float
    fixed_bytes: int  # of a shard, whatever is in it

    def of(self, names: Iterable[str]) -> tuple[float, float]:
        """Seconds of an image through these together: the mean, and the half of its interval (0 where FEW say
        nothing)."""
        each = [sum(some) for some in zip(*(self.seconds[name] for name in names if name in self.seconds), strict=True)]
        if not each:
            return 0.0, 0.0
        spread = SURE * statistics.stdev(each) / len(each) ** 0.5 if len(each) >= FEW else 0.0
        return statistics.fmean(each), spread


def probe(pipeline: Pipeline, count: int) -> Probe:
    """Runs `count` random images of the set. Raises ConfigError where a specialist can't be set up, or no image can be
    read."""
    config = pipeline.config
    threads = max(int(config.run.cpus_per_worker), 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # as Ray does in a worker
    with tempfile.TemporaryDirectory(prefix="engine-probe-") as folder:
        records = _records(pipeline, _sample(pipeline, count), Path(folder))
        readable = [record for record in records if not record.item.error]
        if not readable:
            raise ConfigError(f"none of the {len(records)} images of the probe can be read: nothing can be measured")
        setup = {}
        for specialist in pipeline.specialists:
            start = time.perf_counter()
            specialist.setup()
            setup[specialist.name] = time.perf_counter() - start
        _annotated(pipeline, readable[0], Path(folder))
        runs = [_annotated(pipeline, record, Path(folder)) for record in readable]
        good = [(record, seconds) for record, seconds in runs if not record.error]
        if not good:
            error = runs[0][0].error
            raise ConfigError(f"all images of the probe failed; the first one: {error.message if error else 'unknown'}")
        names = [*(s.name for s in pipeline.specialists), *EVERYWHERE]
        seconds = {name: tuple(some.get(name, 0.0) for _, some in good) for name in names}
        each, fixed = _bytes([record for record, _ in good], Path(folder))
    return Probe(len(good), len(records) - len(good), seconds, setup, _peak_mb(), each, fixed)


def _sample(pipeline: Pipeline, count: int) -> list[Entry]:
    """A random sample of what is listed, by a reservoir: the set is never held."""
    ingest, draw = pipeline.config.ingest, random.Random(0)
    held: list[Entry] = []
    for number, entry in enumerate(islice(listing_of(ingest), ingest.limit)):
        if len(held) < count:
            held.append(entry)
        elif (at := draw.randrange(number + 1)) < count:
            held[at] = entry
    return held


def _records(pipeline: Pipeline, entries: Sequence[Entry], folder: Path) -> list[Record]:
    ingest = pipeline.config.ingest
    downloads = Downloader(folder / "downloads", ingest.http, ingest.max_bytes)
    records = []
    for entry in entries:
        item = item_of(entry, ingest, downloads)
        record, _ = take(item, entry.given(), ingest.source)
        records.append(canonical(record, pipeline.config.vocabulary))
    return records


def _annotated(pipeline: Pipeline, record: Record, folder: Path) -> tuple[Record, dict[str, float]]:
    seconds: dict[str, float] = {}
    ingest = pipeline.config.ingest
    done = annotate([record], pipeline.specialists, pipeline.filters, ingest, seconds, downloads=folder / "downloads")
    return done[0], seconds


def _bytes(records: Sequence[Record], folder: Path) -> tuple[float, int]:
    """Bytes that an image adds to its shard's files, and bytes of a shard's files that has none."""
    sizes = []
    for name, some in (("none", []), ("all", list(records))):
        round_, shard = Output(folder / name).round(0), ShardId(0, 0)
        write_annotations(round_, shard, some, "")
        write_decisions(round_, shard, some, "")
        sizes.append(sum(path.stat().st_size for path in (round_.annotations(shard), round_.decisions(shard))))
    return max(sizes[1] - sizes[0], 0) / len(records), sizes[0]


def _peak_mb() -> float:
    """Of this process, since it began, with all specialists loaded."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
