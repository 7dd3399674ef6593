"""The published formats, made here, as they come and as somebody might send them."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published import put, ref, refcoco
from pycocotools import mask as coco_mask

from florence2 import Florence2Error
from florence2.evaluation.classes import ClassMap
from florence2.evaluation.coco import read_captions, read_instances
from florence2.evaluation.files import Photo
from florence2.evaluation.flickr30k import read_flickr30k
from florence2.evaluation.refcoco import read_refcoco

# COCO

IMAGES = [
    {"id": 9, "file_name": "000000000009.jpg", "width": 64, "height": 48},
    {"id": 4, "file_name": "000000000004.jpg", "width": 50, "height": 40},
]
INSTANCES: dict[str, Any] = {
    "images": IMAGES,
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 90, "bbox": [1, 2, 10.5, 20], "area": 99.5, "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}],
}
CAPTIONS: dict[str, Any] = {
    "images": IMAGES,
    "annotations": [
        {"id": 1, "image_id": 4, "caption": "A dog."},
        {"id": 2, "image_id": 9, "caption": "A cat\u2028on a mat <loc_5>"},
        {"id": 3, "image_id": 4, "caption": "Ein Hund, 犬"},
    ],
}
KARPATHY: dict[str, Any] = {
    "dataset": "coco",
    "images": [
        {
            "cocoid": id,
            "filepath": "val2014",
            "filename": f"COCO_val2014_{id:012}.jpg",
            "split": split,
            "sentences": [{"raw": f"A dog number {id}", "tokens": ["a"]}],
        }
        for id, split in ((7, "test"), (3, "test"), (5, "val"))
    ],
}


@pytest.mark.parametrize("name", ["annotations/instances_val2017.json", "instances_val2017.json"])
def test_coco_instances(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, name, INSTANCES)
    for data in (tmp_path, path):
        read = read_instances(data)
        assert [photo.id for photo in read.photos] == [4, 9]
        assert read.photos[1] == Photo(9, "000000000009.jpg", (64, 48))
        assert read.categories == {1: "person", 90: "toothbrush"} and read.split == "val2017"
        assert read.objects[4].labels == ()
        objects = read.objects[9]
        assert (objects.labels, objects.boxes) == ((90, 1), ((1, 2, 11.5, 22), (0, 0, 5, 5)))
        assert (objects.crowd, objects.areas) == ((False, True), (99.5, 25))


def test_coco_captions(tmp_path: Path) -> None:
    put(tmp_path, "annotations/captions_val2017.json", CAPTIONS)
    put(tmp_path, "annotations/captions_val2014.json", CAPTIONS | {"annotations": []})
    read = read_captions(tmp_path)
    assert read.references == {4: ["A dog.", "Ein Hund, 犬"], 9: ["A cat\u2028on a mat <loc_5>"]}
    assert (read.split, [photo.id for photo in read.photos]) == ("val2017", [4, 9])
    assert read_captions(tmp_path, "val2014").references == {4: [], 9: []}


def test_karpathys_splits(tmp_path: Path) -> None:
    put(tmp_path, "dataset_coco.json", KARPATHY)
    read = read_captions(tmp_path)
    assert read.references == {3: ["A dog number 3"], 7: ["A dog number 7"]}
    assert read.photos[0] == Photo(3, "val2014/COCO_val2014_000000000003.jpg") and read.split == "Karpathy test"
    assert list(read_captions(tmp_path, "val").references) == [5]
    with pytest.raises(Florence2Error, match="expected a split, one of test, val; got 'train'"):
        read_captions(tmp_path, "train")


def test_a_folder_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(
        Florence2Error, match=r"instances_val2017.json or annotations/instances_val2017.json; is a folder"
    ):
        read_instances(tmp_path)
    with pytest.raises(
        Florence2Error, match=r"captions_val2017.json or .* or dataset_coco.json; there is no such file"
    ):
        read_captions(tmp_path / "nowhere")
    with pytest.raises(Florence2Error, match=r"refs\(unc\).p or .*; is a folder without them"):
        read_refcoco(tmp_path)
    with pytest.raises(Florence2Error, match=r"Annotations/\*.xml, Sentences/\*.txt and test.txt"):
        read_flickr30k(tmp_path)


def changed(at: str, value: object) -> str:
    """INSTANCES with another value, as JSON that has NaN and numbers of any size."""
    data = json.loads(json.dumps(INSTANCES))
    place = data
    *way, last = at.split("/")
    for step in way:
        place = place[int(step) if step.isdecimal() else step]
    place[last] = value
    return json.dumps(data).replace('"HUGE"', "1" + "0" * 400)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "expected JSON, got something else or a part of it"),
        ("[" * 100_000, "expected JSON, got something else or a part of it"),
        ("[]", "expected a JSON object, got a list"),
        ("{}", "expected 'images', list; got None"),
        (changed("images", [7]), "images[0]: expected an object, got 7"),
        (changed("images/0/id", "9"), "images[0]: expected 'id', int; got '9'"),
        (changed("images/0/id", True), "images[0]: expected 'id', int; got True"),
        (changed("images/0/id", 4), "expected an image id once, got 4"),
        (changed("images/0/width", 0), "expected a size in pixels above 0"),
        (changed("images/0/width", "HUGE"), "expected a size in pixels above 0"),
        (changed("images/0/file_name", "../../etc/passwd"), "image 9: expected a file's name in the images' folder"),
        (changed("images/0/file_name", "/etc/passwd"), "image 9: expected a file's name in the images' folder"),
        (changed("images/0/file_name", "a\0.jpg"), "image 9: expected a file's name in the images' folder"),
        (changed("annotations/0/image_id", 5), "expected an image_id that is among the images, got 5"),
        (changed("annotations/0/category_id", 2), "expected a category_id that is among the categories, got 2"),
        (changed("annotations/0/bbox", [1, 2, float("nan"), 4]), "annotations[0]: expected 'bbox', 4 finite numbers"),
        (changed("annotations/0/bbox", [1, 2, float("inf"), 4]), "annotations[0]: expected 'bbox', 4 finite numbers"),
        (changed("annotations/0/bbox", [1, 2, "HUGE", 4]), "annotations[0]: expected 'bbox', 4 finite numbers"),
        (changed("annotations/0/bbox", [1, 2, 3]), "annotations[0]: expected 'bbox', 4 finite numbers"),
        (changed("annotations/0/bbox", [1, 2, -3, 4]), "annotations[0]: expected a bbox x, y, width, height"),
        (changed("annotations/0/area", None), "annotations[0]: expected 'area', a finite number"),
        (changed("categories/1/id", 1), "categories[1]: expected ids and names that occur once"),
        (changed("categories/1/name", "person"), "categories[1]: expected ids and names that occur once"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, text: str, says: str) -> None:
    path = put(tmp_path, "instances_val2017.json", text)
    with pytest.raises(Florence2Error) as error:
        read_instances(tmp_path)
    assert says in str(error.value) and str(path) in str(error.value)


# Classes


def test_labels_are_looked_up_by_name() -> None:
    mapped = ClassMap({1: "person", 5: "Bus", 7: "wine glass", 9: "sheep", 11: "bus", 13: "scissors"})
    said = {"person": 1, " Person\n": 1, "people": 1, "PEOPLE": 1, "Bus": 5, "bus": 11, "BUSES": 5}
    said |= {"wine  glasses": 7, "wine glass": 7, "sheep": 9, "scissors": 13}
    assert {label: mapped.key(label) for label in said} == said
    assert mapped.share_unmapped == 0
    assert [mapped.key(label) for label in ("glass", "", "personn", "glass")] == [None] * 4
    assert mapped.share_unmapped == 4 / (len(said) + 4) and mapped.unmapped == {"glass": 2, "": 1, "personn": 1}
    assert ClassMap({}).share_unmapped is None


# RefCOCO

THINGS: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "width": 64, "height": 48},
        {"id": 2, "file_name": "COCO_train2014_000000000002.jpg", "width": 50, "height": 40},
    ],
    "annotations": [
        {"id": 70, "image_id": 7, "bbox": [10, 5, 20, 30], "segmentation": [[10, 5, 30, 5, 30, 35, 10, 35]]},
        {"id": 20, "image_id": 2, "bbox": [0, 0, 1, 1], "segmentation": {"size": [40, 50], "counts": [0, 1, 1999]}},
    ],
}


REFS = [
    ref(7, 70, "val", (12, "the man"), (11, "man on the left")),
    ref(2, 20, "val", (5, "a dot")),
    ref(2, 20, "testA", (6, "dot")),
]


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_refcoco(tmp_path: Path, protocol: int) -> None:
    read = read_refcoco(refcoco(tmp_path, REFS, THINGS, protocol), masks=True)
    assert [photo.id for photo in read.photos] == [2, 7] and read.split == "val"
    assert [(one.id, one.text, one.box) for one in read.expressions[7]] == [
        (11, "man on the left", (10, 5, 30, 35)),
        (12, "the man", (10, 5, 30, 35)),
    ]
    assert coco_mask.area(read.expressions[7][0].mask) == 600 and coco_mask.area(read.expressions[2][0].mask) == 1
    [one] = read_refcoco(tmp_path, "testA").expressions[2]
    assert (one.text, one.mask) == ("dot", None)
    with pytest.raises(Florence2Error, match="expected a split, one of testA, val; got 'testB'"):
        read_refcoco(tmp_path, "testB")


def test_refcoco_as_python_2_wrote_it(tmp_path: Path) -> None:
    """Its texts are bytes, in UTF-8 or not: opcode U, SHORT_BINSTRING."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"M" + struct.pack("<H", value)

    sentence = (
        b"}(" + text(b"sent_id") + number(5) + text(b"sent") + text("caf\u00e9 \udcff".encode(errors="surrogateescape"))
    )
    sentence += b"u"
    fields = text(b"split") + text(b"val") + text(b"image_id") + number(7) + text(b"ann_id") + number(70)
    refs = b"\x80\x02](}(" + fields + text(b"sentences") + b"]" + sentence + b"a" + b"ue."
    [one] = read_refcoco(refcoco(tmp_path, refs, THINGS)).expressions[7]
    assert one.text == "café \ufffd"


