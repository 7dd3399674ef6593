"""The report: a dataset as a page to look at, alone or, if it shows many pictures, with a folder of pages beside it.

    report/
      index.html                            all that is told of the dataset, and the first pictures
      gallery/0001.html, 0002.html, ...     the pictures, the most disputed first
      gallery/find.html                     all of them, by order, label, source, filter and words
      gallery/pictures/0001/000001.jpg      and what fell, cut out, in gallery/fell/

Up to ON_ONE_PAGE pictures are in index.html, and there is no folder. No page loads anything from elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from markupsafe import Markup

from engine.atomic import read_json, write_text
from engine.config import Ingest
from engine.dataset import Dataset
from engine.places import reached
from engine.report.counts import counted
from engine.report.falls import fallen
from engine.report.gallery import A_PAGE, FIRST, ON_ONE_PAGE, Beside, Cards, inside, make_cards, page_name
from engine.report.index import Index
from engine.report.measures import measure
from engine.report.origins import faults, near_duplicates
from engine.report.page import Look
from engine.report.pictures import Picture
from engine.report.rounds import rounds, standing, tracks
from engine.report.survey import survey
from engine.report.training import trainings
from engine.summary import count_round

NEAR = 2  # pages on each side that a page of the gallery has links to


def write_report(dataset: Dataset, ingest: Ingest, folder: Path, images: int | None = 60) -> Path:
    """Writes the report on `dataset` into `folder`, with as many pictures as `images` says, or all if that is None: the
    most disputed ones. Returns the path of its first page, index.html; what an earlier report left there is gone.

    The same files give the same report. Raises OutputError where one of them is damaged.
    """
    found = survey(dataset)
    chosen = found.order()[:images]
    beside = len(chosen) > ON_ONE_PAGE
    counts = count_round(dataset.output, dataset.round, dataset.shards())
    sources = _sources(dataset, counts["annotations"])
    look = Look(dataset.output.root.absolute(), dataset.round, sources, beside, len(chosen))
    folder.mkdir(parents=True, exist_ok=True)
    with _aside(folder) as gallery, TemporaryFile(dir=folder) as file, ThreadPoolExecutor(os.cpu_count()) as threads:
        cards = Cards(file)
        first: dict[int, Markup] = {}

        def render(picture: Picture) -> str:
            if beside and picture.number <= FIRST:
                first[picture.number] = Markup(look.card(picture, "gallery/"))
            return look.card(picture)

        keep = Beside(gallery) if beside else inside
        index = make_cards(dataset, found, chosen, ingest, keep, render, cards, threads)
        falls = fallen(dataset, counts["fallen"], found, ingest, lambda number: keep(f"fell/{number:03d}.jpg"), threads)
        if beside:
            _write_gallery(look, cards, index, gallery)
        page = look.page(
            "index",
            title=f"Report on {look.root.name}",
            of_all=len(found.places),
            pages=_pages(len(cards)) if beside else 0,
            cards=[first[n] for n in sorted(first)] if beside else (cards[n + 1] for n in range(len(cards))),
            index="" if beside or not chosen else Markup(index.json(A_PAGE)),
            options=_options(index),
            fallen=falls,
            more_reasons=sum(map(len, counts["fallen"].values())) - len(falls),
            prefix="gallery/" if beside else "",
            **_told(dataset, ingest, counts),
        )
        _replace(gallery if beside else None, folder / "gallery")
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _told(dataset: Dataset, ingest: Ingest, counts: dict[str, Any]) -> dict[str, Any]:
    """What the first page tells besides pictures and what fell."""
    measures, judged = measure(dataset), rounds(dataset)
    return {
        "manifest": read_json(dataset.output.manifest),
        "measures": measures,
        "quarantined": _quarantined(counts["quarantined"]),
        "made": _made(counts),
        "decided": _decided(dataset),
        "judged": judged,
        "standing": standing(dataset, judged) if judged else None,
        "tracks": tracks(judged),
        "counts": counted(measures.statistics),
        "trainings": trainings(dataset.output.round(dataset.round)),
        "ingest": ingest,
        "near": near_duplicates(dataset),
        "faults": faults(dataset),
    }


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder to make the gallery in. Those of reports that were killed are removed."""
    for left in folder.glob(".gallery-*"):
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=".gallery-", dir=folder, ignore_cleanup_errors=True) as made:
        gallery = Path(made) / "gallery"
        gallery.mkdir()
        yield gallery


def _replace(made: Path | None, there: Path) -> None:
    """The gallery that was made takes the place of an earlier one."""
    if there.is_symlink() or there.is_file():
        there.unlink()
    elif there.exists():
        shutil.rmtree(there)
    if made:
        made.rename(there)


def _write_gallery(look: Look, cards: Cards, index: Index, to: Path) -> None:
    pages = _pages(len(cards))
    for page in range(1, pages + 1):
        first = (page - 1) * A_PAGE + 1
        here = [cards[number] for number in range(first, min(first + A_PAGE, len(cards) + 1))]
        title = f"Pictures {first} to {first + len(here) - 1}, {look.root.name}"
        near = list(_near(page, pages))
        html = look.page("gallery", title=title, page=page, pages=pages, near=near, first=first, cards=here)
        (to / page_name(page)).write_text(html, encoding="utf-8")
    title = f"Find pictures, {look.root.name}"
    html = look.page("find", title=title, pages=pages, index=Markup(index.json(A_PAGE)), options=_options(index))
    (to / "find.html").write_text(html, encoding="utf-8")


def _pages(cards: int) -> int:
    return -(-cards // A_PAGE)


def _near(page: int, pages: int) -> Iterator[int | None]:
    """The first and the last page, and those around one; None where some are left out."""
    last = 0
    for number in sorted({1, pages, *range(max(page - NEAR, 1), min(page + NEAR, pages) + 1)}):
        if number > last + 1:
            yield None
        yield number
        last = number


def _options(index: Index) -> dict[str, Any]:
    return {name: getattr(index, name).options() for name in ("labels", "sources", "filters")}


def _sources(dataset: Dataset, annotations: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Source key -> who that is, as far as it is recorded: of human annotations, say, nothing is.

    `number` is None for one that made nothing; one that is `drawn` made something that can be shown or hidden.
    """
    known = dataset.sources()
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
    with reached(dataset.output.root):
        times = [round_.decisions(shard).stat().st_mtime for shard in dataset.shards()]
    return f"{datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC" if times else ""


def _quarantined(counts: dict[str, dict[str, int]]) -> list[tuple[str, str, int]]:
    """Stage, kind and how many, the most frequent first."""
    listed = Counter({(stage, kind): count for stage, kinds in counts.items() for kind, count in kinds.items()})
    return [(stage, kind, count) for (stage, kind), count in listed.most_common(20)]


def _made(counts: dict[str, Any]) -> dict[str, int]:
    """Annotations made and standing, of all sources and kinds."""
    each = [count for kinds in counts["annotations"].values() for count in kinds.values()]
    return {key: sum(count[key] for count in each) for key in ("made", "standing")}
