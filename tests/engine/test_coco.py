"""COCO's files: what is in them comes out, whatever else is in them is told, and nothing outside is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from engine.config import Ingest, load_config
from engine.entry import Entry, Fault, GivenRegion, GivenText
from engine.errors import ConfigError, RunError
from engine.geometry import decode_mask, mask_area
from engine.given import take
from engine.ingest import ingest
from engine.layout import Output
from engine.listing import Listing
from engine.records import Item, Record
from engine.sources.index import TABLES
from engine.sources.sections import sections
from engine.storage import read_faults, read_given

Write = Callable[..., Path]
RING = [2.5, 3, 12, 3, 12.25, 13, 2, 13]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a COCO file: lists are its keys' values, in the order in which they come."""

    def make(name: str = "instances.json", **lists: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(lists))
        return path

    return make


def picture(path: Path, width: int = 40, height: int = 30, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)


def listed(*paths: Path, **options: Any) -> tuple[list[Entry], Listing]:
    listing = Listing(paths, **options)
    return list(listing), listing


def kinds(listing: Listing) -> dict[str, int]:
    return dict(sorted(listing.faults.counts.items()))


IMAGES = [
    {"id": 7, "file_name": "a.png", "width": 40, "height": 30, "license": 3},
    {"id": 2, "file_name": "b.png"},
]
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 90, "name": "tooth brush"}]
BOX = {"id": 17, "image_id": 7, "category_id": 90, "bbox": [2, 3, 10, 10.5], "iscrowd": 0, "segmentation": [RING]}


def test_names_that_are_too_long_are_told_once(write: Write) -> None:
    name = "x" * 1001
    path = write(
        info={"description": name},
        licenses=[{"id": 3, "name": name}],
        categories=[{"id": 90, "name": name}, {"id": 1, "name": name[1:]}],
        images=IMAGES,
        annotations=[BOX, {**BOX, "id": 18, "category_id": 1}],
    )
    (a, _), listing = listed(path)
    assert (a.dataset, a.licence) == ("instances", None)
    assert [one.label for one in a.given() if isinstance(one, GivenRegion)] == [None, name[1:]]
    assert kinds(listing) == {"too_long": 3, "unknown_category": 1}
    wheres = [fault.where for fault in listing.faults.first if fault.kind == "too_long"]
    assert wheres == [f"{place} of instances.json" for place in ("licenses[0]", "categories[0]", "info.description")]


def test_images_with_boxes_and_captions_of_several_files(write: Write, tmp_path: Path) -> None:
    instances = write(
        info={"description": "My set"},
        licenses=[{"id": 3, "name": "CC BY 4.0"}],
        images=IMAGES,
        annotations=[BOX, {"id": 18, "image_id": 2, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1}],
        categories=CATEGORIES,
    )
    captions = write(
        "captions.json",
        images=[*IMAGES, {"id": 5, "file_name": "c.png"}],
        annotations=[{"id": 17, "image_id": 7, "caption": "A tooth brush."}, {"image_id": 7, "caption": "It is red."}],
    )
    (a, b, c), listing = listed(instances, captions)
    assert (a.uri, a.dataset, a.licence) == (f"{tmp_path}/a.png", "My set", "CC BY 4.0")
    assert (b.uri, b.dataset, b.licence) == (f"{tmp_path}/b.png", "My set", None)
    assert (c.uri, c.dataset, c.given()) == (f"{tmp_path}/c.png", "captions", [])
    assert list(a.given()) == [
        GivenRegion(
            "tooth brush",
            (2, 3, 12, 13.5),
            size=(30, 40),
            segmentation=[RING],
            where="annotation 17 of instances.json",
        ),
        GivenText("A tooth brush.", where="annotation 17 of captions.json"),
        GivenText("It is red.", where="annotations[1] of captions.json"),
    ]
    assert list(b.given()) == [GivenRegion("cat", (0, 0, 5, 5), crowd=True, where="annotation 18 of instances.json")]
    assert not listing.faults.counts
    assert [entry.uri for entry in listed(captions, instances)[0]] == [a.uri, b.uri, c.uri]


