"""Statistics of a round: the paper's tables and figure for this dataset, what was made and what fell, in one pass.

Shards are read one after the other, as columns: no annotation becomes an object, and no mask is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.atomic import is_there, read_json
from engine.dataset import Dataset, open_dataset
from engine.errors import OutputError
from engine.flat import flatten
from engine.records import DETAILS
from engine.stats.histograms import Histogram, of_whole_numbers
from engine.stats.images import ImageCounts, Images
from engine.stats.made import Fall, Made, MadeCounts
from engine.stats.published import NOTES
from engine.stats.regions import Classes, Distributions, RegionCounts, about_regions, classes, distributions
from engine.stats.scores import ScoreCounts, Scores, scores
from engine.stats.tables import ORIGINS, Annotations, Semantics, Size, annotation_rows, semantics_rows, size_rows
from engine.stats.texts import TextCounts
from engine.storage import Tables, read_shard
from engine.untrusted import TURNING

VERSION = 1  # of what `told` gives
READ = ("texts", "parses", "regions", "region_texts", "triplets", "masks.list.element.id", "masks.list.element.source")
OBEYED = re.compile(f"[\x7f-\x9f{''.join(map(chr, TURNING))}]")
COMPOSER = "specialists.composer:Composer"  # whose words are put together from what was found


@dataclass(frozen=True)
class Lengths:
    """How many words texts have; see `Annotations` for their origins."""

    detail: str
    origin: str
    words: Histogram


@dataclass(frozen=True)
class Statistics:
    """All that `engine stats` tells. `merged` is None for the first round, which nothing is merged into."""

    round: int
    merged: bool | None
    images: Images
    datasets: tuple[Size, ...]
    annotations: tuple[Annotations, ...]
    semantics: tuple[Semantics, ...]
    regions: tuple[Distributions, ...]
    lengths: tuple[Lengths, ...]
    classes: Classes
    scores: tuple[Scores, ...]
    made: tuple[Made, ...]
    fallen: tuple[Fall, ...]

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {"version": VERSION, **asdict(self), "notes": NOTES}

    def json(self) -> str:
        """`told`, with characters that terminals obey written as JSON's own escapes."""
        document = json.dumps(self.told(), indent=2, ensure_ascii=False, allow_nan=False)
        return OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


@dataclass
class Counts:
    """What is added up, shard by shard."""

    composers: frozenset[str]
    images: ImageCounts = field(default_factory=ImageCounts)
    texts: TextCounts = field(default_factory=TextCounts)
    regions: RegionCounts = field(default_factory=RegionCounts)
    made: MadeCounts = field(default_factory=MadeCounts)
    scores: ScoreCounts = field(default_factory=ScoreCounts)

    def add(self, tables: Tables) -> None:
        """What was read of a shard; of masks ids and sources are enough."""
        self.made.add(tables)
        self.scores.add(tables)
        kept = tuple((layer.drop_columns(["masks", "region_texts"]), falls) for layer, falls in tables.layers)
        flat = flatten(replace(tables, layers=kept))
        self.images.add(flat)
        self.texts.add(flat)
        self.regions.add(flat, about_regions(tables, self.composers))


def statistics(dataset: Dataset) -> Statistics:
    """Of the shards that are done. Raises OutputError where one is damaged."""
    counts = Counts(composers(dataset))
    for shard in dataset.shards():
        counts.add(read_shard(dataset.output, dataset.round, shard, columns=READ))
    images, rows = counts.images.result(dataset), tuple(annotation_rows(counts.texts, counts.regions))
    return Statistics(
        round=dataset.round,
        merged=is_there(dataset.output.round(dataset.round).manifest) if dataset.round else None,
        images=images,
        datasets=tuple(size_rows(images.annotated, rows)),
        annotations=rows,
        semantics=tuple(semantics_rows(counts.texts)),
        regions=tuple(distributions(counts.regions)),
        lengths=tuple(_lengths(counts.texts)),
        classes=classes(counts.regions),
        scores=tuple(scores(counts.scores)),
        made=counts.made.by_source(),
        fallen=counts.made.fallen(),
    )


def composers(dataset: Dataset) -> frozenset[str]:
    """The sources that are composers, by whatever name."""
    rounds = [dataset.output.round(number) for number in range(dataset.round + 1)]
    paths = [layer.sources for round_ in rounds for layer in (round_, round_.merge)]
    known = [item for path in paths if is_there(path) for item in read_json(path)["sources"].items()]
    return frozenset(name for name, made_by in known if made_by.get("specialist") == COMPOSER)


def whole_round(path: Path, number: int) -> Dataset:
    """The dataset in a folder as it is in a round. That has to be whole; of the first there may be a part. Raises
    OutputError, with the rounds that are."""
    dataset = open_dataset(path)
    rounds = [round_.number for round_ in dataset.output.rounds()]
    shards = list(dataset.output.shards())
    whole = [n for n in rounds if Dataset(dataset.output, n).shards() == shards]
    if number and number not in whole:
        there = f"those that are: {', '.join(map(str, whole))}" if whole else "none is yet"
        what = "is not whole" if number in rounds else "is not there"
        raise OutputError(f"{path}: round {number} {what}; {there}")
    return replace(dataset, round=number)


def _lengths(texts: TextCounts) -> Iterator[Lengths]:
    for detail in DETAILS:
        for origin, composed in ORIGINS:
            yield Lengths(detail, origin, of_whole_numbers(texts.lengths[detail, composed]))
