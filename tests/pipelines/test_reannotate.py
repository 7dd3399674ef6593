"""`engine run --stage reannotate`: a round's models annotate every image again, and nothing of before is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command import ENGINE, files, run
from memorised import memorised, saved
from PIL import Image
from rich.console import Console
from toys import Dark

from engine import open_dataset
from engine.annotate import annotate
from engine.config import Ingest, load_config
from engine.errors import ConfigError, OutputError
from engine.folds import Folds
from engine.records import Decision, Record
from engine.storage import Output, ShardId, read_records, shard_digest
from engine.summary import count_round
from engine.worker import Orders, Worker
from florence2 import ask
from pipelines.build import Pipeline, build_pipeline
from pipelines.reannotate import again, digest_of_rounds
from pipelines.stages import Stages

COMMAND = [ENGINE, "run", "--stage", "reannotate", "--out"]
SAID = ("a dog beside a car", "two people walk")  # by the model of each fold
FOLDS = len(SAID)
LOOKALIKE, TWIN, BROKEN, GONE = "lookalike.jpg", "twin.png", "broken.png", "0002.png"
CONFIG = {
    "ingest": {"shard_size": 2},
    "specialists": {},
    "filters": {},
    "train": {"folds": FOLDS},
    "reannotate": {"specialists": {"florence2": {"tasks": ["CAPTION"], "caption_beams": 1, "max_new_tokens": 30}}},
    "run": {"workers": 1, "max_quarantined": 0.5},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Six crops of photos, one of them once more as it is, one as a JPEG, and a broken file; and their annotations."""
    folder = tmp_path_factory.mktemp("again")
    names = [f"{n:04d}.png" for n in range(6)]
    for n, name in enumerate(names):
        source = Image.open(photos / ("coffee.png", "astronaut.png", "motorcycle_left.png")[n % 3]).convert("RGB")
        source.crop((70 * n, 40 * n, 70 * n + 96, 40 * n + 96)).save(folder / name)
    Image.open(folder / "0000.png").save(folder / LOOKALIKE, quality=95)
    shutil.copy(folder / "0001.png", folder / TWIN)
    (folder / BROKEN).write_bytes(b"\x89PNG once")
    names += [LOOKALIKE, TWIN, BROKEN]
    images = [{"id": n, "file_name": name, "width": 96, "height": 96} for n, name in enumerate(names)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [8, 8, 40, 30], "iscrowd": 0} for n in range(6)]
    captions = [{"id": n, "image_id": n, "caption": f"a dog, number {n}"} for n in range(6)]
    document = {"images": images, "categories": [{"id": 1, "name": "dog"}], "annotations": boxes}
    (folder / "instances.json").write_text(json.dumps(document))
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    for fold, said in enumerate(SAID):
        saved(folder / f"fold-{fold}", memorised({ask("CAPTION"): said}, steps=60, seed=fold))
    return folder


@pytest.fixture(scope="session")
def round_0(tmp_path_factory: pytest.TempPathFactory, image_folder: Path, models: Path) -> Path:
    """An output folder with what came along with the images, and trained models."""
    out = tmp_path_factory.mktemp("round-0") / "out"
    path = out.with_name("pipeline.yaml")
    path.write_text(yaml.safe_dump(CONFIG))
    given = [str(image_folder / name) for name in ("instances.json", "captions.json")]
    config = load_config(path, [], {"ingest.images": given})
    stages = Stages(build_pipeline(config), Output(out), Console(quiet=True))
    stages.run("ingest")
    in_this_process(stages.pipeline, stages.output, 0)
    stages.run("annotate")
    shutil.copytree(models, stages.output.round(0).model())
    return out


