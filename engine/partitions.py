"""Partitions that are done: each has a marker, so that going on costs by what is open, and not by the set.

A marker, one small file a million images, says by what a partition was made and what it comes to. It is written when
all shards of the partition are done, and removed before anything of theirs is changed. Only in open partitions single
shards are looked for, by one list of a folder; and what made these is read where it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.atomic import is_there, names_in, read_json, remove, write_json
from engine.errors import OutputError
from engine.layout import Layer, Output, ShardId
from engine.storage import content_digest, shard_digests
from engine.versions import digest_of_json

Each = Callable[[Iterable[ShardId]], Iterable[ShardId]]


@dataclass(frozen=True)
class MadeBy:
    """Digests of what made a shard: its annotations, its decisions, and each source of its annotations by itself."""

    annotate: str
    filter: str
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Closed:
    """What a marker says. `images` is a digest of which images there are, and of what came along with them."""

    annotate: str
    filter: str
    sources: dict[str, str]
    images: str
    items: int
    shards: int
    quarantined: int
    counts: dict[str, Any]

    @property
    def made_by(self) -> MadeBy:
        return MadeBy(self.annotate, self.filter, self.sources)


@dataclass(frozen=True)
class Partition:
    """At most a million items of the manifest, in shards of `shard_size`; the last one may be shorter. `digest` is of
    the configuration that read them: in an update another one may read those that are new."""

    number: int
    items: int
    shard_size: int
    digest: str = ""

    @property
    def shards(self) -> list[ShardId]:
        return [ShardId(self.number, n) for n in range(-(-self.items // self.shard_size))]

    def count(self, shards: Iterable[ShardId]) -> int:
        """How many items these shards of it have."""
        return sum(min(self.shard_size, self.items - shard.number * self.shard_size) for shard in shards)


def partitions(output: Output) -> list[Partition]:
    """Those of the manifest. Raises OutputError where ingest has not ended."""
    if not is_there(output.manifest):
        raise OutputError(f"{output.root} has no manifest: nothing was ingested there, or ingest did not end")
    return listed_in(read_json(output.manifest))


def listed_in(manifest: Mapping[str, Any]) -> list[Partition]:
    """Those of what a manifest.json says."""
    return [
        Partition(number, one["items"], one["shard_size"], one.get("digest", manifest.get("digest", "")))
        for number, one in enumerate(manifest["partitions"])
    ]


def closed(output: Output, layer: Layer) -> dict[int, Closed]:
    """The markers of a layer, by partition; without those of a partition that has grown since."""
    there = set(names_in(layer.closed(0).parent))
    markers = {}
    for partition in partitions(output):
        path = layer.closed(partition.number)
        if path.name in there:
            marker = _marker(path)
            if (marker.items, marker.shards) == (partition.items, len(partition.shards)):
                markers[partition.number] = marker
    return markers


def _marker(path: Path) -> Closed:
    try:
        return Closed(**read_json(path))
    except TypeError as error:
        raise OutputError(f"{path} is damaged ({error}). Remove it: the next run writes it anew.") from error


def opened(output: Output, layer: Layer) -> Iterator[Partition]:
    """The partitions that are not closed."""
    markers = closed(output, layer)
    yield from (partition for partition in partitions(output) if partition.number not in markers)


def stale_by(output: Output, layer: Layer, digest: str) -> list[Partition]:
    """The partitions that are not closed by these filters."""
    markers = closed(output, layer)
    return [p for p in partitions(output) if p.number not in markers or markers[p.number].filter != digest]


def waiting(output: Output, layer: Layer) -> Iterator[ShardId]:
    """The shards that have no decisions yet, in order."""
    for partition in opened(output, layer):
        there = decided(layer, partition)
        yield from (shard for shard in partition.shards if shard not in there)


def done(output: Output, layer: Layer) -> Iterator[ShardId]:
    """The shards that have decisions, in order."""
    markers = closed(output, layer)
    for partition in partitions(output):
        there = None if partition.number in markers else decided(layer, partition)
        yield from (shard for shard in partition.shards if there is None or shard in there)


def ingested(output: Output, partition: Partition) -> set[ShardId]:
    """The shards of a partition whose items are there: all of them, or some were lost."""
    return _shards_in(output.items(ShardId(partition.number, 0)).parent, partition)


def decided(layer: Layer, partition: Partition) -> set[ShardId]:
    """The shards of a partition that have decisions."""
    return _shards_in(layer.decisions(ShardId(partition.number, 0)).parent, partition)


def annotated(layer: Layer, partition: Partition) -> set[ShardId]:
    """The shards of a partition that have annotations."""
    return _shards_in(layer.annotations(ShardId(partition.number, 0)).parent, partition)


def _shards_in(folder: Path, partition: Partition) -> set[ShardId]:
    there = set(names_in(folder))
    return {shard for shard in partition.shards if f"shard-{shard.number:05d}.parquet" in there}


def is_begun(output: Output, layer: Layer) -> bool:
    """Whether a shard of a layer has its annotations: before that nothing was made by what its sources say."""
    return bool(closed(output, layer)) or any(annotated(layer, partition) for partition in partitions(output))


def is_annotated(output: Output, layer: Layer) -> bool:
    """Whether every shard has its annotations."""
    return all(len(annotated(layer, partition)) == len(partition.shards) for partition in opened(output, layer))


def is_decided(output: Output, layer: Layer) -> bool:
    """Whether every shard has its decisions: there is nothing left to annotate."""
    return next(waiting(output, layer), None) is None


def annotated_by(output: Output, layer: Layer) -> set[str]:
    """Digests of what made the annotations that are there."""
    digests = {marker.annotate for marker in closed(output, layer).values()}
    for partition in opened(output, layer):
        digests |= {shard_digests(layer.annotations(shard))[0] for shard in annotated(layer, partition)}
    return digests


def decided_by(output: Output, layer: Layer) -> set[str]:
    """Digests of what made the decisions; a shard without any counts as ""."""
    digests = {marker.filter for marker in closed(output, layer).values()}
    for partition in opened(output, layer):
        there = decided(layer, partition)
        digests |= {shard_digests(layer.decisions(shard))[0] for shard in there}
        digests |= {""} if len(there) < len(partition.shards) else set()
    return digests


def made_by(layer: Layer, shard: ShardId) -> MadeBy:
    """What made a shard that is done."""
    annotate, sources = shard_digests(layer.annotations(shard))
    return MadeBy(annotate, shard_digests(layer.decisions(shard))[0], sources)


def content_of(output: Output, partition: Partition, each: Each = iter) -> str:
    """Of which images a partition has, and of what came along with them."""
    return digest_of_json([content_digest(output, shard) for shard in each(partition.shards)])


def close(
    output: Output,
    layer: Layer,
    partition: Partition,
    counts: Mapping[str, Any],
    quarantined: int = 0,
    each: Each = iter,
) -> bool:
    """Writes the marker of a partition, if all its shards are there and made by the same; says whether they are. To
    break that off, `each` raises between two shards."""
    if len(decided(layer, partition)) < len(partition.shards):
        return False
    first, *others = [made_by(layer, shard) for shard in each(partition.shards)]
    if any(other != first for other in others):
        return False
    content, items = content_of(output, partition, each), partition.items
    marker = Closed(
        first.annotate,
        first.filter,
        dict(first.sources),
        content,
        items,
        len(partition.shards),
        quarantined,
        {**counts},
    )
    write_json(layer.closed(partition.number), asdict(marker))
    return True


def reopen(layer: Layer, partition: int) -> None:
    """Before anything in a partition is changed."""
    remove(layer.closed(partition))


def reopen_from(output: Output, number: int, partition: int) -> None:
    """In a round and in all that come after it: what they count is of this one, too."""
    for round_ in output.rounds():
        if round_.number >= number:
            reopen(round_, partition)
            reopen(round_.merge, partition)
