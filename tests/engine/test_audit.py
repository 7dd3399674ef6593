"""A sample to be labelled is there whole, or not at all: what is half there would refuse the next one."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets_made import write_dataset
from exporting import pictures

from engine import audit
from engine.config import Config
from engine.dataset import open_dataset
from engine.errors import ImageError


def test_a_sample_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos")
    dataset = open_dataset(write_dataset(photos, tmp_path / "out", lambda record: record).root)
    items, to, last = audit.draw(dataset, 5, 0), tmp_path / "to", photos / "more" / "4.png"
    items = [*items, next(item for item in dataset.items() if item.uri.endswith("more/4.png"))]
    data = last.read_bytes()
    last.unlink()
    with pytest.raises(ImageError, match="no such file"):
        audit.export(dataset, items, Config(), to)
    assert list(to.iterdir()) == []
    last.write_bytes(data)
    audit.export(dataset, items, Config(), to)
    assert len(list((to / "images").iterdir())) == len({item.item_id for item in items})
