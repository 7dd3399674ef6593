"""What people's folders hold besides photos, through the whole of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import ENGINE, command, run
from PIL import Image

from engine import open_dataset
from engine.dataset import Dataset
from engine.records import Record

COPIES = 1000
NAMES = [
    "with spaces.jpg",
    "with\nnewline.jpg",
    "[bold red]markup[green] <b>and<b> {curly}.jpg",
    "фото 写真 صورة 🐈.jpg",
    "-dash.jpg",
    "#hash?query=1%20.jpg",
    "quote'\".jpg",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    cup = Image.open(photos / "coffee.png").convert("RGB").crop((100, 0, 480, 390)).resize((240, 240))
    for n, name in enumerate(NAMES):
        cup.rotate(n).save(folder / name)
    Image.new("RGB", (640, 480), (90, 120, 200)).save(folder / "nothing in it.png")
    Image.new("RGB", (1, 1)).save(folder / "1x1.png")
    banner = Image.new("RGB", (20_000, 200), "white")
    banner.paste(cup.resize((180, 180)), (9000, 10))
    banner.save(folder / "banner.png")
    (folder / "copies").mkdir()
    data = (folder / "with spaces.jpg").read_bytes()
    for n in range(COPIES - 1):
        (folder / "copies" / f"{n}.jpg").write_bytes(data)
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<html>404</html>")
    (folder / "cut off.png").write_bytes((photos / "coffee.png").read_bytes()[:9000])
    (folder / os.fsdecode(b"not utf-8 \xff.jpg")).write_bytes(data[:-2] + b"\xff\xd9")
    return folder


@pytest.fixture(scope="module")
def dataset(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("out") / "out [of] <b>everything<b>"
    result = run(*command(out, "--images", str(hostile)))
    assert result.returncode == 0, result.stdout
    return open_dataset(out)


@pytest.fixture(scope="module")
def records(dataset: Dataset) -> dict[str, Record]:
    return {record.item.uri.rpartition("/")[2]: record for record in dataset.records()}


def test_every_file_has_a_row(dataset: Dataset, hostile: Path) -> None:
    items = list(dataset.items())
    assert len(items) == sum(len(files) for _, _, files in os.walk(hostile))
    assert [record.item for record in dataset.records()] == items


def test_copies_are_annotated_once(dataset: Dataset, records: dict[str, Record]) -> None:
    original = records["0.jpg"].item if records["0.jpg"].item.duplicate_of is None else None
    copies = [record for record in dataset.records() if record.item.content_id == records["0.jpg"].item.content_id]
    firsts = [record for record in copies if record.item.duplicate_of is None]
    assert len(firsts) == 1
    assert original in (None, firsts[0].item)
    assert {record.item.duplicate_of for record in copies} == {None, firsts[0].item.item_id}
    assert sum(bool(record.by_id) for record in copies) == 1
    assert len(copies) >= COPIES


def test_names_do_no_harm(dataset: Dataset, records: dict[str, Record]) -> None:
    assert all(records[name].error is None for name in NAMES)
    shown = run(ENGINE, "show", str(dataset.output.root), NAMES[2])
    assert "[bold red]markup[green] <b>and<b> {curly}.jpg" in shown.stdout
    shown = run(ENGINE, "show", str(dataset.output.root), NAMES[1])
    assert "with\\nnewline.jpg" in shown.stdout
    shown = run(ENGINE, "show", str(dataset.output.root), os.fsdecode(b"not utf-8 \xff.jpg"))
    assert "not%20utf-8%20%FF.jpg" in shown.stdout


def test_odd_images_are_images(records: dict[str, Record]) -> None:
    for name in ("nothing in it.png", "1x1.png", "banner.png"):
        assert records[name].error is None
    assert not records["nothing in it.png"].standing.by_id
    assert not records["1x1.png"].standing.by_id


@pytest.mark.parametrize(
    ("name", "kind"), [("empty.jpg", "empty"), ("page.jpg", "not_an_image"), ("cut off.png", "truncated")]
)
def test_what_is_no_image_is_a_row_with_its_error(records: dict[str, Record], name: str, kind: str) -> None:
    error = records[name].error
    assert error is not None
    assert (error.stage, error.kind) == (("ingest" if kind != "truncated" else "decode"), kind)
