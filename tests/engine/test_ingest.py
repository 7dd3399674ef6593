"""Ingest on real files: a row for every input, whatever became of it, and the same rows after any interruption."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.config import Ingest
from engine.errors import ConfigError
from engine.ingest import chunks, ingest, listed_digest, shard_size
from engine.layout import Output, ShardId
from engine.records import Item
from engine.storage import read_items, write_table
from engine.uris import path_of


def ingested(out: Path, *images: Path, **config: Any) -> tuple[list[Item], dict[str, Any]]:
    output = Output(out)
    manifest = ingest(output, Ingest(images=tuple(map(str, images)), **config), "digest", lambda items: None)
    return [item for shard in output.shards() for item in read_items(output, shard)], manifest


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def errors(items: list[Item]) -> dict[str, str]:
    return {Path(item.uri).name: item.error.kind for item in items if item.error}


def test_every_input_has_a_row(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(3)
    good = (folder / "0000.png").read_bytes()
    (folder / "cut.png").write_bytes(good[:20])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("I am no photo")
    (folder / "really a png.jpg").write_bytes(good + b"\0")
    Image.new("RGB", (600, 500)).save(folder / "huge.png")
    (folder / "dangling.jpg").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jpg")
    items, manifest = ingested(tmp_path / "out", folder, max_pixels=250_000)
    assert sorted(Path(item.uri).name for item in items) == sorted(os.listdir(folder))
    assert len({item.item_id for item in items}) == len(items)
    assert errors(items) == {
        "cut.png": "truncated",
        "empty.jpg": "empty",
        "text.jpg": "not_an_image",
        "huge.png": "too_large",
        "dangling.jpg": "missing",
        "pipe.jpg": "unreadable",
    }
    assert manifest["errors"] == {kind: 1 for kind in sorted(errors(items).values())}
    for item in items:
        assert item.error or (item.width, item.height) == (96, 96)


def test_large_files_wait_for_one_another_and_are_read_all_the_same(
    image_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = image_set(8)
    at_once, _ = ingested(tmp_path / "at once", folder)
    monkeypatch.setattr("engine.ingest.items.LARGE_BYTES", 1000)
    assert ingested(tmp_path / "one by one", folder)[0] == at_once
    items, _ = ingested(tmp_path / "none", folder, max_bytes=999)
    assert {item.error.message for item in items if item.error} == {
        f"has {(folder / name).stat().st_size:,} bytes, more than ingest.max_bytes = 999" for name in os.listdir(folder)
    }


def test_a_jpeg_cut_in_its_pixels_has_a_header_that_can_be_read(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """It is found out when it is decoded, for its annotation."""
    folder = image_set(1)
    Image.open(folder / "0000.png").save(folder / "whole.jpg")
    data = (folder / "whole.jpg").read_bytes()
    (folder / "in its header.jpg").write_bytes(data[:60])
    (folder / "in its pixels.jpg").write_bytes(data[:-200])
    items, _ = ingested(tmp_path / "out", folder)
    assert errors(items) == {"in its header.jpg": "truncated"}


def test_a_list_keeps_what_is_gone_or_elsewhere(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(1)
    (folder / "list.txt").write_bytes(b"0000.png\ngone.png\nhttp://127.0.0.1/caf\xe9.png\nfile://host/0000.png\n")
    items, _ = ingested(tmp_path / "out", folder / "list.txt")
    assert [(item.uri, item.error.kind if item.error else None) for item in items] == [
        (f"{folder}/0000.png", None),
        (f"{folder}/gone.png", "missing"),
        ("http://127.0.0.1/caf%E9.png", "forbidden_address"),
        ("file://host/0000.png", "unreadable"),
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_has_a_row(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(2)
    (folder / "0001.png").chmod(0)
    items, _ = ingested(tmp_path / "out", folder)
    assert errors(items) == {"0001.png": "unreadable"}
    assert items[1].content_id is None


def test_copies_point_to_the_first_across_shards(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(6)
    (folder / "0005.png").write_bytes((folder / "0001.png").read_bytes())
    for n in range(1000):
        (folder / f"copy {n}.png").write_bytes((folder / "0000.png").read_bytes())
    items, manifest = ingested(tmp_path / "out", folder, shard_size=4)
    ids = {Path(item.uri).name: item.item_id for item in items}
    repeats = {Path(item.uri).name: item.duplicate_of for item in items if item.duplicate_of}
    assert repeats == {"0005.png": ids["0001.png"]} | {f"copy {n}.png": ids["0000.png"] for n in range(1000)}
    assert manifest["duplicates"] == 1001


contents = st.lists(st.sampled_from(["red", "green", "blue", "broken", "empty"]), min_size=1, max_size=14)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents, st.integers(1, 5), st.integers(1, 8))
def test_duplicates_are_what_a_plain_loop_finds(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], shard_size: int, partition_size: int
) -> None:
    folder = tmp_path_factory.mktemp("set")
    for n, kind in enumerate(kinds):
        if kind in ("broken", "empty"):
            (folder / f"{n:02d}.png").write_bytes(b"nothing" if kind == "broken" else b"")
        else:
            Image.new("RGB", (2, 2), kind).save(folder / f"{n:02d}.png")
    items, manifest = ingested(folder / ".out", folder, shard_size=shard_size, partition_size=partition_size)
    first: dict[str, bytes] = {}
    expected = []
    for item, kind in zip(items, kinds, strict=True):
        readable = kind not in ("broken", "empty")
        expected.append(first.get(kind))
        if readable:
            first.setdefault(kind, item.item_id)
    assert [item.duplicate_of for item in items] == expected
    assert manifest["duplicates"] == sum(of is not None for of in expected)


def test_broken_copies_are_errors_not_duplicates(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(1)
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"\xff\xd8\xff broken")
    items, manifest = ingested(tmp_path / "out", folder)
    assert errors(items) == {"a.jpg": "truncated", "b.jpg": "truncated"}
    assert manifest["duplicates"] == 0


def test_manifests_bring_bytes_and_what_is_known(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(2)
    data = [(folder / f"000{n}.png").read_bytes() for n in (0, 1)]
    columns = {"bytes": [*data, None], "licence": ["CC0", None, "CC0"], "labels": [["cup"], [], None]}
    pq.write_table(pa.table(columns | {"dataset": ["mine"] * 3}), folder / "inside.parquet")
    pq.write_table(pa.table({"uri": ["0001.png", "gone.png"]}), folder / "by name.parquet")
    items, _ = ingested(tmp_path / "out", folder / "inside.parquet", folder / "by name.parquet")
    first, second, third, named, gone = items
    assert (first.uri, first.licence, first.labels, first.dataset) == (
        f"{folder}/inside.parquet#0",
        "CC0",
        ("cup",),
        "mine",
    )
    assert (first.width, second.licence) == (96, None)
    assert third.error is not None
    assert third.error.kind == "missing"
    assert named.duplicate_of == second.item_id
    assert gone.error is not None
    assert gone.error.kind == "missing"


def test_names_survive(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(1)
    data = (folder / "0000.png").read_bytes()
    odd = ["a b.png", "a\nb.png", "<b>x<b>.png", "写真 фото.png", os.fsdecode(b"\xff.png"), "x.parquet#3.png"]
    for name in odd:
        (folder / name).write_bytes(data)
    items, _ = ingested(tmp_path / "out", folder)
    assert not errors(items)
    assert sorted(path_of(item.uri) for item in items) == sorted(str(path) for path in folder.iterdir())


class Killed(Exception):
    pass


def killed(out: Path, config: Ingest, digest: str, after: int) -> None:
    """An ingest that ends after its first shards."""
    done = 0

    def progress(items: int) -> None:
        nonlocal done
        done += 1
        if done == after:
            raise Killed

    with pytest.raises(Killed):
        ingest(Output(out), config, digest, progress)


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_killed_ingest_goes_on_to_equal_files(image_set: Callable[..., Path], tmp_path: Path, after: int) -> None:
    folder = image_set(24)
    (folder / "0023.png").write_bytes((folder / "0000.png").read_bytes())
    config = Ingest(images=(str(folder),), shard_size=4)
    ingest(Output(tmp_path / "whole"), config, "digest", lambda items: None)
    killed(tmp_path / "killed", config, "digest", after)
    assert not (tmp_path / "killed" / "manifest.json").exists()
    first = tmp_path / "killed" / "images" / "part-00000" / "shard-00000.parquet"
    before = first.stat().st_ino
    ingest(Output(tmp_path / "killed"), config, "digest", lambda items: None)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert first.stat().st_ino == before, "what was done is not done again"


@pytest.mark.parametrize("writes", range(9))
def test_a_kill_before_any_write(
    image_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Six shards are read, three of them rewritten for their duplicates, and only then comes the manifest."""
    folder = image_set(24)
    for n in (5, 12, 23):
        (folder / f"{n:04d}.png").write_bytes((folder / "0000.png").read_bytes())
    config = Ingest(images=(str(folder),), shard_size=4)
    ingest(Output(tmp_path / "whole"), config, "digest", lambda items: None)
    done = 0

    def write(*arguments: Any) -> None:
        nonlocal done
        if done == writes:
            raise Killed
        done += 1
        write_table(*arguments)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("engine.ingest.shards.write_table", write)
        ingest(Output(tmp_path / "killed"), config, "digest", lambda items: None)
    assert not Output(tmp_path / "killed").manifest.exists()
    ingest(Output(tmp_path / "killed"), config, "digest", lambda items: None)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.parametrize("lost", [[], [0], [2, 5], range(6)])
