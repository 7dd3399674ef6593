"""Hugging Face datasets: `datasets` gives back all that stands, images upright, without a script and offline."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets_made import write_dataset
from exporting import SHARES, asked, run, standing
from known import document_of, known
from PIL import Image

from engine.export import hf
from engine.export.features import as_yaml, features
from engine.export.hf import HuggingFace
from engine.images import decode
from engine.layout import Output
from engine.reading import read
from engine.records import DETAILS


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        module = pytest.importorskip("datasets")
        patch.setattr(module.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(module.config, "HF_HUB_OFFLINE", True)
        yield module


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return known(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def exported(output: Output, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("export") / "to"
    run(asked(output, HuggingFace(), to))
    return to


def load(datasets: Any, to: Path, **options: Any) -> Any:
    return datasets.load_dataset(str(to), **options)


def check(row: dict[str, Any], split: str, output: Output, classes: Any) -> None:
    """A row says what the record says, as a document and by name."""
    record = standing(output)[row["item_id"]]
    document = {name: value for name, value in row.items() if name not in ("image_id", "image", "captions", "objects")}
    assert document == document_of(record, split=split)
    told = {detail: [text.text for text in record.texts if text.detail == detail] for detail in DETAILS}
    assert row["captions"] == told
    objects = [region for region in record.regions if region.kind == "object" and region.raw_label]
    found = row["objects"]
    assert found["region_id"] == [region.id for region in objects]
    assert [classes.int2str(number) for number in found["category"]] == [
        " ".join((region.raw_label or "").casefold().split()) for region in objects
    ]
    assert found["iscrowd"] == [region.crowd for region in objects]
    boxes = np.array([region.box for region in objects]).reshape(-1, 4)
    bboxes = np.array(found["bbox"]).reshape(-1, 4)
    assert np.allclose(bboxes[:, :2], boxes[:, :2], atol=0) and np.allclose(bboxes[:, 2:], boxes[:, 2:] - boxes[:, :2])
    assert np.allclose(found["area"], bboxes[:, 2] * bboxes[:, 3])
    pixels = np.asarray(row["image"].convert("RGB")).astype(int)
    there = decode(read(record.item.uri, max_bytes=10**8), max_pixels=10**8)
    assert pixels.shape == (record.item.height, record.item.width, 3)
    assert np.abs(pixels - there).mean() < (8 if record.item.uri.endswith("turned.jpg") else 1e-9)


@pytest.mark.parametrize("how", ["inside", "refer"])
@pytest.mark.parametrize("streaming", [False, True])
def test_the_library_gives_back_what_stands(
    datasets: Any, output: Output, exported: Path, tmp_path: Path, how: Any, streaming: bool
) -> None:
    if how == "refer":
        exported = tmp_path / "to"
        run(asked(output, HuggingFace(), exported, how=how))
    loaded = load(datasets, exported, streaming=streaming)
    assert set(loaded) == set(SHARES)
    seen = []
    for split in SHARES:
        classes = loaded[split].features["objects"]["category"].feature
        for row in loaded[split]:
            check(row, split, output, classes)
            seen.append(row["item_id"])
    assert sorted(seen) == sorted(standing(output)) and len(seen) == 7


def test_the_card_and_the_files_declare_the_same(datasets: Any, exported: Path) -> None:
    header = yaml.safe_load((exported / "README.md").read_text().split("---\n")[1])
    declared = datasets.Features._from_yaml_list(header["dataset_info"]["features"])
    files = sorted(exported.glob("data/*/*.parquet"))
    for path in files:
        schema = pq.read_schema(path)
        found = datasets.Features.from_arrow_schema(schema)
        assert found == declared
        assert found.arrow_schema.types == schema.types
    loaded = load(datasets, exported)
    assert loaded["train"].features == declared
    sizes = {split["name"]: split["num_examples"] for split in header["dataset_info"]["splits"]}
    assert sizes == {split: len(loaded[split]) for split in SHARES}
    assert header["dataset_info"]["download_size"] == sum(path.stat().st_size for path in files)
    assert header["dataset_info"]["dataset_size"] > 1000
    assert (header["license"], header["size_categories"]) == ("cc-by-4.0", ["n<1K"])


def test_features_without_classes_are_features(datasets: Any) -> None:
    declared = features([])
    assert datasets.Features.from_dict(declared) == datasets.Features._from_yaml_list(as_yaml(declared))


def test_without_regions_and_with_nothing_it_is_loaded_all_the_same(
    datasets: Any, output: Output, tmp_path: Path
) -> None:
    for number, kinds in enumerate((("texts",), ("masks",))):
        to = tmp_path / str(number)
        run(asked(output, HuggingFace(), to, kinds=kinds, shares={}))
        rows = list(load(datasets, to, split="train"))
        assert len(rows) == 7 and all(row["regions"] == [] and row["objects"]["bbox"] == [] for row in rows)
        assert any(row[kinds[0]] for row in rows) == (kinds == ("texts",)), "a mask goes with its region"


def test_the_readme_tells_how_to_use_it(datasets: Any, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported.parent)
    found: dict[str, Any] = {}
    for block in (exported / "README.md").read_text().split("```python\n")[1:]:
        exec(block.partition("```")[0], found)
    assert found["image"].size == (found["row"]["width"], found["row"]["height"])
    labels = found["encoded"]["labels"][0]
    assert labels["class_labels"].tolist() == [
        category
        for category, crowd in zip(found["objects"]["category"], found["objects"]["iscrowd"], strict=True)
        if not crowd
    ]
    x, y, width, height = found["objects"]["bbox"][0]
    center = labels["boxes"][0].numpy() * np.array(found["image"].size * 2)  # relative (center x, center y, w, h)
    assert np.allclose(center, [x + width / 2, y + height / 2, width, height], atol=1e-2)


def test_row_groups_are_small_enough_for_streams(
    exported: Path, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf, "ROW_GROUP_BYTES", 10_000)
    run(asked(output, HuggingFace(), tmp_path / "to", shares={}))
    counts = []
    for path in sorted((tmp_path / "to").glob("data/train/*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            images = file.read_row_group(group, columns=["image"])["image"].to_pylist()
            assert sum(len(image["bytes"]) for image in images[:-1]) <= 10_000
            counts.append(len(images))
    assert sum(counts) == 7 and max(counts) > 1 and len(counts) > 3


def test_it_is_the_same_whenever_it_is_written(output: Output, exported: Path, tmp_path: Path) -> None:
    run(asked(output, HuggingFace(), tmp_path / "to"))
    there = {path.relative_to(exported): path.read_bytes() for path in exported.rglob("*.*") if path.is_file()}
    again = {path.relative_to(tmp_path / "to"): path.read_bytes() for path in (tmp_path / "to").rglob("*.*")}
    assert {name: data for name, data in again.items() if name in there} == there


def test_what_lies_in_an_archive_comes_inside(datasets: Any, tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    row = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    Image.new("RGB", (21, 10), "blue").save(tmp_path / "b.png")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([row, {"bytes": None, "path": str(tmp_path / "b.png")}], kind)})
    pq.write_table(table, tmp_path / "set.parquet")
    output = write_dataset(tmp_path / "set.parquet", tmp_path / "out", lambda record: record)
    run(asked(output, HuggingFace(), tmp_path / "to", how="refer", shares={}))
    rows = list(load(datasets, tmp_path / "to", split="train"))
    assert sorted((row["image"].size, row["uri"]) for row in rows) == [
        ((20, 10), f"{tmp_path}/set.parquet#0"),
        ((21, 10), str(tmp_path / "b.png")),
    ]


def test_images_that_are_gone_are_left_out(datasets: Any, tmp_path: Path) -> None:
    output = known(tmp_path)
    (tmp_path / "pictures" / "a.png").unlink()
    for how in ("inside", "refer"):
        one = replace(asked(output, HuggingFace(), tmp_path / how, shares={}, how=how), missing="skip")  # type: ignore[arg-type]
        assert run(one)["missing"] == 1
        rows = list(load(datasets, one.to, split="train"))
        assert len(rows) == 6 and not any(row["uri"].endswith("/a.png") for row in rows)


def test_licences_by_the_names_of_the_hub() -> None:
    for said, name in (
        (["CC BY 4.0"], "cc-by-4.0"),
        (["CC_BY-NC-SA 3.0"], "cc-by-nc-sa-3.0"),
        (["my own"], "other"),
        (["CC BY 4.0", "mit"], "other"),
        (["CC BY 4.0", "not said"], "other"),
        (["not said"], "unknown"),
        ([], "unknown"),
    ):
        assert hf._licence(Counter(said)) == name


def test_bytes_are_those_of_the_file(exported: Path) -> None:
    for path in exported.glob("data/*/*.parquet"):
        for row in pq.read_table(path, columns=["image", "item_id", "uri"]).to_pylist():
            name, data = row["image"]["path"], row["image"]["bytes"]
            assert name.startswith(row["item_id"]) and name.count(".") == 1
            if row["uri"].endswith("turned.jpg"):
                assert not Image.open(BytesIO(data)).getexif()
            else:
                assert data == Path(row["uri"]).read_bytes()
