"""YOLO's files: supervision reads boxes, classes and masks from them, and so does the engine itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import supervision
import yaml
from datasets_made import write_dataset
from exporting import HOSTILE, NAMES, asked, pictures, run, standing, totals_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import run_lengths

from engine.config import Ingest, Run
from engine.export.polygons import MOST_RINGS, polygon
from engine.export.run import _digest, _setting, write_part
from engine.export.yolo import Yolo
from engine.geometry import MaskArray, decode_mask, encode_mask
from engine.ingest import ingest
from engine.layout import Output
from engine.records import Decision, Mask, Record, Region
from engine.storage import read_faults, read_given
from engine.vocabulary import Vocabulary

COUNT = len(NAMES)
KINDS = ("objects", "masks")
canonical = Vocabulary().canonical


def disc(size: tuple[int, int], x: float, y: float, radius: float) -> MaskArray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    there: MaskArray = np.hypot(columns - x, rows - y) <= radius
    return there


def annotated(record: Record) -> Record:
    """Boxes under hostile words, one of them out of the image; a crowd, a fallen one, a line; two discs have masks."""
    item = record.item
    assert item.width and item.height
    random = np.random.default_rng([item.width, item.height])
    size, regions = (item.height, item.width), []
    for n in range(6):
        x0, y0 = random.uniform(0, (item.width / 2, item.height / 2))
        x1, y1 = random.uniform((x0 + 1, y0 + 1), (item.width, item.height))
        box = (x0, y0, x1, y1) if n else (-3.5, 2, item.width / 3, item.height + 2)
        word = HOSTILE[(item.width + n) % len(HOSTILE)]
        about: dict[str, Any] = {"raw_label": word, "label": canonical(word), "crowd": n == 5}
        regions.append(Region(id=f"0.d.{n}", source="detector", kind="object", box=box, **about))
    line = Region(id="0.o.0", source="ocr", kind="text", box=(1, 1, 9, 5), text="exit")
    fell = Region(id="0.d.6", source="detector", kind="object", box=(1, 1, 9, 5), raw_label="dog", label="dog")
    record = record.append([*regions, line, fell])
    discs = {
        "0.d.1": disc(size, 80, 70, 60),
        "0.d.3": disc(size, item.width - 40, 50, 55),
        "0.d.5": disc(size, 9, 9, 5),
    }
    record = record.append(
        Mask(id=f"0.m.{n}", source="sam", region_id=region, size=size, counts=encode_mask(pixels))
        for n, (region, pixels) in enumerate(discs.items())
    )
    return record.decide([Decision(annotation_id="0.d.6", action="reject", by="score", reason="low")])


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """The last picture shows nothing."""
    folder = tmp_path_factory.mktemp("set")
    empty = f"/{NAMES[-1]}"
    return write_dataset(
        pictures(folder / "photos", 3),
        folder / "out",
        lambda one: one if one.item.uri.endswith(empty) else annotated(one),
    )


def loaded(to: Path, **options: Any) -> dict[str, tuple[list[str], supervision.Detections]]:
    """By item id the classes and detections, of all splits."""
    found = {}
    for split in os.listdir(to / "images"):
        set_ = supervision.DetectionDataset.from_yolo(
            str(to / "images" / split), str(to / "labels" / split), str(to / "data.yaml"), **options
        )
        assert len(set_) == len(os.listdir(to / "images" / split))
        for path, _, detections in set_:
            found[Path(path).stem] = (set_.classes, detections)
    return found


def objects(record: Record) -> list[Region]:
    return [region for region in record.regions if region.kind == "object" and not region.crowd]


def clipped(region: Region, record: Record) -> list[float]:
    sides = (record.item.width, record.item.height) * 2
    return [min(max(value, 0), side or 0) for value, side in zip(region.box, sides, strict=True)]


def iou(one: MaskArray, other: MaskArray) -> float:
    return float((one & other).sum() / (one | other).sum())


# supervision


@pytest.mark.parametrize("how", ["link", "copy"])
def test_boxes_and_classes_come_back(output: Output, tmp_path: Path, how: Any) -> None:
    summary = run(asked(output, Yolo(), tmp_path / "to", how=how))
    assert summary["images"] == {"turned upright": 1}
    assert summary["left_out"]["annotations"]["crowds"] == COUNT - 1
    assert totals_of(summary)["regions"] == sum(len(objects(record)) for record in standing(output).values())
    found, there = loaded(tmp_path / "to"), standing(output)
    assert found.keys() == there.keys() and len(os.listdir(tmp_path / "to" / "images")) == 2
    for item, record in there.items():
        classes, detections = found[item]
        regions = objects(record)
        assert len(detections) == len(regions) == (0 if record.item.uri.endswith(NAMES[-1]) else 5)
        assert [classes[n] for n in detections.class_id if n is not None] == [region.label for region in regions]
        expected = np.array([clipped(region, record) for region in regions]).reshape(-1, 4)
        assert np.abs(detections.xyxy - expected).max(initial=0) < 1e-3
    assert set(classes) == {canonical(word) for word in HOSTILE}


def test_numbers_are_as_exact_as_is_said(output: Output, tmp_path: Path) -> None:
    """To a thousandth of a pixel in an image of 100,000, which supervision's float32 can't tell."""
    run(asked(output, Yolo(), tmp_path / "to"))
    for item, record in standing(output).items():
        (path,) = (tmp_path / "to" / "labels").rglob(f"{item}.txt")
        lines = [list(map(float, line.split())) for line in path.read_text().splitlines()]
        for (_, x, y, width, height), region in zip(lines, objects(record), strict=True):
            sides = np.array([record.item.width, record.item.height] * 2)
            shares = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            assert np.abs(shares - clipped(region, record) / sides).max() < 1e-8


@pytest.mark.parametrize("how", ["link", "copy"])
def test_only_upright_images_are_among_images(output: Output, tmp_path: Path, how: Any) -> None:
    run(asked(output, Yolo(), tmp_path / "to", how=how))
    there = standing(output)
    files = [path for path in (tmp_path / "to" / "images").rglob("*") if not path.is_dir()]
    assert len(files) == COUNT
    for path in files:
        item = there[path.stem].item
        with Image.open(path) as image:
            assert image.size == (item.width, item.height)
        original = Path(item.uri).read_bytes()
        assert path.is_symlink() == (how == "link" and not item.uri.endswith("turned.jpg"))
        assert (path.read_bytes() == original) == (not item.uri.endswith("turned.jpg"))
        labels = tmp_path / "to" / "labels" / path.parent.name / f"{path.stem}.txt"
        assert labels.is_file() and (labels.read_bytes() == b"") == item.uri.endswith(NAMES[-1])


def test_masks_come_back_as_polygons(output: Output, tmp_path: Path) -> None:
    run(asked(output, Yolo(), tmp_path / "to", kinds=KINDS))
    found = loaded(tmp_path / "to", force_masks=True)
    for item, record in standing(output).items():
        detections, masks = found[item][1], {mask.region_id: decode_mask(mask) for mask in record.masks}
        for n, region in enumerate(objects(record)):
            assert detections.mask is not None
            pixels = detections.mask[n]
            if region.id in masks:
                rows, columns = masks[region.id].nonzero()
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert iou(pixels, masks[region.id]) > 0.95
                assert np.abs(detections.xyxy[n] - box).max() < 0.02
            else:
                assert np.abs(detections.xyxy[n] - clipped(region, record)).max() < 1e-3
                x0, y0, x1, y1 = np.round(clipped(region, record)).astype(int)
                assert pixels[y0:y1, x0:x1].all() and pixels.sum() == pixels[y0 : y1 + 1, x0 : x1 + 1].sum()


def test_a_file_has_either_boxes_or_polygons(output: Output, tmp_path: Path) -> None:
    """Ultralytics takes all lines of a file for polygons once one has more than six words, and boxes from these."""
    run(asked(output, Yolo(), tmp_path / "to", kinds=KINDS))
    for item, record in standing(output).items():
        (path,) = (tmp_path / "to" / "labels").rglob(f"{item}.txt")
        rows = [line.split() for line in path.read_text().splitlines()]
        masks = {mask.region_id for mask in record.masks}
        for row, region in zip(rows, objects(record), strict=True):
            points = np.array(row[1:], float).reshape(-1, 2)
            assert len(points) >= 3 and ((points >= 0) & (points <= 1)).all()
            box = (np.array([points.min(axis=0), points.max(axis=0)]) * [record.item.width, record.item.height]).ravel()
            assert region.id in masks or np.abs(box - clipped(region, record)).max() < 1e-3


# data.yaml


def test_data_yaml_names_what_there_is(output: Output, tmp_path: Path) -> None:
    """Without `path`, which Ultralytics would take from where it is started."""
    run(asked(output, Yolo(), tmp_path / "to", shares={"train": 0.5, "val": 0.4999, "test": 0.0001}))
    data = yaml.safe_load((tmp_path / "to" / "data.yaml").read_text())
    assert {key: value for key, value in data.items() if key != "names"} == {
        "train": "images/train",
        "val": "images/val",
    }
    assert data["names"] == dict(enumerate(sorted({canonical(word) for word in HOSTILE})))
    assert (tmp_path / "to" / "data.yaml").read_bytes().isascii()
    assert sorted(os.listdir(tmp_path / "to")) == ["data.yaml", "export.json", "images", "labels"]


def test_going_on_leaves_what_an_undisturbed_export_does(output: Output, tmp_path: Path) -> None:
    whole, broken = (asked(output, Yolo(), tmp_path / name, kinds=KINDS) for name in ("whole", "broken"))
    run(whole)
    shards = broken.dataset.shards()
    setting = _setting(broken, shards, broken.to / ".export" / "plan.json", _digest(broken))
    write_part(broken, Run(), setting, {shard: 3 * n for n, shard in enumerate(shards)}, shards[1])
    run(broken)
    there, others = (
        {p.relative_to(to): p.read_bytes() for p in to.rglob("*.*") if p.is_file()} for to in (whole.to, broken.to)
    )
    assert there == others and len(there) == 2 * COUNT + 2


# The engine


def test_the_engine_reads_it(output: Output, tmp_path: Path) -> None:
    run(asked(output, Yolo(), tmp_path / "to", kinds=KINDS))
    back, there = Output(tmp_path / "in"), standing(output)
    manifest = ingest(back, Ingest(images=(str(tmp_path / "to"),)), "d", lambda done: None)
    assert manifest["items"] == COUNT and not manifest["errors"] and not manifest["faults"]
    for shard in back.shards():
        assert not read_faults(back, shard)
        for record in read_given(back, shard):
            original = there[Path(record.item.uri).stem]
            masks = {mask.region_id: decode_mask(mask) for mask in original.masks}
            found = {mask.region_id: decode_mask(mask) for mask in record.masks}
            assert record.item.dataset == "to"
            for region, expected in zip(record.regions, objects(original), strict=True):
                assert canonical(region.raw_label or "") == expected.label
                if expected.id in masks:
                    assert iou(found[region.id], masks[expected.id]) > 0.95
                else:
                    assert np.abs(np.subtract(region.box, clipped(expected, original))).max() < 1e-3


def test_what_has_no_place_is_counted(tmp_path: Path) -> None:
    def odd(record: Record) -> Record:
        assert record.item.width and record.item.height
        size = (record.item.height, record.item.width)
        about: dict[str, Any] = {"source": "a", "kind": "object", "raw_label": "cat", "label": "cat"}
        boxes = [(1, 1, 5, 5), (2, 2, 2, 9), (-9, 1, -1, 5), (3, 3, 7, 7), (1, 1, 5, 5)]
        regions = [Region(id=f"0.a.{n}", box=box, **about) for n, box in enumerate(boxes)]
        record = record.append([*regions, Region(id="0.a.9", source="a", kind="object", box=(1, 1, 5, 5))])
        two_parts = disc(size, 8, 8, 4) | disc(size, 30, 8, 4)
        noise = np.indices(size).sum(axis=0) % 4 == 0
        noise[1::2] = False
        told = [("0.a.0", two_parts), ("0.a.0", noise), ("0.a.3", noise), ("0.a.4", np.zeros(size, bool))]
        told += [("0.a.1", noise)]
        return record.append(
            Mask(id=f"0.m.{n}", source="m", region_id=region, size=size, counts=encode_mask(pixels))
            for n, (region, pixels) in enumerate(told)
        )

    output = write_dataset(pictures(tmp_path / "photos"), tmp_path / "out", odd)
    summary = run(asked(output, Yolo(), tmp_path / "to", kinds=KINDS))
    assert summary["images"] == {
        "masks of noise whose small parts are left out": COUNT,
        "masks whose parts and holes are joined by seams": 2 * COUNT,
        "turned upright": 1,
    }
    assert summary["left_out"]["annotations"] == {
        "boxes without area in the image": 2 * COUNT,
        "further masks of a region": COUNT,
        "masks of regions that are left out": COUNT,
        "masks without a pixel": COUNT,
        "objects without a label": COUNT,
    }
    assert totals_of(summary) == {"images": COUNT, "regions": 3 * COUNT, "masks": 2 * COUNT}
    assert all(len(detections) == 3 for _, detections in loaded(tmp_path / "to").values())


# Polygons


def filled(points: np.ndarray[Any, Any], size: tuple[int, int]) -> MaskArray:
    """As Ultralytics and older supervisions fill polygons: without the fractions."""
    pixels = np.zeros(size, np.uint8)
    cv2.fillPoly(pixels, [points.astype(np.int32)], (1,))
    return pixels.astype(bool)


SHAPES: dict[str, Callable[[tuple[int, int]], MaskArray]] = {
    "disc": lambda size: disc(size, 30, 40, 20),
    "small disc": lambda size: disc(size, 10, 9, 3),
    "disc at the edge": lambda size: disc(size, 80, 5, 25),
    "ring": lambda size: disc(size, 40, 40, 30) & ~disc(size, 45, 42, 12),
    "all": lambda size: np.ones(size, bool),
    "two pixels": lambda size: disc(size, 30.5, 40, 0.6),
    "one pixel": lambda size: disc(size, 30, 40, 0.6),
    "a column": lambda size: disc(size, 7, 20, 20) & (np.arange(size[1]) == 7),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_filled_polygon_is_the_mask(shape: str) -> None:
    size = (70, 90)
    mask = SHAPES[shape](size)
    points, rings = polygon(encode_mask(mask), size)
    assert rings == 1 + (shape == "ring")
    assert (filled(points, size) == mask).all()
    rows, columns = mask.nonzero()
    corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs([*points.min(axis=0), *points.max(axis=0)] - np.array(corners)).max() < 0.011


def test_parts_are_joined_where_they_are_close() -> None:
    size = (100, 200)
    mask = disc(size, 30, 50, 25) | disc(size, 90, 50, 25) | disc(size, 165, 50, 30)
    points, rings = polygon(encode_mask(mask), size)
    added = filled(points, size) & ~mask
    assert rings == 3 and not (mask & ~filled(points, size)).any()
    assert 0 < added.sum() <= 30


def test_of_noise_the_largest_parts_are_kept() -> None:
    size = (120, 120)
    noise = np.indices(size).max(axis=0) % 3 == 0
    noise[1::3] = False
    noise[40:100, 20:] = False
    mask = noise | disc(size, 70, 70, 25)
    points, rings = polygon(encode_mask(mask), size)
    assert rings > MOST_RINGS
    assert iou(filled(points, size)[42:98, 25:], disc(size, 70, 70, 25)[42:98, 25:]) > 0.95


def test_two_points_are_no_polygon() -> None:
    points, _ = polygon(encode_mask(np.eye(2, dtype=bool)), (2, 2))
    assert points.round(1).tolist() == [[0, 0], [2, 0], [2, 2], [0, 2]]


@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)).flatmap(lambda size: st.tuples(st.just(size), run_lengths(size)))
)
def test_any_mask_has_a_polygon_in_its_image(drawn: tuple[tuple[int, int], bytes]) -> None:
    size, counts = drawn
    mask = decode_mask(Mask(id="0.a.0", source="a", region_id="0.a.1", size=size, counts=counts))
    points, rings = polygon(counts, size)
    assert (rings == 0) == (not mask.any()) == (len(points) == 0)
    if rings:
        assert len(points) > 2
        assert (points > 0).all() and (points < [size[1], size[0]]).all()
        assert rings > MOST_RINGS or (filled(points, size) >= mask).all()
