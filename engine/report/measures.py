"""What the page tells of images: how many there are of which kind, and the first of those in quarantine, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from engine.dataset import Dataset
from engine.flat import flatten
from engine.records import ItemError
from engine.stats import Statistics, statistics
from engine.storage import read_shard

MOST_QUARANTINED = 200  # that the page lists


@dataclass(frozen=True)
class Measures:
    """`quarantine` are uris, and why each is there."""

    statistics: Statistics
    quarantine: tuple[tuple[str, ItemError], ...]

    @property
    def images(self) -> int:
        return self.statistics.images.done

    @property
    def annotated(self) -> int:
        return self.statistics.images.annotated

    @property
    def duplicates(self) -> int:
        return self.statistics.images.duplicates

    @property
    def quarantined(self) -> int:
        return sum(count for kinds in self.statistics.images.quarantined.values() for count in kinds.values())

    @property
    def licences(self) -> Counter[tuple[str, str]]:
        origins = self.statistics.images.origins
        return Counter({(origin.dataset or "", origin.licence or ""): origin.images for origin in origins})


def measure(dataset: Dataset) -> Measures:
    counted = statistics(dataset)
    some = islice(_quarantine(dataset), MOST_QUARANTINED) if counted.images.quarantined else ()
    return Measures(counted, tuple(some))


def _quarantine(dataset: Dataset) -> Iterator[tuple[str, ItemError]]:
    for shard in dataset.shards():
        images = flatten(read_shard(dataset.output, dataset.round, shard, columns=(), decided=False)).images
        for row in images.filter(images["error"].is_valid()).select(["uri", "error"]).to_pylist():
            yield row["uri"], ItemError(**row["error"])
