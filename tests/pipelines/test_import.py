"""A labelled set becomes a dataset of the engine's own, with all that came along, and serves as one."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import ENGINE, Call, run
from judged import Judged, coco, pictures, regions

from engine.config import Config, Gate, Ingest
from engine.dataset import open_dataset
from engine.errors import ConfigError, OutputError
from engine.labels import read_labels
from pipelines.importing import paths_of

DOG, CAT = (10.0, 10.0, 40.0, 40.0), (50.0, 20.0, 90.0, 70.0)
SAID: list[dict[str, Any]] = [
    {"image": "0.png", "label": "dog", "bbox": DOG, "segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]]},
    {"image": "0.png", "caption": "a dog on grass"},
    {"image": "1.png", "label": "cat", "bbox": CAT, "iscrowd": 1},
    {"image": "1.png", "bbox": DOG, "utf8_string": "STOP"},
    {"image": "2.png", "label": "dog", "bbox": (300, 300, 310, 310)},
]
NAMES = ["0.png", "1.png", "2.png"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(coco(pictures(tmp_path_factory.mktemp("labelled") / "images", 3), NAMES, SAID))


@dataclass(frozen=True)
class Imported:
    """The output folder of one import that all look at, and what it said."""

    out: Path
    said: str


@pytest.fixture(scope="module")
def imported(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    out = tmp_path_factory.mktemp("imported") / "out"
    process = run(ENGINE, "import", str(labelled), "--out", str(out))
    assert process.returncode == 0, process.stdout
    return Imported(out, process.stdout)


def test_what_came_along_is_there_and_said(call: Call, labelled: Path, imported: Imported) -> None:
    out, said = imported.out, " ".join(imported.said.split())
    for words in ("human regions 3", "human texts 1", "human masks 1", "1 faults in what came along (box_outside 1)"):
        assert words in said, said
    assert "annotation" in said
    assert "box_outside: " in said
    dataset = open_dataset(out)
    records = {Path(record.item.uri).name: record for record in dataset.records()}
    assert [(r.kind, r.raw_label, r.box, r.source) for r in records["0.png"].standing.regions] == [
        ("object", "dog", DOG, "human")
    ]
    assert records["1.png"].regions[0].crowd
    assert records["1.png"].regions[1].text == "STOP"
    assert all(record.perceptual_hash for record in records.values()), "for near-duplicates and evaluation sets"
    code, again = call("import", str(labelled), "--out", str(out))
    assert code == 0, again
    code, said = call("stats", str(out))
    assert code == 0, said


def test_another_source_signs(call: Call, labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = call("import", str(labelled), "--out", str(out), "--source", "yolo_nine", "--format", "coco")
    assert code == 0, said
    assert {region.source for _, region in open_dataset(out).regions()} == {"yolo_nine"}
    code, said = call("import", str(labelled), "--out", str(tmp_path / "o"), "--source", "Bad Name")
    assert code == 2
    assert "ingest.source" in said


def test_a_folder_that_holds_another_set_is_refused(
    call: Call, labelled: Path, imported: Imported, tmp_path: Path
) -> None:
    out, text, status = imported.out, labelled.read_text(), labelled.stat()
    other = Path(coco(pictures(tmp_path / "more" / "images", 2), NAMES[:2], []))
    for arguments in ((str(other),), (str(labelled), "--source", "model"), (str(labelled), str(other))):
        code, said = call("import", *arguments, "--out", str(out))
        assert code == 2
        assert "holds another set" in said
        assert str(labelled) in said
    before = (out / "images" / "manifest.json").read_bytes()
    coco(labelled.parent, NAMES, SAID[:1])
    code, said = call("import", str(labelled), "--out", str(out))
    assert code == 2
    assert "as it was before: files have changed since" in said
    assert (out / "images" / "manifest.json").read_bytes() == before
    labelled.write_text(text)
    os.utime(labelled, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert call("import", str(labelled), "--out", str(out))[0] == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not yours")
    code, said = call("import", str(labelled), "--out", str(tmp_path / "mine"))
    assert code == 2
    assert "no run's output" in said


# Images that lists name outside of their folder


def listed(folder: Path, images: list[str]) -> str:
    """A COCO file that says a word of each image."""
    return coco(folder, images, [{"image": image, "caption": "a picture"} for image in images])


def suggested(said: str) -> list[str]:
    """The arguments of the command that is said to read them."""
    return shlex.split(said.partition("If you trust it: engine ")[2].splitlines()[0])


def read_in(out: str) -> list[str]:
    return sorted(Path(record.item.uri).name for record in open_dataset(out).records() if not record.item.error)


def test_a_set_of_absolute_names_is_read_by_the_command_that_is_said(call: Call, tmp_path: Path) -> None:
    """As an export that refers to images has them. Nothing of it could be read: the same folder takes it."""
    photos, out = pictures(tmp_path / "my photos" / "of dogs", 2), str(tmp_path / "out")
    path = listed(tmp_path / "lists", [f"{photos}/0.png", f"{photos}/1.png"])
    code, said = call("import", path, "--out", out, "--source", "them", "--format", "coco")
    assert code == 1, said
    assert "2 images lie outside of their list's folder" in said
    assert suggested(said) == [
        *("import", path, "--out", out, "--source", "them", "--format", "coco", "--image-root", str(photos))
    ]
    code, said = call(*suggested(said))
    assert code == 0, said
    assert read_in(out) == ["0.png", "1.png"]
    assert "outside" not in said


def test_a_set_of_which_some_was_read_stays_as_it_is(call: Call, tmp_path: Path) -> None:
    photos, out = pictures(tmp_path / "set" / "photos", 1), str(tmp_path / "out")
    more = pictures(tmp_path / "more", 2)
    path = listed(tmp_path / "set", [f"{photos}/0.png", f"{more}/1.png"])
    code, said = call("import", path, "--out", out)
    assert code == 1, said
    assert suggested(said) == ["import", path, "--out", f"{out}-anew", "--image-root", str(tmp_path)]
    assert call(*suggested(said))[0] == 0
    assert (read_in(out), read_in(f"{out}-anew")) == (["0.png"], ["0.png", "1.png"])
    code, said = call("import", path, "--out", out, "--image-root", str(tmp_path))
    assert code == 2
    assert f"holds another set ({path}, with images in the folders of its lists)" in said
    assert read_in(out) == ["0.png"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["/nowhere/photos/0.png", "/nowhere/1.png"], "There is no /nowhere on this machine: bring them into one"),
        (["{0}/photos/0.png", "/nowhere/1.png"], "There is no folder of all of them but /: bring them into one"),
        (
            ["../photos/0.png"],
            "1 images have names that are none of a file below the folder of their set, such as ../a.jpg",
        ),
    ],
)
def test_what_no_option_would_read_is_said(call: Call, tmp_path: Path, names: list[str], words: str) -> None:
    pictures(tmp_path / "photos", 1)
    path = listed(tmp_path / "lists", [name.format(tmp_path) for name in names])
    code, said = call("import", path, "--out", str(tmp_path / "out"))
    assert code == 1, said
    assert words in said
    assert "If you trust it" not in said
    assert (" on this machine" in said or " but /" in said) == (not names[0].startswith(".."))


def test_images_that_are_not_found_are_looked_for_elsewhere(call: Call, tmp_path: Path) -> None:
    """In the same folder, in which nothing is."""
    photos, out = pictures(tmp_path / "far" / "away", 2), str(tmp_path / "out")
    path = listed(tmp_path / "lists", ["0.png", "1.png"])
    code, said = call("import", path, "--out", out)
    assert code == 1, said
    code, said = call("import", path, "--out", out, "--source", "them", "--image-root", str(photos))
    assert code == 2, said
    code, said = call("import", path, "--out", out, "--image-root", str(photos))
    assert code == 0, said
    assert read_in(out) == ["0.png", "1.png"]


def test_a_format_that_is_not_that_is_refused(call: Call, labelled: Path, tmp_path: Path) -> None:
    for format_, words in (("webdataset", "it looks like coco"), ("bmp", "no such format; there are auto, coco")):
        code, said = call("import", str(labelled), "--out", str(tmp_path / "out"), "--format", format_)
        assert code == 2
        assert words in said
    code, said = call("import", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "no such file or folder" in said
    assert not (tmp_path / "out").exists()


def test_what_is_listed_of_a_path_goes_by_its_format(labelled: Path, tmp_path: Path) -> None:
    """The folder of a COCO file or of archives will do; an export of the engine's is one thing."""
    for name in ("a.tar", "b.tar", "set.parquet", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "data.yaml").write_text("names: [dog]\ntrain: images\n")
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "export.json").write_text(json.dumps({"format": "webdataset"}))
    (exported / "x.tar").touch()
    assert paths_of([str(labelled.parent)], "coco") == (str(labelled),)
    assert paths_of([str(tmp_path)], "webdataset") == (
        str(tmp_path / "a.tar"),
        str(tmp_path / "b.tar"),
        str(exported / "x.tar"),
    )
    assert paths_of([str(exported)], "webdataset") == (str(exported),)
    assert paths_of([str(tmp_path)], "parquet") == (str(tmp_path / "set.parquet"),)
    assert paths_of([str(tmp_path)], "yolo") == (str(tmp_path),)
    assert paths_of([str(tmp_path)]) == (str(tmp_path),)
    for format_ in ("hf", "florence", "llava"):
        with pytest.raises(
            ConfigError, match=rf"not recognised as {format_}; it looks like yolo or webdataset or parquet"
        ):
            paths_of([str(tmp_path)], format_)


