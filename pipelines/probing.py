"""What an image costs, measured on a few of them: through the real specialists, those of each pool in a process of its
own, as workers are, and into a folder that is gone afterwards."""

from __future__ import annotations

import os
import random
import resource
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from engine.annotate import look, settle
from engine.config import Ingest
from engine.decide import Filter
from engine.download import Downloader
from engine.entry import Entry
from engine.errors import ConfigError, EngineError, RunError
from engine.given import canonical, take
from engine.ingest import item_of, listing_of
from engine.layout import Output, ShardId
from engine.pools import pools_of
from engine.protocols import Specialist
from engine.records import Record
from engine.rounds import begun
from engine.storage import write_annotations, write_decisions
from pipelines.build import Pipeline

SURE = 2.0  # standard errors either side, which hold the mean 19 times of 20
FEW = 8  # batches below which an interval says nothing
EVERYWHERE = ("decode", "filters")  # what is no specialist's
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Probe:
    """Seconds of an image in each batch, by specialist, decode and filters; the first batch ran once before, to warm
    up."""

    images: int
    unread: int  # could not be read, or failed
    batches: tuple[int, ...]  # the images in each
    seconds: dict[str, tuple[float, ...]] = field(repr=False)
    setup: dict[str, float]
    peak_mb: float  # of the largest worker
    bytes_an_image: float
    fixed_bytes: float  # of a shard, whatever is in it

    def of(self, names: Iterable[str]) -> tuple[float, float]:
        """Seconds of an image through these together: the mean, and the half of its interval (0 where FEW say
        nothing)."""
        each = [sum(some) for some in zip(*(self.seconds[name] for name in names if name in self.seconds), strict=True)]
        if not each:
            return 0.0, 0.0
        spread = SURE * statistics.stdev(each) / len(each) ** 0.5 if len(each) >= FEW else 0.0
        return statistics.fmean(each, self.batches), spread


@dataclass(frozen=True)
class _Work:
    """What a pool's worker is given."""

    specialists: tuple[Specialist, ...]
    filters: tuple[Filter, ...]
    ingest: Ingest
    batches: list[list[Record]]
    befores: list[list[Record]]
    downloads: Path
    decides: bool  # the last pool does


@dataclass(frozen=True)
class _Done:
    """The batches, and seconds of each; seconds by specialist to load; and the most memory that the worker had."""

    batches: list[list[Record]]
    seconds: list[dict[str, float]]
    setup: dict[str, float]
    peak_mb: float


def probe(pipeline: Pipeline, count: int) -> Probe:
    """Runs `count` random images of the set, in batches as a run has them. Raises ConfigError where a specialist can't
    be set up, or no image can be read; RunError where one ends its process."""
    with tempfile.TemporaryDirectory(prefix="engine-probe-") as folder:
        records = _records(pipeline, _sample(pipeline, count), Path(folder))
        readable = [record for record in records if not record.item.error]
        if not readable:
            raise ConfigError(f"none of the {len(records)} images of the probe can be read: nothing can be measured")
        done = _through(pipeline, readable, Path(folder))
        looked = [record for batch in done.batches for record in batch]
        good = [record for record in looked if not record.error]
        if not good:
            error = looked[0].error
            raise ConfigError(f"all images of the probe failed; the first one: {error.message if error else 'unknown'}")
        each, fixed = _bytes(pipeline, good, Path(folder))
    sizes = tuple(len(batch) for batch in done.batches)
    names = [*(s.name for s in pipeline.specialists), *EVERYWHERE]
    seconds = {
        name: tuple(some.get(name, 0.0) / size for some, size in zip(done.seconds, sizes, strict=True))
        for name in names
    }
    unread = len(records) - len(good)
    return Probe(len(good), unread, sizes, seconds, done.setup, done.peak_mb, each, fixed)