@pytest.mark.parametrize("keys", [("images", "annotations", "categories"), ("categories", "annotations", "images")])
def test_keys_may_come_in_any_order_among_others(write: Write, keys: tuple[str, ...]) -> None:
    lists = {"images": IMAGES, "annotations": [BOX], "categories": CATEGORIES}
    path = write(
        version='1 {[\\" x',
        **{keys[0]: lists[keys[0]]},
        other={"images": [[1]], "annotations": {"images": 3}, '"': "]"},
        none=None,
        **{key: lists[key] for key in keys[1:]},
        last=[],
    )
    (a, _), listing = listed(path)
    (region,) = a.given()
    assert isinstance(region, GivenRegion) and region.label == "tooth brush" and region.size == (30, 40)
    assert not listing.faults.counts


def test_a_byte_order_mark_is_no_fault(write: Write) -> None:
    path = write(images=IMAGES, annotations=[])
    path.write_bytes(b"\xef\xbb\xbf \n" + path.read_bytes())
    assert len(listed(path)[0]) == 2


def test_ids_hold_within_their_file(write: Write, tmp_path: Path) -> None:
    """Two splits, each counted from 1, each in its folder."""
    for split, label in (("train", "cat"), ("val", "dog")):
        picture(tmp_path / split / "1.png")
        write(
            f"annotations/instances_{split}.json",
            images=[{"id": 1, "file_name": "1.png"}],
            annotations=[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
            categories=[{"id": 1, "name": label}],
        )
    entries, listing = listed(*sorted((tmp_path / "annotations").iterdir()))
    assert [entry.uri for entry in entries] == [f"{tmp_path}/train/1.png", f"{tmp_path}/val/1.png"]
    assert [region.label for entry in entries for region in entry.given()] == ["cat", "dog"]  # type: ignore[union-attr]
    assert not listing.faults.counts


# Where the images are


@pytest.mark.parametrize(
    ("json_name", "file_name", "place"),
    [
        ("instances.json", "x.png", "x.png"),
        ("set/_annotations.coco.json", "x.png", "set/x.png"),
        ("annotations/instances_train2017.json", "x.png", "train2017/x.png"),
        ("annotations/person_keypoints_val2017.json", "x.png", "val2017/x.png"),
        ("annotations/instances.json", "train/x.png", "train/x.png"),
        ("set/instances.json", "x.png", "set/images/x.png"),
        ("set/instances.json", "x.png", "images/x.png"),
        ("annotations/zhiyuan_objv2_train.json", "images/v1/patch0/x.png", "train/patch0/x.png"),
        ("instances.json", "./a/../b/x.png", "b/x.png"),
        ("instances.json", "set/of/x.png", "x.png"),
    ],
)
def test_images_are_found(write: Write, tmp_path: Path, json_name: str, file_name: str, place: str) -> None:
    picture(tmp_path / "top" / place)
    path = write(f"top/{json_name}", images=[{"id": 0, "file_name": "gone.png"}, {"id": 1, "file_name": file_name}])
    (gone, found), _ = listed(path)
    assert found.uri == f"{tmp_path}/top/{place}"
    assert os.path.basename(gone.uri) == "gone.png"


def test_images_are_found_where_the_configuration_says(write: Write, tmp_path: Path) -> None:
    path = write("a/instances_val.json", images=[{"id": 1, "file_name": "sub/x.png"}])
    picture(tmp_path / "a/sub/x.png")
    (tmp_path / "elsewhere").mkdir()
    assert listed(path, image_root=f"{tmp_path}/elsewhere")[0][0].uri == f"{tmp_path}/elsewhere/sub/x.png"
    picture(tmp_path / "elsewhere/val/x.png")
    assert listed(path, image_root=f"{tmp_path}/elsewhere")[0][0].uri == f"{tmp_path}/elsewhere/val/x.png"
    assert listed(path)[0][0].uri == f"{tmp_path}/a/sub/x.png"
    with pytest.raises(ConfigError, match=r"ingest\.image_root: no such folder: /nowhere"):
        listed(path, image_root="/nowhere")
    (tmp_path / "p.yaml").write_text("ingest: {images: [a/instances_val.json], image_root: elsewhere}")
    assert load_config(tmp_path / "p.yaml").ingest.image_root == f"{tmp_path}/elsewhere"


def test_images_that_came_meanwhile_are_found(write: Write, tmp_path: Path) -> None:
    path = write("a/x.json", images=[{"id": 1, "file_name": "x.png"}])
    assert listed(path)[0][0].uri == f"{tmp_path}/a/x.png"
    picture(tmp_path / "images/x.png")
    assert listed(path)[0][0].uri == f"{tmp_path}/images/x.png"


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x.png", "a/../../x.png", "..", ".", "", " ", "a\0b.png", None, 3, ["x.png"], {}]
)
def test_names_that_lead_outside_are_rows_that_are_not_read(write: Write, tmp_path: Path, name: Any) -> None:
    path = write("set/x.json", images=[{"id": 5, "file_name": name}], annotations=[{"image_id": 5, "caption": "x"}])
    picture(tmp_path / "x.png")
    (entry,), _ = listed(path)
    assert entry.error is not None and entry.error.kind == "outside_root"
    assert entry.uri == (name if name == "/etc/passwd" else f"{path}#image=5")  # by which a set may know it
    manifest = ingest(Output(tmp_path / "out"), Ingest(images=(str(path),)), "digest", lambda items: None)
    assert manifest["errors"] == {"outside_root": 1} and manifest["given"] == {}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("{}/photos/x.png", "{}/photos/x.png"),
        ("{}/photos//sub/../x.png", "{}/photos/x.png"),
        ("{}/photos/set.tar#a/../x.png", "{}/photos/set.tar#a/../x.png"),
        ("{}/photos/rows.parquet#3", "{}/photos/rows.parquet#3"),
        ("file://{}/photos/%ff.png", "file://{}/photos/%FF.png"),
        ("file://{}/photos/set.tar%23x.png", "file://{}/photos/set.tar%23x.png"),
        ("{}/photos/../x.png", None),
        ("{}/photos/../../../../../etc/passwd", None),
        ("{}/photos/../set.tar#x.png", None),
        ("{}/photos2/x.png", None),
        ("{}/photos", None),
        ("{}/photos/a\0.png", None),
    ],
)
def test_absolute_names_are_read_below_the_folder_of_images(
    write: Write, tmp_path: Path, name: str, place: str | None
) -> None:
    """As exports that refer to images have them; a list of others' may not choose what is read."""
    (tmp_path / "photos").mkdir()
    images = [{"id": 5, "file_name": name.format(tmp_path)}]
    path = write("lists/x.json", images=images)
    (entry,), _ = listed(path, image_root=f"{tmp_path}/photos")
    if place is not None:
        assert entry.uri == place.format(tmp_path)
    assert (entry.error is None) == (place is not None)
    (entry,), _ = listed(path)
    assert entry.error is not None and entry.error.kind == "outside_root"
    if place is not None:
        (entry,), _ = listed(write("x.json", images=images))
        assert entry.error is None and entry.uri == place.format(tmp_path)


