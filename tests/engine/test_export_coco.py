"""COCO's files: pycocotools reads from them what stands, and so does the engine itself."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets_made import write_dataset
from exporting import HOSTILE, NAMES, asked, pictures, run, standing, totals_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from strategies import records

from engine.config import Ingest, Run
from engine.export.coco import Coco
from engine.export.format import Part, Setting, Whole
from engine.export.images import Images
from engine.export.run import _digest, _setting, write_part
from engine.export.selection import KINDS, Selection
from engine.flat import flatten
from engine.geometry import decode_mask, encode_mask, mask_area
from engine.ingest import ingest
from engine.layout import Output, ShardId
from engine.listing import Listing
from engine.records import DETAILS, Decision, Item, Mask, Record, Region, RegionText, Scores, Text
from engine.schema import annotations_to_table, decisions_to_table, items_to_table
from engine.storage import Tables, read_faults, read_given
from engine.vocabulary import Vocabulary

COUNT = len(NAMES)
FILES = ("instances", "captions", "text")
canonical = Vocabulary().canonical


def annotated(record: Record) -> Record:
    """Objects under hostile words, some crowds, some with masks; lines with quads; texts; some of it fell."""
    item = record.item
    assert item.width and item.height
    random = np.random.default_rng([item.width, item.height])
    size = (item.height, item.width)
    regions = []
    for n in range(12):
        x0, y0 = random.uniform(0, (item.width / 2, item.height / 2))
        x1, y1 = random.uniform((x0 + 1, y0 + 1), (item.width, item.height))
        word, score = HOSTILE[n], Scores(label=float(random.random())) if n % 3 else Scores()
        about: dict[str, Any] = {"source": "detector", "box": (x0, y0, x1, y1), "scores": score}
        if n % 4 == 3:
            quad = (x0, y0, x1, y0 + 0.25, x1 - 0.5, y1, x0, y1) if n % 8 == 3 else None
            regions.append(Region(id=f"0.o.{n}", kind="text", text=word, quad=quad, **about))
        else:
            labels: dict[str, Any] = {"raw_label": word, "label": canonical(word)}
            regions.append(Region(id=f"0.d.{n}", kind="object", crowd=n % 5 == 0, **labels, **about))
    proposal = Region(id="0.p.0", source="detector", kind="proposal", box=(0, 0, 5, 5))
    record = record.append([*regions, proposal])
    record = record.append(
        [
            *(Text(id=f"0.t.{n}", source="alt", text=text, detail=DETAILS[n % 3]) for n, text in enumerate(HOSTILE)),
            Text(id="0.c.0", source="composer", derived_from=("0.d.0",), text="composed", detail="brief"),
            *(RegionText(id=f"0.r.{n}", source="r", region_id="0.d.2", text=HOSTILE[n]) for n in (5, 4)),
            *(
                Mask(
                    id=f"0.m.{n}",
                    source="sam",
                    region_id=region,
                    size=size,
                    counts=encode_mask(random.random(size) < 0.3),
                )
                for n, region in enumerate(("0.d.0", "0.d.1", "0.d.2", "0.o.3", "0.d.4", "0.p.0"))
            ),
        ]
    )
    fell = Decision(annotation_id="0.d.4", action="reject", by="score", reason="low")
    return record.decide([fell, record.reject(record.masks[4], "cascade", "region_fell")])


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    folder = tmp_path_factory.mktemp("set")
    return write_dataset(pictures(folder / "photos"), folder / "out", annotated)


@pytest.fixture(scope="module")
def to(output: Output, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("to") / "coco"
    run(asked(output, Coco(), to))
    return to


def loaded(to: Path, name: str) -> list[COCO]:
    with contextlib.redirect_stdout(io.StringIO()):
        return [COCO(path) for path in sorted(to.glob(f"{name}_*.json"))]


def loaded_annotations(to: Path, name: str) -> dict[tuple[str, str], tuple[COCO, dict[str, Any]]]:
    """By item id and the engine's id of the annotation, as pycocotools has them, with the file that they are in."""
    found = {}
    for file in loaded(to, name):
        for image_id in file.getImgIds():
            for one in file.loadAnns(file.getAnnIds(imgIds=[image_id])):
                found[file.imgs[image_id]["item_id"], one["annotation"]] = (file, one)
    return found


