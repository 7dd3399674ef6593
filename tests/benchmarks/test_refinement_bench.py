"""The benchmark's arithmetic: what it tells is what its pictures and specialists are; its runs are by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from benchmarks.refinement.faults import by_fault, letters, off, repaired
from benchmarks.refinement.faulty import Captioner, Detector, Fault, Reader
from benchmarks.refinement.rows import only, oracle, raw, row
from benchmarks.refinement.setting import draw, label
from benchmarks.refinement.telling import plot, table
from benchmarks.refinement.worlds import HERE, THERE
from benchmarks.refinement_coco import draw as draw_coco
from benchmarks.refinement_coco import row as row_coco
from benchmarks.refinement_coco import split
from benchmarks.world import Picture
from benchmarks.world.records import record_of
from engine.config import Config, Gate, Ingest
from engine.ingest import ingest
from engine.labels import read_labels
from engine.layout import Output
from engine.protocols import Sample
from engine.records import Item, Record
from engine.storage import read_items

COUNT = 60
PICTURES = [HERE.picture(3, n) for n in range(COUNT)]
ITEMS = [
    Item(bytes([n]) * 16, f"/images/{n:06d}.png", content_id=bytes([n]) * 16, width=64, height=64) for n in range(COUNT)
]


def annotated(*specialists: Detector | Reader | Captioner) -> list[Record]:
    records = []
    for item, picture in zip(ITEMS, PICTURES, strict=True):
        record = Record(item)
        for specialist in specialists:
            (made,) = replace(specialist, scenes=3).annotate([Sample(picture.pixels, record)])
            record = record.append(made)
        records.append(record)
    return records


def measured(records: list[Record]) -> dict[str, float]:
    return row(records, PICTURES, HERE.rare_shapes, 0.25)


def test_the_worlds_have_nothing_in_common() -> None:
    assert not {*HERE.labels} & {*THERE.labels}
    assert not {*HERE.vocabulary} & {*THERE.vocabulary}
    assert not {*HERE.backgrounds} & {*THERE.backgrounds}


def test_specialists_without_faults_say_the_truth() -> None:
    told = measured(annotated(Detector(), Reader(), Captioner()))
    for name in ("f1", "boxes", "f1 rare", "f1 common", "f1 small", "f1 large", "mask iou", "facts brief"):
        assert told[name] == pytest.approx(1.0), name
    assert told["ap"] == pytest.approx(1.0, abs=1e-6)
    assert told["character errors"] == 0.0


def test_the_truth_is_the_truth() -> None:
    told = measured([record_of(picture, item) for picture, item in zip(PICTURES, ITEMS, strict=True)])
    assert told["f1"] == told["mask iou"] == told["facts more_detailed"] == told["grounding"] == 1.0


def test_each_fault_shows_where_it_should() -> None:
    truth = measured(annotated(Detector(), Reader(), Captioner()))
    assert measured(annotated(Detector(missed=0.5)))["f1"] < 0.8
    assert measured(annotated(Detector(duplicated=0.5)))["doubles"] > 0.1
    assert measured(annotated(Detector(shifted=0.3)))["boxes"] < 0.9
    wrong = measured(annotated(Detector(mislabelled=0.5)))
    assert wrong["f1"] < 0.7
    assert wrong["boxes"] == 1.0
    assert measured(annotated(Detector(invented=2.0)))["f1"] < 0.8
    renamed = measured(annotated(Detector(renamed={"moon": "ring"})))
    assert renamed["f1 rare"] < truth["f1 rare"]
    small = measured(annotated(Detector(small_missed=1.0)))
    assert small["f1 small"] == 0.0
    assert small["f1 large"] == pytest.approx(1.0)
    assert measured(annotated(Detector(bias=0.6)))["boxes"] < 0.5
    assert measured(annotated(Reader(misread=0.3)))["character errors"] > 0.1
    confused = annotated(Reader(confused={"o": "0"}))
    assert "o" not in "".join(r.text or "" for record in confused for r in record.regions)
    assert measured(annotated(Captioner(wrong_words=0.5)))["facts brief"] < 0.8


def test_boxes_that_are_off_and_letters_that_are_confused_are_told_apart() -> None:
    found = annotated(Detector(bias=0.1), Reader(confused={"o": "0"}))
    assert off(found, PICTURES) == pytest.approx(0.1, abs=0.02)
    told = letters(found, PICTURES, {"o"})
    assert told == {"confused letters right": 0.0, "other letters right": 1.0}
    misread = letters(annotated(Reader(misread=0.5)), PICTURES, {"o"})
    assert 0.3 < misread["other letters right"] < 0.8
    assert off(annotated(Detector()), PICTURES) == 0.0


def test_independent_faults_are_others_for_another_seed_and_the_same_for_the_same() -> None:
    one, same, other = (annotated(Detector(missed=0.5, shifted=0.1, seed=seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_what_is_hard_to_see_is_so_for_every_detector() -> None:
    faults = {"missed": 0.2, "small_missed": 0.5, "occluded_missed": 0.7, "mislabelled": 0.2, "scenes": 3}
    one, other = (
        Detector(name=name, renamed={"moon": "ring"}, **faults)  # type: ignore[arg-type]
        for name in ("detector", "second")
    )
    records = annotated(one)
    theirs, others = ([of.faults(record) for record in records] for of in (one, other))
    assert Counter(fault for faults in theirs for fault in faults).keys() == {None, *get_args(Fault)}
    hard = [[fault in ("too small", "hidden") for faults in some for fault in faults] for some in (theirs, others)]
    assert hard[0] == hard[1]
    assert theirs != others
    told = by_fault(records, PICTURES, theirs)
    assert told.pop("right if no fault") == 1.0
    assert set(told.values()) == {0.0}, "and nothing else is wrong"


def test_the_oracle_takes_the_best_and_no_more() -> None:
    before = annotated(Detector(missed=0.3, invented=1.0, shifted=0.1))
    second = Detector(name="second", seed=9, scenes=3, shifted=0.02)
    begun = [replace(record, round=1) for record in before]
    after = [
        record.append(second.annotate([Sample(picture.pixels, record)])[0])
        for record, picture in zip(begun, PICTURES, strict=True)
    ]
    best = [oracle(a, b, p) for a, b, p in zip(before, after, PICTURES, strict=True)]
    told = measured(best)
    assert told["f1"] == pytest.approx(1.0)
    assert told["f1"] > measured(after)["f1"]
    assert {r.source for record in after for r in only(record, "second").regions} == {"second"}
    fell = [record.decide([record.reject(r, "f", "x") for r in record.regions[:1]]) for record in before]
    assert sum(len(raw(r).standing.regions) for r in fell) == sum(len(r.regions) for r in before)


def test_wrong_labels_are_followed() -> None:
    before = annotated(Detector(mislabelled=1.0))
    right = annotated(Detector())
    assert set(repaired(before, right, PICTURES)) == {"repaired"}
    assert "copied" in repaired(before, before, PICTURES)
    nothing = [Record(record.item) for record in before]
    assert set(repaired(before, nothing, PICTURES)) == {"gone"}
    assert repaired(right, right, PICTURES) == {}


def test_labels_are_read_as_they_were_written(tmp_path: Path) -> None:
    pictures = draw(tmp_path, HERE, 3, 12)
    label(tmp_path, pictures, [1, 4, 7, 9])
    output = Output(tmp_path / "out")
    ingest(output, Ingest(images=(str(tmp_path / "images"),)), "d", lambda done: None)
    files = (str(tmp_path / "labels.json"), str(tmp_path / "label_captions.json"))
    config = Config(ingest=Ingest(images=(str(tmp_path / "images"),)), gate=Gate(labels=files))
    labels = read_labels(output, config)
    assert (len(labels.records), labels.unknown, labels.faults) == (4, 0, {})
    for record in labels.records.values():
        picture = pictures[_index(record, output)]
        assert Counter(r.label for r in record.regions if r.kind == "object") == Counter(
            s.label for s in picture.shapes
        )
        assert [r.text for r in record.regions if r.kind == "text"] == [word.text for word in picture.words]
        assert [t.detail for t in record.texts] == (["brief", "detailed", "more_detailed"] if picture.shapes else [])
    label(tmp_path, pictures, [1, 4, 7, 9], shuffled=True)
    assert read_labels(output, config).digest != labels.digest


def _index(record: Record, output: Output) -> int:
    items = [item for shard in output.shards() for item in read_items(output, shard)]
    return next(int(Path(i.uri).stem) for i in items if i.content_id == record.item.content_id)


def test_the_table_and_the_plot_are_of_all_seeds(tmp_path: Path) -> None:
    told = measured(annotated(Detector(missed=0.2), Captioner()))
    results = [{"rows": {"filtered": told | {"f1": f1}, "round 1": told}} for f1 in (0.4, 0.6)]
    text = table(results)
    assert "| filtered | 0.500 ± 0.141 |" in text
    assert text.count("\n") == 3
    plot(results, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().count("<circle") == 2 * 2 * 4


def test_cocos_protocol_on_a_tiny_set(tmp_path: Path) -> None:
    """Half of the truth becomes labels, the other half is measured by, and neither is lost."""
    pictures: list[Picture] = draw(tmp_path, HERE, 3, 10)
    label(tmp_path, pictures, range(10))
    instances, captions = tmp_path / "labels.json", tmp_path / "label_captions.json"
    chosen = draw_coco(instances, 4, 0)
    assert len(chosen) == 4
    assert draw_coco(instances, 4, 0) == chosen
    with pytest.raises(SystemExit, match="must be left to measure by"):
        draw_coco(instances, 10, 0)
    for path in (instances, captions):
        split(path, chosen, tmp_path / f"some-{path.name}")
    some = json.loads((tmp_path / "some-labels.json").read_text())
    assert {image["id"] for image in some["images"]} == chosen
    assert {one["image_id"] for one in some["annotations"]} <= chosen
    output = Output(tmp_path / "out")
    ingest(output, Ingest(images=(str(tmp_path / "images"),)), "d", lambda done: None)
    config = Config(
        ingest=Ingest(images=(str(tmp_path / "images"),)), gate=Gate(labels=(str(instances), str(captions)))
    )
    truth = read_labels(output, config, Output(tmp_path / "truth"))
    items = [item for shard in output.shards() for item in read_items(output, shard)]
    right = [record_of(pictures[int(Path(item.uri).stem)], item) for item in items]
    told = row_coco(right, truth, config)
    assert told["objects"] == told["masks"] == told["lines"] == 1.0
    assert told["AP"] == pytest.approx(1.0, abs=1e-6)
    assert np.isclose(told["brief texts"] or 0.0, 0.0), "people's own texts are not judged"
    wrong = row_coco([Record(item) for item in items], truth, config)
    assert wrong["objects"] == wrong["AP"] == 0.0
