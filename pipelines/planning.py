"""What a run would do and what it would take, before it runs: `engine plan`. Nothing is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from pipelines.compatible import check_compatible
from pipelines.outdated import Outdated, outdated, standing_on
from pipelines.probing import EVERYWHERE, FEW, Probe, probe

TOO_FEW = ", too few for an interval: it may be half as much, or twice"
SHARDS_SIZED = 16  # of what is there, to know the bytes of an image


@dataclass(frozen=True)
class Capacity:
    """What there is to run on, and on each of the `nodes` of a cluster: a worker needs one that has all it asks for."""

    cpus: float
    gpus: float
    memory_mb: float | None = None  # none: as much as it takes
    nodes: tuple[Capacity, ...] = ()

    @property
    def by_node(self) -> dict[str, dict[str, float]]:
        """By Ray's names of resources."""
        return {
            str(number): {
                "CPU": node.cpus,
                "GPU": node.gpus,
                "memory": math.inf if node.memory_mb is None else node.memory_mb * 2.0**20,
            }
            for number, node in enumerate(self.nodes or (self,))
        }


@dataclass(frozen=True)
class Images:
    """Of the set as it is listed now; where there is a manifest, how many it has, how many came and went since, and
    whether it was `asked` for in the same way: otherwise no run goes on with it but an update."""

    listed: int
    partitions: int
    shards: int
    ingested: int = 0
    new: int = 0
    gone: int = 0
    asked: bool = True