def regions(output: Output, kind: str) -> dict[tuple[str, str], Region]:
    found = ((item, region) for item, record in standing(output).items() for region in record.regions)
    return {(item, region.id): region for item, region in found if region.kind == kind}


def box(one: dict[str, Any]) -> tuple[float, ...]:
    x, y, width, height = one["bbox"]
    return x, y, x + width, y + height


# pycocotools


def test_every_file_has_the_images_of_its_split(output: Output, to: Path) -> None:
    there = standing(output)
    for name in FILES:
        files = loaded(to, name)
        images = [image for file in files for image in file.imgs.values()]
        assert len(files) == 2 and all(file.imgs for file in files)
        assert sorted(image["item_id"] for image in images) == sorted(there)
        for image in images:
            item = there[image["item_id"]].item
            assert (image["width"], image["height"]) == (item.width, item.height)
            assert image["file_name"] == item.uri and os.path.isfile(image["file_name"])
        for file in files:
            assert file.dataset["info"]["description"] == "out"
            assert file.dataset["info"]["sources"]["detector"]["licence"] == "Apache-2.0"


def test_objects_come_back_with_box_class_and_mask(output: Output, to: Path) -> None:
    found, there = loaded_annotations(to, "instances"), regions(output, "object")
    masks = {(item, mask.region_id): mask for item, record in standing(output).items() for mask in record.masks}
    assert found.keys() == there.keys() and len(there) == COUNT * 8
    for key, region in there.items():
        file, one = found[key]
        assert box(one) == region.box
        assert file.cats[one["category_id"]]["name"] == region.label
        assert (one["iscrowd"], one["score"], one["source"]) == (region.crowd, region.score, region.source)
        if key in masks:
            assert (file.annToMask(one) == decode_mask(masks[key])).all()
            assert one["area"] == mask_area(masks[key])
        else:
            assert "segmentation" not in one and one["area"] == one["bbox"][2] * one["bbox"][3]
        if region.id == "0.d.2":
            assert one["descriptions"] == [HOSTILE[5], HOSTILE[4]]
        else:
            assert "descriptions" not in one
    assert sum(key in masks for key in there) == COUNT * 3
    assert any(one["iscrowd"] and "segmentation" in one for _, one in found.values())


def test_classes_are_the_same_in_all_files(output: Output, to: Path) -> None:
    first, second = (file.dataset["categories"] for file in loaded(to, "instances"))
    assert first == second
    assert [one["id"] for one in first] == list(range(1, len(first) + 1))
    assert [one["name"] for one in first] == sorted({canonical(HOSTILE[n]) for n in (0, 1, 2, 5, 6, 8, 9, 10)})


def test_texts_come_back_to_the_character(output: Output, to: Path) -> None:
    found = {key: one for key, (_, one) in loaded_annotations(to, "captions").items()}
    there = {(item, text.id): text for item, record in standing(output).items() for text in record.texts}
    assert found.keys() == there.keys()
    for key, text in there.items():
        told = (found[key]["caption"], found[key]["detail"], found[key]["source"], found[key]["composed"])
        assert told == (text.text, text.detail, text.source, text.source == "composer")


def test_lines_come_back_with_their_words_and_quads(output: Output, to: Path) -> None:
    found, there = loaded_annotations(to, "text"), regions(output, "text")
    assert found.keys() == there.keys() and len(there) == COUNT * 3
    for key, region in there.items():
        _, one = found[key]
        assert (one["utf8_string"], box(one)) == (region.text, region.box)
        quad = np.float32(one["mask"]).tolist() if "mask" in one else None  # written with the digits that it needs
        assert quad == (list(region.quad) if region.quad else None)
        assert ("segmentation" in one) == (region.id == "0.o.3")


def test_ids_are_unique_over_the_set_and_floats_can_hold_them(to: Path) -> None:
    for name in FILES:
        ids = [one["id"] for _, one in loaded_annotations(to, name).values()]
        assert len(set(ids)) == len(ids) and min(ids) > 0 and max(ids) < 2**53
        assert all(type(id_) is int for id_ in ids)