class Calls:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize(
    "refs",
    [
        b"cos\nsystem\n(S'touch owned'\ntR.",
        b"(S'touch owned'\nios\nsystem\n.",
        b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        b"\x82\x01.",  # a registered class
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch owned\x85R.",
        b"Pos.system\n.",  # a persistent id
        b"",
        b"no pickle",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 2 ** 63
        b"\x80\x04]r\xff\xff\xff\xff.",  # the last place of a memo
        b"I" + b"9" * 5000 + b"\n.",
        pickle.dumps({1, 2}),
        pickle.dumps(None),
        pickle.dumps([7]),
        pickle.dumps([{"split": b"val"}]),
        pickle.dumps([{"split": "val", "image_id": 7, "ann_id": 20, "sentences": []}]),  # another image's
        pickle.dumps([{"split": "val", "image_id": 7, "ann_id": 70, "sentences": ["the man"]}]),
        pickle.dumps([{"split": "val", "image_id": 7, "ann_id": [], "sentences": []}]),
    ],
)
def test_a_pickle_builds_nothing(tmp_path: Path, refs: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Florence2Error, match=r"refs\(unc\)\.p"):
        read_refcoco(refcoco(tmp_path / "data", refs, THINGS))
    assert not (tmp_path / "owned").exists()