def _through(pipeline: Pipeline, records: Sequence[Record], folder: Path) -> _Done:
    """From pool to pool. Each of them decodes the images; the last one stands for all."""
    config, size = pipeline.config, pipeline.config.run.batch_size
    batches = [list(records[at : at + size]) for at in range(0, len(records), size)]
    befores = [[begun(record) for record in batch] for batch in batches]
    done = _Done(batches, [{} for _ in batches], {}, 0.0)
    pools = pools_of(config.run, [specialist.name for specialist in pipeline.specialists])
    for pool in pools:
        some, is_last = pipeline.specialists[pool.start : pool.stop], pool is pools[-1]
        work = _Work(some, pipeline.filters, config.ingest, done.batches, befores, folder / "downloads", is_last)
        its = _in_a_worker(work, max(int(pool.cpus), 1))
        seconds = [{**before, **after} for before, after in zip(done.seconds, its.seconds, strict=True)]
        done = _Done(its.batches, seconds, {**done.setup, **its.setup}, max(done.peak_mb, its.peak_mb))
    return done


def _in_a_worker(work: _Work, threads: int) -> _Done:
    """In a process of its own: native libraries read how many threads they may have when they are loaded."""
    context = get_context("spawn")
    ours, its = context.Pipe(duplex=False)
    process = context.Process(target=_worker, args=(its, work), name="probe")
    with _told(threads):
        process.start()
    its.close()
    try:
        said: _Done | EngineError = ours.recv()
    except EOFError:
        process.join()
        names = ", ".join(specialist.name for specialist in work.specialists) or "the filters"
        raise RunError(f"the probe's process of {names} ended with code {process.exitcode} (out of memory?)") from None
    finally:
        process.kill()
        process.join()
    if isinstance(said, EngineError):
        raise said
    return said


@contextmanager
def _told(threads: int) -> Iterator[None]:
    """As Ray tells its workers, unless the user has."""
    if THREADS in os.environ:
        yield
        return
    os.environ[THREADS] = str(threads)
    try:
        yield
    finally:
        del os.environ[THREADS]


def _worker(whom: Connection, work: _Work) -> None:
    for stop in (signal.SIGINT, signal.SIGTERM):  # who has asked for it hears of those, and ends this process
        signal.signal(stop, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()
    try:
        whom.send(_measured(work))
    except EngineError as error:
        whom.send(error)
    except Exception as error:
        whom.send(ConfigError(f"the probe failed: {type(error).__name__}: {error}"))


def _end_with(whoever_asked: BaseProcess | None) -> None:
    """If that was killed nobody else ends this process, which holds models."""
    if whoever_asked:
        whoever_asked.join()
        os._exit(1)


def _measured(work: _Work) -> _Done:
    setup = {}
    for specialist in work.specialists:
        start = time.perf_counter()
        specialist.setup()
        setup[specialist.name] = time.perf_counter() - start
    _annotated(work, work.batches[0], work.befores[0])
    done = [_annotated(work, *both) for both in zip(work.batches, work.befores, strict=True)]
    return _Done([records for records, _ in done], [seconds for _, seconds in done], setup, _peak_mb())


def _annotated(
    work: _Work, records: Sequence[Record], befores: Sequence[Record]
) -> tuple[list[Record], dict[str, float]]:
    seconds: dict[str, float] = {}
    looked = look(records, befores, work.specialists, work.filters, work.ingest, seconds, work.downloads)
    return settle(looked, befores, work.filters, seconds) if work.decides else looked, seconds


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


def _bytes(pipeline: Pipeline, records: Sequence[Record], folder: Path) -> tuple[float, float]:
    """Bytes that an image adds to its shard's files, and bytes of those files besides: by a shard of a single image
    against one of all; files without any image lack half of what the others begin with."""

    def size(some: Sequence[Record]) -> int:
        round_, shard = Output(folder / f"{len(some)}").round(0), ShardId(0, 0)
        write_annotations(round_, shard, some, pipeline.annotate_digest, pipeline.source_digests)
        write_decisions(round_, shard, some, pipeline.filter_digest)
        return sum(path.stat().st_size for path in (round_.annotations(shard), round_.decisions(shard)))

    few = records[:1] if len(records) > 1 else []
    each = max(size(records) - size(few), 0) / (len(records) - len(few))
    return each, max(size(few) - each * len(few), 0.0)


def _peak_mb() -> float:
    """Of this process, since it began, with its specialists loaded."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
