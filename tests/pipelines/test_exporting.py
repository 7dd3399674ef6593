"""The command `engine export`, and label maps."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Call
from datasets_made import write_dataset
from PIL import Image
from rich.console import Console

from engine.atomic import read_json, write_json, write_text
from engine.config import Config
from engine.dataset import open_dataset
from engine.errors import ConfigError
from engine.export.split import splits_of
from engine.records import Record, Region, Scores
from engine.storage import read_items
from pipelines.exporting import export_round, label_map
from specialists.detector import CLASSES


def test_cocos_label_map_has_its_80_classes_and_the_vocabularys_words() -> None:
    coco = label_map("coco")
    assert tuple(coco.classes) == CLASSES
    assert [coco.canonical(name) for name in CLASSES] == list(CLASSES)
    document = yaml.safe_load((Path(__file__).parents[2] / "pipelines/vocabularies/coco.yaml").read_text())
    for name, entry in document["vocabulary"]["classes"].items():
        assert list(coco.classes[name].synonyms) == entry.get("synonyms", [])


def test_label_maps_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label maps that come along are coco"):
        label_map("nowhere")
    for text, words in (
        ("- a", "--label-map .*must be a mapping"),
        ("", "--label-map .*must be a mapping"),
        ("ignore: []", "has no classes"),
        ("classes: {dog: {}, Dog: {}}", r"map\.yaml: Value error, 'Dog' belongs"),
        ("classes: 3", "classes"),
    ):
        (tmp_path / "map.yaml").write_text(text)
        with pytest.raises(ConfigError, match=words):
            label_map(str(tmp_path / "map.yaml"))


def test_the_command(undisturbed: Path, call: Call, tmp_path: Path) -> None:
    code, said = call("export", str(undisturbed), "--to", str(tmp_path / "to"), "--split", "train=0.5,val=0.5")
    assert code == 0 and "exact duplicates 1, quarantined 1" in said.replace("images left out: ", "")
    assert {path.name for path in (tmp_path / "to" / "images").iterdir()} == {"train", "val"}
    for arguments, words in (
        (["--format", "tfrecord"], "no format is called 'tfrecord'"),
        (["--kinds", "boxes"], "--kinds boxes: not among"),
        (["--kinds", "masks"], "add objects or lines or proposals"),
        (["--sources", "nobody"], "--sources nobody"),
        (["--min-score", "nobody=0.5"], "--min-score nobody"),
        (["--min-score", "nan"], "finite"),
        (["--min-score", "much"], "expected numbers"),
        (["--split", "a=0.5,a=0.5"], "each name stands once"),
        (["--images", "copy"], "parquet can have its images refer"),
        (["--label-map", "nothing"], "no such file"),
        (["--round", "7"], "has no round 7"),
        (["--split", "train=1.0"], "holds another export"),
    ):
        code, said = call("export", str(undisturbed), "--to", str(tmp_path / "to"), *arguments)
        assert code == 2 and words in said, (arguments, said)


def test_the_configuration_is_obeyed_but_for_what_an_option_says(tmp_path: Path, call: Call) -> None:
    names = [f"{n}.png" for n in range(4)]
    for n, name in enumerate(names):
        Image.new("L", (40 + n, 40), 10 * n).save(tmp_path / name)

    def found(record: Record) -> Record:
        return record.append(
            Region(id=f"0.a.{n}", source=source, kind="object", box=(1, 1, 9, 9), label=label, scores=Scores(label=0.5))
            for n, (source, label) in enumerate([("detector", "dog"), ("other", "dog"), ("detector", "cow")])
        )

    output = write_dataset(tmp_path, tmp_path / "out", found)
    made_by = read_json(output.round(0).sources)
    made_by["sources"]["other"] = made_by["sources"]["detector"]
    write_json(output.round(0).sources, made_by)
    (tmp_path / "dogs.yaml").write_text("classes: {hound: {synonyms: [dog]}}")
    section = {"format": "coco", "to": "../here", "label_map": "../dogs.yaml", "images": "copy", "missing": "skip"}
    section |= {"kinds": ["objects"], "sources": ["detector"], "split": {"all": 1.0}, "min_score": {"*": 0.4}}
    write_text(output.config, yaml.safe_dump({"export": section}))

    def exported(to: str, *arguments: str) -> dict[str, Any]:
        code, said = call("export", str(output.root), *arguments)
        assert code == 0, said
        return read_json(tmp_path / to / "export.json")

    told = exported("here")
    assert told["format"] == "coco" and told["splits"] == {"all": {"images": 4, "regions": 4}}
    assert told["options"]["images"] == "copy" and told["options"]["sources"] == ["detector"]
    assert told["left_out"]["annotations"] == {"other_source": 4, "unmapped": 4}
    assert [one["name"] for one in read_json(tmp_path / "here/instances_all.json")["categories"]] == ["hound"]
    assert exported("here") == told == exported("here", "--format", "coco"), "what is there already"
    other = exported("there", "--to", str(tmp_path / "there"), "--sources", "other", "--min-score", "0.6")
    assert other["splits"] == {"all": {"images": 4}}
    yolo = exported("out/export/yolo", "--set", "export.format=yolo")
    assert yolo["options"]["images"] == "link" and yolo["splits"] == told["splits"], "but what is coco's alone"
    code, said = call("export", str(output.root), "--images", "foo")
    assert code == 2 and "config.yaml with the options: " in said and "export.images" in said
    bare = ("--format", "parquet", "--set", "export.label_map=null", "--set", "export.sources=[]")
    assert exported("out/export/parquet", *bare)["splits"] == {"all": {"images": 4, "regions": 12}}


def test_where_no_image_is_to_leave_nothing_is_written(tmp_path: Path, call: Call) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n once a photo")
    output = write_dataset(tmp_path / "broken.png", tmp_path / "out", lambda record: record)
    code, said = call("export", str(output.root), "--format", "yolo", "--to", str(tmp_path / "to"))
    assert code == 2 and "no image of" in said and "quarantined 1" in said
    assert not (tmp_path / "to").exists()


def test_images_that_look_alike_stay_together_though_nobody_grouped_them(tmp_path: Path) -> None:
    """A run may end between its last shard and that."""
    names = [f"{n}{twin}.png" for n in range(8) for twin in "ab"]
    for n, name in enumerate(names):
        Image.new("L", (40 + n, 40), 10 * n).save(tmp_path / name)
    hashes = {name: hashlib.sha256(name[:1].encode()).digest()[:8] for name in names}
    output = write_dataset(tmp_path, tmp_path / "out", lambda record: record, hashes=hashes)
    config = Config.model_validate({"export": {"format": "coco", "split": {"train": 0.5, "val": 0.5}}})
    there = splits_of(open_dataset(output.root), config.export.split)
    output.round(0).near_duplicates.unlink()
    export_round(output, 0, config, Console(quiet=True))
    assert not output.round(0).near_duplicates.exists(), "an export writes nothing into the set"
    assert splits_of(open_dataset(output.root), config.export.split) == there
    items = [item for shard in output.shards() for item in read_items(output, shard)]
    splits = splits_of(open_dataset(output.root), config.export.split)
    of = {Path(item.uri).name: splits.of(item.content_id.hex()) for item in items}
    assert all(of[f"{n}a.png"] == of[f"{n}b.png"] for n in range(8))
    told = read_json(output.root / "export/coco/export.json")["splits"]
    assert {name: counts["images"] for name, counts in told.items()} == Counter(of.values())