@pytest.mark.parametrize(
    "name", ["file:///etc/passwd", "file:///{}/photos/%2e%2e/%2e%2e/etc/passwd", "file:/etc/passwd"]
)
def test_uris_lead_nowhere_else(write: Write, tmp_path: Path, name: str) -> None:
    path = write("x.json", images=[{"id": 5, "file_name": name.format(tmp_path)}])
    (entry,), _ = listed(path)
    assert entry.error is not None and entry.error.kind == "outside_root"


def test_what_the_engine_exported_is_taken_to_the_character(write: Write) -> None:
    """And of others without white space around it; a line of COCO-Text with its polygon."""
    box = {"image_id": 7, "bbox": [2, 3, 10, 10.5], "score": 0.5}
    told = {"utf8_string": " exit ", "mask": [2, 3, 12, 3, 12, 13, 2, 13]}
    of_engine = {"id": 3, **box, **told, "annotation": "0.ocr.1", "descriptions": [" red ", 5, "sign"]}
    annotations = [{"id": 2, **box, **told, "descriptions": ["x"]}, of_engine, {**of_engine, "descriptions": ["late"]}]
    (a, _), listing = listed(write(images=[{**IMAGES[0], "dataset": "mine"}, IMAGES[1]], annotations=annotations))
    assert a.dataset == "mine"
    given = a.given()
    assert kinds(listing) == {"repeated_id": 1}
    record, faults = take(Item(b"", a.uri, width=40, height=30), given)
    assert [fault.kind for fault in faults] == ["unknown_region"]
    assert [(region.kind, region.text, region.quad, region.score) for region in record.regions] == [
        ("text", "exit", tuple(told["mask"]), 0.5),
        ("text", " exit ", tuple(told["mask"]), 0.5),
    ]
    assert [(one.region_id, one.text) for one in record.region_texts] == [
        (record.regions[1].id, " red "),
        (record.regions[1].id, "sign"),
    ]