def test_detections_are_loaded_as_results(to: Path) -> None:
    """Of annotations with a score; pycocotools then compares them with another file's."""
    for file in loaded(to, "instances"):
        scored = [dict(one) for one in file.dataset["annotations"] if one["score"] is not None]
        with contextlib.redirect_stdout(io.StringIO()):
            results = file.loadRes(scored)
        assert [one["bbox"] for one in results.dataset["annotations"]] == [one["bbox"] for one in scored]


# The engine


def ingested(files: list[Path], out: Path, **options: Any) -> dict[str, Record]:
    """What `engine run --images` makes of the files, by the name of the image."""
    manifest = ingest(Output(out), Ingest(images=tuple(map(str, files)), **options), "d", lambda done: None)
    assert not manifest["faults"] and not manifest["errors"]
    shards = list(Output(out).shards())
    assert not [fault for shard in shards for fault in read_faults(Output(out), shard)]
    return {record.item.uri: record for shard in shards for record in read_given(Output(out), shard)}


def told(record: Record) -> dict[str, Any]:
    """What a record says, but for ids and sources."""
    by_region: dict[str, Any] = {}
    for kind, ones in (("mask", record.masks), ("description", record.region_texts)):
        for one in ones:
            said = decode_mask(one).tobytes() if isinstance(one, Mask) else one.text
            by_region.setdefault(one.region_id, []).append((kind, said))
    regions = [
        (
            r.kind,
            r.box,
            r.raw_label and canonical(r.raw_label),
            r.text,
            r.quad,
            r.crowd,
            r.score,
            *by_region.get(r.id, ()),
        )
        for r in record.regions
        if r.kind != "proposal"
    ]
    return {"regions": Counter(regions), "texts": Counter((text.text, text.detail) for text in record.texts)}


@pytest.mark.parametrize("how", ["refer", "link", "copy"])
def test_the_engine_reads_all_files_together(output: Output, tmp_path: Path, how: Any) -> None:
    run(asked(output, Coco(), tmp_path / "to", how=how))
    photos = {"image_root": str(output.root.parent / "photos")} if how == "refer" else {}
    found = ingested(sorted((tmp_path / "to").glob("*_*.json")), tmp_path / "in", **photos)
    there = standing(output)
    assert len(found) == len(there) == COUNT
    for uri, record in found.items():
        of = Item.id_of(uri).hex() if how == "refer" else Path(uri).stem
        assert told(record) == told(there[of])
        assert (record.item.width, record.item.height) == (there[of].item.width, there[of].item.height)
        assert {one.source for one in record.annotations()} == {"human"}


def test_paths_are_read_where_the_configuration_says(output: Output, to: Path, tmp_path: Path) -> None:
    """An absolute path could be any of this machine's."""
    config = Ingest(images=(str(to / "instances_train.json"),))
    manifest = ingest(Output(tmp_path / "out"), config, "d", lambda done: None)
    assert manifest["errors"] == {"outside_root": manifest["items"]}


# What is there, and what isn't


def test_there_are_files_of_what_was_chosen(output: Output, tmp_path: Path) -> None:
    for kinds, names in ({"objects": "instances", "texts": "captions", "lines": "text"}).items():
        run(asked(output, Coco(), tmp_path / kinds, kinds=[kinds], shares={}))
        assert sorted(os.listdir(tmp_path / kinds)) == sorted(["export.json", f"{names}_train.json"])
    run(
        asked(
            output, Coco(), tmp_path / "boxes", kinds=["objects"], shares={"train": 0.5, "val": 0.4999, "test": 0.0001}
        )
    )
    assert sorted(os.listdir(tmp_path / "boxes")) == ["export.json", "instances_train.json", "instances_val.json"]
    assert not any("segmentation" in one for _, one in loaded_annotations(tmp_path / "boxes", "instances").values())