@dataclass(frozen=True)
class Work:
    """Images there will be, and of these: `left` to be annotated, in so many `shards`, as they never were (`missing`,
    and the new ones) or are to be again (`again`), with `why`, by source; `sources` has how many of these each one
    looks at again."""

    total: int
    left: int
    shards: int
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
    least: int  # workers that a run starts with
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
    setup_seconds: float | None  # of the slowest worker
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
    where the set can't be listed, or the probe can't run, OutputError where no run goes on with what is there."""
    output.check_ours()
    output.check_manifest()
    check_compatible(output, pipeline, "annotate", update=True)
    config = pipeline.config
    names = [specialist.name for specialist in pipeline.specialists]
    pools = pools_of(config.run, names)
    room = room or room_of(config)
    images, findings = _images(output, pipeline), examined(pipeline)
    measured = probe(pipeline, count) if count else None
    work = _work(pipeline, output, images, [one.specialist.name for one in findings if one.needs or one.error])
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
        max(sum(measured.setup[name] for name in names[pool.start : pool.stop]) for pool in pools)
        if measured
        else None,
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


def _images(output: Output, pipeline: Pipeline) -> Images:
    """The set as it is listed now, against the manifest."""
    ingest = pipeline.config.ingest
    if is_there(output.manifest):
        there = partitions(output)
        ingested, shards = sum(one.items for one in there), sum(len(one.shards) for one in there)
        found = added(output, ingest)
        more = _cut(found.new, ingest)
        listed = ingested - found.gone + found.new
        asked = read_json(output.manifest)["digest"] == pipeline.ingest_digest
        return Images(listed, len(there) + more[0], shards + more[1], ingested, found.new, found.gone, asked)
    listed = sum(1 for _ in islice(listing_of(ingest), ingest.limit))
    return Images(listed, *_cut(listed, ingest))


def _cut(items: int, ingest: Ingest) -> tuple[int, int]:
    """Into how many partitions and shards so many images are cut."""
    whole, rest = divmod(items, ingest.partition_size)
    sizes = [ingest.partition_size] * whole + ([rest] if rest else [])
    return len(sizes), sum(-(-size // shard_size(size, ingest)) for size in sizes)


def _work(pipeline: Pipeline, output: Output, images: Images, unknown: Sequence[str]) -> Work:
    """What is to be done in round 0. Where weights are not here, of the `unknown` sources, nobody knows whether they
    are those of then."""
    total, more = images.ingested + images.new, _cut(images.new, pipeline.config.ingest)[1]
    if not images.ingested:
        return Work(images.listed, images.listed, images.shards)
    later = tuple(standing_on(output)) if images.new else ()
    if unknown:
        waiting = list(Annotating(pipeline, output, Console(quiet=True)).missing())
        missing, shards = sum(p.count(some) for p, some in waiting), sum(len(some) for _, some in waiting)
        why = dict.fromkeys(unknown, "what it needs is not here, so nobody knows whether it changed")
        return Work(total, missing + images.new, shards + more, missing, why=why, later=later)
    told = outdated(output, pipeline)
    left = told.images + told.missing + images.new
    sources = {source.name: source.images for source in told.sources}
    later = later or told.later
    return Work(total, left, told.shards + more, told.missing, told.images, dict(_why(told)), sources, later)


def _why(told: Outdated) -> Iterator[tuple[str, str]]:
    whys = {source.name: source.why for source in told.sources if source.why}
    yield from whys.items()
    if told.images and not whys and not told.removed:
        yield "annotations", "the vocabulary, or the order of sources, changed; none looks again"
    if told.images:
        yield from ((name, "no longer asked for") for name in told.removed)
    if told.by_filters_alone:
        yield "decisions", "the filters changed; engine run --stage filter makes these alone"


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
        return {name: measured.of([name])[0] for name in measured.seconds}, _told(measured)
    summary = output.round(0).summary
    last = read_json(summary).get("last_run", {}) if is_there(summary) else {}
    spent, images = last.get("worker_seconds", {}), last.get("worker_images", {})
    if not all(images.get(name) and name in spent for name in (*names, *EVERYWHERE)):
        return {}, ""
    fewest = min(images[name] for name in (*names, *EVERYWHERE))
    each = {name: spent[name] / images[name] for name in (*names, *EVERYWHERE)}
    return each, f"the last run, of {fewest} images{'' if fewest >= FEW else TOO_FEW}"


def _told(measured: Probe) -> str:
    unread = f" ({measured.unread} more came to nothing)" if measured.unread else ""
    return f"a probe of {measured.images} images{unread}{'' if len(measured.batches) >= FEW else TOO_FEW}"


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
    images = [work.looked_at(names[pool.start : pool.stop]) for pool in pools]
    busy = [
        sum(seconds.get(name, 0.0) * looked[name] for name in part) for part, looked in zip(parts, images, strict=True)
    ]
    shares = busy if any(busy) else each if seconds else [1.0] * len(pools)
    workers = balanced(pools, shares, room, work.shards or math.inf)
    for pool, part, took, count, spent in zip(pools, parts, each, workers, busy, strict=True):
        its = tuple(names[pool.start : pool.stop])
        least = min(pool.min, work.shards or pool.min)
        cost = StageCost(pool.name, its, pool.cpus, pool.gpus, pool.memory_mb, least, count)
        if not seconds:
            yield cost
            continue
        hours = spent / 3600
        yield replace(
            cost,
            seconds=took,
            spread=measured.of(part)[1] if measured else 0.0,
            images_per_second=count / took if count and took else None,
            worker_hours=hours,
            hours=hours / count if count else None,
            price=hours * (pool.cpus * rates.cpu_hour + pool.gpus * rates.gpu_hour),
        )


def _price(stages: Sequence[StageCost], hours: float | None, rates: Rates) -> float | None:
    """Of all workers for as long as the slowest stage takes: who waits is paid, too."""
    if hours is None:
        return None
    cpus = sum(stage.workers * stage.cpus for stage in stages)
    gpus = sum(stage.workers * stage.gpus for stage in stages)
    return hours * (cpus * rates.cpu_hour + gpus * rates.gpu_hour)


def balanced(pools: Sequence[Pool], seconds: Sequence[float], room: Capacity, shards: float = math.inf) -> list[int]:
    """How many workers of each pool make the slowest of them fastest, in so much room and with so many shards to share,
    and none more than that takes; zeros if not one of each fits.

    The slowest gets one more as long as there is room for it: more of another pool would help nobody.
    """
    from engine.runner.connection import Room, lacking  # Ray takes a second to import

    firsts = ([int(min(pool.min, shards)) for pool in pools], [1] * len(pools))
    least = next((few for few in firsts if not lacking(tuple(pools), few, room.by_node)), None)
    if least is None:
        return [0] * len(pools)
    free, workers = Room(room.by_node), [*least]
    for pool, count in sorted(zip(pools, least, strict=True), key=lambda both: (-both[0].gpus, -both[0].memory_mb)):
        for _ in range(count):
            free.take(pool)
    most = [min(math.inf if pool.max == "auto" else pool.max, shards) for pool in pools]
    while True:
        slowest = max(range(len(pools)), key=lambda n: seconds[n] / workers[n])
        if not seconds[slowest] or workers[slowest] >= most[slowest] or not free.take(pools[slowest]):
            break
        workers[slowest] += 1
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
            nodes = tuple(_node(has) for has in living().values())
    except RunError as error:
        raise RunError(f"{error}. Without it, --cpus and --gpus say what to plan with") from error
    memory = sum(node.memory_mb or 0.0 for node in nodes)
    return Capacity(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes), memory, nodes)


def _machine(config: Config) -> Capacity:
    """GPUs are counted only where a worker asks for one: that loads PyTorch."""
    from engine.runner.connection import found_here

    wanted = config.run.gpus_per_worker or any(pool.gpus for pool in config.run.pools.values())
    return _node({**found_here(), "GPU": float(gpus() if wanted else 0)})


def _node(has: Mapping[str, float]) -> Capacity:
    """By what Ray says of it."""
    return Capacity(has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("memory", 0.0) / 2**20)