# Faults


def test_single_faults_are_told_and_the_rest_is_taken(write: Write) -> None:
    path = write(
        images=[*IMAGES, {"id": 7, "file_name": "other.png"}, {"id": 7, "file_name": "a.png"}, {"id": [1]}, "c.png"],
        annotations=[
            BOX,
            {**BOX, "bbox": [0, 0, 1, 1]},  # the id again
            {"id": 20, "image_id": 99, "bbox": [0, 0, 1, 1]},
            {"id": 21, "image_id": 7, "category_id": 4, "bbox": [0, 0, 1, 1]},
            {"id": 22, "image_id": 7, "bbox": [0, "0", 1, 1]},
            {"id": 23, "image_id": 7, "bbox": [0, 0, 1]},
            {"id": 24, "image_id": 7, "bbox": {"x": 1}},
            {"id": 25, "image_id": 7},
            {"id": 26, "image_id": None, "bbox": [0, 0, 1, 1]},
            {"id": 27, "image_id": {"id": 7}, "bbox": [0, 0, 1, 1]},
            [17],
            None,
            {"id": {}, "image_id": 7, "bbox": [], "caption": "fine"},
            {"id": 28, "image_id": 7, "caption": 5},
        ],
        categories=[*CATEGORIES, {"id": 5}, "dog"],
    )
    entries, listing = listed(path)
    assert [os.path.basename(entry.uri) for entry in entries] == ["a.png", "b.png", "other.png"]
    assert kinds(listing) == {
        "bad_annotation": 4,
        "bad_box": 5,
        "bad_categories": 2,
        "bad_image": 2,
        "no_image": 1,
        "repeated_id": 1,
        "repeated_image_id": 1,
        "unknown_category": 1,
    }
    given = entries[0].given()
    assert [type(one) for one in given] == [GivenRegion, GivenRegion, GivenText]
    assert [one.label for one in given[:2]] == ["tooth brush", None]  # type: ignore[union-attr]
    assert not entries[2].given()
    by_kind = {fault.kind: fault for fault in listing.faults.first}
    assert by_kind["no_image"] == Fault(
        "annotation 20 of instances.json", "no_image", "its image isn't listed; it was left out"
    )
    assert "category 4 isn't among" in by_kind["unknown_category"].message
    assert by_kind["repeated_image_id"].where == "image 7 of instances.json"
    again = Listing([path])
    assert [list(again), again.faults] == [entries, listing.faults], "listing again gives the same"


def test_two_names_for_one_file_are_told(write: Write, tmp_path: Path) -> None:
    picture(tmp_path / "x.png")
    names = [{"id": 1, "file_name": "train/x.png"}, {"id": 2, "file_name": "val/x.png"}]
    (entry,), listing = listed(write(images=names, annotations=[{"image_id": 2, "caption": "of the other"}]))
    assert entry.uri == f"{tmp_path}/x.png" and not entry.given()
    assert kinds(listing) == {"no_image": 1, "repeated_image": 1}


