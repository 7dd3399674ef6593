"""Images of evaluation sets are found by their bytes and by their looks, and kept from models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import HEIGHT, WIDTH, Judged, coco, pictures
from PIL import Image
from typer.testing import CliRunner

from engine import near
from engine.cli.commands import app
from engine.config import Config, Ingest
from engine.contamination import contaminated, decontaminate
from engine.errors import ConfigError, OutputError
from engine.folds import Folds
from engine.layout import Output
from engine.near import MAX_DISTANCE, MOST_DISTANCE, between
from engine.records import ItemError, Record
from engine.storage import read_items, write_annotations
from engine.truth import Unread


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """0 to 3, and a copy of 1."""
    folder = pictures(tmp_path / "images", 4)
    shutil.copy(folder / "1.png", folder / "twin.png")
    return folder


@pytest.fixture
def judged(images: Path, tmp_path: Path) -> Judged:
    return Judged.of(images, tmp_path / "out").round({})


@pytest.fixture
def benchmark_(images: Path, tmp_path: Path) -> Path:
    """0 as it is, 1 smaller and as JPEG, one of its own, and one that is broken."""
    folder = tmp_path / "benchmark"
    folder.mkdir()
    shutil.copy(images / "0.png", folder / "first.png")
    Image.open(images / "1.png").resize((WIDTH // 2, HEIGHT // 2)).save(folder / "second.jpg", quality=80)
    pixels = np.random.default_rng(99).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(folder / "third.png")
    (folder / "fourth.jpg").write_bytes(b"\xff\xd8\xff\xe0 was a photo once")
    return folder


def asked(*paths: Path) -> Ingest:
    return Ingest(images=tuple(map(str, paths)))


def ids(output: Output) -> dict[str, bytes]:
    return {Path(item.uri).name: item.item_id for shard in output.shards() for item in read_items(output, shard)}


def test_the_same_and_what_looks_the_same_is_found(judged: Judged, benchmark_: Path) -> None:
    assert contaminated(judged.output) == frozenset()
    found = decontaminate(judged.output, asked(benchmark_))
    told = {Path(one.uri).name: (one.how, Path(one.against).name) for one in found.same}
    assert told == {
        "0.png": ("exact", "first.png"),
        "1.png": ("near", "second.jpg"),
        "twin.png": ("near", "second.jpg"),
    }
    assert found.same[0].distance == 0
    assert all(one.distance <= MAX_DISTANCE for one in found.same)
    assert (found.images, found.evaluated, found.unread) == (5, 4, {"truncated": 1})
    assert found.first_unread == (Unread(str(benchmark_ / "fourth.jpg"), "truncated"),)
    names = ids(judged.output)
    assert contaminated(judged.output) == {names["0.png"], names["1.png"], names["twin.png"]}


def test_a_copy_of_what_is_the_same_is_the_same(judged: Judged, images: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    shutil.copy(images / "1.png", tmp_path / "b" / "x.png")
    found = decontaminate(judged.output, asked(tmp_path / "b"), 0)
    assert {Path(one.uri).name: one.how for one in found.same} == {"1.png": "exact", "twin.png": "exact"}


def test_distance_is_what_it_says(judged: Judged, images: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    pixels = np.asarray(Image.open(images / "2.png")).astype(int)
    noise = np.random.default_rng(0).normal(0, 60, pixels.shape)
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / "b" / "x.png")
    (one,) = decontaminate(judged.output, asked(tmp_path / "b"), MOST_DISTANCE).same
    assert one.distance > 0
    assert decontaminate(judged.output, asked(tmp_path / "b"), one.distance).same == [one]
    assert decontaminate(judged.output, asked(tmp_path / "b"), one.distance - 1).same == []
    with pytest.raises(ConfigError, match="expected 0 to 16 bits"):
        decontaminate(judged.output, asked(tmp_path / "b"), 17)


def test_the_closest_is_named(judged: Judged, images: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    pixels = np.asarray(Image.open(images / "2.png")).astype(int)
    for n, deviation in enumerate((150, 3, 60)):
        noise = np.random.default_rng(n).normal(0, deviation, pixels.shape)
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / "b" / f"{n}.png")
    alone = [decontaminate(judged.output, asked(tmp_path / "b" / f"{n}.png"), MOST_DISTANCE).same[0] for n in range(3)]
    assert len({one.distance for one in alone}) > 1
    (one,) = decontaminate(judged.output, asked(tmp_path / "b"), MOST_DISTANCE).same
    assert one == min(alone, key=lambda one: one.distance)


def test_another_output_folder_and_a_labelled_set_are_looked_through(
    judged: Judged, benchmark_: Path, tmp_path: Path
) -> None:
    (benchmark_ / "fourth.jpg").unlink()
    from_images = decontaminate(judged.output, asked(benchmark_))
    other = Judged.of(benchmark_, tmp_path / "other", Config(ingest=asked(benchmark_)))
    with pytest.raises(OutputError, match="not every image is annotated yet"):
        decontaminate(judged.output, asked(other.output.root))
    other.round({})
    assert decontaminate(judged.output, asked(other.output.root)).same == from_images.same
    (benchmark_ / "third.png").write_bytes(b"a photo once")
    broken = Judged.of(benchmark_, tmp_path / "broken", Config(ingest=asked(benchmark_))).round({})
    found = decontaminate(judged.output, asked(broken.output.root))
    assert found.unread == {"not_an_image": 1}, "as it says itself"
    assert found.first_unread == (Unread(str(benchmark_ / "third.png"), "not_an_image"),)
    truth = coco(benchmark_, ["first.png", "second.jpg"], [])
    assert decontaminate(judged.output, asked(Path(truth))).same == from_images.same


def test_what_can_not_be_looked_at_is_said(judged: Judged, benchmark_: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        decontaminate(judged.output, asked(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"none of its 1 images could be read \(truncated 1\): .*/fourth\.jpg"):
        decontaminate(judged.output, asked(benchmark_ / "fourth.jpg"))
    assert not judged.output.contamination.exists(), "nothing was looked at"
    fresh = Judged.of(judged.images, tmp_path / "fresh")
    with pytest.raises(OutputError, match="not every image is annotated yet"):
        decontaminate(fresh.output, asked(benchmark_))


def test_an_image_in_quarantine_was_not_looked_at(judged: Judged, benchmark_: Path, tmp_path: Path) -> None:
    """Of an output folder's that could be read, and not decoded."""
    (benchmark_ / "fourth.jpg").unlink()
    other = Judged.of(benchmark_, tmp_path / "other", Config(ingest=asked(benchmark_))).round({})
    for shard in other.output.shards():
        aside = [Record(item, error=ItemError("decode", "bomb", "")) for item in read_items(other.output, shard)]
        write_annotations(other.output.round(0), shard, aside, "d")
    with pytest.raises(ConfigError, match=r"none of its 3 images could be read \(bomb 3\)"):
        decontaminate(judged.output, asked(other.output.root))


