"""A run from images on S3 to annotations on S3, through the command line and Ray's workers, on a store that fails now
and then; and what comes after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from clusters import content, install_toys
from command import ENGINE, Call
from PIL import Image
from rich.console import Console
from s3 import Bucket, Proxy, environment, faulty, s3_server, variables

from engine import lock, open_dataset
from engine.components import installed
from engine.config import load_config
from engine.layout import LOCK, Output
from engine.lock import run_lock
from engine.places import place
from pipelines.build import Pipeline, build_pipeline
from pipelines.exporting import export_round
from pipelines.stages import Stages

COUNT, SHARD = 12, 2
PIPELINE = """
ingest: {shard_size: 2}
specialists:
  brightness: {use: brightness}
filters:
  dark: {use: dark}
run: {workers: 2, batch_size: 1, max_quarantined: 0.5}
"""


@dataclass
class Store:
    """A bucket with photos/, behind a proxy, and a pipeline that is quick."""

    bucket: Bucket
    proxy: Proxy
    config: Path
    variables: dict[str, str]

    @property
    def images(self) -> str:
        return f"{self.bucket.uri}/photos"

    @property
    def out(self) -> str:
        return f"{self.bucket.uri}/sets/out"

    def command(self, *arguments: str) -> list[str]:
        return [ENGINE, *arguments]

    def annotate(self, out: str) -> list[str]:
        given = ("--config", str(self.config), "--images", self.images, "--out", out)
        return self.command("run", "--stage", "annotate", *given)

    def pipeline(self, *settings: str) -> Pipeline:
        return build_pipeline(load_config(self.config, (f"ingest.images=['{self.images}']", *settings)))

    def call(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def done(self) -> dict[str, object]:
        """The shards that are done, with the times at which they were written."""
        pages = self.bucket.client.list_objects_v2(Bucket=self.bucket.name, Prefix="sets/out/round-0/decisions/")
        return {one["Key"]: one["LastModified"] for one in pages.get("Contents", ())}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("s3")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    (folder / "photos").mkdir()
    for number in range(COUNT):
        pixels = np.full((40, 60, 3), 20 * number, np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number:02d}.png")
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this was a photo once")
    with s3_server() as server, faulty(server) as proxy, environment(proxy.url):
        bucket = server.bucket()
        bucket.upload(folder / "photos", "photos")
        told = install_toys(folder / "toys") | variables(proxy.url)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(folder / "toys")
            installed.cache_clear()
            yield Store(bucket, proxy, folder / "pipeline.yaml", told)
        installed.cache_clear()


@dataclass
class Troubled:
    """Every few requests something goes wrong, in turn; no request is unlucky for ever."""

    seen: int = 0

    def __call__(self, method: str, path: str) -> str | None:
        self.seen += 1
        return ("busy", "cut", "slow")[self.seen // 25 % 3] if self.seen % 25 == 0 else None


@pytest.fixture(scope="module")
def annotated(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves on a store that fails now and then, when it is killed and goes on; copied here."""
    store.proxy.fault = Troubled()
    process = store.start(*store.annotate(store.out))
    for _ in range(1200):
        if len(before := store.done()) >= 2 or process.poll() is not None:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(before) >= 2
    store.bucket.write(f"sets/out/{LOCK}", b"{}")  # as after a minute: see test_places.py
    store.call(*store.annotate(store.out))
    assert before.items() <= store.done().items(), "what was done is not done again"
    assert {"busy", "cut", "slow"} <= set(store.proxy.done)
    store.proxy.fault = lambda method, path: None
    return store.bucket.download("sets/out", tmp_path_factory.mktemp("copy") / "out")


def test_a_troubled_run_on_s3_gives_what_one_on_a_disk_does(store: Store, annotated: Path, tmp_path: Path) -> None:
    store.call(*store.annotate(str(tmp_path / "out")))
    there, here = content(annotated), content(tmp_path / "out")
    assert there == here
    assert sum(len(rows) for name, rows in there.items() if name.startswith("images/")) == COUNT + 1
    told = (json.loads((folder / "round-0" / "summary.json").read_text()) for folder in (annotated, tmp_path / "out"))
    first, second = ({key: value for key, value in one.items() if key != "last_run"} for one in told)
    assert first == second
    assert not [name for name in annotated.rglob("*") if "aside" in name.name or "notes" in name.name]


def test_nothing_secret_is_written(store: Store, annotated: Path) -> None:
    for path in annotated.rglob("*"):
        if path.is_file():
            assert b"of-tests" not in path.read_bytes(), path


def test_a_dataset_is_opened_where_it_is(store: Store, annotated: Path) -> None:
    dataset, copy = open_dataset(store.out), open_dataset(annotated)
    assert list(dataset.records()) == list(copy.records())
    assert dataset.to_pandas("regions").equals(copy.to_pandas("regions"))
    assert len({item.uri for item, _ in dataset.regions()}) > 1


def test_a_second_run_is_refused(store: Store, annotated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW", 0.5)
    with run_lock(place(store.out)):
        done = subprocess.run(
            store.annotate(store.out), env=store.variables, capture_output=True, text=True, timeout=100
        )
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"in use by another run (process {os.getpid()} on " in done.stdout + done.stderr


@pytest.mark.parametrize("format_", ["parquet", "coco", "webdataset"])
def test_exports_from_there_to_there(format_: str, store: Store, annotated: Path, tmp_path: Path) -> None:
    to = f"{store.bucket.uri}/exports/{format_}"
    for out, target in ((store.out, to), (str(annotated), str(tmp_path / "here"))):
        asked = store.pipeline(f"export.format={format_}", f"export.to={target}").config
        export_round(Output(place(out)), 0, asked, Console(quiet=True))
    there = store.bucket.download(f"exports/{format_}", tmp_path / "there")
    here = tmp_path / "here"
    names = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert names == {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    for name in names - {"export.json", "README.md"}:
        assert (there / name).read_bytes() == (here / name).read_bytes(), name


def test_what_looks_at_it(store: Store, annotated: Path, call: Call) -> None:
    for arguments in (("show", store.out, "03.png"), ("stats", store.out)):
        code, said = call(*arguments)
        assert code == 0, said
        assert "brightness" in said


def test_a_report_is_a_page_there(store: Store, annotated: Path) -> None:
    Stages(store.pipeline(), Output(place(store.out)), Console(quiet=True)).run("report")
    assert b"brightness" in store.bucket.read("sets/out/report/index.html")


def test_filters_decide_again(store: Store, annotated: Path) -> None:
    Stages(store.pipeline("filters.dark.threshold=0.9"), Output(place(store.out)), Console(quiet=True)).run("filter")
    fallen = [len(record.fallen) for record in open_dataset(store.out).records()]
    assert sum(fallen) > sum(len(record.fallen) for record in open_dataset(annotated).records())