def test_lost_shards_are_made_again(image_set: Callable[..., Path], tmp_path: Path, lost: Iterable[int]) -> None:
    folder = image_set(24)
    (folder / "0023.png").write_bytes((folder / "0000.png").read_bytes())
    ingested(tmp_path / "out", folder, shard_size=4)
    whole = files(tmp_path / "out")
    Output(tmp_path / "out").manifest.unlink()
    for number in lost:
        Output(tmp_path / "out").items(ShardId(0, number)).unlink()
    ingested(tmp_path / "out", folder, shard_size=4)
    assert files(tmp_path / "out") == whole


def test_marks_go_when_the_first_copy_is_another_image(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(6)
    first = folder / "0000.png"
    (folder / "0005.png").write_bytes(first.read_bytes())
    items, _ = ingested(tmp_path / "out", folder, shard_size=2)
    assert items[5].duplicate_of == items[0].item_id
    Output(tmp_path / "out").manifest.unlink()
    Output(tmp_path / "out").items(ShardId(0, 0)).unlink()
    Image.new("RGB", (3, 3)).save(first)
    items, manifest = ingested(tmp_path / "out", folder, shard_size=2)
    assert [item.duplicate_of for item in items] == [None] * 6
    assert manifest["duplicates"] == 0


def test_shards_of_images_that_went_meanwhile_are_removed(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(9)
    killed(tmp_path / "out", Ingest(images=(str(folder),), shard_size=2, partition_size=6), "digest", after=5)
    for n in range(5):
        (folder / f"{n:04d}.png").unlink()
    items, _ = ingested(tmp_path / "out", folder, shard_size=2, partition_size=6)
    there = (tmp_path / "out/images").glob("*/*.parquet")
    assert sum(pq.read_metadata(path).num_rows for path in there) == len(items) == 4


def test_shards_of_another_configuration_are_made_anew(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(4)
    config = Ingest(images=(str(folder),), shard_size=2, max_pixels=10)
    killed(tmp_path / "out", config, "10 pixels", after=1)
    items, _ = ingested(tmp_path / "out", folder, shard_size=2)
    assert not errors(items)


def test_a_licence_that_changed_meanwhile_is_read_again(image_set: Callable[..., Path], tmp_path: Path) -> None:
    path = image_set(4) / "list.parquet"

    def write(licence: str) -> None:
        pq.write_table(pa.table({"uri": [f"{n:04d}.png" for n in range(4)], "licence": [licence] * 4}), path)

    write("unknown")
    killed(tmp_path / "out", Ingest(images=(str(path),), shard_size=2), "digest", after=1)
    write("CC0")
    items, _ = ingested(tmp_path / "out", path, shard_size=2)
    assert [item.licence for item in items] == ["CC0"] * 4


def test_images_that_came_meanwhile_are_in_it(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(9)
    config = Ingest(images=(str(folder),), shard_size=4)
    killed(tmp_path / "out", config, "digest", after=1)
    (folder / "0000 a.png").write_bytes((folder / "0001.png").read_bytes())
    items, manifest = ingested(tmp_path / "out", folder, shard_size=4)
    assert len(items) == 10
    assert manifest["listed"] == listed_digest(config)
    (folder / "0000 b.png").write_bytes((folder / "0001.png").read_bytes())
    assert manifest["listed"] != listed_digest(config)


def test_limit_and_partitions(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(9)
    items, manifest = ingested(tmp_path / "out", folder, limit=7, partition_size=3, shard_size=2)
    assert [Path(item.uri).name for item in items] == [f"{n:04d}.png" for n in range(7)]
    assert manifest["partitions"] == [
        {"items": 3, "shard_size": 2, "shards": 2, "digest": "digest"},
        {"items": 3, "shard_size": 2, "shards": 2, "digest": "digest"},
        {"items": 1, "shard_size": 2, "shards": 1, "digest": "digest"},
    ]


def test_what_holds_no_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ConfigError, match=rf"no images in {tmp_path}/photos"):
        ingested(tmp_path / "out", tmp_path / "photos")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir(mode=0)
    with pytest.raises(ConfigError, match=r"photos can't be read: Permission denied"):
        ingested(tmp_path / "out", tmp_path / "photos")


@given(st.integers(1, 10**6))
def test_shards_are_neither_tiny_nor_too_many(items: int) -> None:
    size = shard_size(items, Ingest())
    assert 4 <= size <= 1024
    assert -(-items // size) <= max(64, items / 1024 + 1)


@given(st.lists(st.integers(), max_size=30), st.integers(1, 9))
def test_chunks_lose_nothing(values: list[int], size: int) -> None:
    parts = list(chunks(values, size))
    assert [value for part in parts for value in part] == values
    assert all(len(part) == size for part in parts[:-1])