def test_an_import_is_truth_and_labels(call: Call, labelled: Path, imported: Imported, tmp_path: Path) -> None:
    """The engine's own folder says what its file said."""
    out = imported.out
    images = Path(shutil.copytree(labelled.parent, tmp_path / "copies"))
    made = Judged.of(images, tmp_path / "out").round({0: regions("model", ("dog", DOG, 0.5))})
    rows = []
    for truth in (out, labelled):
        code, said = call("evaluate", str(made.output.root), "--truth", str(truth), "--json")
        assert code == 0, said
        rows.append(json.loads(said)["rows"])
    assert rows[0] == rows[1]
    assert rows[0][0]["numbers"]["AP"] == 1
    told = []
    for path in (out, labelled):
        config = Config(ingest=Ingest(images=(str(images),), shard_size=2), gate=Gate(labels=(str(path),)))
        told.append(read_labels(made.output, config))
    assert told[0].ids == told[1].ids != frozenset()
    assert told[0].digest == told[1].digest
    label = next(region for record in told[0].records.values() for region in record.regions)
    assert label.label in ("dog", "cat"), "in the words of the set's vocabulary"


def test_labels_of_a_round_that_is_not_whole_are_refused(labelled: Path, tmp_path: Path) -> None:
    made = Judged.of(labelled.parent, tmp_path / "out").round({})
    begun = Judged.of(labelled.parent, tmp_path / "begun")
    config = Config(ingest=Ingest(images=(str(labelled.parent),)), gate=Gate(labels=(str(begun.output.root),)))
    with pytest.raises(OutputError, match="round 0 is not whole"):
        read_labels(made.output, config)


def test_labels_of_a_folder_are_what_stands_in_it(labelled: Path, tmp_path: Path) -> None:
    made = Judged.of(labelled.parent, tmp_path / "out").round({})
    strict = Judged.of(labelled.parent, tmp_path / "strict").round(
        {0: regions("people", ("dog", DOG), ("Cat", CAT))},
        lambda record: record.decide(record.reject(r, "test", "x") for r in record.regions if r.label == "dog"),
    )
    config = Config(ingest=Ingest(images=(str(labelled.parent),)), gate=Gate(labels=(str(strict.output.root),)))
    labels = read_labels(made.output, config)
    assert [r.label for record in labels.records.values() for r in record.regions] == ["cat"]
    assert all(not record.decisions for record in labels.records.values())
    assert len(labels.ids) == 3
