"""What several tests share: real photos, a small image set, and the pipeline run in one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image

from pipelines.samples import sample_photos

# The same examples every time, so that a run says something of the code alone; HYPOTHESIS_PROFILE=explore for new ones.
settings.register_profile("same", derandomize=True, deadline=None)  # timings are for benchmarks
settings.register_profile("explore")
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
SUPPORT = str(Path(__file__).parent / "support")  # Ray's workers import the toys, too
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SUPPORT, os.environ.get("PYTHONPATH")]))

# Of the files that two processes share these take minutes each: begun last, one of them would run on alone.
LONG = (
    "train",
    "refine",
    "stages",
    "s3",
    "chaos",
    "store_rounds",
    "fld",
    "reannotate",
    "cli",
    "incremental",
    "pools",
    "runner",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    long = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: long.get(item.path.name, len(long)))


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of the sample photos."""
    return Path(sample_photos()[0]).parent


@pytest.fixture(autouse=True)
def pixel_limit() -> Iterator[None]:
    """Decoding sets Pillow's limit, which is one for the process, to its own; the next test is to have its own, too."""
    before = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = before


@pytest.fixture
def image_set(tmp_path: Path, photos: Path) -> Callable[..., Path]:
    """Makes a folder of small, different pictures: crops of real photos, `count` of them."""

    def make(count: int, folder: str = "images", size: int = 96) -> Path:
        target = tmp_path / folder
        target.mkdir(parents=True, exist_ok=True)
        source = Image.open(photos / "coffee.png").convert("RGB")
        for n in range(count):
            x, y = (37 * n) % (source.width - size), (53 * n) % (source.height - size)
            source.crop((x, y, x + size, y + size)).save(target / f"{n:04d}.png")
        return target

    return make


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tiny models: a second thread has nothing to do, and waits for the first (7 times as long under load)."""
    import torch  # seconds, which other tests do without

    before, told = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # by which specialists go
    yield
    torch.set_num_threads(before)
    if told is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = told
