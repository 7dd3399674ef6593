"""One cluster for all: a head without work, two nodes of one CPU each, and what a machine alone makes of the images."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from clusters import ENGINE, RAY, Head, install_toys, ray_head, ray_nodes
from PIL import Image

PIPELINE = """
ingest: {shard_size: 4}
specialists:
  paced: {seconds: 0.1}
filters:
  dark: {threshold: 0.4}
run: {memory_mb_per_worker: 200}
"""
IMAGES = 24


@dataclass(frozen=True)
class Place:
    """A folder with images and a pipeline, and the cluster that works on them."""

    folder: Path
    environment: dict[str, str]

    def command(self, out: Path, *more: str) -> list[str]:
        """`engine run` on the images, with `more` options."""
        pipeline, images = str(self.folder / "pipeline.yaml"), str(self.folder / "images")
        return [ENGINE, "run", "--config", pipeline, "--images", images, "--out", str(out), *more]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            arguments,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Its exit code and all it said."""
        process = self.start(*arguments, **environment)
        said, _ = process.communicate(timeout=280)
        return process.returncode, said


@dataclass(frozen=True)
class Cluster(Place):
    head: Head
    seen: Path  # where each node that worked leaves a file

    def job(self, verb: str, *more: str) -> tuple[int, str]:
        return self.run(RAY, "job", verb, "--address", self.head.dashboard, *more)


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Place:
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    (folder / "images").mkdir()
    photo = Image.open(photos / "coffee.png").convert("L")
    for n in range(IMAGES):
        x, y = 20 * (n % 6), 60 * (n // 6)
        photo.crop((x, y, x + 60, y + 60)).save(folder / "images" / f"{n:02}.png")
    return Place(folder, install_toys(folder / "site"))


@pytest.fixture(scope="package")
def alone(place: Place) -> Path:
    """The output of a run without a cluster. Not to be written to."""
    out = place.folder / "alone"
    code, said = place.run(*place.command(out))
    assert code == 0, said
    assert f"{IMAGES} images, 0 quarantined" in said
    return out


@pytest.fixture(scope="package")
def cluster(place: Place) -> Iterator[Cluster]:
    seen = place.folder / "seen"
    seen.mkdir()
    with ray_head({**place.environment, "SEEN": str(seen)}, cpus=0) as head, ray_nodes(head, 2):
        yield Cluster(place.folder, head.environment, head, seen)