def test_a_pickle_that_calls_is_never_called(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(Florence2Error, match=r"it wants (posix|nt)\.system, and builds nothing but containers"):
        read_refcoco(refcoco(tmp_path / "data", pickle.dumps([Calls(mark)]), THINGS))
    assert not mark.exists()


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[1, 2, 3]],
        [[0, 0, float("nan"), 0, 1, 1]],
        {"size": [48, 64], "counts": [1, 2]},
        {"size": [48, 64], "counts": "0"},
        {"size": [64, 48], "counts": [0, 1, 3071]},
    ],
)
def test_masks_that_are_none(tmp_path: Path, segmentation: object) -> None:
    things = json.loads(json.dumps(THINGS))
    things["annotations"][0]["segmentation"] = segmentation
    folder = refcoco(tmp_path, REFS, things)
    assert read_refcoco(folder).expressions  # nobody asks for masks
    with pytest.raises(Florence2Error, match=r"annotations\[0\]: expected (a segmentation|polygons|run|COCO's)"):
        read_refcoco(folder, masks=True)


# Flickr30k Entities

BOX = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
XML = (
    "<annotation><filename>36979.jpg</filename><size><width>64</width><height>48</height><depth>3</depth></size>"
    + BOX.format(1, 2, 3, 20, 30)
    + BOX.format("1</name><name>2", 5, 6, 7, 8)
    + "<object><name>3</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"
)
LINES = (
    "[/EN#1/people Two  young guys] with [/EN#2/bodyparts/other shaggy hair] look at [/EN#3/scene a yard] .\n"
    "\nNobody .\n"
)


