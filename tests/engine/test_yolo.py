"""YOLO's sets: what is in them comes out, whatever else is in them is told, and nothing outside is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.config import Ingest
from engine.entry import Entry, GivenRegion
from engine.errors import ConfigError
from engine.geometry import decode_mask
from engine.given import take
from engine.ingest import ingest
from engine.layout import Output
from engine.listing import Listing
from engine.records import Item, Record
from engine.storage import read_faults, read_given

Write = Callable[..., Path]
NAMES = ["cat", "tooth brush", "no"]
ITEM = Item(b"", "x", width=200, height=100)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a set: data.yaml with some keys, pictures by their paths, with the lines of their labels by theirs."""

    def make(
        folder: str = "set", pictures: tuple[str, ...] = (), labels: dict[str, str] | None = None, **keys: Any
    ) -> Path:
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            (root / picture).parent.mkdir(parents=True, exist_ok=True)
            colour = tuple(np.random.default_rng(len(picture)).integers(0, 255, 3).tolist())
            Image.new("RGB", (200, 100), colour).save(root / picture)
        for name, lines in (labels or {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(lines)
        (root / "data.yaml").write_text(yaml.safe_dump({"names": NAMES, **keys}, allow_unicode=True))
        return root / "data.yaml"

    return make


def listed(*paths: Path, **options: Any) -> tuple[list[Entry], Listing]:
    listing = Listing(paths, **options)
    return list(listing), listing


def uris(entries: list[Entry], root: Path) -> list[str]:
    return [os.path.relpath(entry.uri, root) for entry in entries]


def kinds(listing: Listing) -> dict[str, int]:
    return dict(sorted(listing.faults.counts.items()))


def taken(entry: Entry) -> tuple[Record, list[str]]:
    record, faults = take(ITEM, entry.given())
    return record, [fault.kind for fault in faults]


def test_boxes_and_polygons_with_their_classes(write: Write, tmp_path: Path) -> None:
    lines = "1 0.5 0.25 0.5 0.5\n\n  2.0\t0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6 \r\n0 0.5 0.5 1 1"
    path = write(pictures=("images/train/a.png",), labels={"labels/train/a.txt": lines}, train="images/train")
    for given_as in (path, path.parent):
        (entry,), listing = listed(given_as)
        assert (entry.uri, entry.dataset) == (f"{tmp_path}/set/images/train/a.png", "set")
        record, faults = taken(entry)
        assert not faults and not listing.faults.counts
        assert [(region.raw_label, region.box) for region in record.regions] == [
            ("tooth brush", (50, 0, 150, 50)),
            ("no", (20, 20, 100, 60)),
            ("cat", (0, 0, 200, 100)),
        ]
        (mask,) = record.masks
        assert mask.region_id == record.regions[1].id
        rows, columns = decode_mask(mask).nonzero()
        assert (rows.min(), rows.max(), columns.min(), columns.max(), len(rows)) == (20, 59, 20, 99, 40 * 80)
        assert [one.where for one in entry.given()] == [f"line {n} of labels/train/a.txt" for n in (1, 3, 4)]


@pytest.mark.parametrize(
    "names",
    [
        "[cat, yes, 'no', ~, 12, 1.50, 2026-01-01, 検出, \"\\U0001F415\", ten]",
        "{9: ten, 1: yes, 2: no, 3: ~, 4: 12, 5: 1.50, 6: 2026-01-01, 7: 検出, '8': 🐕, 0: cat}",
        "\n- cat\n- yes\n- no\n- ~\n- 12\n- 1.50\n- 2026-01-01\n- 検出\n- 🐕\n- ten",
    ],
)
def test_names_are_lists_or_by_number_and_always_words(write: Write, names: str) -> None:
    lines = "".join(f"{n} 0.5 0.5 0.1 0.1\n" for n in range(10))
    path = write(pictures=("images/a.png",), labels={"labels/a.txt": lines})
    path.write_text(f"names: {names}\ntrain: images\n")
    (entry,), _ = listed(path.parent)
    said = [one.label for one in entry.given() if isinstance(one, GivenRegion)]
    assert said == ["cat", "yes", "no", "~", "12", "1.50", "2026-01-01", "検出", "🐕", "ten"]


# Where images and labels are


@pytest.mark.parametrize(
    ("keys", "pictures"),
    [
        ({"train": "images/train", "val": "images/val"}, ("images/train/a.png", "images/val/b.png")),
        ({"train": ["images/one", "images/two"]}, ("images/one/a.png", "images/two/deeper/b.png")),
        ({"train": "../train/images", "val": "../valid/images"}, ("train/images/a.png", "valid/images/b.png")),
        ({"path": "data", "train": "images", "test": "more"}, ("data/images/a.png", "data/more/b.png")),
        (
            {"path": ".", "train": "./images/train/", "validation": "images/val"},
            ("images/train/a.png", "images/val/b.png"),
        ),
        ({"path": "../datasets/coco", "train": "images"}, ("images/a.png", "images/b.png")),
        ({"path": "/datasets/coco", "val": "images"}, ("images/a.png", "images/b.png")),
        ({"train": "lists/train.txt"}, ("images/a.png", "lists/images/b.png")),
    ],
)
def test_images_are_found(write: Write, keys: dict[str, Any], pictures: tuple[str, ...]) -> None:
    path = write(pictures=pictures, labels={"lists/train.txt": "\ufeffimages/a.png\r\n\n./images/b.png\n"}, **keys)
    entries, listing = listed(path)
    assert uris(entries, path.parent) == list(pictures) and not listing.faults.counts


def test_absolute_paths_are_read_in_the_folder_of_the_set(write: Write, tmp_path: Path) -> None:
    pictures = ("images/a.png", "images/b.png")
    path = write(pictures=pictures, train=f"{tmp_path}/set/images")
    assert uris(listed(path)[0], path.parent) == list(pictures)
    (tmp_path / "set/list.txt").write_text(f"{tmp_path}/set/images/b.png\n")
    path = write(train="list.txt", path=f"{tmp_path}/set")
    assert uris(listed(path)[0], path.parent) == ["images/b.png"]


@pytest.mark.parametrize(
    ("picture", "labels"),
    [
        ("images/a.png", "labels/a.txt"),
        ("images/images/a.b.png", "images/labels/a.b.txt"),
        ("train/images/sub/a.png", "train/labels/sub/a.txt"),
        ("photos/a.png", "photos/a.txt"),
        ("myimages/a.png", "myimages/a.txt"),
    ],
)
def test_labels_lie_where_ultralytics_looks_for_them(write: Write, picture: str, labels: str) -> None:
    for folder in ("set", "images/set"):  # what is above the set does not count
        path = write(folder, (picture,), {labels: "0 0.5 0.5 0.5 0.5"}, train=os.path.dirname(picture))
        (entry,), _ = listed(path)
        assert [one.where for one in entry.given()] == [f"line 1 of {labels}"]


def test_a_set_elsewhere_is_found_where_the_configuration_says(write: Write, tmp_path: Path) -> None:
    """Ultralytics' own files name sets that are to be in a folder of datasets."""
    write("datasets/coco8", ("images/train/a.png",), {"labels/train/a.txt": "2 0.5 0.5 0.5 0.5"}, train="images")
    path = write("cfg", path="coco8", train="images/train")
    for root in ("datasets", "datasets/coco8"):
        (entry,), _ = listed(path, image_root=str(tmp_path / root))
        assert entry.uri == f"{tmp_path}/datasets/coco8/images/train/a.png" and entry.dataset == "cfg"
        assert [one.label for one in entry.given() if isinstance(one, GivenRegion)] == ["no"]
    with pytest.raises(ConfigError, match=r"no images in .*train in data\.yaml: there is no 'images/train'"):
        listed(path)


def test_an_image_without_labels_has_nothing_in_it(write: Write) -> None:
    path = write(pictures=("images/a.png", "images/bb.png"), labels={"labels/a.txt": ""}, train="images")
    entries, listing = listed(path)
    assert [entry.given() for entry in entries] == [[], []] and not listing.faults.counts


def test_keypoints_are_no_polygons(write: Write) -> None:
    lines = "0 0.5 0.5 0.5 0.5 0.1 0.2 2 0.3 0.4 2 0 0 0\n"
    path = write(pictures=("images/a.png",), labels={"labels/a.txt": lines}, train="images", kpt_shape=[3, 3])
    (entry,), _ = listed(path)
    record, faults = taken(entry)
    assert [region.box for region in record.regions] == [(50, 25, 150, 75)] and not record.masks and not faults


# Faults


@pytest.mark.parametrize(
    ("line", "kind", "regions"),
    [
        ("0", "bad_box", 0),
        ("0 0.5 0.5 0.1", "bad_box", 0),
        ("0 0.5 0.5 0.1 0.1 0.9", "bad_box", 0),
        ("0 0.5 0.5 0.1 0.1 0.9 0.9 0.8", "bad_box", 0),
        ("0 0.5 nan 0.1 0.1", "bad_box", 0),
        ("0 0.1 0.1 0.5 nan 0.1 0.9", "bad_box", 0),
        ("0 0.5 0.5 0.1 inf", "bad_box", 0),
        ("0 0.5 0.5 a 0.1", "bad_box", 0),
        ("0 0.5 0.5 \xff 0.1", "bad_box", 0),
        ("0 0.5 0.5 -0.1 0.1", "bad_box", 0),
        ("0 0.5 0.5 0 0.1", "bad_box", 0),
        ("0 0.1 0.1 0.5 0.5 0.9 0.9", "bad_mask", 1),
        ("0 100 50 20 20", "box_outside", 0),
        ("0 1.5 0.5 0.5 0.5", "box_outside", 0),
        ("0 0.9 0.5 0.4 0.5", "box_clipped", 1),
        ("0 1e999 0.5 0.4 0.5", "bad_box", 0),
        ("3 0.5 0.5 0.1 0.1", "unknown_category", 1),
        ("-1 0.5 0.5 0.1 0.1", "unknown_category", 1),
        ("0.5 0.5 0.5 0.1 0.1", "unknown_category", 1),
        ("nan 0.5 0.5 0.1 0.1", "unknown_category", 1),
        ("1e300 0.5 0.5 0.1 0.1", "unknown_category", 1),
        ("cat 0.5 0.5 0.1 0.1", "unknown_category", 1),
    ],
)
def test_bad_lines_are_told_and_the_rest_is_taken(write: Write, line: str, kind: str, regions: int) -> None:
    good = "1 0.5 0.5 0.1 0.1"
    path = write(pictures=("images/a.png",), labels={"labels/a.txt": f"{good}\n{line}\n{good}\n"}, train="images")
    (path.parent / "labels" / "a.txt").write_bytes(f"{good}\n{line}\n{good}\n".encode("latin-1"))
    (entry,), listing = listed(path)
    record, faults = taken(entry)
    assert len(record.regions) == 2 + regions
    assert [*faults, *listing.faults.counts] == [kind]
    if kind == "unknown_category":
        assert record.regions[1].raw_label is None
        assert listing.faults.first[0].where == "line 2 of labels/a.txt"


def test_faults_reach_the_manifest(write: Write, tmp_path: Path) -> None:
    lines = "0 0.5 0.5 0.1\n7 0.5 0.5 0.1 0.1\n"
    path = write(pictures=("images/a.png",), labels={"labels/a.txt": lines}, train="images", test="images/none")
    output = Output(tmp_path / "out")
    manifest = ingest(output, Ingest(images=(str(path.parent),)), "d", lambda done: None)
    assert manifest["faults"] == {"bad_box": 1, "missing_split": 1, "unknown_category": 1}
    (shard,) = output.shards()
    ((_, fault),) = read_faults(output, shard)
    assert fault.where == "line 1 of labels/a.txt" and "four finite numbers, not (0.5, 0.5, 0.1)" in fault.message
    (record,) = read_given(output, shard)
    assert [(region.source, region.raw_label) for region in record.regions] == [("human", None)]


def test_labels_that_are_no_files_are_not_waited_for(write: Write) -> None:
    path = write(pictures=("images/a.png", "images/bb.png", "images/ccc.png"), train="images")
    (path.parent / "labels" / "bb.txt").mkdir(parents=True)
    os.mkfifo(path.parent / "labels" / "a.txt")
    (path.parent / "labels" / "ccc.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    os.truncate(path.parent / "labels" / "ccc.txt", 2**24 + 1)
    entries, listing = listed(path)
    assert [entry.given() for entry in entries] == [[], [], []]
    assert kinds(listing) == {"bad_labels": 1} and listing.faults.first[0].where == "labels/ccc.txt"


# What is not to be read


@pytest.mark.parametrize(
    "name",
    ["../secret", "../../secret", "images/../../secret", "/etc", "..", "../set2/images", "a\0b", "../secret/list.txt"],
)
def test_splits_that_lead_outside_are_not_read(write: Write, tmp_path: Path, name: str) -> None:
    write("secret", ("a.png",), {"list.txt": "a.png"})
    write("set2", ("images/a.png",))
    path = write(pictures=("images/a.png",), val="images", train=name, path="..")
    entries, listing = listed(path)
    assert uris(entries, path.parent) == ["images/a.png"]
    assert set(kinds(listing)) <= {"outside_root", "missing_split"} and listing.faults.counts.total() == 1


def test_lines_of_lists_that_lead_outside_are_rows_that_are_not_read(write: Write, tmp_path: Path) -> None:
    write("secret", ("images/a.png",), {"labels/a.txt": "0 0.5 0.5 0.1 0.1"})
    lines = f"../secret/images/a.png\n{tmp_path}/secret/images/a.png\nimages/../../secret/images/a.png\n"
    lines += "images/a.png\n/\na\0b\n"
    path = write(pictures=("images/a.png",), labels={"train.txt": lines}, train="train.txt")
    entries, _ = listed(path)
    assert [entry.error.kind if entry.error else "" for entry in entries] == ["outside_root"] * 3 + [""] + [
        "outside_root"
    ] * 2
    assert [entry.uri.rpartition("/")[2] for entry in entries] == [
        *(f"train.txt#line={n}" for n in (1, 2, 3)),
        "a.png",
        *(f"train.txt#line={n}" for n in (5, 6)),
    ]
    manifest = ingest(Output(tmp_path / "out"), Ingest(images=(str(path),)), "digest", lambda items: None)
    assert manifest["errors"] == {"outside_root": 5} and manifest["given"] == {}


GOOD = "train: images\nnames: [cat]\n"
BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("names: [cat", "no valid YAML"),
        ("- names:\n- train", "expected a mapping with names and splits, not a list"),
        ("train: images\n", "expected names, .* not None"),
        ("train: images\nnames: 3\n", "expected names, .* not '3'"),
        ("train: images\nnames: []\n", "expected names"),
        ("train: images\nnames: [[cat]]\n", "expected names"),
        ("train: images\nnames: {a: cat}\n", "expected names by number"),
        ("names: [cat]\n", "expected splits .*there is none"),
        ("names: [cat]\ntrain: {a: b}\n", "expected a folder or list of images, or several of them, not"),
        (GOOD + "x: !!python/object/apply:os.system [touch pwned]\n", None),
        (GOOD + "x: " + "[" * 5000, "no valid YAML"),
        (GOOD + "x: " + "[" * 2000 + "]" * 2000, "no valid YAML: maximum recursion"),
        (f"{BOMB}names: *l\ntrain: images", "expected names"),
        (GOOD + "x: \udcff", "no valid YAML"),
        (GOOD + "x: \0", "no valid YAML"),
        (GOOD + "#" * (1 << 21), "more than 2,097,152 bytes"),
    ],
)
def test_a_data_yaml_that_is_none_is_refused(write: Write, text: str, says: str | None) -> None:
    path = write(pictures=("images/a.png",))
    path.write_bytes(text.encode(errors="surrogateescape"))
    if says is None:
        assert len(listed(path)[0]) == 1 and not (path.parent / "pwned").exists() and not os.path.exists("pwned")
        return
    with pytest.raises(ConfigError, match=rf"data\.yaml can't be read as a YOLO data\.yaml: .*({says})"):
        listed(path)


def test_a_folder_with_another_data_yaml_is_a_folder(write: Write) -> None:
    path = write(pictures=("a.png", "sub/b.png"))
    path.write_text("filenames: [1\nmore")
    assert uris(listed(path.parent)[0], path.parent) == ["a.png", "sub/b.png"]
    path.write_text(GOOD)
    with pytest.raises(ConfigError, match="no images"):
        listed(path.parent)


def test_what_else_is_among_the_images_is_counted(write: Write) -> None:
    labels = {"images/notes.txt": "x", "images/.hidden.png": "x", "images/x.json": json.dumps({})}
    path = write(pictures=("images/a.png",), labels=labels, train="images", val="images")
    entries, listing = listed(path)
    assert len(entries) == 1 and listing.repeated == 1
    assert listing.skipped == {".txt": 2, ".json": 2}


numbers = st.floats().map(str) | st.integers().map(str) | st.text(max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.lists(st.lists(numbers, max_size=9).map(" ".join)).map("\n".join).map(str.encode))
def test_any_labels_are_taken_or_told(write: Write, data: bytes) -> None:
    path = write(pictures=("images/a.png",), train="images")
    (path.parent / "labels").mkdir(exist_ok=True)
    (path.parent / "labels" / "a.txt").write_bytes(data)
    (entry,), _ = listed(path)
    record, faults = taken(entry)
    lines = [line for line in data.splitlines() if line.strip()]
    assert len(record.regions) + len(faults) >= len(lines) >= len(record.regions)