def test_a_blank_image_looks_like_nothing(judged: Judged, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for n in range(2):
        Image.new("RGB", (WIDTH, HEIGHT), (n, n, n)).save(tmp_path / "b" / f"{n}.png")
    assert decontaminate(judged.output, asked(tmp_path / "b"), MOST_DISTANCE).same == []


def test_they_are_withheld_from_training(judged: Judged, benchmark_: Path) -> None:
    from rich.console import Console

    from pipelines.build import build_pipeline
    from pipelines.stages import Stages

    stages = Stages(build_pipeline(Config(ingest=asked(judged.images))), judged.output, Console(quiet=True))
    assert stages.choice.digest == ""
    decontaminate(judged.output, asked(benchmark_))
    choice = stages.choice
    assert choice.digest != "", "a model that was trained on them is not one of these images"
    folds = Folds(1, {}, choice)
    items = [item for shard in judged.output.shards() for item in read_items(judged.output, shard)]
    assert {Path(item.uri).name for item in items if folds.is_withheld(item)} == {"0.png", "1.png", "twin.png"}


hashes = st.lists(st.integers(0, 2**64 - 1), min_size=0, max_size=30)


@given(hashes, hashes, st.integers(0, MOST_DISTANCE), st.data())
@settings(max_examples=60)
def test_no_pair_is_missed(some: list[int], others: list[int], distance: int, data: st.DataObject) -> None:
    """Close ones are rare among random ones: some are made."""
    for value in some[:10]:
        bits = data.draw(st.lists(st.integers(0, 63), max_size=distance + 2, unique=True))
        others.append(value ^ sum(1 << bit for bit in bits))
    a, b = np.array(some, np.uint64), np.array(others, np.uint64)
    one, other = between(a, b, distance)
    expected = {(n, m) for n, x in enumerate(some) for m, y in enumerate(others) if (x ^ y).bit_count() <= distance}
    assert set(zip(one.tolist(), other.tolist(), strict=True)) == expected


@pytest.mark.parametrize("distance", [MAX_DISTANCE, MAX_DISTANCE + 2])
def test_blocks_leave_nothing_out(monkeypatch: pytest.MonkeyPatch, distance: int) -> None:
    random = np.random.default_rng(0)
    others = random.integers(0, 2**63, 20, dtype=np.uint64)
    some = np.concatenate([others, others ^ np.uint64(0b111), others[:3]])
    whole = set(zip(*(part.tolist() for part in between(some, others, distance)), strict=True))
    assert len(whole) == 43
    monkeypatch.setattr(near, "BLOCK", 3)
    monkeypatch.setattr(near, "CACHED", 3)
    assert set(zip(*(part.tolist() for part in between(some, others, distance)), strict=True)) == whole


def test_the_command(judged: Judged, benchmark_: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = str(judged.output.root)
    result = run(app, ["decontaminate", out, "--against", str(benchmark_), "--json"])
    assert result.exit_code == 1, "one of theirs could not be read"
    told = json.loads(result.stdout)
    assert (told["exact"], told["near"], told["images"]) == (1, 2, 5)
    assert {one["item_id"] for one in told["found"]} == {id_.hex() for id_ in contaminated(judged.output)}
    assert told["unread"] == {"truncated": 1}
    assert told["first unread"] == [{"uri": str(benchmark_ / "fourth.jpg"), "kind": "truncated"}]
    for n in range(6):
        (benchmark_ / f"broken {n}.jpg").write_bytes(b"")
    said = run(app, ["decontaminate", out, "--against", str(benchmark_)]).stdout
    assert "! 7 of 10 images of the evaluation sets could not be read (empty 6, truncated 1)" in said
    assert f"  {benchmark_}/broken 4.jpg  empty\n  and 2 more\n" in said
    before = contaminated(judged.output)
    result = run(app, ["decontaminate", out, "--against", str(benchmark_ / "third.png")])
    assert result.exit_code == 0, result.output
    assert "0 of 5 images are in the evaluation sets" in result.stdout
    assert "3 images are listed in" in " ".join(result.stdout.split())
    assert contaminated(judged.output) == before
    result = run(app, ["decontaminate", out, "--against", str(benchmark_ / "third.png"), "--anew"])
    assert "0 of 5 images are in the evaluation sets" in result.stdout
    assert "3 images that were listed before no longer are" in " ".join(result.stdout.split())
    assert contaminated(judged.output) == frozenset()
    judged.output.clear()
    assert not judged.output.contamination.exists()
