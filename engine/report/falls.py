"""What fell, by filter and reason: how many, what was measured against what, and examples to look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from engine.annotate import open_image
from engine.config import Ingest
from engine.dataset import Dataset
from engine.errors import ImageError
from engine.layout import ShardId
from engine.protocols import Image
from engine.records import Mask, Record, Region, RegionText, Triplet
from engine.report.disputes import Fell
from engine.report.pictures import Keep, about, name_of
from engine.report.plots import Plot, bars
from engine.report.shapes import Frame, cut_out, jpeg
from engine.report.survey import Example, Reason, Survey
from engine.storage import read_shard

MOST_SHOWN, MOST_LISTED = 40, 200  # reasons with examples, and all that the page lists
BINS = 16


@dataclass(frozen=True)
class Shot:
    """An annotation that fell: its region in its surroundings, `path` around it in the pixels of `frame`, or what it
    says. `picture` is None where there is no region, or the image can't be opened any more."""

    name: str
    what: str
    says: str
    value: float | None
    threshold: float | None
    picture: str | None = None
    frame: Frame | None = None
    path: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Fallen:
    """What fell by one filter and reason. `middle` is the median."""

    by: str
    reason: str
    count: int
    low: float | None = None
    high: float | None = None
    middle: float | None = None
    thresholds: tuple[float, ...] = ()
    plot: Plot | None = None
    examples: tuple[Shot, ...] = ()


def fallen(
    dataset: Dataset,
    counts: Mapping[str, Mapping[str, int]],
    survey: Survey,
    ingest: Ingest,
    keep: Callable[[int], Keep],
    threads: Executor,
) -> list[Fallen]:
    """By the counts of `engine.summary.count_round`, the most frequent first. `keep` is given an example's number."""
    falls = [(by, reason, count) for by, reasons in counts.items() for reason, count in reasons.items()]
    falls.sort(key=lambda fall: -fall[2])
    known = {(by, reason): survey.reasons[by, reason] for by, reason, _ in falls if (by, reason) in survey.reasons}
    chosen = {key: known[key].examples for key in list(known)[:MOST_SHOWN]}
    shots = _shots(dataset, [one for some in chosen.values() for one in some], ingest, keep, threads)
    return [
        _fallen(by, reason, count, known.get((by, reason), Reason()), [shots[e] for e in chosen.get((by, reason), ())])
        for by, reason, count in falls[:MOST_LISTED]
    ]


def _fallen(by: str, reason: str, count: int, known: Reason, shots: Sequence[Shot | None]) -> Fallen:
    return Fallen(
        by=by,
        reason=reason,
        count=count,
        low=known.low,
        high=known.high,
        middle=float(np.median(known.values)) if known.values else None,
        thresholds=tuple(sorted(known.thresholds)),
        plot=_plot(known),
        examples=tuple(shot for shot in shots if shot),
    )


def _plot(known: Reason) -> Plot | None:
    """What was measured, from the least to the greatest value or the threshold; None where all is one value."""
    ends = [*known.thresholds, *(end for end in (known.low, known.high) if end is not None)]
    if not known.values or min(known.values) == max(known.values) or not np.isfinite(max(ends) - min(ends)):
        return None
    low, high = min(ends), max(ends)
    counts, edges = np.histogram(known.values, BINS, (low, high))
    names = [f"{edge:.3g}" for edge in (*edges[: BINS - 1], high)]
    rows = [(name, count, count) for name, count in zip(names, counts.tolist(), strict=True)]
    only = next(iter(known.thresholds)) if len(known.thresholds) == 1 else None
    return Plot("measured", bars(rows), None if only is None else 100 * (only - low) / (high - low))


def _shots(
    dataset: Dataset, examples: Iterable[Example], ingest: Ingest, keep: Callable[[int], Keep], threads: Executor
) -> dict[Example, Shot | None]:
    """Only the shards that they are in are read, one after the other, and each image is opened once."""
    wanted: dict[ShardId, dict[int, list[tuple[int, Example]]]] = defaultdict(lambda: defaultdict(list))
    for number, example in enumerate(examples):
        wanted[example.place.shard][example.place.row].append((number, example))
    shots: dict[Example, Shot | None] = {}
    for shard, rows in sorted(wanted.items()):
        records = read_shard(dataset.output, dataset.round, shard).records(list(rows))
        work = partial(_of_image, ingest=ingest, dataset=dataset, keep=keep)
        for made in threads.map(work, records, rows.values()):
            shots |= made
    return shots


def _of_image(
    record: Record,
    examples: Sequence[tuple[int, Example]],
    ingest: Ingest,
    dataset: Dataset,
    keep: Callable[[int], Keep],
) -> dict[Example, Shot | None]:
    image, fault = None, ""
    if not record.error and any(_region_of(record, example.fell) for _, example in examples):
        try:
            image = open_image(record.item, ingest, dataset.output.downloads)
        except ImageError as error:
            fault = f"its image can't be opened any more: {error.message}"
    return {example: _shot(record, example.fell, image, fault, keep(number)) for number, example in examples}


def _shot(record: Record, fell: Fell, image: Image | None, fault: str, keep: Keep) -> Shot | None:
    """None for a decision about an annotation that isn't there."""
    annotation = record.by_id.get(fell.annotation_id)
    if annotation is None:
        return None
    what, says = about(annotation, record)
    told: dict[str, Any] = {"what": what, "says": says, "value": fell.value, "threshold": fell.threshold}
    region = _region_of(record, fell)
    if region is None or image is None:
        return Shot(name_of(record.item), **told, fault=fault)
    cut = cut_out(image, region)
    return Shot(name_of(record.item), **told, picture=keep(jpeg(cut.image, cut.frame)), frame=cut.frame, path=cut.path)


def _region_of(record: Record, fell: Fell) -> Region | None:
    """Where what fell is in the image: its region, or the first of those that it names."""
    match record.by_id.get(fell.annotation_id):
        case Region() as region:
            return region
        case Mask(region_id=region_id) | RegionText(region_id=region_id):
            there = record.by_id.get(region_id)
        case Triplet(region_ids=(region_id, *_)):
            there = record.by_id.get(region_id)
        case _:
            return None
    return there if isinstance(there, Region) else None
