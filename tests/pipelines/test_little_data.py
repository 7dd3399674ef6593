"""The recipe for a task with little data, at toy size: pretrain, fine-tune on the few, annotate everything by it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from command import ENGINE, run

from benchmarks.world import EASY
from benchmarks.world.writing import write_images
from engine import open_dataset

TOY = (
    "specialists={}",
    "filters={}",
    "ingest.shard_size=4",
    "train.steps=3",
    "train.images_per_step=4",
    "train.size=[32, 32]",
    "train.vocabulary_size=1500",
    "train.held_out=0",
    "train.samples=0",
    "train.phases.describe.steps=2",
    "reannotate.specialists.florence2.max_new_tokens=12",
)


def test_little_data(tmp_path: Path) -> None:
    write_images(tmp_path / "set", replace(EASY, size=(64, 64)), seed=0, count=18)
    captions = tmp_path / "set" / "captions.json"
    few = json.loads(captions.read_text())
    few["annotations"] = [a | {"caption": a["caption"] * 12} for a in few["annotations"] if a["image_id"] < 14]
    captions.write_text(json.dumps(few))  # long ones, and not of all
    settings = [word for setting in TOY for word in ("--set", setting)]
    images = ["--images", str(tmp_path / "set" / "instances.json"), "--images", str(captions)]
    result = run(
        *(ENGINE, "run", "--config", "little_data", "--stage", "reannotate"),
        *("--out", str(tmp_path / "out"), *images, *settings),
    )
    assert result.returncode == 0, result.stdout
    assert "no model is trained on the round yet" in result.stdout
    assert "phase describe: MORE_DETAILED_CAPTION" in result.stdout
    records = list(open_dataset(tmp_path / "out", 1).records())
    added = [text for record in records for text in record.texts if text.source == "florence2"]
    assert {text.detail for text in added} <= {"more_detailed"}  # after five steps it may have nothing to say
    for record in records:
        verified = {decision.annotation_id for decision in record.decisions if decision.by == "florence2"}
        assert verified >= {text.id for text in record.texts if text.source == "human"}