def test_ids_stay_whatever_else_is_exported(output: Output, to: Path, tmp_path: Path) -> None:
    run(asked(output, Coco(), tmp_path / "to", kinds=["lines"], shares={"a": 0.3, "b": 0.7}))
    before, after = loaded_annotations(to, "text"), loaded_annotations(tmp_path / "to", "text")
    assert {key: one["id"] for key, (_, one) in before.items()} == {key: one["id"] for key, (_, one) in after.items()}


def test_what_has_no_place_is_counted(tmp_path: Path) -> None:
    def odd(record: Record) -> Record:
        assert record.item.width and record.item.height
        size = (record.item.height, record.item.width)
        about: dict[str, Any] = {"source": "a", "box": (1, 1, 5, 5)}
        record = record.append(
            [
                Region(id="0.a.0", kind="object", **about),
                Region(id="0.a.1", kind="object", raw_label="cat", label="cat", **about),
                Region(id="0.a.2", kind="text", **about),
                Region(id="0.a.3", kind="text", text=" ", **about),
            ]
        )
        masks = [
            Mask(
                id=f"0.m.{n}", source="m", region_id=f"0.a.{at}", size=size, counts=encode_mask(np.eye(*size, k=n) > 0)
            )
            for n, at in enumerate([1, 1, 0, 2])
        ]
        texts = [RegionText(id=f"0.t.{n}", source="t", region_id=f"0.a.{n}", text="a cat") for n in (0, 1, 3)]
        return record.append([*masks, *texts])

    output = write_dataset(pictures(tmp_path / "photos"), tmp_path / "out", odd)
    summary = run(asked(output, Coco(), tmp_path / "to"))
    assert summary["images"] == {} and summary["left_out"]["annotations"] == {
        "further masks of a region": COUNT,
        "lines without a word": 2 * COUNT,
        "masks of regions that are left out": 2 * COUNT,
        "objects without a label": COUNT,
        "texts of regions that are left out": 2 * COUNT,
    }
    assert totals_of(summary) == {"images": COUNT, "regions": COUNT, "region_texts": COUNT, "masks": COUNT}
    found = loaded_annotations(tmp_path / "to", "instances").values()
    assert [one["annotation"] for _, one in found] == ["0.a.1"] * COUNT
    assert all(file.annToMask(one).diagonal().all() for file, one in found)


def test_an_image_may_have_hundreds_of_masks(tmp_path: Path) -> None:
    """Of which pycocotools can't take the areas at once."""

    def crowded(record: Record) -> Record:
        about: dict[str, Any] = {"source": "a", "kind": "object", "raw_label": "cat", "label": "cat"}
        regions = [Region(id=f"0.a.{n}", box=(0, 0, 9, 9), **about) for n in range(300)]
        mask = {"source": "m", "size": (9, 9), "counts": encode_mask(np.eye(9, dtype=bool))}
        masks = [Mask(id=f"0.m.{n}", region_id=region.id, **mask) for n, region in enumerate(regions)]  # type: ignore[arg-type]
        return record.append([*regions, *masks])

    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    run(asked(write_dataset(tmp_path / "a.png", tmp_path / "out", crowded), Coco(), tmp_path / "to"))
    found = loaded_annotations(tmp_path / "to", "instances").values()
    assert [one["area"] for _, one in found] == [9] * 300


