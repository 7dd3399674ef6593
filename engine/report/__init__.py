"""The report: one HTML page over a dataset: pictures, texts, what fell and why. It loads nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.config import Ingest
from engine.dataset import Dataset
from engine.records import DETAILS
from engine.report.measures import MEASURES, PUBLISHED, SCORE_BINS, Measures, Semantics, has_card, measure
from engine.report.origins import faults, near_duplicates
from engine.report.page import render
from engine.report.pictures import Picture, picture_of
from engine.report.plots import Plot, bars, histogram
from engine.report.rounds import rounds
from engine.report.training import trainings
from engine.storage import read_json, read_records, write_text
from engine.summary import count_round

TOP_LABELS = 20


def write_report(dataset: Dataset, ingest: Ingest, to: Path, images: int = 60) -> Path:
    """Writes the page about `dataset` to the file `to`, with `images` pictures at most, evenly spaced through the set.

    The same files give the same page. Raises OutputError where one of them is damaged.
    """
    measures = measure(dataset)
    counts = count_round(dataset.output, dataset.round, dataset.shards())
    page = render(
        toggles=len(counts["annotations"]),
        root=dataset.output.root.absolute(),
        round=dataset.round,
        ingest=ingest,
        manifest=read_json(dataset.output.manifest),
        sources=_sources(dataset, counts["annotations"]),
        decided=_decided(dataset),
        total=_total(counts),
        measures=measures,
        plots=_plots(measures, counts),
        semantics=_semantics(measures),
        near=near_duplicates(dataset),
        faults=faults(dataset),
        pictures=_pictures(dataset, ingest, measures, images),
        pictured=min(images, sum(measures.pictures.values())),
        trainings=trainings(dataset.output.round(dataset.round)),
        judged=rounds(dataset),
    )
    write_text(to, page)
    return to


def _sources(dataset: Dataset, annotations: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Source key -> who that is, as far as it is recorded: of human annotations, say, nothing is.

    `number` is None for one that made nothing; one that is `drawn` made something that can be shown or hidden.
    """
    there = [dataset.output.round(number) for number in range(dataset.round + 1)]
    paths = [layer.sources for round_ in there for layer in (round_, round_.merge)]
    known = {name: made_by for path in paths if path.exists() for name, made_by in read_json(path)["sources"].items()}
    numbers = {name: number for number, name in enumerate(annotations)}
    return {
        name: {
            "number": numbers.get(name),
            "drawn": bool(annotations.get(name, {}).keys() - {"parse", "triplet"}),
            **{key: known.get(name, {}).get(key, "") for key in ("specialist", "version", "licence")},
            "parameters": json.dumps(known.get(name, {}).get("parameters", {}), ensure_ascii=False)[1:-1],
        }
        for name in dict.fromkeys([*known, *annotations])
    }


def _decided(dataset: Dataset) -> str:
    """When the last shard was decided on."""
    round_ = dataset.output.round(dataset.round)
    times = [round_.decisions(shard).stat().st_mtime for shard in dataset.shards()]
    return f"{datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC" if times else ""


def _pictures(dataset: Dataset, ingest: Ingest, measures: Measures, images: int) -> Iterator[Picture]:
    """At most `images`, evenly spaced; only the shards that they are in are read, one after the other."""
    total = sum(measures.pictures.values())
    most = min(images, total)
    wanted = {(2 * n + 1) * total // (2 * most) for n in range(most)}
    at = 0
    for shard, here in measures.pictures.items():
        if wanted.intersection(range(at, at + here)):
            records = read_records(dataset.output, dataset.round, shard)
            for number, record in enumerate(filter(has_card, records), at):
                if number in wanted:
                    yield picture_of(record, ingest, dataset.output.downloads)
        at += here


def _total(counts: dict[str, Any]) -> dict[str, int]:
    """Annotations made and standing, of all sources and kinds."""
    each = [count for kinds in counts["annotations"].values() for count in kinds.values()]
    return {key: sum(count[key] for count in each) for key in ("made", "standing")}


def _plots(measures: Measures, counts: dict[str, Any]) -> dict[str, Any]:
    made = [
        (f"{source}: {kind.replace('_', ' ')}", count["made"], count["standing"])
        for source, kinds in counts["annotations"].items()
        for kind, count in kinds.items()
    ]
    falls = [(by, reason, count) for by, reasons in counts["fallen"].items() for reason, count in reasons.items()]
    return {
        "made": bars(made),
        "fallen": sorted(falls, key=lambda fall: -fall[2]),
        "labels": bars((label, count, count) for label, count in measures.labels.most_common(TOP_LABELS)),
        "regions": histogram("Standing objects and texts per image", measures.regions),
        "lengths": [
            histogram(f"{detail.replace('_', ' ').capitalize()} texts, words", measures.lengths[detail])
            for detail in DETAILS
            if measures.lengths[detail]
        ],
        "scores": [_score_plot(source, kind, measures) for source, kind in sorted(measures.scores)],
    }


def _score_plot(source: str, kind: str, measures: Measures) -> Plot:
    scores = measures.scores[source, kind]
    rows = (
        (f"{n / SCORE_BINS:.2f} to {(n + 1) / SCORE_BINS:.2f}", scores.made[n], scores.standing[n])
        for n in range(SCORE_BINS)
    )
    held = sorted(scores.thresholds)
    notes = [f"held against {', '.join(f'{value:g}' for value in held[:3])}"] if held else []
    notes += [f"{scores.outside} scores outside 0 to 1"] if scores.outside else []
    threshold = 100 * held[0] if len(held) == 1 and 0 <= held[0] <= 1 else None
    return Plot(f"{source}, {kind}s", bars(rows), threshold, "; ".join(notes))


def _semantics(measures: Measures) -> list[dict[str, Any]]:
    """For each granularity the texts that somebody wrote, the composed ones, and FLD-5B's figures."""
    return [
        {
            "detail": detail.replace("_", " "),
            "rows": [
                (name, measures.semantics.get((detail, composed), Semantics()))
                for name, composed in (("written", False), ("composed from regions", True))
            ],
            "published": PUBLISHED[detail],
            "measures": MEASURES,
        }
        for detail in DETAILS
    ]