def flickr30k(folder: Path, xml: str | bytes = XML, lines: str = LINES) -> Path:
    put(folder, "Sentences/36979.txt", lines)
    put(folder, "Annotations/36979.xml", "").write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    put(folder, "test.txt", "36979\n")
    return folder


def test_flickr30k(tmp_path: Path) -> None:
    read = read_flickr30k(flickr30k(tmp_path))
    assert read.photos == [Photo("36979", "36979.jpg", (64, 48))]
    first, second = read.sentences["36979"]
    assert first.text == "Two young guys with shaggy hair look at a yard ." and second.text == "Nobody ."
    assert [(phrase.text, phrase.kinds, phrase.boxes) for phrase in first.phrases] == [
        ("Two young guys", ("people",), ((2, 3, 20, 30), (5, 6, 7, 8))),
        ("shaggy hair", ("bodyparts", "other"), ((5, 6, 7, 8),)),
        ("a yard", ("scene",), ()),
    ]
    assert second.phrases == ()
    with pytest.raises(Florence2Error, match=r"val\.txt; is a folder"):
        read_flickr30k(tmp_path, "val")


LAUGHS = '<!DOCTYPE a [<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        (LAUGHS + "]><annotation>&a11;</annotation>", "a document type"),
        ((LAUGHS + "]><annotation>&a11;</annotation>").encode("utf-16"), "a document type"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>', "a document type"),
        ('<!DOCTYPE a SYSTEM "http://example.com/a.dtd"><annotation/>', "a document type"),
        ("<annotation>", "expected XML"),
        ("", "expected XML"),
        ("<annotation/>", "no size/width"),
        (XML.replace("<xmin>2<", "<xmin>two<"), "expected size and boxes in whole pixels"),
        (XML.replace("<xmin>2<", "<xmin>nan<"), "expected size and boxes in whole pixels"),
        (XML.replace("<xmin>2<", "<xmin>99<"), "a box 99, 3, 20, 30"),
        (XML.replace("<width>64<", "<width>0<"), "expected a size in pixels above 0"),
        (XML.replace("<width>64<", f"<width>{'9' * 5000}<"), "expected size and boxes in whole pixels"),
    ],
)
def test_xml_that_is_none_of_flickr30ks(tmp_path: Path, xml: str | bytes, says: str) -> None:
    with pytest.raises(Florence2Error) as error:
        read_flickr30k(flickr30k(tmp_path, xml))
    assert says in str(error.value)


def test_lists_of_other_files(tmp_path: Path) -> None:
    folder = flickr30k(tmp_path)
    put(folder, "test.txt", "36979\n../../etc/passwd")
    with pytest.raises(Florence2Error, match=r"expected image ids, got '\.\./\.\./etc/passwd'"):
        read_flickr30k(folder)
    put(folder, "test.txt", "36979 1")
    with pytest.raises(Florence2Error, match=r"expected the boxes of image 1: Annotations/1\.xml"):
        read_flickr30k(folder)
    with pytest.raises(Florence2Error, match="expected Flickr30k Entities' folder"):
        read_flickr30k(folder, "../test")