def test_licences_and_datasets_come_along(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos")
    listed = [("a.png", "CC BY 4.0", "one"), ("sub/b.png", None, "two"), ("d.e.png", "CC BY 4.0", None)]
    rows = [
        {"id": n, "file_name": name, "license": 1 if licence else None} for n, (name, licence, _) in enumerate(listed)
    ]
    for row, (_, _, dataset) in zip(rows, listed, strict=True):
        row |= {"dataset": dataset} if dataset else {}
    document = {"info": {"description": "all"}, "licenses": [{"id": 1, "name": "CC BY 4.0"}], "images": rows}
    (folder / "list.json").write_text(json.dumps(document))
    output = write_dataset(folder / "list.json", tmp_path / "out", annotated, shard_size=1)
    run(asked(output, Coco(), tmp_path / "to", shares={}))
    (file,) = loaded(tmp_path / "to", "captions")
    (licence,) = file.dataset["licenses"]
    told = {os.path.basename(one["file_name"]): (one.get("license"), one["dataset"]) for one in file.imgs.values()}
    id_ = licence["id"]
    assert told == {"a.png": (id_, "one"), "b.png": (None, "two"), "d.e.png": (id_, "all")}
    assert licence["name"] == "CC BY 4.0" and id_ < 2**53
    found = ingested([tmp_path / "to" / "captions_train.json"], tmp_path / "in", image_root=str(folder))
    items = {os.path.basename(uri): (one.item.licence, one.item.dataset) for uri, one in found.items()}
    assert items == {"a.png": ("CC BY 4.0", "one"), "b.png": (None, "two"), "d.e.png": ("CC BY 4.0", "all")}


def test_going_on_leaves_what_an_undisturbed_export_does(output: Output, to: Path, tmp_path: Path) -> None:
    broken = asked(output, Coco(), tmp_path / "broken")
    shards = broken.dataset.shards()
    setting = _setting(broken, shards, broken.to / ".export" / "plan.json", _digest(broken))
    write_part(broken, Run(), setting, {shard: 3 * n for n, shard in enumerate(shards)}, shards[1])
    run(broken)
    names = sorted(os.listdir(to))
    assert sorted(os.listdir(broken.to)) == names and len(names) == 7
    assert all((broken.to / name).read_bytes() == (to / name).read_bytes() for name in names)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(records(), min_size=1, max_size=2))
def test_any_annotations_are_json_that_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, some: list[Record]
) -> None:
    """Whatever records may be: later rounds, several masks, boxes outside, empty words, sizes that are odd."""
    some = [replace(record, item=replace(record.item, width=9, height=9)) for record in some]
    layer = annotations_to_table(some), decisions_to_table(some)
    tables = Tables(items_to_table([record.item for record in some]), (layer,), (0,))
    flat = flatten(tables)
    extra = {"number": range(len(some)), "split": ["train"] * len(some), "file": [r.item.uri for r in some]}
    images = flat.images
    for name, column in extra.items():
        images = images.append_column(name, [list(column)])
    flat = replace(flat, images=images)
    to, shard = tmp_path_factory.mktemp("to"), ShardId(0, 0)
    labels = {region.label for record in some for region in record.regions if region.label is not None}
    setting = Setting(to, Output(to / "set"), 0, ("train",), tuple(sorted(labels)), {}, Selection(frozenset(KINDS)))
    part = Part(setting, shard, flat, Images("refer", Ingest(), to), tables)
    Coco().write(part)
    Coco().finish(Whole(setting, [shard], {"train": {"images": len(some)}}))
    there = [(n, one) for n, record in enumerate(some, 1) for one in record.standing.annotations()]
    assert [(one["image_id"], one["annotation"], one["caption"]) for one in listed(to, "captions")] == [
        (n, one.id, one.text) for n, one in there if isinstance(one, Text)
    ]
    objects = [(n, one) for n, one in there if isinstance(one, Region) and one.kind == "object"]
    objects = [(n, one) for n, one in objects if one.label and one.label.strip()]
    found = listed(to, "instances")
    assert [(one["image_id"], one["annotation"]) for one in found] == [(n, one.id) for n, one in objects]
    boxes = np.array([one.box for _, one in objects]).reshape(-1, 4)
    assert np.allclose(np.array([box(one) for one in found]).reshape(-1, 4), boxes, rtol=0, atol=1e-9)
    assert {one["utf8_string"] for one in listed(to, "text")} == {
        one.text for _, one in there if isinstance(one, Region) and one.kind == "text" and one.text and one.text.strip()
    }


def listed(to: Path, name: str) -> list[dict[str, Any]]:
    path = to / f"{name}_train.json"
    return list(json.loads(path.read_bytes())["annotations"]) if path.exists() else []


def test_the_folder_of_an_export_is_its_files_together(to: Path) -> None:
    files = sorted(str(path) for path in to.glob("*.json") if path.name != "export.json")
    whole, apart = Listing([str(to)]), Listing(files)
    assert [entry.uri for entry in whole] == [entry.uri for entry in apart]
    assert (
        len(files) > 1 and sum(len(entry.given()) for entry in whole) == sum(len(entry.given()) for entry in apart) > 0
    )
