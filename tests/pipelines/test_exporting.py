"""The command `engine export`, and label maps."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
import yaml
from command import Call
from datasets_made import write_dataset
from PIL import Image
from rich.console import Console

from engine.atomic import read_json
from engine.config import Config
from engine.dataset import open_dataset
from engine.errors import ConfigError
from engine.export.split import splits_of
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
    for text, words in (("- a", "must be a mapping"), ("ignore: []", "has no classes"), ("classes: 3", "classes")):
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


def test_images_that_look_alike_stay_together_though_nobody_grouped_them(tmp_path: Path) -> None:
    """A run may end between its last shard and that."""
    names = [f"{n}{twin}.png" for n in range(8) for twin in "ab"]
    for n, name in enumerate(names):
        Image.new("L", (40 + n, 40), 10 * n).save(tmp_path / name)
    hashes = {name: hashlib.sha256(name[:1].encode()).digest()[:8] for name in names}
    output = write_dataset(tmp_path, tmp_path / "out", lambda record: record, hashes=hashes)
    config = Config.model_validate({"export": {"format": "coco", "split": {"train": 0.5, "val": 0.5}}})
    before = output.round(0).near_duplicates.read_bytes()
    output.round(0).near_duplicates.unlink()
    export_round(output, 0, config, Console(quiet=True))
    assert output.round(0).near_duplicates.read_bytes() == before
    items = [item for shard in output.shards() for item in read_items(output, shard)]
    splits = splits_of(open_dataset(output.root), config.export.split)
    of = {Path(item.uri).name: splits.of(item.content_id.hex()) for item in items}
    assert all(of[f"{n}a.png"] == of[f"{n}b.png"] for n in range(8))
    told = read_json(output.root / "export/coco/export.json")["splits"]
    assert {name: counts["images"] for name, counts in told.items()} == Counter(of.values())
