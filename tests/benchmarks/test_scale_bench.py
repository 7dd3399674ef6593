"""The benchmark's parts at tiny sizes: they run, and what they make is what they say; its long runs are by hand."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.scale import parts, simulate
from benchmarks.scale.commands import Failed, Set, measured
from benchmarks.scale.pictures import HEIGHT, WIDTH, write_pictures
from benchmarks.scale.telling import plot, told
from engine.dataset import open_dataset
from engine.layout import Output, ShardId
from engine.near import perceptual_hash
from engine.partitions import waiting

ROWS = 4  # one shard


def test_pictures_are_all_different_and_can_be_read(tmp_path: Path) -> None:
    data = pq.read_table(write_pictures(tmp_path / "a.parquet", 1100))["bytes"].to_pylist()
    images = [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in data[-100:]]
    assert len(set(data)) == 1100
    assert images[0].shape == (HEIGHT, WIDTH, 3)
    assert len({perceptual_hash(image) for image in images}) == 100
    assert pq.read_table(write_pictures(tmp_path / "b.parquet", 1100))["bytes"].to_pylist() == data


@pytest.fixture(scope="module")
def measured_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Set, dict[str, parts.Row]]:
    """A set as the benchmark makes it, and its figures."""
    folder = tmp_path_factory.mktemp("scale") / "set"
    rows = list(parts.by_rows(folder, ROWS, frozenset()))
    return Set(folder), {row["part"]: row for row in rows}


def test_a_set_is_ingested_and_annotated(measured_set: tuple[Set, dict[str, parts.Row]]) -> None:
    here, found = measured_set
    assert list(found) == ["ingest", "annotate", "bytes"]
    assert found["annotate"]["images"] == ROWS
    assert found["annotate"]["rss_mb"] > found["annotate"]["uss_mb"] > 10
    assert found["bytes"]["files"] == 3
    regions = list(open_dataset(here.out).regions())
    assert [(region.box, region.label) for _, region in regions] == [((0, 0, WIDTH, HEIGHT), "thing")] * ROWS


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="holds no dataset"):
        Set(tmp_path).engine("status")


def test_a_command_is_stopped_when_it_has_come_far_enough(tmp_path: Path) -> None:
    there = tmp_path / "there"
    words = ["bash", "-c", f"sleep 0.3; touch {there}; exec sleep 60"]
    assert 0.2 < measured(words, tmp_path, until=there.exists).seconds < 30


def test_the_simulated_set_waits_for_one_shard(
    measured_set: tuple[Set, dict[str, parts.Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "ITEMS", 3 * simulate.GROUP)
    shutil.copytree(measured_set[0].folder, tmp_path / "set")
    here = Set(tmp_path / "set")
    simulate.spread(here, 3)
    output = Output(here.out)
    assert list(waiting(output, output.round(0))) == [ShardId(2, 2)]
    assert len(output.counts()) == 9
    here.engine("status", "--json")
    said = json.loads((here.folder / "said.txt").read_text())
    assert said["layers"][0]["done"] == 8 * simulate.GROUP
    assert said["layers"][0]["closed"] == 2


FIGURES = [
    {"part": part, "rows": rows, "seconds": rows / 500, "rss_mb": 170.0, "uss_mb": 90.0, "load": 0.5, "images": rows}
    for part in ("ingest", "status")
    for rows in (1000, 10_000)
]
PACED = [
    {"part": "workers", "by": "sleeping", "workers": count, "rows": 9, "images_per_second": 47.0 * count}
    for count in (1, 2)
]


def test_the_tables_say_what_was_measured() -> None:
    text = told([*FIGURES, *PACED])
    assert "| ingest | 10,000 | 20.0 | 170 | 90 | 500 | 0.5 |" in text
    assert "| workers, sleeping | 47.0 | 94.0 | 2.00 |" in text


def test_the_plot_has_a_line_a_part(tmp_path: Path) -> None:
    plot(FIGURES, tmp_path / "scale.svg")
    texts = [one.text for one in ElementTree.parse(tmp_path / "scale.svg").iter() if one.tag.endswith("text")]
    assert {"ingest", "status", "1,000", "10,000"} <= set(texts)
