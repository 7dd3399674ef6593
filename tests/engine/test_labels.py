"""Labels are known again by the bytes of their images, and withhold these from training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.config import Config, Gate, Ingest
from engine.errors import ConfigError, OutputError
from engine.folds import ALL, EVERYTHING, Choice, Folds
from engine.ingest import ingest
from engine.labels import NO_LABELS, read_labels
from engine.layout import Output
from engine.records import Item
from engine.storage import read_items

COUNT = 6


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(COUNT):
        Image.new("RGB", (20, 20), (40 * n, 0, 0)).save(folder / f"{n}.png")
    shutil.copy(folder / "0.png", folder / "twin.png")
    return folder


def labelled(folder: Path, names: list[str], annotations: list[dict[str, Any]]) -> Path:
    images = [{"id": n, "file_name": name, "width": 20, "height": 20} for n, name in enumerate(names, 1)]
    document = {"images": images, "categories": [{"id": 1, "name": "Dog"}], "annotations": annotations}
    (folder / "labels.json").write_text(json.dumps(document))
    return folder / "labels.json"


def config_of(images: Path, labels: Path) -> Config:
    return Config(ingest=Ingest(images=(str(images),)), gate=Gate(labels=(str(labels),)))


def ingested(images: Path, root: Path) -> Output:
    output = Output(root)
    ingest(output, Ingest(images=(str(images),), shard_size=2), "d", lambda done: None)
    return output


def test_copies_elsewhere_are_known_by_their_bytes(images: Path, tmp_path: Path) -> None:
    output = ingested(images, tmp_path / "out")
    audit = tmp_path / "audit"
    audit.mkdir()
    shutil.copy(images / "2.png", audit / "renamed.png")
    shutil.copy(images / "3.png", audit / "3.png")
    Image.new("RGB", (9, 9)).save(audit / "stranger.png")
    said = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]},
        {"id": 2, "image_id": 1, "bbox": [2, 9, 9, 5], "utf8_string": " stop "},
        {"id": 3, "image_id": 1, "caption": "a dog", "detail": "detailed"},
        {"id": 4, "image_id": 1, "caption": "a dog, too", "detail": "of all kinds"},
    ]
    labels = read_labels(output, config_of(images, labelled(audit, ["renamed.png", "3.png", "stranger.png"], said)))
    names = {Path(item.uri).name: item.item_id for shard in output.shards() for item in read_items(output, shard)}
    assert labels.ids == {names["2.png"], names["3.png"]}
    assert labels.unknown == 1
    record = labels.records[names["2.png"]]
    assert [(r.kind, r.label, r.text) for r in record.regions] == [("object", "dog", None), ("text", None, "stop")]
    assert [(text.text, text.detail) for text in record.texts] == [("a dog", "detailed"), ("a dog, too", "brief")]
    assert labels.records[names["3.png"]].by_id == {}, "labelled whole: there is nothing in it"


def test_other_labels_have_another_digest(images: Path, tmp_path: Path) -> None:
    output = ingested(images, tmp_path / "out")
    path = labelled(images, ["1.png"], [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 6]}])
    first = read_labels(output, config_of(images, path))
    assert read_labels(output, config_of(images, path)).digest == first.digest
    path = labelled(images, ["1.png"], [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}])
    second = read_labels(output, config_of(images, path))
    assert second.digest != first.digest
    assert sum(len(record.regions) for record in second.records.values()) == 1


def test_a_twin_is_its_originals(images: Path, tmp_path: Path) -> None:
    output = ingested(images, tmp_path / "out")
    said = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}]
    labels = read_labels(output, config_of(images, labelled(images, ["twin.png", "1.png"], said)))
    items = [item for shard in output.shards() for item in read_items(output, shard)]
    folds = Folds(2, {}, Choice(labels.ids))
    withheld = {Path(item.uri).name for item in items if folds.is_withheld(item)}
    assert withheld == {"0.png", "twin.png", "1.png"}


def test_what_could_not_be_taken_is_told(images: Path, tmp_path: Path) -> None:
    """An image that lacks a label is not labelled whole, and judges too hard."""
    output = ingested(images, tmp_path / "out")
    said = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [50, 50, 5, 5]}]
    labels = read_labels(output, config_of(images, labelled(images, ["1.png"], said)))
    assert labels.faults == {"box_outside": 1}


def test_labels_of_a_second_copy_are_told(images: Path, tmp_path: Path) -> None:
    output = ingested(images, tmp_path / "out")
    said = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 5, 5]} for n in (1, 2)]
    labels = read_labels(output, config_of(images, labelled(images, ["0.png", "twin.png"], said)))
    assert labels.faults == {"labelled_twice": 1}


def test_an_audit_that_nobody_labelled_is_refused(images: Path, tmp_path: Path) -> None:
    """Or all that is found would be wrong. Where some are labelled the others may really have nothing in them."""
    output = ingested(images, tmp_path / "out")
    with pytest.raises(OutputError, match=r"the 2 images of .*labels\.json have no labels"):
        read_labels(output, config_of(images, labelled(images, ["1.png", "2.png"], [])))
    said = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}]
    assert read_labels(output, config_of(images, labelled(images, ["1.png", "2.png"], said))).blank == 1


def test_where_labels_lie_does_not_count(images: Path, tmp_path: Path) -> None:
    said = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}]
    digests = set()
    for name in ("one", "other"):
        output = ingested(images, tmp_path / name / "out")
        folder = Path(shutil.copytree(images, tmp_path / name / "labelled"))
        digests.add(read_labels(output, config_of(images, labelled(folder, ["1.png"], said))).digest)
    assert len(digests) == 1


def test_labels_of_other_images_are_refused(images: Path, tmp_path: Path) -> None:
    output = ingested(images, tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (5, 5)).save(other / "x.png")
    with pytest.raises(OutputError, match="none of the 1 labelled images"):
        read_labels(output, config_of(images, labelled(other, ["x.png"], [])))
    with pytest.raises(ConfigError, match=r"gate\.labels: .*nowhere\.json"):
        read_labels(output, config_of(images, tmp_path / "nowhere.json"))
    with pytest.raises(
        OutputError, match=r"not one of the 2 labelled images could be read \(missing 1, outside_root 1\)"
    ):
        read_labels(output, config_of(images, labelled(other, ["../out/a.png", "b.png"], [])))
    assert read_labels(output, Config()) == NO_LABELS


def test_a_choice_is_nested_and_always_has_what_judges() -> None:
    items = [Item(bytes([n]) * 16, f"{n}") for n in range(200)]
    small, large = (Folds(1, {}, Choice(bound=int(ALL * share))) for share in (0.2, 0.6))
    chosen = [{item.item_id for item in items if folds.chosen(item)} for folds in (small, large)]
    assert chosen[0] < chosen[1] < {item.item_id for item in items}
    assert 20 < len(chosen[0]) < 60
    judging = Folds(1, {}, Choice(frozenset({items[0].item_id, items[1].item_id}), 0))
    assert [judging.chosen(item) for item in items[:3]] == [True, True, False]
    assert [judging.is_withheld(item) for item in items[:3]] == [True, True, False]
    lookalike = Folds(1, {items[2].item_id: items[0].item_id}, Choice(frozenset({items[0].item_id})))
    assert lookalike.is_withheld(items[2]), "training on it would be training on what judges"
    assert EVERYTHING.digest == ""
    assert Choice(bound=5).digest != Choice(bound=6).digest != ""
