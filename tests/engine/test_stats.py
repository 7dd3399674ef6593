"""Statistics are what one counts by hand, record by record."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from strategies import records
from typer.testing import CliRunner

from engine.atomic import write_json
from engine.cli.commands import app
from engine.dataset import open_dataset
from engine.errors import OutputError
from engine.layout import Output, ShardId
from engine.records import (
    DETAILS,
    Item,
    ItemError,
    Mask,
    Parse,
    Record,
    Region,
    RegionText,
    Scores,
    Text,
    Triplet,
)
from engine.report.counts import counted as on_page
from engine.report.measures import measure
from engine.rounds import added
from engine.schema import annotations_to_table, decisions_to_table, items_to_table
from engine.stats import COMPOSER, Counts, Statistics, statistics, whole_round
from engine.stats.columns import words
from engine.stats.histograms import MOST_BINS, Histogram, bin_names, of_whole_numbers
from engine.stats.published import MEASURES
from engine.stats.regions import ASPECTS, GRID, SIZES, classes, distributions
from engine.stats.scores import scores
from engine.stats.tables import Annotations, annotation_rows, semantics_rows
from engine.stats.terminal import print_statistics
from engine.storage import Tables, write_annotations, write_decisions, write_table
from engine.summary import count_round

GOLDEN = Path(__file__).parents[1] / "golden" / "stats.txt"
HOSTILE = "[bold]dog[/bold]\x1b[31m\x9b1m \u202eevil\nnext"
SURE = Scores(label=1.0)
COMPOSING = frozenset({"a"})  # of the sources that the strategies have


def counted(some: Sequence[Record]) -> Counts:
    """As of a shard with one round."""
    counts = Counts(COMPOSING)
    layer = annotations_to_table(some), decisions_to_table(some)
    counts.add(Tables(items_to_table([record.item for record in some]), (layer,), (0,)))
    return counts


def mean(values: Iterable[float]) -> Any:
    listed = list(values)
    total = sum(listed)
    return pytest.approx(total / len(listed)) if listed and math.isfinite(total) else None


def nearly(value: float | None) -> Any:
    return None if value is None else pytest.approx(value)


def length(text: str | None) -> int:
    return len((text or "").split())


def is_composed(text: Text, record: Record) -> bool:
    return any(isinstance(record.by_id[id_], Region) for id_ in text.derived_from)


def regions_of(triplet: Triplet, record: Record) -> list[str]:
    """The regions that a triplet names now; none if it fell apart."""
    falls = [d for d in record.decisions if d.action in ("reject", "supersede")]
    overruled = {d.annotation_id: d.against for d in falls if d.against}
    if not record.fallen.intersection(triplet.region_ids):
        return list(triplet.region_ids)
    named = {}
    for id_ in triplet.region_ids:
        at, seen = id_, set()
        while at in record.fallen and at in overruled and at not in seen:
            seen.add(at)
            at = overruled[at]
        one, other = record.by_id[id_], record.by_id[at]
        if at not in record.fallen and isinstance(other, Region) and other.label == getattr(one, "label", None):
            named[at] = None
    return list(named)


# Each number against a count from records


@given(st.lists(records(max_rounds=1), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_table_2_counts_what_stands(some: list[Record]) -> None:
    counts = counted(some)
    found = {(row.kind, row.of, row.origin): row for row in annotation_rows(counts.texts, counts.regions)}
    for detail in DETAILS:
        for origin, composed in (("written", False), ("composed", True)):
            texts = [
                (row, text)
                for row, record in enumerate(some)
                for text in record.standing.texts
                if (text.detail, is_composed(text, record)) == (detail, composed)
            ]
            images, tokens = len({row for row, _ in texts}), mean(length(text.text) for _, text in texts)
            wanted = Annotations("text", detail, origin, images, len(texts), tokens, None, None, None)
            assert found["text", detail, origin] == wanted
            pairs = [
                (row, text, length(text.text[triplet.start : triplet.stop]))
                for row, text in texts
                for triplet in some[row].standing.triplets
                if triplet.text_id == text.id
                for _ in regions_of(triplet, some[row])
            ]
            linked = {(row, text.id): text for row, text, _ in pairs}
            each = len(pairs) / len(linked) if linked else None
            assert found["triplet", detail, origin] == Annotations(
                "triplet",
                detail,
                origin,
                len({row for row, _ in linked}),
                len(linked),
                mean(length(text.text) for text in linked.values()),
                len(pairs),
                each,
                mean(size for *_, size in pairs),
            )


def called(region: Region) -> str:
    if region.kind == "proposal":
        return ""
    said = region.text if region.kind == "text" else region.label if region.label is not None else region.raw_label
    return said if said and said.split() else ""


@given(st.lists(records(max_rounds=1), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_table_2_counts_what_is_said_of_regions(some: list[Record]) -> None:
    counts = counted(some)
    found = {
        (row.of, row.origin): row for row in annotation_rows(counts.texts, counts.regions) if row.kind == "region_text"
    }
    standing = [(row, region) for row, record in enumerate(some) for region in record.standing.regions]
    phrases = [(row, region.id, called(region)) for row, region in standing if called(region)]
    assert found["phrase", "written"] == told("phrase", "written", phrases)
    there = {(row, region.id) for row, region in standing}
    briefs: dict[bool, list[tuple[int, str, str]]] = {False: [], True: []}
    for row, record in enumerate(some):
        for text in record.standing.region_texts:
            if (row, text.region_id) in there:
                briefs[descends(text, record)].append((row, text.region_id, text.text))
    assert found["brief", "written"] == told("brief", "written", briefs[False])
    assert found["brief", "composed"] == told("brief", "composed", briefs[True])


def descends(text: RegionText, record: Record) -> bool:
    """Whether it is a composer's, or made from one that is."""
    if text.source in COMPOSING:
        return True
    parents = (record.by_id[id_] for id_ in text.derived_from)
    return any(parent.source in COMPOSING for parent in parents if isinstance(parent, RegionText))