def test_numbers_that_are_none_cost_their_annotation_alone(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python's json writes them; in strings they are words, wherever chunks end."""
    nan, inf = float("nan"), float("inf")
    text = 'NaN, [NaN], "Infinity": -Infinity \\'
    annotations = [
        {**BOX, "id": 1, "area": nan, "score": [-inf, inf, nan], "caption": text},
        {**BOX, "id": 2, "bbox": [-inf, 3, nan, inf]},
        {**BOX, "id": 3, "caption": text},
    ]
    path = write(images=IMAGES, categories=CATEGORIES, annotations=annotations)
    for chunk in range(1, 30):
        monkeypatch.setattr("engine.sources.sections.CHUNK", chunk)
        os.utime(path, (chunk, chunk))  # or it would be known
        (a, _), listing = listed(path)
        assert [one.description for one in a.given() if isinstance(one, GivenRegion)] == [text, text]
        assert kinds(listing) == {"bad_box": 1}


def test_ids_of_pandas(write: Write) -> None:
    path = write(
        images=[{"id": 7.0, "file_name": "a.png", "license": 3.0}, {"id": 1.5, "file_name": "b.png"}],
        annotations=[{**BOX, "id": 17.0, "image_id": 7, "category_id": 90.0}, {**BOX, "id": 1e300, "image_id": 7.0}],
        categories=[{"id": 90.0, "name": "cup"}],
        licenses=[{"id": 3, "name": "CC0"}],
    )
    (entry,), listing = listed(path)
    assert [(one.label, one.where) for one in entry.given() if isinstance(one, GivenRegion)] == [
        ("cup", "annotation 17 of instances.json"),
        ("cup", "annotations[1] of instances.json"),
    ]
    assert entry.licence == "CC0" and kinds(listing) == {"bad_image": 1}


def test_images_on_the_web(write: Write, tmp_path: Path) -> None:
    """LVIS names no files."""
    url = "http://images.cocodataset.org/train2017/1.jpg"
    images = [
        {"id": 1, "coco_url": url, "flickr_url": "http://farm/1.jpg"},
        {"id": 2, "file_name": "https://example.org/a/../2.jpg"},
        {"id": 3, "file_name": "", "coco_url": "", "flickr_url": "http://farm/3.jpg"},
        {"id": 4, "file_name": "4.jpg", "coco_url": url},
        {"id": 5, "coco_url": "ftp://example.org/5.jpg"},
        {"id": 6, "file_name": "../6.jpg", "coco_url": url},
    ]
    entries, listing = listed(write(images=images, annotations=[{"image_id": 2, "caption": "x"}]))
    local = f"{tmp_path}/instances.json#image="
    assert [entry.uri for entry in entries] == [
        url,
        "https://example.org/a/../2.jpg",
        "http://farm/3.jpg",
        f"{tmp_path}/4.jpg",
        f"{local}5",
        f"{local}6",
    ]
    assert [entry.error is not None for entry in entries] == [False] * 4 + [True] * 2
    assert len(entries[1].given()) == 1 and not listing.faults.counts


def test_the_first_hundred_faults_are_kept(write: Write) -> None:
    path = write(images=IMAGES, annotations=[{"id": n, "image_id": 99, "bbox": [0, 0, 1, 1]} for n in range(1000)])
    _, listing = listed(path)
    assert kinds(listing) == {"no_image": 1000}
    assert [fault.where for fault in listing.faults.first] == [f"annotation {n} of instances.json" for n in range(100)]


GOOD = json.dumps({"images": IMAGES, "annotations": [BOX], "categories": CATEGORIES})
LABELME = {"version": "5.0", "flags": {}, "shapes": [], "imagePath": "a.jpg", "imageData": "x" * 5000}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a JSON object"),
        ("[]", "expected a JSON object, not a list"),
        (json.dumps([BOX]), "not a list"),
        ("3", "expected a JSON object"),
        ("no JSON", "expected a JSON object"),
        ("{}", "expected COCO's lists images, annotations and categories, with images at least; found no lists"),
        (json.dumps(LABELME), "expected COCO's lists .* found flags, shapes"),
        (json.dumps({"annotations": [BOX]}), "with images at least; found annotations"),
        ('{"images": 3}', "with images at least"),
        ('{"images": {"1": "a.png"}}', "expected a list, not an object"),
        ('{"images": []}', "expected images, objects with id and file_name; there is none"),
        ('{"images": ["a.png", "b.png"]}', "there is none"),
        (GOOD[:-1], "cut off"),
        (GOOD[: len(GOOD) // 2], "cut off"),
        (GOOD[:-2] + "}}", "no valid JSON"),
        (GOOD[:-2] + "]]}", "a bracket too many"),
        (GOOD + "}", "a bracket too many"),
        (GOOD.replace("[2, 3,", "[NaN3,"), "no valid JSON"),
        (GOOD.replace("[2, 3,", "[nan, 3,"), "no valid JSON: .*invalid"),
        (GOOD.replace("[2, 3,", "[1e999, 3,"), "no valid JSON: .*overflow"),
        (GOOD.replace("[2, 3,", f"[{10**30}, 3,"), "no valid JSON: .*overflow"),
        (GOOD.replace("[2, 3,", "[2 3,"), "no valid JSON"),
        (GOOD.replace('"annotations"', '"images"'), "the key 'images' stands twice"),
        (GOOD.replace("a.png", r"\udcff"), "can't decode"),
        ('{"images": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested deeper than 64"),
        ('{"images": [], "x": ' + '{"a": ' * 100_000 + "1" + "}" * 100_000 + "}", "nested deeper than 64"),
    ],
)
def test_files_that_are_not_cocos_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"x\.json can't be read as a COCO file: .*({says})"):
        listed(tmp_path / "x.json")


def test_binary_files_and_folders_are_refused(tmp_path: Path) -> None:
    for data in (GOOD.encode("utf-16"), GOOD.replace("a.png", "é.png").encode("latin-1"), os.urandom(5000)):
        (tmp_path / "x.json").write_bytes(data)
        with pytest.raises(ConfigError, match=r"x\.json can't be read as a COCO file"):
            listed(tmp_path / "x.json")


def test_no_room_for_the_temporary_database_is_said(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sources.index.TABLES", TABLES + "PRAGMA max_page_count = 20;")
    path = write(images=IMAGES, annotations=[{**BOX, "id": n} for n in range(1000)])
    with pytest.raises(RunError, match=r"database or disk is full.*SQLITE_TMPDIR"):
        listed(path)


leaves = st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner), max_leaves=5
)
objects = st.lists(
    anything
    | st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ["id", "file_name", "image_id", "category_id", "name", "bbox", "caption", "segmentation", "width"], anything
        ),
    ),
    max_size=4,
)
documents = st.fixed_dictionaries(
    {"images": objects.map(lambda some: [{"id": 1, "file_name": "a.png"}, *some])},
    optional=dict.fromkeys(["annotations", "categories", "licenses", "info"], objects) | {"x\\": anything},
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents, st.sampled_from([None, 1]), st.booleans())
def test_any_document_is_listed(write: Write, document: dict[str, Any], indent: int | None, ascii_: bool) -> None:
    path = write()
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=ascii_))
    entries, _ = listed(path)
    ids = {
        image["id"] for image in document["images"] if isinstance(image, dict) and type(image.get("id")) in (int, str)
    }
    assert 1 <= len(entries) <= len(document["images"]) + len(ids)
    for entry in entries:
        entry.given()
        assert not entry.uri.startswith("/") or entry.uri.startswith(str(path.parent))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text(st.characters(exclude_characters='"\\', codec="utf-8"), max_size=5), anything), st.data()
)
def test_sections_are_the_values_wherever_chunks_end(
    tmp_path: Path, document: dict[str, Any], data: st.DataObject
) -> None:
    (tmp_path / "x.json").write_text(json.dumps(document, ensure_ascii=data.draw(st.booleans())))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("engine.sources.sections.CHUNK", data.draw(st.integers(1, 40)))
        found = {key: section.value() for key, section in sections(str(tmp_path / "x.json")).items()}
    expected = {key: value for key, value in document.items() if key and isinstance(value, list | dict)}
    assert found == {key: expected[key] for key in found}
    assert {key for key in expected if key.isprintable() and key.isascii()} <= found.keys()


