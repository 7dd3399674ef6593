"""What a run would do and what it would take, before it runs: `engine plan`. Nothing is written."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from rich.console import Console

from engine.atomic import is_there, read_json
from engine.config import Config, Ingest, Rates, Run
from engine.errors import RunError
from engine.files import stamp
from engine.ingest import added, listing_of, shard_size
from engine.layout import Output
from engine.partitions import done, partitions
from engine.pools import Pool, pools_of
from engine.protocols import Specialist
from pipelines.annotating import Annotating
from pipelines.build import Pipeline
from pipelines.checking import Finding, examined, gpus
from pipelines.outdated import Outdated, outdated
from pipelines.probing import EVERYWHERE, FEW, Probe, probe

TOO_FEW = ", too few for an interval: it may be half as much, or twice"
SHARDS_SIZED = 16  # of what is there, to know the bytes of an image


@dataclass(frozen=True)
class Capacity:
    """What there is to run on."""

    cpus: float
    gpus: float
    memory_mb: float = math.inf

    def fits(self, pools: Sequence[Pool], workers: Sequence[int]) -> bool:
        def used(needs: Iterable[float]) -> float:
            return sum(count * need for count, need in zip(workers, needs, strict=True))

        return (
            used(pool.cpus for pool in pools) <= self.cpus + 1e-9
            and used(pool.gpus for pool in pools) <= self.gpus + 1e-9
            and used(pool.memory_mb for pool in pools) <= self.memory_mb
        )


@dataclass(frozen=True)
class Images:
    """Of the set as it is listed now; where there is a manifest, how many it has, and how many came and went since."""

    listed: int
    partitions: int
    shards: int
    ingested: int = 0
    new: int = 0
    gone: int = 0


@dataclass(frozen=True)
class Work:
    """Images there will be, and of these: `left` to be annotated, as they never were (`missing`, and the new ones) or
    are to be again (`again`), with `why`, by source; `sources` has how many of these each one looks at again."""

    total: int
    left: int
    missing: int = 0
    again: int = 0
    why: dict[str, str] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    later: tuple[str, ...] = ()  # what stands on round 0, and what to do with that

    def looked_at(self, specialists: Iterable[str]) -> dict[str, int]:
        """By how many images each of these specialists of a pool, its decoder and the filters cost: what is the same
        is replayed."""
        again = {name: self.sources.get(name, 0) for name in specialists}
        again |= {"decode": max(again.values(), default=0), "filters": self.again}
        return {name: self.left - self.again + count for name, count in again.items()}


@dataclass(frozen=True)
class Model:
    """A specialist: what it runs, and what it still needs."""

    name: str
    use: str
    model: str
    licence: str
    needs: str  # before it can run; empty: all is here
    weights_mb: float | None


@dataclass(frozen=True)
class StageCost:
    """What one pool of workers takes: per image, for all, and how many of them balance the others."""

    name: str
    specialists: tuple[str, ...]
    cpus: float
    gpus: float
    memory_mb: int
    workers: int  # that balance, within the machine or cluster; 0: not even one fits
    seconds: float | None = None  # an image
    spread: float = 0.0  # half of the interval of that
    images_per_second: float | None = None  # of so many workers
    worker_hours: float | None = None  # of one worker, for all that is left
    hours: float | None = None  # of so many workers
    price: float | None = None  # of the worker's hours


@dataclass(frozen=True)
class Forecast:
    """All that is known before a run. `measured` says where seconds come from; empty: nobody knows what it takes."""

    images: Images
    work: Work
    models: tuple[Model, ...]
    filters: tuple[str, ...]
    room: Capacity
    stages: tuple[StageCost, ...]
    seconds: dict[str, float]  # of an image, by specialist, decode and filters
    setup_seconds: float | None  # of a worker
    measured: str
    hours: float | None
    spread_hours: float  # half of the interval; 0: the probe was too small for one
    price: float | None
    currency: str
    slowest: str  # of several stages
    bytes_an_image: float | None
    peak_mb: float | None
    warnings: tuple[str, ...]


def forecast(pipeline: Pipeline, output: Output, count: int = 0, room: Capacity | None = None) -> Forecast:
    """What a run of `pipeline` on `output` comes to; with a probe of `count` images what it takes. Raises ConfigError
    where the set can't be listed, or the probe can't run, OutputError where no run goes on as the manifest was lost."""
    output.check_manifest()
    config = pipeline.config
    names = [specialist.name for specialist in pipeline.specialists]
    pools = pools_of(config.run, names)
    room = room or room_of(config)
    images, findings = _images(output, config.ingest), examined(pipeline)
    measured = probe(pipeline, count) if count else None
    work = _work(pipeline, output, images, known=not any(one.needs or one.error for one in findings))
    seconds, source = _seconds(output, names, measured)
    stages = tuple(_costs(pipeline, pools, seconds, measured, work, room))
    slowest = max((one for one in stages if one.hours is not None), key=lambda one: one.hours or 0.0, default=None)
    hours = slowest.hours if slowest else None
    each = _bytes_an_image(output, images, measured)
    return Forecast(
        images,
        work,
        tuple(_model(pipeline, finding) for finding in findings),
        tuple(filter_.name for filter_ in pipeline.filters),
        room,
        stages,
        seconds,
        sum(measured.setup.values()) if measured else None,
        source,
        hours=hours,
        spread_hours=hours * slowest.spread / slowest.seconds if hours and slowest and slowest.seconds else 0.0,
        price=_price(stages, hours, config.rates),
        currency=config.rates.currency,
        slowest=slowest.name if slowest and len(stages) > 1 else "",
        bytes_an_image=each,
        peak_mb=measured.peak_mb if measured else None,
        warnings=tuple([*pipeline.warnings, *(finding.error for finding in findings if finding.error)]),
    )


def _images(output: Output, ingest: Ingest) -> Images:
    """The set as it is listed now, against the manifest."""
    if is_there(output.manifest):
        there = partitions(output)
        ingested, shards = sum(one.items for one in there), sum(len(one.shards) for one in there)
        found = added(output, ingest)
        more = _cut(found.new, ingest)
        listed = ingested - found.gone + found.new
        return Images(listed, len(there) + more[0], shards + more[1], ingested, found.new, found.gone)
    listed = sum(1 for _ in islice(listing_of(ingest), ingest.limit))
    return Images(listed, *_cut(listed, ingest))


def _cut(items: int, ingest: Ingest) -> tuple[int, int]:
    """Into how many partitions and shards so many images are cut."""
    whole, rest = divmod(items, ingest.partition_size)
    sizes = [ingest.partition_size] * whole + ([rest] if rest else [])
    return len(sizes), sum(-(-size // shard_size(size, ingest)) for size in sizes)


def _work(pipeline: Pipeline, output: Output, images: Images, known: bool) -> Work:
    """What is to be done in round 0. Where weights are not here, nobody knows whether they are those of then."""
    total = images.ingested + images.new
    if not images.ingested:
        return Work(images.listed, images.listed)
    if not known:
        missing = sum(p.count(shards) for p, shards in Annotating(pipeline, output, Console(quiet=True)).missing())
        return Work(total, missing + images.new, missing)
    told = outdated(output, pipeline)
    left = told.images + told.missing + images.new
    sources = {source.name: source.images for source in told.sources}
    return Work(total, left, told.missing, told.images, dict(_why(told)), sources, told.later)


def _why(told: Outdated) -> Iterator[tuple[str, str]]:
    yield from ((source.name, source.why) for source in told.sources if source.why)
    if told.images:
        yield from ((name, "no longer asked for") for name in told.removed)
    elif told.decided_again:
        yield "decisions", "other filters: engine run --stage filter decides again, without any specialist"


def _model(pipeline: Pipeline, finding: Finding) -> Model:
    one = finding.specialist
    use = str((pipeline.config.specialists[one.name] or {}).get("use", one.name))
    needs = "; ".join([*finding.needs, *filter(None, [finding.error])])
    return Model(one.name, use, getattr(one, "model", ""), finding.licence, needs, None if needs else _weights_mb(one))


def _weights_mb(specialist: Specialist) -> float | None:
    """Of the files that it reads; None for what comes with the installation, or runs elsewhere."""
    weights = getattr(specialist, "weights", None)
    if weights is None or getattr(specialist, "server", None) is not None:
        return None
    return float(sum(path.stat().st_size for path, _ in weights.files())) / 1e6


def _bytes_an_image(output: Output, images: Images, measured: Probe | None) -> float | None:
    """Of annotations and decisions: from the probe, or by some shards of what is there."""
    if measured:
        return measured.bytes_an_image + measured.fixed_bytes * images.shards / max(images.listed, 1)
    if not images.ingested:
        return None
    layer = output.round(0)
    some = list(islice(done(output, layer), SHARDS_SIZED))
    sizes = output.counts()
    files = [path for shard in some for path in (layer.annotations(shard), layer.decisions(shard))]
    written = float(sum(stamp(str(path))[0] for path in files))
    return written / sum(sizes[shard] for shard in some) if some else None


def _seconds(output: Output, names: Sequence[str], measured: Probe | None) -> tuple[dict[str, float], str]:
    """Of an image by specialist, decode and filters, and where that comes from. A last run tells only if each of them
    had something to do in it."""
    if measured:
        return {
            name: measured.of([name])[0] for name in measured.seconds
        }, f"a probe of {measured.images} images{'' if len(measured.batches) >= FEW else TOO_FEW}"
    summary = output.round(0).summary
    last = read_json(summary).get("last_run", {}) if is_there(summary) else {}
    spent, images = last.get("worker_seconds", {}), last.get("worker_images", {})
    if not all(images.get(name) and name in spent for name in (*names, *EVERYWHERE)):
        return {}, ""
    fewest = min(images[name] for name in (*names, *EVERYWHERE))
    each = {name: spent[name] / images[name] for name in (*names, *EVERYWHERE)}
    return each, f"the last run, of {fewest} images{'' if fewest >= FEW else TOO_FEW}"


def _costs(
    pipeline: Pipeline,
    pools: Sequence[Pool],
    seconds: dict[str, float],
    measured: Probe | None,
    work: Work,
    room: Capacity,
) -> Iterator[StageCost]:
    """By pool."""
    names, rates = [specialist.name for specialist in pipeline.specialists], pipeline.config.rates
    parts = [[*names[pool.start : pool.stop], "decode", *(["filters"] if pool is pools[-1] else [])] for pool in pools]
    each = [sum(seconds.get(name, 0.0) for name in part) for part in parts]
    workers = balanced(pools, each if seconds else [1.0] * len(pools), room)
    for pool, part, took, count in zip(pools, parts, each, workers, strict=True):
        cost = StageCost(pool.name, tuple(names[pool.start : pool.stop]), pool.cpus, pool.gpus, pool.memory_mb, count)
        if not seconds:
            yield cost
            continue
        images = work.looked_at(cost.specialists)
        busy = sum(seconds.get(name, 0.0) * images[name] for name in part) / 3600
        yield replace(
            cost,
            seconds=took,
            spread=measured.of(part)[1] if measured else 0.0,
            images_per_second=count / took if count and took else None,
            worker_hours=busy,
            hours=busy / count if count else None,
            price=busy * (pool.cpus * rates.cpu_hour + pool.gpus * rates.gpu_hour),
        )


def _price(stages: Sequence[StageCost], hours: float | None, rates: Rates) -> float | None:
    """Of all workers for as long as the slowest stage takes: who waits is paid, too."""
    if hours is None:
        return None
    cpus = sum(stage.workers * stage.cpus for stage in stages)
    gpus = sum(stage.workers * stage.gpus for stage in stages)
    return hours * (cpus * rates.cpu_hour + gpus * rates.gpu_hour)


def balanced(pools: Sequence[Pool], seconds: Sequence[float], room: Capacity) -> list[int]:
    """How many workers of each pool make the slowest of them fastest, in so much room, and none more than that takes;
    zeros if not one of each fits.

    The slowest gets one more as long as there is room for it: more of another pool would help nobody.
    """
    least = [pool.min for pool in pools]
    if not room.fits(pools, least):
        least = [1] * len(pools)
    if not room.fits(pools, least):
        return [0] * len(pools)
    workers = least
    while True:
        slowest = max(range(len(pools)), key=lambda n: seconds[n] / workers[n])
        more = [count + (n == slowest) for n, count in enumerate(workers)]
        most = pools[slowest].max
        if not seconds[slowest] or not room.fits(pools, more) or (most != "auto" and more[slowest] > most):
            break
        workers = more
    pace = seconds[slowest] / workers[slowest]
    enough = [math.ceil(took / pace - 1e-9) if pace else 1 for took in seconds]
    return [max(*both) for both in zip(least, enough, strict=True)]


def room_of(config: Config) -> Capacity:
    """What there is to run on: this machine, or the cluster at run.address. Raises RunError where none answers."""
    return _machine(config) if config.run.address == "local" else _cluster(config.run)


def _cluster(run: Run) -> Capacity:
    from engine.runner.connection import cluster, living  # Ray takes a second to import

    try:
        with cluster(run):
            nodes = living().values()
    except RunError as error:
        raise RunError(f"{error}. Without it, --cpus and --gpus say what to plan with") from error
    cpus, gpus, memory = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU", "memory"))
    return Capacity(cpus, gpus, memory / 2**20)


def _machine(config: Config) -> Capacity:
    """GPUs are counted only where a worker asks for one: that loads PyTorch."""
    wanted = config.run.gpus_per_worker or any(pool.gpus for pool in config.run.pools.values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    return Capacity(float(len(os.sched_getaffinity(0))), float(gpus() if wanted else 0), memory)
