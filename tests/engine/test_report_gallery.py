"""The report as a folder: its files, what pictures are found by, and what an earlier one leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import boxes
from test_report import HOSTILE, Page, described, infested, ingested, names, thing, write

from engine.atomic import write_json
from engine.config import Ingest
from engine.dataset import Dataset
from engine.errors import OutputError
from engine.layout import ShardId
from engine.records import Decision, Record, Region
from engine.report import write_report
from engine.report.gallery import A_PAGE, FIRST, ON_ONE_PAGE
from engine.report.index import LONGEST, Index, printed
from engine.report.pictures import picture_of
from engine.report.rounds import Judged, tracks
from engine.report.shapes import AROUND, LEAST_AROUND, LONGER_CUT, cut_out, data_uri
from engine.rounds import added
from engine.storage import write_annotations, write_decisions
from engine.summary import count_round

COUNT = ON_ONE_PAGE + 1
PAGES = -(-COUNT // A_PAGE)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Images of which each has more that fell than the one before, all of it close calls."""
    folder = tmp_path_factory.mktemp("gallery")
    (folder / "images").mkdir()
    for n in range(COUNT):
        Image.new("RGB", (900 if n == COUNT - 1 else 12, 10), (n, 50, 90)).save(folder / "images" / f"{n:03d}.png")
    made = []
    for n, record in enumerate(ingested(folder / "images", folder)):
        record = record.append(thing(k, box=(1, 1, 8, 9), label=f"thing {k % 3}") for k in range(1 + n // 10))
        record = record.decide(record.reject(r, "score", "low_score", 0.39, 0.4) for r in record.regions[1:])
        made.append(described(record, f"Number {n}", [("Number", (record.regions[0].id,))]))
    return write(folder / "out", made, shard_size=30)


@pytest.fixture(scope="module")
def report(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(dataset, Ingest(), tmp_path_factory.mktemp("report") / "report", None).parent


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_many_pictures_are_files_beside_pages(report: Path) -> None:
    there = set(files(report))
    pages = {f"gallery/{page:04d}.html" for page in range(1, PAGES + 1)}
    pictures = {f"gallery/pictures/{(n - 1) // A_PAGE + 1:04d}/{n:06d}.jpg" for n in range(1, COUNT + 1)}
    examples = {f"gallery/fell/{n:03d}.jpg" for n in range(6)}
    assert there == {"index.html", "gallery/find.html", *pages, *pictures, *examples}
    assert Image.open(report / "gallery/pictures/0001/000001.jpg").size == (640, 7)  # the last of them has the most
    for name in ("index.html", *pages):
        found = Page((report / name).read_text())
        sources = [e.attributes["src"] for e in found.all("img")]
        prefix = os.path.dirname(name)
        assert {os.path.normpath(os.path.join(prefix, src)) for src in sources} <= there
        assert all(e.attributes["loading"] == "lazy" for e in found.all("img"))
        (policy,) = (e.attributes["content"] for e in found.all("meta") if "http-equiv" in e.attributes)
        assert policy.startswith("default-src 'none'; img-src data: 'self'; base-uri 'none'; form-action 'none'; ")


def test_links_lead_to_what_is_there(report: Path) -> None:
    there = files(report)
    for name in there:
        if name.endswith(".html"):
            for link in Page(there[name].decode()).all("a"):
                path, _, anchor = link.attributes["href"].partition("#")
                target = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
                assert target in there
                assert not anchor or f'id="{anchor}"' in there[target].decode(), (name, link)
                if link.attributes.get("data-keep") is not None:
                    assert link.attributes["data-keep"] == anchor


def test_the_order_is_that_of_the_dispute(report: Path) -> None:
    pages = [Page((report / f"gallery/{page:04d}.html").read_text()) for page in range(1, PAGES + 1)]
    listed = [name for page in pages for name in names(page)]
    tens = sorted(range(COUNT), key=lambda n: -(n // 10))
    assert listed == [f"{n:03d}.png" for n in tens]
    assert names(Page((report / "index.html").read_text())) == listed[:FIRST]


def test_the_first_page_is_light(report: Path) -> None:
    assert (report / "index.html").stat().st_size < 200_000
    assert b"base64" not in (report / "index.html").read_bytes().replace(b"sha256-", b"")


def index_of(page: Page) -> dict[str, Any]:
    (data,) = page.all("script", id="index")
    found: dict[str, Any] = json.loads(data.text)
    return found


def test_what_pictures_are_found_by(report: Path) -> None:
    page = Page((report / "gallery/find.html").read_text())
    found = index_of(page)
    assert (found["page"], len(found["pictures"])) == (A_PAGE, COUNT)
    uri, place, dispute, fallen, labels, sources, filters, text, pictured = found["pictures"][0]
    assert uri.endswith("images/100.png")
    assert (place, dispute, fallen, text, pictured) == (100, [0, 10, 0], 10, "Number 100", 1)
    assert [found["labels"][code] for code in labels] == ["thing 0"]
    told = [option.text for option in page.all("option")]
    assert f"thing 0 ({COUNT})" in told
    assert f"writer ({COUNT})" in told
    assert f"score ({COUNT - 10})" in told
    assert [len(some) for some in (sources, filters)] == [3, 1]


def test_the_same_dataset_gives_the_same_files(dataset: Dataset, report: Path, tmp_path: Path) -> None:
    write_report(dataset, Ingest(), tmp_path / "again", None)
    assert files(tmp_path / "again") == files(report)


def test_an_earlier_report_leaves_nothing(dataset: Dataset, report: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_report(dataset, Ingest(), folder, None)
    (folder / "gallery" / "9999.html").write_text("of an earlier one, with more pictures")
    (folder / ".gallery-killed").mkdir()
    write_report(dataset, Ingest(), folder, None)
    assert files(folder) == files(report)
    write_report(dataset, Ingest(), folder, ON_ONE_PAGE)
    assert set(files(folder)) == {"index.html"}
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    (folder / "gallery").symlink_to(report)
    write_report(dataset, Ingest(), folder, 1)
    assert not (folder / "gallery").exists()
    assert (report / "index.html").exists()


def test_a_report_that_fails_leaves_the_earlier_one(dataset: Dataset, tmp_path: Path) -> None:
    output = replace(dataset.output, root=tmp_path / "out")
    shutil.copytree(dataset.output.root, output.root)
    broken = replace(dataset, output=output)
    write_report(broken, Ingest(), tmp_path / "report", None)
    before = files(tmp_path / "report")
    shard = broken.shards()[-1]
    path = output.round(0).annotations(shard)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(OutputError, match="is damaged"):
        write_report(broken, Ingest(), tmp_path / "report", None)
    assert files(tmp_path / "report") == before


def test_an_index_of_hostile_words_is_data(image_set: Any, tmp_path: Path) -> None:
    made = [infested(record, HOSTILE) for record in ingested(image_set(2), tmp_path)]
    to = write_report(write(tmp_path / "out", made), Ingest(), tmp_path / "report")
    page = Page(to.read_text())
    found = index_of(page)
    words = {found["labels"][code] for code in found["pictures"][0][4]}
    assert words == {printed(text[:80]) for n, text in enumerate(HOSTILE) if n % 3 == 0}
    assert len(found["pictures"][0][7]) == LONGEST
    options = [option.text for option in page.all("option")]
    assert not any(re.search("[\u202a-\u202e\u2066-\u2069\u200f]", option) for option in options)


@given(st.lists(st.text(st.characters(codec=None), max_size=20), max_size=6), st.integers(1, 9))
def test_an_index_comes_back(texts: list[str], a_page: int) -> None:
    index = Index(len(texts))
    for n, text in enumerate(texts, 1):
        index._entries[n] = json.dumps(printed([text, [text]]))
        index.labels.of([text])
    told = index.json(a_page)
    assert not re.search("[<>&\u2028\u2029\ud800-\udfff]", told)
    read = json.loads(told)
    assert read == {
        "page": a_page,
        "labels": [printed(text) for text in dict.fromkeys(texts)],
        "pictures": [[printed(text), [printed(text)]] for text in texts],
    }


def test_texts_are_kept_as_far_as_there_is_room(image_set: Any, tmp_path: Path) -> None:
    (record,) = ingested(image_set(1), tmp_path)
    record = described(record, "word " * 1000, [])
    lengths = []
    for pictures in (1, 10_000, 100_000, 10_000_000):
        index = Index(pictures)
        index.add(picture_of(record, 1, Ingest(), tmp_path, data_uri), record, 0)
        lengths.append(len(json.loads(index.json(1))["pictures"][0][7]))
    assert lengths == [500, 500, 80, 0]


@given(boxes(st.floats(-50, 400, width=32)), st.integers(20, 250), st.integers(20, 250))
def test_what_is_cut_out_has_the_region_in_it(box: Any, width: int, height: int) -> None:
    """Each corner, as far as it lies in the image, is where the same pixel is in what was cut out."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width)[None, :] % 256, np.arange(height)[:, None] % 256
    cut = cut_out(image, Region(id="0.a.0", source="a", kind="object", box=box))
    assert max(cut.frame.width, cut.frame.height) <= LONGER_CUT
    left = next(x for x in range(width) if (image[0, x : x + cut.image.shape[1], 0] == cut.image[0, :, 0]).all())
    top = next(y for y in range(height) if (image[y : y + cut.image.shape[0], 0, 1] == cut.image[:, 0, 1]).all())
    corners = [tuple(float(v) for v in point.split()) for point in re.findall(r"[ML]([^MLZ]+)", cut.path)]
    scale = (cut.frame.width / cut.image.shape[1], cut.frame.height / cut.image.shape[0])
    x0, y0, x1, y1 = (min(max(value, 0), (width, height)[n % 2]) for n, value in enumerate(box))
    for (x, y), (at_x, at_y) in zip(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), corners, strict=True):
        assert abs((x - left) * scale[0] - at_x) < 0.06
        assert abs((y - top) * scale[1] - at_y) < 0.06
    around = max(AROUND * max(x1 - x0, y1 - y0), LEAST_AROUND)
    assert x0 - left >= min(around, x0) - 1e-3
    assert left + cut.image.shape[1] - x1 >= min(around, width - x1) - 1e-3


Row = tuple[str, float | None, float | None, tuple[float, float] | None]  # name, before, after, difference


def judged(number: int, outcome: str, *rows: Row) -> Judged:
    comparisons = [
        {
            "name": name,
            "before": before,
            "after": after,
            "interval": None if bounds is None else {"low": bounds[0], "high": bounds[1]},
            "instances": 9,
        }
        for name, before, after, bounds in rows
    ]
    return Judged(number, outcome, ["because"], 20, comparisons, [], [], 0, {"object": 4 * number})


def test_measures_over_rounds_are_drawn_to_scale() -> None:
    objects: Row = ("objects", 0.5, 0.6, (0.05, 0.2))
    first = judged(1, "accepted", objects, ("objects/dog", 0.1, 0.2, None), ("masks", None, None, None))
    second = judged(2, "refused", ("objects", 0.6, 0.55, (-0.1, 0.0)), ("lines", None, 0.9, None))
    track, lines = tracks([first, second])
    assert (track.name, lines.name) == ("objects", "lines")
    assert [(dot.round, dot.outcome, dot.value) for dot in track.dots] == [
        (0, "", 0.5),
        (1, "accepted", 0.6),
        (2, "refused", 0.55),
    ]
    ticks = {tick.value: tick.at for tick in track.rows}
    low, high = min(ticks), max(ticks)

    def height(value: float) -> float:
        return ticks[low] + (ticks[high] - ticks[low]) * (value - low) / (high - low)

    for dot, whisker in zip(track.dots, (None, (0.7, 0.55), (0.6, 0.5)), strict=True):
        assert dot.y == pytest.approx(height(dot.value))
        assert dot.whisker == (pytest.approx(tuple(map(height, whisker))) if whisker else None)
    assert [dot.x for dot in track.dots] == pytest.approx([100 / 6, 50, 500 / 6])
    assert [dot.x for dot in lines.dots] == pytest.approx([500 / 6])
    assert track.said == "objects: round 0 0.500, round 1 0.600 accepted, round 2 0.550 refused"


def rounded(tmp_path: Path, image_set: Any, outcomes: Sequence[str]) -> Dataset:
    """Rounds that add nothing, but are judged."""
    made: list[Record] = [record.append([thing(0), thing(1)]) for record in ingested(image_set(2), tmp_path)]
    dataset = write(tmp_path / "out", made)
    for number, outcome in enumerate(outcomes, 1):
        after = [replace(record, round=number) for record in made]
        fallen = made[0].regions[number - 1].id
        fall = Decision(annotation_id=fallen, action="reject", by="merge", reason="x", round=number)
        after[0] = after[0].decide([fall])
        layer, shard = dataset.output.round(number), ShardId(0, 0)
        write_annotations(layer, shard, [added(a, b) for a, b in zip(after, made, strict=True)], "")
        write_decisions(layer, shard, [added(a, b) for a, b in zip(after, made, strict=True)], "")
        made = after
        one = judged(number, outcome, ("objects", 0.5, 0.5 + number / 10, (-0.1, 0.3)))
        verdict = {
            "outcome": outcome,
            "reasons": [HOSTILE[0]],
            "images": 20,
            "comparisons": one.comparisons,
            "habits": {"before": {"classes": 3.0}, "after": {"classes": 4.0}},
        }
        counts = count_round(dataset.output, number, dataset.shards())
        told = {"round": number, "outcome": outcome, "verdict": verdict, "counts": counts, "diff": {}}
        write_json(layer.manifest, told)
    return replace(dataset, round=len(outcomes))


def test_rounds_are_compared(image_set: Any, tmp_path: Path) -> None:
    dataset = rounded(tmp_path, image_set, ["accepted", "refused"])
    found = Page(write_report(dataset, Ingest(), tmp_path / "report").read_text())
    assert [e.text for e in found.all("span", **{"class": "outcome"})] == ["accepted", "refused"]
    assert ["kind", "round 0", "round 1", "round 2"] in found.rows()
    assert ["object", "4", "3", "2"] in found.rows()
    bars = [e.attributes["width"] for e in found.all("rect") if "table" in e.within and "td" in e.within][:3]
    assert bars == ["100.0%", "75.0%", "50.0%"]
    assert ["objects", "9", "0.500", "0.600", "-0.100 to +0.300"] in found.rows()
    assert [e.text for e in found.all("title") if "circle" in e.within] == [
        "round 0: 0.500",
        "round 1: 0.600, accepted",
        "round 2: 0.700, refused",
    ]
    assert HOSTILE[0] in "".join(e.text for e in found.all("li"))


def test_rounds_that_nobody_judged_are_not_compared(image_set: Any, tmp_path: Path) -> None:
    dataset = rounded(tmp_path, image_set, ["accepted"])
    found = Page(write_report(replace(dataset, round=0), Ingest(), tmp_path / "report").read_text())
    assert not found.all("section", id="rounds")
    assert not found.all("a", href="#rounds")
    dataset.output.round(1).manifest.unlink()
    found = Page(write_report(dataset, Ingest(), tmp_path / "report").read_text())
    assert not found.all("section", id="rounds")
