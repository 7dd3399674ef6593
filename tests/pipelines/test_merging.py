"""Merging opens images for whoever chooses by them, within the time limit of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets_made import write_dataset
from exporting import endless
from PIL import Image

from engine.config import Config
from engine.dataset import open_dataset
from engine.errors import ImageError
from pipelines.merging import Models, ShardMerge


def test_an_image_that_takes_too_long_has_no_pixels_and_the_others_have(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    endless(tmp_path / "photos" / "a.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "b.png")
    output = write_dataset(tmp_path / "photos", tmp_path / "out", lambda record: record)
    config = Config.model_validate({"run": {"item_seconds": 1, "attempts": 1}})
    nobody = Models(frozenset(), frozenset(), frozenset())
    task = ShardMerge(output, config, 1, nobody, {}, (), "digest")
    hanging, other = open_dataset(output.root).items()
    with pytest.raises(ImageError, match=r"a\.jpg took longer than 1 s, in File .*given up after 1 attempt"):
        task.pixels(hanging)
    assert task.pixels(other).shape == (30, 40, 3)