@pytest.fixture(scope="session")
def undisturbed(round_0: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with round 1. Not to be written to."""
    out = copied(round_0, tmp_path_factory.mktemp("round-1"))
    reannotated(out)
    return out


def copied(out: Path, to: Path) -> Path:
    return Path(shutil.copytree(out, to / "out"))


def in_this_process(pipeline: Pipeline, output: Output, number: int) -> None:
    """What a worker does, without Ray to start it."""
    worker = Worker(pipeline.plan(output, number))
    worker.setup()
    for shard in output.shards():
        for _ in worker.annotate(Orders(shard)):
            pass


def stages_of(out: Path, *settings: str, round: int = 0) -> Stages:
    config = load_config(Output(out).config, settings)
    return Stages(build_pipeline(config), Output(out), Console(quiet=True), round)


def reannotated(out: Path, *settings: str, round: int = 0) -> dict[str, Any]:
    stages = stages_of(out, *settings, round=round)
    built = again(stages.pipeline, stages.output, round)
    built = replace(built, earlier=digest_of_rounds(stages.output, round))
    in_this_process(built, stages.output, round + 1)
    return stages.run("reannotate")


def records_of(out: Path, number: int) -> dict[str, Record]:
    return {Path(record.item.uri).name: record for record in open_dataset(out, number).records()}


def test_each_image_is_annotated_by_the_model_that_never_saw_it(undisturbed: Path) -> None:
    dataset = open_dataset(undisturbed, 1)
    folds = Folds(FOLDS, dataset.leaders())
    records = list(dataset.records())
    made = {record.item: text.text for record in records for text in record.texts if text.source == "florence2"}
    assert made == {item: SAID[folds.of(item)] for item in made}
    assert set(made.values()) == set(SAID), "or the test says nothing"
    by_name = {Path(item.uri).name: text for item, text in made.items()}
    assert by_name.keys() == {*(f"{n:04d}.png" for n in range(6)), LOOKALIKE}
    assert by_name[LOOKALIKE] == by_name["0000.png"], "a lookalike's model would have seen it"


def test_a_later_round_has_all_of_the_earlier_ones(undisturbed: Path) -> None:
    before, after = records_of(undisturbed, 0), records_of(undisturbed, 1)
    assert before.keys() == after.keys()
    items = list(open_dataset(undisturbed).items())
    assert [record.item for record in open_dataset(undisturbed, 1).records()] == items
    for name, record in before.items():
        then = after[name]
        assert (then.round, then.item, then.error) == (1, record.item, record.error)
        assert then.perceptual_hash == record.perceptual_hash
        assert set(record.annotations()) <= set(then.annotations())
        new = [annotation for annotation in then.annotations() if annotation.id not in record.by_id]
        assert [a.id for a in new] == [f"1.florence2.{n}" for n in range(len(new))]
        assert {d.annotation_id for d in then.decisions if d.by == "florence2"} == {
            a.id for a in (*record.regions, *record.texts) if new
        }
        assert all(d.round == 1 and d.action == "keep" and d.value is not None and d.value < 0 for d in then.decisions)
    assert after[BROKEN].error is not None and not after[TWIN].texts[0:0]
    regions = sum(1 for _ in open_dataset(undisturbed, 1).regions())
    assert regions == sum(len(record.regions) for record in before.values()) > 0


def test_the_summary_counts_all_rounds(undisturbed: Path) -> None:
    output = Output(undisturbed)
    summary = json.loads(output.round(1).summary.read_text())
    assert summary["round"] == 1
    assert summary["annotations"]["florence2"] == {"text": {"made": 7, "standing": 7}}
    assert summary["annotations"]["human"] == count_round(output, 0, output.shards())["annotations"]["human"]
    assert summary["quarantined"] == {"ingest": {"unreadable": 1}} or summary["quarantined"]["ingest"]
    sources = json.loads(output.round(1).sources.read_text())
    assert sources["sources"]["florence2"]["parameters"]["tasks"] == ["CAPTION"]


def test_killed_and_resumed_gives_the_same_files(round_0: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Through Ray and the command line; the files to compare with were made without."""
    out = copied(round_0, tmp_path)
    process = subprocess.Popen(COMMAND + [str(out)], stdout=subprocess.DEVNULL, start_new_session=True)
    decisions = out / "round-1" / "decisions"
    for _ in range(1200):
        if list(decisions.rglob("shard-*.parquet")):
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in decisions.rglob("shard-*.parquet")}
    result = run(*COMMAND, str(out))
    assert result.returncode == 0, result.stdout
    assert {path: path.stat().st_mtime_ns for path in done} == done, "what was done is not done again"
    assert files(out) == files(undisturbed)
    assert "florence2" in result.stdout and "--round 1" in result.stdout
    shown = run(ENGINE, "show", str(out), "0001.png", "--round", "1")
    assert "1.florence2.0" in shown.stdout and "0.human.0" in shown.stdout
    assert "1.florence2.0" not in run(ENGINE, "show", str(out), "0001.png").stdout