def told(of: str, origin: str, said: list[tuple[int, str, str]]) -> Annotations:
    images, regions = len({row for row, *_ in said}), len({(row, id_) for row, id_, _ in said})
    tokens = mean(length(text) for *_, text in said)
    return Annotations(
        "region_text", of, origin, images, len(said), None, regions, regions / images if images else None, tokens
    )


@given(st.lists(records(max_rounds=1), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_table_3_is_of_standing_texts_with_a_parse(some: list[Record]) -> None:
    found = {(row.detail, row.origin): row for row in semantics_rows(counted(some).texts)}
    for detail in DETAILS:
        for origin, composed in (("written", False), ("composed", True)):
            parses = [
                parse
                for record in some
                for parse in record.standing.parses
                for text in record.standing.texts
                if text.id == parse.text_id and (text.detail, is_composed(text, record)) == (detail, composed)
            ]
            row = found[detail, origin]
            assert row.texts == len(parses)
            for name in MEASURES:
                assert getattr(row, name) == mean(getattr(parse, name) for parse in parses), name


def in_bins(values: Iterable[float], edges: Sequence[float | None]) -> tuple[int, ...]:
    ends = [math.inf if edge is None else edge for edge in edges]
    ends[-1] = math.inf  # what lies on the last edge is in the last bin
    found = list(values)
    return tuple(sum(low <= value < high for value in found) for low, high in pairwise(ends))


def is_looked_at(record: Record) -> bool:
    return not (record.error or record.item.error or record.item.duplicate_of)


@given(st.lists(records(max_rounds=1), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_figure_5_is_of_boxes_cut_to_their_images(some: list[Record]) -> None:
    counts = counted(some)
    for kind in distributions(counts.regions):
        cut, unmeasured = [], 0
        for record in some:
            width, height = record.item.width or math.nan, record.item.height or math.nan
            for region in (region for region in record.standing.regions if region.kind == kind.kind):
                x0, x1 = (min(max(region.box[n], 0), width) for n in (0, 2))
                y0, y1 = (min(max(region.box[n], 0), height) for n in (1, 3))
                if record.item.width is None or x1 <= x0 or y1 <= y0:
                    unmeasured += 1
                else:
                    cut.append((x0, y0, x1, y1, width, height))
        assert (kind.regions, kind.unmeasured) == (len(cut) + unmeasured, unmeasured)
        shares = [math.sqrt((x1 - x0) * (y1 - y0) / (w * h)) for x0, y0, x1, y1, w, h in cut]
        assert kind.size.counts == in_bins(shares, kind.size.edges)
        assert kind.aspect.counts == in_bins([(x1 - x0) / (y1 - y0) for x0, y0, x1, y1, *_ in cut], kind.aspect.edges)
        cells = Counter((int((y0 + y1) / 2 / h * GRID), int((x0 + x1) / 2 / w * GRID)) for x0, y0, x1, y1, w, h in cut)
        assert kind.positions == tuple(tuple(cells[row, column] for column in range(GRID)) for row in range(GRID))
        numbers = [
            sum(region.kind == kind.kind for region in record.standing.regions)
            for record in some
            if is_looked_at(record)
        ]
        assert kind.number.counts == in_bins(numbers, kind.number.edges)


@given(st.lists(records(max_rounds=1), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_images_made_fallen_and_classes(some: list[Record]) -> None:
    counts = counted(some)
    errors = [error for record in some if (error := record.item.error or record.error)]
    assert counts.images.done == len(some)
    assert counts.images.annotated == sum(map(is_looked_at, some))
    assert counts.images.quarantined == Counter((error.stage, error.kind) for error in errors)
    assert counts.images.annotated + counts.images.duplicates + len(errors) == len(some)
    made, stand, falls = Counter[Any](), Counter[Any](), Counter[Any]()
    for record in some:
        kinds = {annotation.id: kind_of(annotation) for annotation in record.annotations()}
        made.update((annotation.source, kinds[annotation.id]) for annotation in record.annotations())
        stand.update((annotation.source, kinds[annotation.id]) for annotation in record.standing.annotations())
        first = {d.annotation_id: d for d in reversed(record.decisions) if d.action in ("reject", "supersede")}
        falls.update((d.by, d.reason, kinds[id_]) for id_, d in first.items())
    assert {(m.source, m.kind): (m.made, m.standing) for m in counts.made.by_source()} == {
        key: (count, stand[key]) for key, count in made.items()
    }
    fallen = counts.made.fallen()
    assert {(f.by, f.reason, f.kind): f.count for f in fallen} == falls
    assert [f.count for f in fallen] == sorted(falls.values(), reverse=True)
    for fall in fallen:
        assert fall.share == fall.count / sum(count for (_, kind), count in made.items() if kind == fall.kind)
    labels: Counter[str] = Counter()
    for record in some:
        objects = [r for r in record.standing.regions if r.kind == "object" and not r.crowd]
        labels.update(filter(None, map(called, objects)))
    found = classes(counts.regions)
    assert (found.classes, found.instances) == (len(labels), labels.total())
    assert found.rare == sum(count < 10 for count in labels.values())
    assert {one.label: one.instances for one in found.top}.items() <= labels.items()
    assert len(found.top) == min(len(labels), 20)


@given(st.lists(records(max_rounds=1), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_scores_are_those_of_regions(some: list[Record]) -> None:
    scored: dict[tuple[str, str], list[tuple[float, Any]]] = {}
    for record in some:
        first = {d.annotation_id: d for d in reversed(record.decisions) if d.action in ("reject", "supersede")}
        for region in record.regions:
            if region.score is not None:
                scored.setdefault((region.source, region.kind), []).append((region.score, first.get(region.id)))
    found = {(one.source, one.kind): one for one in scores(counted(some).scores)}
    assert found.keys() == scored.keys()
    for key, one in found.items():
        inside = [(score, fell) for score, fell in scored[key] if 0 <= score <= 1]
        assert one.made.counts == in_bins([score for score, _ in inside], one.made.edges)
        assert one.standing.counts == in_bins([score for score, fell in inside if not fell], one.standing.edges)
        assert one.outside == len(scored[key]) - len(inside)
        held = {fell.threshold for score, fell in scored[key] if fell and fell.value == score}
        assert set(one.thresholds) == held - {None}


def kind_of(annotation: Any) -> str:
    if isinstance(annotation, Region):
        return "line" if annotation.kind == "text" else annotation.kind
    names = {Text: "text", Parse: "parse", RegionText: "region_text", Mask: "mask", Triplet: "triplet"}
    return names[type(annotation)]


@given(st.lists(st.none() | st.text(st.sampled_from("a\u0301 \t\n\x1c\x85\xa0\u2028\u3000\u200bé\x00"), max_size=9)))
def test_words_are_those_that_split_gives(texts: list[str | None]) -> None:
    assert words(pa.array(texts, pa.string())).to_pylist() == [length(text) for text in texts]


@given(st.dictionaries(st.integers(0, 10**7), st.integers(1, 1000), max_size=30).map(Counter))
def test_histograms_of_whole_numbers_hold_all_in_round_bins(counts: Counter[int]) -> None:
    histogram = of_whole_numbers(counts)
    edges: Any = histogram.edges
    assert histogram.total == counts.total() and len(histogram.counts) <= MOST_BINS
    assert (
        histogram.counts == in_bins(counts.elements() if counts.total() < 10**4 else [], edges)
        or counts.total() >= 10**4
    )
    assert edges[0] == 0 and edges[-1] > max(counts, default=0)
    widths = {high - low for low, high in pairwise(edges[:-1])}
    assert not widths or (len(widths) == 1 and str(widths.pop()).strip("0") in "125")
    if len(edges) > 2:
        width = edges[1]
        assert sum(counts[value] for value in counts if value < edges[-2]) < 0.99 * counts.total()
        assert sum(counts[value] for value in counts if value >= edges[-2] + width) <= 0.01 * counts.total()


def test_bins_are_named() -> None:
    assert bin_names(Histogram((0, 1, 3, 20_001), (1, 1, 1)), whole=True) == ["0", "1 to 2", "3 to 20,000"]
    assert bin_names(Histogram((0.0, 0.125, None), (1, 1))) == ["0 to 0.125", "0.125 or more"]
    assert SIZES.tolist()[:2] == [0, 0.05] and SIZES[-1] == 1
    assert ASPECTS.tolist()[::2] == [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]


# A whole dataset


def write(root: Path, rounds: Sequence[Sequence[Record]], shard_size: int = 2, total: int | None = None) -> Output:
    """An output folder: of each round what it adds, of the first all."""
    output = Output(root)
    items = [record.item for record in rounds[0]]
    for number, layer in enumerate(rounds):
        for at in range(0, len(layer), shard_size):
            shard, some = ShardId(0, at // shard_size), layer[at : at + shard_size]
            write_table(output.items(shard), items_to_table(items[at : at + shard_size]))
            write_annotations(output.round(number), shard, some, "")
            write_decisions(output.round(number), shard, some, "")
    size = len(items) if total is None else total
    partition = {"items": size, "shard_size": shard_size, "shards": -(-size // shard_size)}
    write_json(output.manifest, {"items": size, "partitions": [partition]})
    return output


def parsed(text: Text, objects: int) -> Parse:
    return Parse(
        id=f"parse of {text.id}",
        source="parser",
        text_id=text.id,
        objects=objects,
        attributes=1,
        actions=0,
        proper_nouns=2,
        object_complexity=1.5,
        action_complexity=0.0,
        max_object_complexity=2,
        max_action_complexity=0,
    )


def hand_made() -> list[Record]:
    """Two images with annotations, a copy, and one that can't be read."""
    item = Item(Item.id_of("a"), "a", width=100, height=50, dataset="ours", licence="CC0")
    one = Record(item).append(
        [
            Region(id="r0", source="detector", kind="object", box=(0, 0, 50, 50), label="dog"),
            Region(id="r1", source="detector", kind="object", box=(90, 0, 120, 10), label="dog house", scores=SURE),
            Region(id="r2", source="detector", kind="object", box=(0, 0, 1, 1), label="cat", scores=Scores(label=0.1)),
            Region(id="r3", source="ocr", kind="text", box=(0, 40, 80, 50), text="STOP here now"),
            Region(id="r4", source="detector", kind="proposal", box=(0, 0, 9, 9)),
            Text(id="t0", source="captioner", detail="brief", text="a dog by a dog house"),
            Text(id="t1", source="words", detail="brief", text="one dog", derived_from=("r0",)),
        ]
    )
    one = one.append(
        [
            parsed(one.texts[0], 2),
            parsed(one.texts[1], 1),
            RegionText(id="b0", source="captioner", region_id="r0", derived_from=("r0",), text="a small brown dog"),
            RegionText(id="b3", source="human", region_id="r0", text="Rex"),
            RegionText(id="b1", source="words", region_id="r0", derived_from=("r0",), text="the dog"),
            RegionText(id="b2", source="merge", region_id="r1", derived_from=("b1", "r1"), text="the dog house"),
            Triplet(id="x0", source="grounder", text_id="t0", start=0, stop=5, region_ids=("r0",)),
            Triplet(id="x1", source="grounder", text_id="t0", start=9, stop=20, region_ids=("r1", "r0")),
            Triplet(id="x2", source="grounder", text_id="t1", start=0, stop=7, region_ids=("r0",)),
            Mask(id="m0", source="sam", region_id="r0", size=(50, 100), counts=b"never read"),
        ]
    )
    one = one.decide([one.reject(one.by_id["r2"], "score", "low_score", 0.1, 0.3)])
    two = Record(dataclasses.replace(item, item_id=Item.id_of("b"), uri="b")).append(
        [
            Region(id="r0", source="human", kind="object", box=(10, 10, 30, 20), label=HOSTILE),
            Text(id="t0", source="human", detail="detailed", text="nothing  much\there "),
        ]
    )
    copy = Record(Item(Item.id_of("c"), "c", duplicate_of=item.item_id, width=100, height=50))
    broken = Record(Item(Item.id_of("d"), "d", error=ItemError("ingest", "empty", "no byte")))
    return [one, two, copy, dataclasses.replace(broken, error=broken.item.error)]


@pytest.fixture
def small(tmp_path: Path) -> Output:
    output = write(tmp_path / "out", [hand_made()])
    sources = {"words": {"specialist": COMPOSER}, "detector": {"specialist": "specialists.detector:NanoDet"}}
    write_json(output.round(0).sources, {"sources": sources})
    return output


def of(output: Output, round: int = 0) -> Statistics:
    return statistics(whole_round(output.root, round))


def printed(told: Statistics) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None, force_terminal=False)
    print_statistics(told, console)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def test_a_small_set_counted_by_hand(small: Output) -> None:
    found = of(small)
    assert (found.images.total, found.images.done, found.images.annotated, found.images.duplicates) == (4, 4, 2, 1)
    assert found.images.quarantined == {"ingest": {"empty": 1}}
    assert [(o.dataset, o.licence, o.images) for o in found.images.origins] == [(None, None, 2), ("ours", "CC0", 2)]
    rows = {(row.kind, row.of, row.origin): dataclasses.astuple(row)[3:] for row in found.annotations}
    assert rows["text", "brief", "written"] == (1, 1, 6.0, None, None, None)
    assert rows["text", "brief", "composed"] == (1, 1, 2.0, None, None, None)
    assert rows["text", "detailed", "written"] == (1, 1, 3.0, None, None, None)
    named = 1 + 2 + 3 + length(HOSTILE)
    assert rows["region_text", "phrase", "written"] == (2, 4, None, 4, 2.0, named / 4)
    assert rows["region_text", "brief", "written"] == (1, 2, None, 1, 1.0, 2.5)
    assert rows["region_text", "brief", "composed"] == (1, 2, None, 2, 2.0, 2.5), "carried over by merging"
    assert rows["triplet", "brief", "written"] == (1, 1, 6.0, 3, 3.0, (2 + 3 + 3) / 3)
    assert rows["triplet", "brief", "composed"] == (1, 1, 2.0, 1, 1.0, 2.0)
    assert rows["triplet", "more_detailed", "composed"] == (0, 0, None, 0, None, None)
    assert [(row.images, row.annotations) for row in found.datasets[:2]] == [(2, 3 + 4 + 4 + 4), (2, 2 + 4 + 2 + 3)]
    assert found.datasets[0].annotations_each == 7.5
    objects, texts = found.regions
    assert objects.size.counts == (0, 0, 1, 0, 1, *[0] * 9, 1, *[0] * 5)  # 2 %, 4 % and 50 % of the image
    assert {(y, x) for y in range(GRID) for x in range(GRID) if objects.positions[y][x]} == {(12, 6), (2, 22), (7, 4)}
    assert {(y, x) for y in range(GRID) for x in range(GRID) if texts.positions[y][x]} == {(21, 9)}
    assert dict(zip(objects.aspect.edges, objects.aspect.counts, strict=False))[1] == 2  # 50 x 50 and 10 x 10
    assert (objects.number.edges, objects.number.counts) == ((0, 1, 2, 3), (0, 1, 1))
    assert [(one.instances, one.images) for one in found.classes.top] == [(1, 1)] * 3
    assert [dataclasses.astuple(fall) for fall in found.fallen] == [("score", "low_score", "object", 1, 0.25)]
    (certainty,) = found.scores
    assert (certainty.source, certainty.kind, certainty.thresholds) == ("detector", "object", (0.3,))
    assert [n for n, count in enumerate(certainty.made.counts) if count] == [2, 19]
    assert [n for n, count in enumerate(certainty.standing.counts) if count] == [19]
    assert [(row.made, row.standing) for row in found.made if row.source == "detector"] == [(3, 2), (1, 1)]
    assert [(row.source, row.kind, row.made) for row in found.made if row.kind == "mask"] == [("sam", "mask", 1)]


def test_a_class_of_ten_is_not_rare() -> None:
    labels = ["dog"] * 10 + ["cat"] * 9
    regions = [
        Region(id=f"{n}", source="d", kind="object", box=(0, 0, 1, 1), label=label) for n, label in enumerate(labels)
    ]
    found = classes(counted([Record(Item(Item.id_of("a"), "a")).append(regions)]).regions)
    assert (found.classes, found.rare, found.instances) == (2, 1, 19)
    assert [(one.label, one.instances, one.images) for one in found.top] == [("dog", 10, 1), ("cat", 9, 1)]


def test_the_terminal_shows_it(small: Output) -> None:
    assert printed(of(small)) == GOLDEN.read_text()


def test_the_page_shows_it(small: Output) -> None:
    measures = measure(whole_round(small.root, 0))
    assert [(uri, error.kind) for uri, error in measures.quarantine] == [("d", "empty")]
    assert (measures.images, measures.annotated, measures.duplicates, measures.quarantined) == (4, 2, 1, 1)
    assert measures.licences == {("ours", "CC0"): 2, ("", ""): 2}
    shown = on_page(measures.statistics)
    objects, texts = shown["places"]
    assert [opacity for opacity, _ in objects.shades] == [1.0], "each cell has one"
    cells = {cell for _, path in objects.shades for cell in path.split("z") if cell}
    assert cells == {f"M{x} {y}h1v1h-1" for x, y in ((6, 12), (22, 2), (4, 7))}
    assert texts.said == "most, 1, at 38% to 42% of the width, 88% to 92% of the height"
    assert shown["semantics"][0] == (
        "brief",
        [
            (False, "written", ("1", "6.00", "2.00", "1.00", "0.00", "2.00", "1.50", "0.00")),
            (False, "composed from regions", ("1", "2.00", "1.00", "1.00", "0.00", "2.00", "1.50", "0.00")),
            (True, "FLD-5B", ("", "7.95", "3.23", "2.80", "0.58", "1.10", "2.80", "1.14")),
        ],
    )
    assert shown["annotations"][2][1][1] == (False, ("brief, derived", "1", "1", "2.00", "1", "1.00", "2.00"))


def test_hostile_words_do_nothing_to_terminals(small: Output) -> None:
    shown = printed(of(small))
    assert not set(shown) & {"\x1b", "\x9b", "\u202e"}
    assert "[bold]dog[/bold]␛[31m" in shown
    document = of(small).json()
    assert not set(document) & {"\x1b", "\x9b", "\u202e"}
    assert HOSTILE in {one["label"] for one in json.loads(document)["classes"]["top"]}


@given(records(max_rounds=1), st.integers(0, 10**9))
@settings(max_examples=20, deadline=None)
def test_lines_fit(record: Record, factor: int) -> None:
    told = make_large(dataset_of([record]), factor)
    assert max(map(cell_len, printed(told).splitlines())) <= 100


def dataset_of(some: Sequence[Record]) -> Statistics:
    """Without a folder."""
    counts = counted(some)
    rows = tuple(annotation_rows(counts.texts, counts.regions))
    from engine.stats import Lengths
    from engine.stats.images import Images
    from engine.stats.tables import size_rows

    images = Images(len(some), len(some), counts.images.annotated, 0, {}, None, None, ())
    return Statistics(
        round=0,
        merged=None,
        images=images,
        datasets=tuple(size_rows(images.annotated, rows)),
        annotations=rows,
        semantics=tuple(semantics_rows(counts.texts)),
        regions=tuple(distributions(counts.regions)),
        lengths=(Lengths("brief", "written", Histogram((0, 1), (1,))),),
        classes=classes(counts.regions),
        scores=tuple(scores(counts.scores)),
        made=counts.made.by_source(),
        fallen=counts.made.fallen(),
    )


def make_large(told: Statistics, factor: int) -> Statistics:
    rows = [dataclasses.replace(row, texts=factor, images=factor, regions=factor) for row in told.annotations]
    made = [dataclasses.replace(row, made=row.made * factor + 1) for row in told.made]
    return dataclasses.replace(told, annotations=tuple(rows), made=tuple(made))


# Rounds, parts and nothing


@given(st.lists(records(max_rounds=2), min_size=3, max_size=3))
@settings(max_examples=6, deadline=None)
def test_two_rounds_on_disk(tmp_path_factory: pytest.TempPathFactory, some: list[Record]) -> None:
    """A round is all up to it. Made and standing is what summaries say, which know no lines."""
    first = [as_of(record, 0) for record in some]
    root = tmp_path_factory.mktemp("rounds") / "out"
    later = [dataclasses.replace(added(record, before), round=1) for record, before in zip(some, first, strict=True)]
    output = write(root, [first, later])
    for number, there in enumerate((first, some)):
        told, counts = of(output, number), counted(there)
        shards = open_dataset(root, number).shards()
        assert len(shards) == 2
        assert told.made == counts.made.by_source() and told.fallen == counts.made.fallen()
        assert [row for row in told.regions] == list(distributions(counts.regions))
        for row, wanted in zip(told.semantics, semantics_rows(counts.texts), strict=True):
            assert dataclasses.astuple(row) == (
                *dataclasses.astuple(wanted)[:3],
                *map(nearly, dataclasses.astuple(wanted)[3:]),
            )
        assert told.images.annotated == counts.images.annotated
        texts = [row for row in told.annotations if row.kind in ("text", "triplet")]
        assert texts == [r for r in annotation_rows(counts.texts, counts.regions) if r.kind in ("text", "triplet")]
        summary: dict[str, Counter[str]] = {}
        for row in told.made:
            kind = "text" if row.kind == "line" else row.kind
            summary.setdefault(row.source, Counter()).update(
                {f"{kind} made": row.made, f"{kind} standing": row.standing}
            )
        assert summary == {
            source: Counter({f"{kind} {what}": n for kind, both in kinds.items() for what, n in both.items()})
            for source, kinds in count_round(output, number, shards)["annotations"].items()
        }


def as_of(record: Record, round: int) -> Record:
    names = ("texts", "parses", "regions", "region_texts", "masks", "triplets")
    kept = {name: tuple(a for a in getattr(record, name) if a.id.startswith(f"{round}.")) for name in names}
    decisions = tuple(d for d in record.decisions if d.round == round)
    return dataclasses.replace(record, **kept, decisions=decisions, round=round)  # type: ignore[arg-type]


def test_a_round_that_is_not_there_or_not_whole_is_refused(small: Output) -> None:
    with pytest.raises(OutputError, match=r"round 2 is not there; those that are: 0$"):
        whole_round(small.root, 2)
    records_ = [dataclasses.replace(Record(record.item), round=1) for record in hand_made()]
    for shard in (ShardId(0, 0), ShardId(0, 1)):
        some = records_[2 * shard.number : 2 * shard.number + 2]
        write_annotations(small.round(1), shard, some, "")
        with pytest.raises(OutputError, match=r"round 1 is not whole; those that are: 0$"):
            whole_round(small.root, 1)
        write_decisions(small.round(1), shard, some, "")
    told = of(small, 1)
    assert told.made == of(small).made
    assert told.merged is False and "Round 1 is not merged and judged yet." in printed(told)
    write_json(small.round(1).manifest, {})
    assert of(small, 1).merged is True
    with pytest.raises(OutputError, match="holds no dataset"):
        whole_round(small.root / "nowhere", 0)


def test_a_part_is_told_to_be_one(tmp_path: Path) -> None:
    output = write(tmp_path / "out", [hand_made()[:2]], total=9)
    told = of(output)
    assert (told.images.total, told.images.done, told.images.annotated) == (9, 2, 2)
    assert printed(told).startswith("2 of 9 images are done; these are the figures of those.\n")


@pytest.mark.parametrize("items", [0, 5])
def test_nothing_has_no_figures(tmp_path: Path, items: int) -> None:
    """An empty set, and one that is ingested alone."""
    told = of(write(tmp_path / "out", [[]], total=items))
    assert all(row.texts in (0, None) for row in told.annotations if row.origin != "published")
    assert told.datasets[0].annotations_each is None
    assert told.made == told.fallen == told.classes.top == ()
    assert json.loads(told.json())["images"]["total"] == items
    shown = printed(told)
    assert "FLD-5B" in shown and "nan" not in shown
    assert (f"0 of {items} images are done" in shown) == bool(items)


def test_near_duplicates_are_counted_in_groups(small: Output) -> None:
    ids = [Item.id_of(name) for name in "abcde"]
    groups = pa.table({"item_id": ids, "group": [ids[0]] * 3 + [ids[3]] * 2})
    assert of(small).images.near_duplicates is None
    write_table(small.round(0).near_duplicates, groups)
    told = of(small)
    assert (told.images.near_duplicates, told.images.near_duplicate_groups) == (5, 2)
    assert "5 images look like another one, in 2 groups" in printed(told)


# The command

KEYS = [
    "version", "round", "merged", "images", "datasets", "annotations", "semantics", "regions", "lengths", "classes",
    "scores", "made", "fallen", "notes",
]  # fmt: skip


@pytest.fixture
def call() -> Callable[..., str]:
    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["stats", *arguments], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    return invoke


def test_the_command_prints_tables_or_json(small: Output, call: Callable[..., str]) -> None:
    assert "Table 2: annotations" in call(str(small.root))
    document = json.loads(call(str(small.root), "--json"))
    assert list(document) == KEYS and document["version"] == 1
    assert document == json.loads(of(small).json())
    assert document["regions"][0]["size"]["edges"][:2] == [0.0, 0.05]
    assert document["annotations"][0] == {
        "kind": "text",
        "of": "brief",
        "origin": "written",
        "images": 1,
        "texts": 1,
        "tokens": 6.0,
        "regions": None,
        "regions_each": None,
        "region_tokens": None,
    }
    with pytest.raises(OutputError, match="round 7 is not there"):
        call(str(small.root), "--round", "7")
