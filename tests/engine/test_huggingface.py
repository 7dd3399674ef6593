"""Hugging Face datasets, as folders and as Parquet: written by hand, and by the library itself where it is there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from refusals import refused

from engine.config import Ingest
from engine.entry import Entry, Faults, GivenRegion, GivenText
from engine.errors import ConfigError
from engine.ingest import ingest
from engine.layout import Output
from engine.listing import Listing
from engine.reading import read
from engine.sources import huggingface
from engine.sources.features import columns_of
from engine.storage import read_given

MAX = 1_000_000
STRING = {"dtype": "string", "_type": "Value"}
LABEL = {"names": ["cat", "dog"], "_type": "ClassLabel"}
BOX = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "Sequence"}
FEATURES = {
    "label": LABEL,
    "photo": {"_type": "Image"},
    "captions": {"feature": STRING, "_type": "List"},
    "text": STRING,
    "objects": {"feature": {"bbox": BOX, "category": LABEL}, "_type": "Sequence"},
    "number": {"dtype": "int64", "_type": "Value"},
}
ROWS = {
    "number": [0, 1, 2],
    "photo": [{"bytes": b"zero", "path": "0.jpg"}, {"bytes": None, "path": "1.jpg"}, None],
    "label": [1, -1, None],
    "captions": [["A dog.", "It runs."], [], None],
    "text": ["brown", None, "nothing"],
    "objects": [
        {"bbox": [[1, 2, 10, 20], [0, 0, 5, 5]], "category": [1, 0]},
        {"bbox": [], "category": []},
        None,
    ],
}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a dataset's folder as `save_to_disk` does, by hand, in batches of two rows."""

    def make(name: str = "set", features: Any = FEATURES, state: Any = None, info: Any = None, **columns: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        table = pa.table(columns or ROWS)
        file = os.fsencode(folder / "data-00000-of-00001.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
        (folder / "dataset_info.json").write_text(json.dumps({"features": features, **(info or {})}))
        files = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (folder / "state.json").write_text(json.dumps({**files, **(state or {})}))
        return folder

    return make


def listed(path: Path) -> list[Entry]:
    return list(Listing([path]))


def test_a_dataset_with_all_that_comes_along(write: Write) -> None:
    folder = write(info={"dataset_name": "pets", "license": "CC0"})
    file = folder / "data-00000-of-00001.arrow"
    first, second, third = listed(folder)
    assert [entry.uri for entry in (first, second, third)] == [f"{file}#0", f"{folder}/1.jpg", f"{file}#2"]
    assert [entry.labels for entry in (first, second, third)] == [("dog",), (), ()]
    assert {(entry.dataset, entry.licence) for entry in (first, second, third)} == {("pets", "CC0")}
    where = f"row 0 of {file.name}"
    assert first.given() == [
        GivenText("A dog.", where=where),
        GivenText("It runs.", where=where),
        GivenText("brown", where=where),
        GivenRegion("dog", (1, 2, 11, 22), where=where),
        GivenRegion("cat", (0, 0, 5, 5), where=where),
    ]
    assert second.given() == []
    assert third.given() == [GivenText("nothing", where=f"row 2 of {file.name}")]
    assert read(first.uri, max_bytes=4) == b"zero"
    with refused("missing", "row 2 of", "neither bytes nor a path"):
        read(third.uri, max_bytes=MAX)
    with refused("too_large", "4 bytes"):
        read(first.uri, max_bytes=3)
    with refused("missing", "no row 3", "3 rows"):
        read(f"{file}#3", max_bytes=MAX)


def test_splits_come_one_after_the_other(write: Write, tmp_path: Path) -> None:
    write("pets/train")
    write("pets/test")
    (tmp_path / "pets/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    entries = listed(tmp_path / "pets")
    assert [Path(entry.uri).parent.name for entry in entries] == ["train"] * 3 + ["test"] * 3
    assert {entry.dataset for entry in entries} == {"pets"}


def test_objects_may_be_a_list_and_words_may_be_words(write: Write) -> None:
    features = {
        "image": {"_type": "Image"},
        "labels": {"feature": STRING, "_type": "LargeList"},
        "objects": [{"bbox": BOX, "label": STRING}],
    }
    objects = [[{"bbox": [1.0, 1.0, 2.0, 2.0], "label": "cup"}, {"bbox": [1.0, 1.0], "label": "tea"}]]
    folder = write(features=features, image=[{"bytes": b"0", "path": None}], labels=[["cup", "tea"]], objects=objects)
    (entry,) = listed(folder)
    assert entry.labels == ("cup", "tea")
    assert [(one.label, one.box) for one in entry.given() if isinstance(one, GivenRegion)] == [
        ("cup", (1, 1, 3, 3)),
        (None, (1, 1)),  # told with its image
    ]


def test_classes_without_a_name_and_lists_that_differ_are_told(write: Write) -> None:
    images = [{"bytes": b"%d" % n, "path": None} for n in range(4)]
    objects = [
        {"bbox": [[0, 0, 5, 5]] * 3, "category": [1, 2, -1]},
        {"bbox": [[0, 0, 5, 5]] * 2, "category": [1]},
        {"bbox": [[0, 0, 5, 5]], "category": [1, 0]},
        {"bbox": [], "category": []},
    ]
    features = {name: FEATURES[name] for name in ("photo", "label", "objects")}
    folder = write(features=features, photo=images, label=[0, 2, -1, -7], objects=objects)
    faults = Faults()
    entries = list(huggingface.entries(str(folder), faults))
    assert [entry.labels for entry in entries] == [("cat",), (), (), ()]
    assert [(fault.where[:5], fault.kind) for fault in faults.first] == [
        ("row 1", "unknown_category"),
        ("row 3", "unknown_category"),
    ]
    for _ in range(2):
        regions = [[one for one in entry.given() if isinstance(one, GivenRegion)] for entry in entries]
        assert [[(one.label, len(one.box)) for one in some] for some in regions] == [
            [("dog", 4), (None, 4), (None, 4)],
            [("dog", 4), (None, 4)],
            [("dog", 4), (None, 0)],  # the second one is told with its image
            [],
        ]
    assert [(fault.where[:5], fault.kind) for fault in faults.first[2:]] == [
        ("row 0", "unknown_category"),
        ("row 1", "bad_objects"),
        ("row 2", "bad_objects"),
    ]
    assert "class 2 isn't among the 2" in faults.first[2].message
    assert "{'bbox': 2, 'category': 1}" in faults.first[3].message


def test_odd_features_hold_nothing() -> None:
    for features in ({}, {"image": None}, {"label": {}}, {"objects": [{}]}, {"caption": [STRING, STRING]}, {"text": 3}):
        columns = columns_of(features)
        assert columns.image is None and columns.labels is None and not columns.given


def test_rows_in_any_order_from_many_threads(write: Write, tmp_path: Path) -> None:
    images = [{"bytes": b"%d" % n, "path": None} for n in range(500)]
    folder = write(os.fsdecode(b"caf\xe9"), features={"image": {"_type": "Image"}}, image=images)
    uris = [entry.uri for entry in listed(folder)]
    assert all(uri.isascii() and uri.startswith("file:///") for uri in uris)
    with ThreadPoolExecutor(8) as pool:
        order = [n * 77 % 500 for n in range(500)]
        assert list(pool.map(lambda n: read(uris[n], max_bytes=3), order)) == [b"%d" % n for n in order]


def test_a_dataset_that_was_written_again_is_read_again(write: Write, tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}}
    old = write("old", features=features, image=[{"bytes": b"old", "path": None}])
    new = write("new", features=features, image=[{"bytes": b"new", "path": None}])
    (entry,) = listed(old)
    os.utime(old / "data-00000-of-00001.arrow", ns=(1, 1))
    assert read(entry.uri, max_bytes=3) == b"old"
    (new / "data-00000-of-00001.arrow").replace(old / "data-00000-of-00001.arrow")
    assert read(entry.uri, max_bytes=3) == b"new"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"state": {"_indices_files": [{"filename": "indices.arrow"}]}},
            r"set is a selection of rows.*flatten_indices",
        ),
        ({"state": {"_data_files": 3}}, r"expected a list `_data_files` in state\.json"),
        ({"state": {"_data_files": [{"filename": "../set/data-00000-of-00001.arrow"}]}}, "file or folder in it, not"),
        ({"state": {"_data_files": [3]}}, "file or folder in it, not None"),
        ({"state": {"_data_files": [{"filename": "gone.arrow"}]}}, r"no such file: .*gone\.arrow"),
        ({"features": {"text": STRING}}, "expected a feature of type Image in dataset_info.json; found text"),
        ({"features": None}, "found no features"),
        ({"features": [3]}, "found no features"),
        ({"features": {"picture": {"_type": "Image"}}}, r"it has no column picture, which dataset_info\.json names"),
        ({"features": {"number": {"_type": "Image"}}}, "`number` must be a struct of bytes and path, not int64"),
    ],
)
def test_datasets_that_can_not_be_listed(write: Write, changes: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        listed(write(**changes))


def test_files_that_are_damaged(write: Write) -> None:
    folder = write(features={"photo": {"_type": "Image"}})
    file = folder / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    for data in (b"", b"no Arrow at all", whole[:100], whole[: len(whole) // 2], b"\xff" * len(whole)):
        file.write_bytes(data)
        with pytest.raises(ConfigError, match=r"arrow can't be read as a Hugging Face dataset"):
            listed(folder)
        with refused("unreadable", "arrow can't be read"):
            read(f"{file}#0", max_bytes=MAX)
    offsets = b"\0\0\0\0\4\0\0\0\4\0\0\0"  # where the images of the first batch begin and end
    assert offsets in whole
    file.write_bytes(whole.replace(offsets, b"\0\0\0\0\xff\xff\xff\x7f\4\0\0\0"))
    with refused("unreadable", "arrow can't be read"):
        read(f"{file}#0", max_bytes=MAX)
    for name in ("dataset_info.json", "state.json"):
        text = (folder / name).read_text()
        for broken in ("", "[]", "[" * 100_000, text[:-1]):
            (folder / name).write_text(broken)
            with pytest.raises(ConfigError, match=f"{name} can't be read"):
                listed(folder)
        (folder / name).write_text(text)


# Parquet, as on the Hub


@pytest.fixture
def parquet(tmp_path: Path) -> Write:
    def make(features: Any = FEATURES, **columns: Any) -> Path:
        table = pa.table(columns or ROWS)
        metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else {}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "hub.parquet", row_group_size=2)
        return tmp_path / "hub.parquet"

    return make


def test_parquet_gives_what_the_folder_gives(write: Write, parquet: Write) -> None:
    by_folder, by_file = listed(write()), listed(parquet())
    assert [entry.labels for entry in by_file] == [entry.labels for entry in by_folder]
    for a, b in zip(by_file, by_folder, strict=True):
        assert [str(one).partition("where=")[0] for one in a.given()] == [
            str(one).partition("where=")[0] for one in b.given()
        ]
    assert by_file[0].given()[0].where == "row 0 of hub.parquet"
    assert read(by_file[0].uri, max_bytes=4) == b"zero"
    assert Path(by_file[1].uri).name == "1.jpg"


def test_captions_of_plain_manifests(parquet: Write) -> None:
    path = parquet(None, uri=["a.jpg", "b.jpg", "c.jpg"], caption=["A.", None, "C."], captions=[["B."], None, []])
    assert [[one.text for one in entry.given() if isinstance(one, GivenText)] for entry in listed(path)] == [
        ["A.", "B."],
        [],
        ["C."],
    ]
    with pytest.raises(ConfigError, match="column `caption` must be string or list of strings, not int64"):
        listed(parquet(None, uri=["a.jpg"], caption=[3]))


OUTSIDE = ("../secret/s.png", "a/../../secret/s.png", "../secret/t.tar#s.png", "..", "a\0b")


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_relative_path_leads_to_no_other_folder(
    write: Write, parquet: Write, tmp_path: Path, name: str, kind: str
) -> None:
    names = [name, "in/1.png", "in/x/../2.png", f"{tmp_path}/secret/3.png"]
    images = [{"bytes": None, "path": one} for one in names]
    path = (write if kind == "folder" else parquet)(features={"image": {"_type": "Image"}}, image=images)
    folder = path if kind == "folder" else path.parent
    first, *others = listed(path)
    assert [entry.uri for entry in others] == [f"{folder}/in/1.png", f"{folder}/in/2.png", f"{tmp_path}/secret/3.png"]
    assert not any(entry.error for entry in others)
    assert first.error and (first.error.stage, first.error.kind) == ("ingest", "outside_root")
    assert first.uri.endswith(("arrow#0", "parquet#0"))


def test_metadata_that_says_nothing_is_passed_by(tmp_path: Path) -> None:
    for text in (b"", b"{}", b"[]", b"\xff", b'{"info": null}', b'{"info": {"features": [1]}}', b"[" * 100_000):
        table = pa.table({"uri": ["a.jpg"], "labels": ["cat"], "caption": ["A cat."]})
        pq.write_table(table.replace_schema_metadata({"huggingface": text}), tmp_path / "m.parquet")
        (entry,) = listed(tmp_path / "m.parquet")
        assert entry.labels == ("cat",) and len(entry.given()) == 1


# The library itself


def picture(colour: str) -> dict[str, Any]:
    file = BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": f"{colour}.png"}


def test_what_the_library_saves_is_ingested(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "caption": datasets.Value("string"),
            "objects": {
                "bbox": datasets.List(datasets.List(datasets.Value("float32"), length=4)),
                "category": datasets.List(datasets.ClassLabel(names=["cat", "dog"])),
            },
        }
    )
    rows = {
        "image": [picture("red"), picture("blue"), picture("green")],
        "label": [0, 1, 0],
        "caption": ["Red.", "Blue.", "Green."],
        "objects": [{"bbox": [[1, 2, 10, 20]], "category": [n % 2]} for n in range(3)],
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(train=whole, test=whole.select([2, 0])).save_to_disk(
        tmp_path / "set", num_shards={"train": 2, "test": 1}
    )
    whole.to_parquet(tmp_path / "set.parquet")
    for path, items in ((tmp_path / "set", 5), (tmp_path / "set.parquet", 3)):
        output = Output(tmp_path / f"out of {path.name}")
        manifest = ingest(output, Ingest(images=(str(path),)), "digest", lambda items: None)
        records = [record for shard in output.shards() for record in read_given(output, shard)]
        assert manifest["items"] == items and not manifest["errors"] and not manifest["faults"]
        assert manifest["given"] == {"human regions": items, "human texts": items}
        assert [record.texts[0].text for record in records] == ["Red.", "Blue.", "Green.", "Green.", "Red."][:items]
        assert [record.item.labels for record in records[:3]] == [("cat",), ("dog",), ("cat",)]
        assert [record.regions[0].raw_label for record in records[:3]] == ["cat", "dog", "cat"]
        assert {record.regions[0].box for record in records} == {(1, 2, 11, 22)}
