"""Images added to a set: they come behind those that are there, which stay as they are to the byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingesting import Killed, files, ingested, items_of
from PIL import Image

from engine.config import Ingest
from engine.errors import ConfigError
from engine.ingest import Added, added, listed_digest
from engine.layout import Output, ShardId
from engine.storage import read_given, write_table


def names(out: Path) -> list[str]:
    return [Path(item.uri).name for item in items_of(out)]


def test_new_images_come_behind_and_gone_ones_stay(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = image_set(7), tmp_path / "out"
    config = Ingest(images=(str(folder),), shard_size=2, partition_size=4)
    ingested(out, config)
    before = files(out)
    (folder / "0000 a.png").write_bytes((folder / "0005.png").read_bytes())
    (folder / "zz.png").write_bytes(b"\x89PNG broken")
    (folder / "zzz.png").write_bytes((folder / "0000 a.png").read_bytes())
    (folder / "0003.png").unlink()
    assert added(Output(out), config) == Added(new=3, gone=1)
    manifest = ingested(out, config, update=True)
    assert names(out) == [*(f"{n:04d}.png" for n in range(7)), "0000 a.png", "zz.png", "zzz.png"]
    assert {path: data for path, data in files(out).items() if path in before and path != "images/manifest.json"} == {
        path: data for path, data in before.items() if path != "images/manifest.json"
    }
    items = items_of(out)
    assert [item.duplicate_of for item in items[7:]] == [items[5].item_id, None, items[5].item_id]
    assert manifest["partitions"] == [
        {"items": 4, "shard_size": 2, "shards": 2, "digest": "digest"},
        {"items": 3, "shard_size": 2, "shards": 2, "digest": "digest"},
        {"items": 3, "shard_size": 2, "shards": 2, "digest": "digest"},
    ]
    assert (manifest["items"], manifest["gone"], manifest["duplicates"]) == (10, 1, 2)
    assert manifest["errors"] == {"not_an_image": 1}
    assert manifest["listed"] == listed_digest(config)
    assert added(Output(out), config) == Added(new=0, gone=1)


def test_nothing_is_written_where_nothing_is_new(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = image_set(5), tmp_path / "out"
    (folder / "again.png").write_bytes((folder / "0001.png").read_bytes())
    config = Ingest(images=(str(folder),), shard_size=2)
    first = ingested(out, config)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert ingested(out, config, update=True) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_an_update_of_nothing_is_an_ingest(image_set: Callable[..., Path], tmp_path: Path) -> None:
    config = Ingest(images=(str(image_set(5)),), shard_size=2)
    assert added(Output(tmp_path / "update"), config) == Added(new=5, gone=0)
    ingested(tmp_path / "plain", config)
    ingested(tmp_path / "update", config, update=True)
    assert files(tmp_path / "update") == files(tmp_path / "plain")


def test_more_of_a_limited_set(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = str(image_set(9)), tmp_path / "out"
    ingested(out, Ingest(images=(folder,), limit=4))
    assert added(Output(out), Ingest(images=(folder,), limit=6)) == Added(new=2, gone=0)
    ingested(out, Ingest(images=(folder,), limit=6), update=True)
    assert names(out) == [f"{n:04d}.png" for n in range(6)]
    assert ingested(out, Ingest(images=(folder,), limit=3), update=True)["gone"] == 3
    assert len(names(out)) == 6


def test_an_emptied_folder_is_named_and_nothing_lost(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = image_set(3), tmp_path / "out"
    config = Ingest(images=(str(folder),))
    ingested(out, config)
    before = files(out)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ConfigError, match="no images"):
        ingested(out, config, update=True)
    assert files(out) == before


def test_what_was_made_of_the_others_is_not_forgotten(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = image_set(4), tmp_path / "out"
    config = Ingest(images=(str(folder),), shard_size=2)
    ingested(out, config)
    made = [Output(out).round(0).decisions(ShardId(0, n)) for n in (0, 1)]
    made += [Output(out).round(0).summary, Output(out).round(0).near_duplicates]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"made")
    (folder / "new.png").write_bytes((folder / "0000.png").read_bytes())
    ingested(out, config, update=True)
    assert len(names(out)) == 5
    assert [path for path in made if not path.exists()][:2] == made[2:]  # those count all images
    assert all(path.exists() for path in made[:2])


def captioned(path: Path, rows: dict[str, tuple[str | None, str | None]]) -> None:
    """A list of images with a caption and a licence each."""
    captions, licences = zip(*rows.values(), strict=True)
    pq.write_table(pa.table({"uri": list(rows), "captions": list(captions), "licence": list(licences)}), path)


def test_what_changed_along_with_an_image_is_counted_and_not_taken(
    image_set: Callable[..., Path], tmp_path: Path
) -> None:
    path, out = image_set(6) / "list.parquet", tmp_path / "out"
    config = Ingest(images=(str(path),), shard_size=2)
    rows: dict[str, tuple[str | None, str | None]] = {f"{n:04d}.png": (f"caption {n}", "CC0") for n in range(4)}
    rows["0003.png"] = (None, "CC0")
    captioned(path, rows)
    ingested(out, config)
    rows["0001.png"] = ("another caption", "CC0")
    rows["0002.png"] = ("caption 2", "CC BY")
    rows["0003.png"] = ("it had none", "CC0")
    rows["0004.png"] = ("a new one", None)
    captioned(path, dict(reversed(rows.items())))
    manifest = ingested(out, config, update=True)
    assert manifest["changed"] == 3
    assert manifest["given"] == {"human texts": 4}
    output = Output(out)
    texts = [[text.text for text in r.texts] for shard in output.shards() for r in read_given(output, shard)]
    assert texts == [["caption 0"], ["caption 1"], ["caption 2"], [], ["a new one"]]
    assert [item.licence for item in items_of(out)] == ["CC0"] * 4 + [None]


@pytest.mark.parametrize("writes", range(8))
def test_a_kill_before_any_write_of_an_update(
    image_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Four shards are read, two of them rewritten for their duplicates, and only then comes the manifest."""
    folder = image_set(16)
    config = Ingest(images=(str(folder),), shard_size=4, partition_size=8)
    late = [folder / f"{n:04d}.png" for n in range(0, 14, 2)]
    for n, path in enumerate(late):
        if n % 3 == 0:
            path.write_bytes((folder / "0015.png").read_bytes())
    aside = tmp_path / "aside"
    aside.mkdir()
    for path in late:
        path.rename(aside / path.name)
    ingested(tmp_path / "whole", config)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    before = (tmp_path / "killed/images/manifest.json").read_bytes()
    for path in late:
        (aside / path.name).rename(path)
    ingested(tmp_path / "whole", config, update=True)
    done = 0

    def write(*arguments: Any) -> None:
        nonlocal done
        if done == writes:
            raise Killed
        done += 1
        write_table(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("engine.ingest.shards.write_table", write)
        try:
            ingested(tmp_path / "killed", config, update=True)
        except Killed:
            assert (tmp_path / "killed/images/manifest.json").read_bytes() == before
    ingested(tmp_path / "killed", config, update=True)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_an_update_that_was_killed_and_finds_fewer_images_leaves_none_behind(
    image_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = image_set(8), tmp_path / "out"
    config = Ingest(images=(str(folder),), shard_size=2, limit=4)
    ingested(out, config)
    everything = config.model_copy(update={"limit": None})
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("engine.ingest.mark_duplicates", lambda *_, **__: (_ for _ in ()).throw(Killed()))
        ingested(out, everything, update=True)
    for n in (4, 5, 6):
        (folder / f"{n:04d}.png").unlink()
    ingested(out, everything, update=True)
    there = (out / "images").glob("*/*.parquet")
    assert sum(pq.read_metadata(path).num_rows for path in there) == len(items_of(out)) == 5


steps = st.lists(st.lists(st.integers(0, 11), max_size=5, unique=True), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(steps, st.integers(1, 3), st.integers(1, 5))
def test_updates_come_to_what_a_plain_loop_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[int]], shard_size: int, partition_size: int
) -> None:
    """Step by step images come and go; a third of them has the same colour."""
    folder = tmp_path_factory.mktemp("set")
    out = folder / ".out"
    config = Ingest(images=(str(folder),), shard_size=shard_size, partition_size=partition_size)
    known: list[int] = []
    for there in [[0], *steps]:
        for path in folder.glob("*.png"):
            path.unlink()
        for n in there:
            Image.new("RGB", (2, 2), (n // 3 * 20, 0, 0)).save(folder / f"{n:02d}.png")
        new = sorted(set(there) - set(known))
        if not there:
            continue
        assert added(Output(out), config) == Added(len(new), len(set(known) - set(there)))
        manifest = ingested(out, config, update=True)
        known += new
        items = items_of(out)
        assert [int(Path(item.uri).stem) for item in items] == known
        first: dict[int, bytes] = {}
        expected = []
        for n, item in zip(known, items, strict=True):
            expected.append(first.get(n // 3))
            first.setdefault(n // 3, item.item_id)
        assert [item.duplicate_of for item in items] == expected
        assert manifest["duplicates"] == sum(of is not None for of in expected)
        assert json.loads((out / "images/manifest.json").read_text()) == manifest
