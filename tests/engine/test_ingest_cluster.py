"""Reading on a cluster: the same files as of one process, whoever read the images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ingesting import files, ingested

from engine.config import Http, Ingest, Run
from engine.entry import Entry
from engine.ingest import item_of
from engine.records import Item
from engine.runner import cluster


def test_a_cluster_gives_the_same(
    image_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = image_set(14)
    (folder / "0005.png").write_bytes((folder / "0001.png").read_bytes())
    (folder / "0006.png").write_bytes(b"")
    (folder / "list.txt").write_text(
        "".join(f"{n:04d}.png\n" for n in range(14)) + "http://127.0.0.1:9/closed.png\n0000.png\ngone.png\n"
    )
    config = Ingest(images=(str(folder / "list.txt"),), shard_size=4, http=Http(attempts=1))
    ingested(tmp_path / "here", config)
    Path(tmp_path / "cluster").mkdir()
    read_here: list[str] = []

    def noted(entry: Entry, *others: Any) -> Item:
        read_here.append(entry.uri)
        return item_of(entry, *others)

    monkeypatch.setattr("engine.ingest.shards.item_of", noted)
    with cluster(Run(cpus_per_worker=0.5)):
        address = ray.get_runtime_context().gcs_address
        assert address
        ingested(tmp_path / "cluster", config, run=Run(address=address))
        assert sorted(map(os.path.basename, read_here)) == ["0012.png", "0013.png", "closed.png", "gone.png"]
        before = files(tmp_path / "cluster")
        (tmp_path / "cluster/images/manifest.json").unlink()
        (tmp_path / "cluster/images/part-00000/shard-00001.parquet").unlink()
        ingested(tmp_path / "cluster", config, run=Run(address=address))
    assert files(tmp_path / "cluster") == before == files(tmp_path / "here")
