"""The digest of a listing: Parquet manifests are known by their stamps, and not read for it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config import Ingest
from engine.ingest import Added, added, ingest, listed_digest
from engine.layout import Output
from engine.listing import Listing


@pytest.fixture
def manifest(tmp_path: Path, photos: Path) -> Path:
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"uri": [str(photos / "coffee.png"), str(photos / "text.png")]}), path)
    return path


def test_a_manifest_that_is_the_same_is_not_listed_again(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, output = Ingest(images=(str(manifest),)), Output(tmp_path / "out")
    said = ingest(output, config, "digest", lambda items: None)

    def listed(listing: Listing) -> None:
        raise AssertionError("it was listed")

    monkeypatch.setattr(Listing, "__iter__", listed)
    assert listed_digest(config) == said["listed"]
    assert added(output, config) == Added(new=0, gone=0)


def test_a_manifest_that_is_another_is(manifest: Path, tmp_path: Path, photos: Path) -> None:
    config, output = Ingest(images=(str(manifest),)), Output(tmp_path / "out")
    said = ingest(output, config, "digest", lambda items: None)
    pq.write_table(
        pa.table({"uri": [str(photos / name) for name in ("text.png", "chelsea.png", "rocket.jpg")]}), manifest
    )
    assert listed_digest(config) != said["listed"]
    assert added(output, config) == Added(new=2, gone=1)


def test_a_limit_and_another_place_are_another_listing(manifest: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.parquet"
    whole = listed_digest(Ingest(images=(str(manifest),)))
    assert listed_digest(Ingest(images=(str(manifest),), limit=1)) != whole
    manifest.rename(moved)
    assert listed_digest(Ingest(images=(str(moved),))) != whole


def test_one_that_lies_beside_a_folder_is_listed_with_it(manifest: Path, tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    config = Ingest(images=(str(manifest), str(folder)))
    before = listed_digest(config)
    (folder / "rocket.jpg").write_bytes((photos / "rocket.jpg").read_bytes())
    assert listed_digest(config) != before
