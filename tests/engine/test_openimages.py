"""Open Images' files: told apart by their headers, joined by image, with masks on the boxes that they are of."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.config import Ingest
from engine.entry import Entry, GivenRegion, GivenText
from engine.errors import ConfigError
from engine.ingest import ingest
from engine.layout import Output
from engine.listing import Listing
from engine.sources.masks import with_masks
from engine.sources.openimages import is_open_images
from engine.storage import read_given

BOXES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside",
    "000a,xclick,/m/cat,1,0.1,0.5,0.2,0.6,0,0,0,0,0",
    "000a,xclick,/m/dog,1,0.25,0.75,0.5,1,0,0,1,0,0",
    "000b,activemil,/m/cat,1,0,1,0,1,0,0,0,1,0",
)
MASKS = (
    "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks",
    "000a_cat.png,000a,/m/cat,1,0.100020,0.5,0.2,0.6,0.9,",
    "000a_dog.png,000a,/m/dog,2,0.000000,0.5,0.2,0.6,0.9,",
)
LABELS = (
    "ImageID,Source,LabelName,Confidence",
    "000c,verification,/m/dog,1",
    "000c,verification,/m/cat,0",
    "000c,machine,/m/cat,0.9",
    "000c,crowdsource-verification,/m/dog,1.0",
    "000a,verification,/m/cat,1",
)
CLASSES = ("/m/cat,Cat", "/m/dog,Dog")

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(name: str, *lines: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path

    return make


def listed(*paths: Path, **options: Any) -> tuple[dict[str, Entry], Listing]:
    listing = Listing(paths, **options)
    return {os.path.basename(entry.uri): entry for entry in listing}, listing


def test_boxes_masks_labels_and_narratives_of_one_set(write: Write, tmp_path: Path) -> None:
    (tmp_path / "000a_cat.png").touch()
    (tmp_path / "masks-0").mkdir()
    (tmp_path / "masks-0/000a_dog.png").touch()
    narrative = {"dataset_id": "open_images", "image_id": "000d", "caption": "A dog runs.", "traces": [[{"x": 0.1}]]}
    paths = [
        write("train-annotations-bbox.csv", *BOXES),
        write("masks.csv", *MASKS),
        write("labels.csv", *LABELS),
        write("narratives.jsonl", json.dumps(narrative), "", json.dumps({**narrative, "image_id": "000b"})),
        write("class-descriptions.csv", *CLASSES),
        write("images.csv", "ImageID,Subset,OriginalURL,License", "000c,train,https://example.org/c.jpg,CC BY 2.0"),
    ]
    found, listing = listed(*paths)
    assert list(found) == ["000c.jpg", "000a.jpg", "000b.jpg", "000d.jpg"]
    assert {entry.dataset for entry in found.values()} == {"Open Images"}
    assert found["000c.jpg"].uri == f"{tmp_path}/000c.jpg"
    assert [(entry.licence, entry.labels) for entry in found.values()] == [
        ("CC BY 2.0", ("Dog",)),
        (None, ("Cat",)),
        (None, ()),
        (None, ()),
    ]
    assert found["000a.jpg"].given() == [
        GivenRegion(
            "Cat",
            (0.1, 0.2, 0.5, 0.6),
            relative=True,
            segmentation=tmp_path / "000a_cat.png",
            where="line 2 of train-annotations-bbox.csv",
        ),
        GivenRegion(
            "Dog", (0.25, 0.5, 0.75, 1), relative=True, crowd=True, where="line 3 of train-annotations-bbox.csv"
        ),
        GivenRegion(
            "Dog",
            (0, 0.2, 0.5, 0.6),
            relative=True,
            segmentation=tmp_path / "masks-0/000a_dog.png",
            where="line 3 of masks.csv",
        ),
    ]
    assert found["000d.jpg"].given() == [GivenText("A dog runs.", where="line 1 of narratives.jsonl")]
    assert [type(one) for one in found["000b.jpg"].given()] == [GivenRegion, GivenText]
    assert not listing.faults.counts
    again, _ = listed(*paths)
    assert again == found


def test_classes_with_a_header_and_without_any(write: Write) -> None:
    boxes = write("boxes.csv", *BOXES)
    found, listing = listed(boxes, write("classes.csv", "LabelName,DisplayName", *CLASSES))
    assert found["000b.jpg"].given()[0].label == "Cat"  # type: ignore[union-attr]
    assert not listing.faults.counts
    found, listing = listed(boxes)
    assert found["000b.jpg"].given()[0].label == "/m/cat"  # type: ignore[union-attr]
    assert listing.faults.counts == {"unknown_category": 2}


def test_every_box_has_one_mask_at_most() -> None:
    box = GivenRegion("Cat", (0.1, 0.2, 0.5, 0.6), relative=True)
    masks = [GivenRegion("Cat", box.box, relative=True, segmentation=Path(f"/nowhere/{n}.png")) for n in range(2)]
    first, second = with_masks([masks[0], box, masks[1]])
    assert [one.segmentation for one in (first, second) if isinstance(one, GivenRegion)] == [
        mask.segmentation for mask in masks
    ]


@pytest.mark.parametrize(
    "place", ["a/000a.jpg", "a/000a.png", "a/images/000a.JPEG", "a/train/000a.jpg", "validation/000a.webp"]
)
def test_images_are_found(write: Write, tmp_path: Path, place: str) -> None:
    boxes = write("a/boxes.csv", *BOXES)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    (tmp_path / place).with_suffix(".txt").touch()
    found, _ = listed(boxes)
    assert [entry.uri for entry in found.values()] == [f"{tmp_path}/{place}", f"{tmp_path}/a/000b.jpg"]


def test_images_are_found_where_the_configuration_says(write: Write, tmp_path: Path) -> None:
    boxes = write("a/boxes.csv", *BOXES)
    for place in ("a/000a.jpg", "photos/test/000a.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    found, _ = listed(boxes, image_root=f"{tmp_path}/photos")
    assert [entry.uri for entry in found.values()] == [
        f"{tmp_path}/photos/test/000a.jpg",
        f"{tmp_path}/photos/000b.jpg",
    ]


def test_single_faults_are_told_and_the_rest_is_taken(write: Write) -> None:
    rows = [
        "../etc/passwd,x,/m/cat,1,0,1,0,1,0,0,0,0,0",
        "..,x,/m/cat,1,0,1,0,1,0,0,0,0,0",
        "000e,x,/m/cat,1,0,one,0,1,0,0,0,0,0",
        "000e,x,/m/cat,1,0,",
        "",
        "000f,x,/m/cat,1,0,nan,0,1,0,0,0,0,0",
    ]
    found, listing = listed(write("boxes.csv", *BOXES, *rows), write("classes.csv", *CLASSES))
    assert list(found) == ["000a.jpg", "000b.jpg", "000e.jpg", "000f.jpg"]
    assert listing.faults.counts == {"outside_root": 2, "bad_box": 2}
    assert [fault.where for fault in listing.faults.first] == [f"line {n} of boxes.csv" for n in (5, 6, 7, 8)]
    assert len(found["000f.jpg"].given()) == 1  # told with its image


def test_rows_that_can_not_be_read_cost_themselves_alone(write: Write) -> None:
    rows = [f"000e,x,/m/cat,{'1' * 200_000}", '000f,"x,/m/cat,1,0,1,0,1,0,0,0,0,0', BOXES[1], BOXES[3]]
    boxes, classes = write("boxes.csv", BOXES[0], *rows), write("classes.csv", *CLASSES, '/m/cup,"Cup', "/m/tea,Tea")
    found, listing = listed(boxes, classes)
    assert [len(entry.given()) for entry in found.values()] == [1, 1] and list(found) == ["000a.jpg", "000b.jpg"]
    assert [(fault.where, fault.kind) for fault in listing.faults.first] == [
        ("line 3 of classes.csv", "bad_row"),
        ("line 2 of boxes.csv", "bad_row"),
        ("line 3 of boxes.csv", "bad_row"),
    ]


def test_narratives_that_are_none_cost_themselves_alone(write: Write) -> None:
    good = [json.dumps({"image_id": id_, "caption": "A dog."}) for id_ in "ab"]
    bad = ['{"image_id": 3, "caption": "x"}', '{"image_id": "c"}', "[1]", '{"image_id": "c", "cap', "[" * 100_000]
    path = write("x.jsonl", bad[0], good[0], *bad[1:], good[1])
    path.write_bytes(path.read_bytes() + b'{"image_id": "c", "caption": "caf\xe9"}')
    found, listing = listed(path)
    assert list(found) == ["a.jpg", "b.jpg"] and listing.faults.counts == {"bad_narrative": 6}
    assert [fault.where for fault in listing.faults.first] == [f"line {n} of x.jsonl" for n in (1, 3, 4, 5, 6, 8)]


def test_a_mask_is_looked_for_by_its_name_alone(write: Write, tmp_path: Path) -> None:
    (tmp_path / "secret.png").touch()
    path = write(
        "set/masks.csv", MASKS[0], "../secret.png,000a,/m/cat,1,0,1,0,1,0.9,", "/x/y.png,000a,/m/cat,1,0,1,0,1,,"
    )
    found, _ = listed(path)
    masks = [one.segmentation for one in found["000a.jpg"].given() if isinstance(one, GivenRegion)]
    assert masks == [tmp_path / "set/secret.png", tmp_path / "set/y.png"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.jsonl", "no JSON", r"x\.jsonl.*line 1 is no JSON"),
        (
            "x.jsonl",
            '{"image_id": "a"}\n{"image_id": 3}',
            r"x\.jsonl.*line 1 isn't an object with image_id and caption",
        ),
        ("x.jsonl", "[" * 100_000, "line 1 is no JSON"),
        ("x.csv", "LabelName,DisplayName\n/m/cat,Cat\n", r"no images in .*x\.csv"),
        (
            "x.csv",
            BOXES[0] + "\n000a,x,/m/cat," + "1" * 200_000 + "\n",
            r"no images in .*line 2 of x\.csv: field larger",
        ),
    ],
)
def test_files_that_can_not_be_read(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=says):
        listed(tmp_path / name)


def test_other_tables_are_not_theirs(tmp_path: Path) -> None:
    for text in ("url,caption\nhttps://example.org/a.jpg,x\n", "", "ImageID,LabelName1,LabelName2\n", "\0\xff"):
        (tmp_path / "x.csv").write_text(text)
        assert not is_open_images(str(tmp_path / "x.csv"))
    for name in ("gone.csv", "x.txt", "x.json"):
        assert not is_open_images(str(tmp_path / name))
    (tmp_path / "x.CSV").write_text("\ufeff" + "\r\n".join(BOXES))
    assert is_open_images(str(tmp_path / "x.CSV")) and len(listed(tmp_path / "x.CSV")[0]) == 2


def test_a_set_is_ingested_with_what_comes_along(write: Write, tmp_path: Path) -> None:
    for name in ("000a", "000b"):
        Image.new("RGB", (40, 30), "red" if name == "000a" else "blue").save(tmp_path / f"{name}.jpg")
    Image.new("1", (20, 15), 1).save(tmp_path / "000a_cat.png")
    paths = [write("b.csv", *BOXES), write("m.csv", *MASKS), write("c.csv", *CLASSES), write("l.csv", *LABELS)]
    output = Output(tmp_path / "out")
    manifest = ingest(output, Ingest(images=tuple(map(str, paths))), "digest", lambda items: None)
    a, b, c = (record for shard in output.shards() for record in read_given(output, shard))
    assert [region.raw_label for region in a.regions] == ["Cat", "Dog", "Dog"]
    assert [mask.region_id for mask in a.masks] == [a.regions[0].id]
    assert [region.box for region in b.regions] == [(0, 0, 40, 30)]
    assert c.item.labels == ("Dog",)
    assert manifest["errors"] == {"missing": 1}
    assert manifest["given"] == {"human masks": 1, "human regions": 4}
    assert manifest["faults"] == {"mask_missing": 1}
