"""Images that could not be read are read again: what comes of it is what an ingest of today would give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from ingesting import files, ingested, items_of
from web import page, serving

from engine.config import Http, Ingest
from engine.ingest import Retried, retry
from engine.layout import Output, ShardId
from engine.storage import read_items
from engine.uris import download_of


def unread(output: Output) -> dict[ShardId, set[int]]:
    """The rows of images that could not be read."""
    shards = {shard: read_items(output, shard) for shard in output.shards()}
    return {shard: {row for row, item in enumerate(items) if item.error} for shard, items in shards.items()}


def test_retried_images_are_what_they_were_from_the_start(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(9)
    late = {path: path.read_bytes() for path in (folder / f"{n:04d}.png" for n in (1, 4, 8))}
    late[folder / "0004.png"] = (folder / "0000.png").read_bytes()  # a duplicate
    uris = [f"{n:04d}.png" for n in range(9)]
    captions = [None if n % 2 else f"caption {n}" for n in range(9)]
    pq.write_table(pa.table({"uri": uris, "captions": captions}), folder / "list.parquet")
    config = Ingest(images=(str(folder / "list.parquet"),), shard_size=2, partition_size=6)
    for path in late:
        path.write_bytes(b"")
    manifest = ingested(tmp_path / "out", config)
    assert manifest["errors"] == {"empty": 3}
    assert manifest["faults"] == {"unread_image": 2}
    output = Output(tmp_path / "out")
    assert retry(output, config, unread(output)) == Retried(tried=3, unlisted=0)
    for path, data in late.items():
        path.write_bytes(data)
    ingested(tmp_path / "today", config)
    read = {ShardId(0, 0): [1], ShardId(0, 2): [0], ShardId(1, 1): [0]}
    assert retry(output, config, unread(output)) == Retried(tried=3, unlisted=0, read=read)
    assert files(tmp_path / "out") == files(tmp_path / "today")
    assert retry(output, config, unread(output)) == Retried(tried=0, unlisted=0)


def test_only_the_shards_that_are_named(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(6)
    whole = (folder / "0001.png").read_bytes()
    for name in ("0001.png", "0005.png"):
        (folder / name).write_bytes(b"")
    config, output = Ingest(images=(str(folder),), shard_size=2), Output(tmp_path / "out")
    ingested(output.root, config)
    before = files(output.root)
    for name in ("0001.png", "0005.png"):
        (folder / name).write_bytes(whole)
    assert retry(output, config, {ShardId(0, 2): {1}}) == Retried(1, 0, {ShardId(0, 2): [1]})
    changed = {path for path, data in files(output.root).items() if before[path] != data}
    assert changed == {"images/manifest.json", "images/part-00000/shard-00002.parquet"}
    assert retry(output, config, {ShardId(0, 0): {0, 1}}) == Retried(1, 0, {ShardId(0, 0): [1]})
    items = items_of(output.root)
    assert [item.error for item in items] == [None] * 6
    assert [item.duplicate_of for item in items] == [None] * 6  # the later one was read first, and stays
    assert items[1].content_id == items[5].content_id


def test_retried_copies_point_to_the_first_of_them(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(6)
    copies = [folder / f"{n:04d}.png" for n in (1, 2, 5)]
    data = copies[0].read_bytes()
    for path in copies:
        path.write_bytes(b"")
    config, output = Ingest(images=(str(folder),), shard_size=2), Output(tmp_path / "out")
    ingested(output.root, config)
    for path in copies:
        path.write_bytes(data)
    retry(output, config, unread(output))
    items = items_of(output.root)
    assert [item.duplicate_of for item in items] == [None, None, items[1].item_id, None, None, items[1].item_id]
    assert (tmp_path / "out/images/manifest.json").read_text().count('"duplicates": 2') == 1


def test_a_copy_of_its_neighbour(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(2)
    (folder / "0001.png").write_bytes(b"")
    config, output = Ingest(images=(str(folder),), shard_size=2), Output(tmp_path / "out")
    ingested(output.root, config)
    (folder / "0001.png").write_bytes((folder / "0000.png").read_bytes())
    retry(output, config, unread(output))
    first, second = items_of(output.root)
    assert second.duplicate_of == first.item_id


def test_the_first_copy_is_the_first_though_it_was_read_last(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """And an update does not mark anew what is there."""
    folder = image_set(6)
    data = (folder / "0003.png").read_bytes()
    for name in ("0000.png", "0005.png"):
        (folder / name).write_bytes(b"")
    config, output = Ingest(images=(str(folder),), shard_size=2), Output(tmp_path / "out")
    ingested(output.root, config)
    for name in ("0000.png", "0005.png"):
        (folder / name).write_bytes(data)
    retry(output, config, unread(output))
    items = items_of(output.root)
    assert [item.duplicate_of for item in items] == [None] * 5 + [items[0].item_id]
    (folder / "new.png").write_bytes(data)
    manifest = ingested(output.root, config, update=True)
    assert items_of(output.root)[:6] == items
    assert items_of(output.root)[6].duplicate_of == items[0].item_id
    assert manifest["duplicates"] == 2


def test_what_is_at_a_url_is_fetched_anew(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """A server may have sent an image that was cut off; while it has nothing better, the one that is here stays."""
    folder = image_set(2)
    whole, other = ((folder / f"{n:04d}.png").read_bytes() for n in range(2))
    with serving() as web:
        web.pages.update({"/0.png": page(whole[:20]), "/1.png": page(other)})
        (tmp_path / "urls.txt").write_text("".join(f"{web.url(path)}\n" for path in web.pages))
        http = Http(private_addresses=True, attempts=1, timeout_seconds=2)
        config = Ingest(images=(str(tmp_path / "urls.txt"),), http=http)
        assert ingested(tmp_path / "out", config)["errors"] == {"truncated": 1}
        output = Output(tmp_path / "out")
        del web.pages["/0.png"]
        assert retry(output, config, unread(output)) == Retried(tried=1, unlisted=0)
        assert all(download_of(output.downloads, web.url(path)).exists() for path in ("/0.png", "/1.png"))
        web.pages["/0.png"] = page(whole)
        assert retry(output, config, unread(output)) == Retried(1, 0, read={ShardId(0, 0): [0]})
        assert web.asked == {"/0.png": 3, "/1.png": 1}
        ingested(tmp_path / "today", config)
    assert files(tmp_path / "out") == files(tmp_path / "today")


def test_what_is_listed_no_longer_is_not_read(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """The list may have taken it out because nobody should."""
    folder = image_set(3)
    whole = (folder / "0001.png").read_bytes()
    (folder / "list.txt").write_text("0000.png\n0001.png\n")
    (folder / "0001.png").write_bytes(b"")
    config, output = Ingest(images=(str(folder / "list.txt"),)), Output(tmp_path / "out")
    ingested(output.root, config)
    before = files(output.root)
    (folder / "0001.png").write_bytes(whole)
    (folder / "list.txt").write_text("0000.png\n")
    assert retry(output, config, unread(output)) == Retried(tried=1, unlisted=1)
    assert files(output.root) == before