# All the way


def coco_set(folder: Path) -> Path:
    """Four images: one is missing, one has its boxes outside, one has run lengths of another size; ids repeat."""
    for name in ("good", "outside", "odd"):
        picture(folder / f"images/{name}.png", colour={"good": "red", "outside": "blue", "odd": "green"}[name])
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 10:30] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    counts = [155, *([15, 15] * 19), 15, 1200 - 155 - 30 * 19 - 15]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2.1, 3.3, 10.7, 10.2], "segmentation": [RING]},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [10, 5, 20, 15], "iscrowd": 1}
        | {"segmentation": {"size": [30, 40], "counts": compressed["counts"].decode()}},
        {"id": 3, "image_id": 1, "category_id": 2, "bbox": [10, 5, 20, 15]}
        | {"segmentation": {"size": [30, 40], "counts": counts}},
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]},
        {"id": 4, "image_id": 2, "category_id": 1, "bbox": [0, 0, 5, 5]},
        {"id": 5, "image_id": 3, "category_id": 1, "bbox": [100, 100, 5, 5]},
        {"id": 6, "image_id": 3, "category_id": 1, "bbox": [35, 25, 50, 50]},
        {"id": 7, "image_id": 4, "category_id": 1, "bbox": [0, 0, 9, 9]}
        | {"segmentation": {"size": [40, 30], "counts": [0, 1200]}},
        {"id": 8, "image_id": 4, "caption": "Something green."},
    ]
    names = {1: "good.png", 2: "missing.png", 3: "outside.png", 4: "odd.png"}
    document = {
        "images": [{"id": id_, "file_name": name, "width": 40, "height": 30} for id_, name in names.items()],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (folder / "instances.json").write_text(json.dumps(document))
    return folder / "instances.json"


def ingested(out: Path, path: Path) -> tuple[list[Record], dict[str, Any]]:
    output = Output(out)
    manifest = ingest(output, Ingest(images=(str(path),), shard_size=1), "digest", lambda items: None)
    return [record for shard in output.shards() for record in read_given(output, shard)], manifest


def test_a_set_is_ingested_with_what_comes_along(tmp_path: Path) -> None:
    path = coco_set(tmp_path / "set")
    (good, missing, outside, odd), manifest = ingested(tmp_path / "out", path)
    assert [(region.raw_label, region.crowd) for region in good.regions] == [
        ("cat", False),
        ("dog", True),
        ("dog", False),
    ]
    assert missing.item.error is not None and missing.item.error.kind == "missing" and not missing.by_id
    assert [region.box for region in outside.regions] == [(35, 25, 40, 30)]
    assert len(odd.regions) == 1 and not odd.masks and [text.text for text in odd.texts] == ["Something green."]
    assert manifest["given"] == {"human masks": 3, "human regions": 5, "human texts": 1}
    expected = {"box_clipped": 1, "box_outside": 1, "mask_size": 1, "repeated_id": 1, "unread_image": 1}
    assert manifest["faults"] == expected
    assert [fault["where"] for fault in manifest["first_faults"]] == ["annotation 3 of instances.json"]
    output = Output(tmp_path / "out")
    faults = [(id_, fault.where, fault.kind) for shard in output.shards() for id_, fault in read_faults(output, shard)]
    assert [(where, kind) for _, where, kind in faults if kind == "unread_image"] == [
        ("annotation 4 of instances.json", "unread_image")
    ]
    assert [fault for fault in faults if fault[2] != "unread_image"] == [
        (outside.item.item_id, "annotation 5 of instances.json", "box_outside"),
        (outside.item.item_id, "annotation 6 of instances.json", "box_clipped"),
        (odd.item.item_id, "annotation 7 of instances.json", "mask_size"),
    ]


def test_boxes_and_masks_come_back_as_the_file_has_them(tmp_path: Path) -> None:
    path = coco_set(tmp_path / "set")
    (good, *_), _ = ingested(tmp_path / "out", path)
    annotations = json.loads(path.read_text())["annotations"][:3]
    masks = {mask.region_id: mask for mask in good.masks}
    for annotation, region in zip(annotations, good.regions, strict=True):
        x, y, width, height = annotation["bbox"]
        assert np.array_equal(np.float32(region.box), np.float32((x, y, x + width, y + height)))
        runs = annotation["segmentation"]
        if isinstance(runs, list):
            runs = coco_mask.merge(coco_mask.frPyObjects(runs, 30, 40))
        elif isinstance(runs["counts"], list):
            runs = coco_mask.frPyObjects(runs, 30, 40)
        assert mask_area(masks[region.id]) == coco_mask.area(runs) > 0
        assert np.array_equal(decode_mask(masks[region.id]), coco_mask.decode(runs) != 0)


def test_an_ingest_again_keeps_what_is_the_same(tmp_path: Path) -> None:
    path, out = coco_set(tmp_path / "set"), tmp_path / "out"

    def files() -> dict[str, tuple[bytes, int]]:
        return {
            file.relative_to(out).as_posix(): (file.read_bytes(), file.stat().st_ino) for file in out.rglob("*.parquet")
        }

    _, manifest = ingested(out, path)
    before = files()
    assert sum(name.startswith("given/") for name in before) == 4  # a file where something was wrong, too
    Output(out).manifest.unlink()
    assert ingested(out, path)[1] == manifest
    assert files() == before, "the same files, not written again"

    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"][0] += 1
    path.write_text(json.dumps(document))
    Output(out).manifest.unlink()
    (good, *_), _ = ingested(out, path)
    assert good.regions[0].box[0] == np.float32(3.1)
    after = files()
    assert {name for name in before if after[name][0] != before[name][0]} == {"given/part-00000/shard-00000.parquet"}
    rewritten = {name for name in before if after[name][1] != before[name][1]}
    assert rewritten == {"given/part-00000/shard-00000.parquet", "images/part-00000/shard-00000.parquet"}
