"""Statistics on a terminal: tables that fit 100 columns, histograms as bars of one line, positions as shades."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from engine.stats import Statistics
from engine.stats.cells import (
    ANNOTATIONS,
    KINDS,
    SEMANTICS,
    SIZES,
    THINGS,
    annotation_cells,
    named,
    number,
    semantics_cells,
    size_cells,
)
from engine.stats.histograms import Histogram, bin_names
from engine.stats.published import NOTES
from engine.stats.regions import RARE, Distributions
from engine.untrusted import plain

WIDTH = 100
LONGEST = 40  # characters of a name that others gave
MOST_ROWS = 40  # of what fell, and of origins; --json has all
BARS = " ▁▂▃▄▅▆▇█"
SHADES = " ░▒▓█"


class Section(NamedTuple):
    """Title and note are beside the table: they may be longer than its lines."""

    title: str
    table: Table
    note: str


def print_statistics(statistics: Statistics, console: Console) -> None:
    for line in _head(statistics):
        console.print(_safe(line, WIDTH))
    for section in (_sizes, _annotations, _semantics, _distributions, _lengths):
        _print(section(statistics), console)
    for kind in statistics.regions:
        if any(map(any, kind.positions)):
            _print_positions(kind, console)
    for section in (_classes, _made, _scores, _fallen, _quarantined, _origins):
        _print(section(statistics), console)


def _head(statistics: Statistics) -> Iterable[str]:
    images = statistics.images
    if images.done < images.total:
        yield f"{images.done:,} of {images.total:,} images are done; these are the figures of those."
    if statistics.merged is False:
        yield f"Round {statistics.round} is not merged and judged yet."
    quarantined = sum(count for kinds in images.quarantined.values() for count in kinds.values())
    yield (
        f"Round {statistics.round}: {images.annotated:,} images annotated, {images.duplicates:,} exact duplicates, "
        f"{quarantined:,} quarantined"
    )
    if images.near_duplicates:
        groups = f"{images.near_duplicate_groups:,} group{'s' * (images.near_duplicate_groups != 1)}"
        yield f"{images.near_duplicates:,} images look like another one, in {groups}"


# Tables


def _sizes(statistics: Statistics) -> Section:
    section = _section("Table 1: datasets", NOTES["datasets"], [""], SIZES)
    for row in statistics.datasets:
        _add(section, *size_cells(row))
    return section


def _annotations(statistics: Statistics) -> Section:
    section = _section("Table 2: annotations", NOTES["annotations"], [""], ANNOTATIONS)
    for kind, rows in groupby(statistics.annotations, key=lambda row: row.kind):
        _add(section, KINDS[kind])
        for row in rows:
            of, *cells = annotation_cells(row)
            _add(section, f"  {of}", *cells)
    return section


def _semantics(statistics: Statistics) -> Section:
    section = _section("Table 3: what texts speak of", NOTES["semantics"], [""], SEMANTICS)
    for row in statistics.semantics:
        _add(section, *semantics_cells(row))
    return section


def _distributions(statistics: Statistics) -> Section:
    section = _histograms("Figure 5: regions", NOTES["regions"])
    for name in ("size", "aspect", "number"):
        for kind in statistics.regions:
            things = THINGS[kind.kind]
            what = f"{things} an image" if name == "number" else f"{name} of {things}"
            _add_histogram(section, what, getattr(kind, name), whole=name == "number")
    return section


def _lengths(statistics: Statistics) -> Section:
    section = _histograms("Words of texts", "")
    for row in statistics.lengths:
        if row.words.total:
            _add_histogram(section, named(row.detail, row.origin), row.words, whole=True)
    return section


def _scores(statistics: Statistics) -> Section:
    section = _histograms("Scores", "Of all that were made. Scores of different sources can't be compared.")
    for row in statistics.scores:
        _add_histogram(section, f"{row.source}: {THINGS[row.kind]}", row.made, whole=False)
    return section


def _classes(statistics: Statistics) -> Section:
    classes = statistics.classes
    share = f" ({classes.rare / classes.classes:.1%})" if classes.classes else ""
    note = f"{classes.rare:,} classes{share} have fewer than {RARE} instances."
    title = f"Classes of objects: {classes.classes:,}, with {classes.instances:,} instances"
    section = _section(title, note, ["the most frequent"], ["instances", "images"])
    for row in classes.top:
        _add(section, row.label, number(row.instances), number(row.images))
    return section


def _made(statistics: Statistics) -> Section:
    section = _section("Made, and standing", "", ["source", "kind"], ["made", "standing", "share"])
    for row in statistics.made:
        cells = (number(row.made), number(row.standing), f"{row.standing / row.made:.1%}")
        _add(section, row.source, row.kind.replace("_", " "), *cells)
    return section


def _fallen(statistics: Statistics) -> Section:
    more = len(statistics.fallen) - MOST_ROWS
    note = f"And by {more:,} more reasons." if more > 0 else ""
    section = _section("What fell", note, ["filter", "reason", "kind"], ["count", "of its kind"])
    for row in statistics.fallen[:MOST_ROWS]:
        reason = row.reason.replace("_", " ")
        _add(section, row.by, reason, row.kind.replace("_", " "), number(row.count), f"{row.share:.1%}")
    return section


def _quarantined(statistics: Statistics) -> Section:
    section = _section("Quarantine", "", ["stage", "kind"], ["images"])
    for stage, kinds in statistics.images.quarantined.items():
        for kind, count in kinds.items():
            _add(section, stage, kind.replace("_", " "), number(count))
    return section


def _origins(statistics: Statistics) -> Section:
    origins = statistics.images.origins
    more = len(origins) - MOST_ROWS
    section = _section("Origins", f"And {more:,} more." if more > 0 else "", ["dataset", "licence"], ["images"])
    for origin in origins[:MOST_ROWS]:
        _add(section, origin.dataset or "-", origin.licence or "-", number(origin.images))
    return section


def _section(title: str, note: str, names: Sequence[str], numbers: Sequence[str]) -> Section:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return Section(title, table, note)


def _add(section: Section, *cells: str) -> None:
    section.table.add_row(*map(_safe, cells))


def _print(section: Section, console: Console) -> None:
    """Nothing if it has no rows."""
    if section.table.row_count:
        console.print()
        console.print(Styled(section.title, style="bold"))
        console.print(section.table, width=WIDTH)
        if section.note:
            console.print(Styled(section.note, style="dim"), width=WIDTH)


# Cells


def _safe(text: str, longest: int = LONGEST) -> Styled:
    """What others wrote, on one line, shortened, without what terminals obey; styled, so that it is no markup."""
    line = re.sub(r"\s", " ", text)
    short = line if len(line) <= longest else line[: longest - 1] + "…"
    return Styled(plain(short))


# Histograms


def _histograms(title: str, note: str) -> Section:
    section = _section(title, note, [""], ["number", "from"])
    for name in ("", "to", "most often"):
        section.table.add_column(name, no_wrap=True)
    return section


def _add_histogram(section: Section, what: str, histogram: Histogram, whole: bool) -> None:
    names, counts = bin_names(histogram, whole), histogram.counts
    if not histogram.total:
        _add(section, what, "-")
        return
    often = names[counts.index(max(counts))]
    ends = names[0].split(" to ")[0], names[-1].split(" to ")[-1]
    _add(section, what, number(histogram.total), ends[0], f"▕{bar_line(counts)}▏", ends[1], often)


def bar_line(counts: Sequence[int]) -> str:
    """A bar of an eighth to a whole line for each count that isn't 0."""
    most = max(counts)
    return "".join(BARS[math.ceil(8 * count / most)] for count in counts)


def _print_positions(kind: Distributions, console: Console) -> None:
    """Two rows of cells in a line: characters are twice as high as wide."""
    console.print()
    console.print(Styled(f"Where the centres of {THINGS[kind.kind]} lie in their images", style="bold"))
    pairs = zip(kind.positions[::2], kind.positions[1::2], strict=True)
    lines = [[one + other for one, other in zip(*pair, strict=True)] for pair in pairs]
    most = max(map(max, lines))
    for line in lines:
        console.print(Styled("▕" + "".join(SHADES[math.ceil(4 * count / most)] for count in line) + "▏"))
