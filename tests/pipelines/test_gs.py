"""From images on gs:// to annotations, a check and an export there, through the command line and Ray's workers; on an
emulator of Google's store, which has neither its faults nor its rights."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import content, install_toys
from command import ENGINE
from gcp_storage_emulator.server import create_server  # type: ignore[import-untyped]
from PIL import Image
from s3 import forget_connections

from engine import open_dataset
from engine.atomic import is_there, names_in, read_json
from engine.copies import fetched
from engine.layout import Output
from engine.places import place

BUCKET = "gs://photos"
PIPELINE = """
ingest: {shard_size: 2}
specialists: {brightness: {use: brightness}}
run: {workers: 1, max_quarantined: 0.5}
"""


@pytest.fixture
def store() -> Iterator[None]:
    """One bucket, in memory."""
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET.removeprefix("gs://"))
    with server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server._api._httpd.server_port}")
        patch.setenv("GOOGLE_CLOUD_PROJECT", "of-tests")
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # it would ask by gRPC, which the emulator has not
        patch.setenv("no_proxy", "127.0.0.1")
        forget_connections()
        yield
        forget_connections()


def call(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run([ENGINE, *arguments], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_from_images_to_an_export_on_gs(store: None, tmp_path: Path) -> None:
    photos, config = tmp_path / "photos", tmp_path / "pipeline.yaml"
    photos.mkdir()
    config.write_text(PIPELINE)
    for number in range(3):
        Image.new("L", (40 + number, 30), 80 * number).save(photos / f"{number}.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this was a photo once")
    for path in photos.iterdir():
        place(f"{BUCKET}/photos/{path.name}").write_bytes(path.read_bytes())
    environment = install_toys(tmp_path / "toys")
    environment |= {name: os.environ[name] for name in ("STORAGE_EMULATOR_HOST", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT")}
    out = f"{BUCKET}/sets/out"
    call(environment, "run", "--config", str(config), "--images", f"{BUCKET}/photos", "--out", out)
    assert "It is sound" in call(environment, "verify", out)
    assert "4 of 4" in call(environment, "status", out)
    there = open_dataset(out)
    assert sorted(item.uri for item in there.items()) == sorted(f"{BUCKET}/photos/{p.name}" for p in photos.iterdir())
    assert sum(1 for _ in there.regions()) == 3
    call(environment, "export", out, "--format", "parquet", "--to", f"{BUCKET}/sets/export")
    assert read_json(place(f"{BUCKET}/sets/export/export.json"))["splits"] == {"train": {"images": 3, "regions": 3}}
    copy = fetched(place(f"{out}/round-0"))
    assert len(content(copy)) == 4
    output = Output(place(out))
    output.clear()
    assert not is_there(output.manifest) and names_in(output.root) == [".engine-lock"]
