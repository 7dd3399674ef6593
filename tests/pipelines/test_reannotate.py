"""`engine run --stage reannotate`: a round's models annotate every image again, and nothing of before is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from command import ENGINE, Call, files, run
from memorised import memorised, saved
from PIL import Image
from rich.console import Console
from toys import Brightness, Dark

from engine import open_dataset
from engine.annotate import Tally, annotate, open_image
from engine.atomic import write_json
from engine.config import Ingest, load_config
from engine.errors import ConfigError, OutputError
from engine.folds import Folds
from engine.layout import Output, ShardId
from engine.partitions import reopen_from
from engine.protocols import Sample
from engine.records import VERIFIED, VERIFIED_BLANK, Decision, Item, ItemError, Record, Region, Scores, Text
from engine.rounds import added, begun
from engine.storage import read_given, read_records, shard_digest, write_given
from engine.summary import count_round
from engine.uris import uri_of
from engine.worker import Orders, Worker
from florence2 import ask
from pipelines.build import Pipeline, build_pipeline
from pipelines.reannotate import again, digest_of_rounds, warnings
from pipelines.stages import Stages
from pipelines.training.settings import settings_of
from pipelines.training.stage import Training
from specialists.florence import Florence

pytestmark = pytest.mark.usefixtures("one_thread")
COMMAND = [ENGINE, "run", "--stage", "reannotate", "--out"]
SAID = ("a dog beside a car", "two people walk")  # by the model of each fold
FOLDS = len(SAID)
NAMES = [f"{n:04d}.png" for n in range(6)]
LOOKALIKE, TWIN, BROKEN, GONE = "lookalike.jpg", "twin.png", "broken.png", "0002.png"
CONFIG = {
    "ingest": {"shard_size": 2},
    "specialists": {},
    "filters": {},
    "train": {"folds": FOLDS},
    "reannotate": {"specialists": {"florence2": {"tasks": ["CAPTION"], "caption_beams": 1, "max_new_tokens": 30}}},
    "run": {"workers": 1, "max_quarantined": 0.5},
}


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Six crops of photos, one of them once more as it is, one as a JPEG, and a broken file; and their annotations."""
    folder = next(filter(has_both_folds, (tmp_path_factory.mktemp("again") for _ in range(100))))
    for n, name in enumerate(NAMES):
        source = Image.open(photos / ("coffee.png", "astronaut.png", "motorcycle_left.png")[n % 3]).convert("RGB")
        source.crop((70 * n, 40 * n, 70 * n + 96, 40 * n + 96)).save(folder / name)
    Image.open(folder / "0000.png").save(folder / LOOKALIKE, quality=95)
    shutil.copy(folder / "0001.png", folder / TWIN)
    (folder / BROKEN).write_bytes(b"\x89PNG once")
    names = [*NAMES, LOOKALIKE, TWIN, BROKEN]
    images = [{"id": n, "file_name": name, "width": 96, "height": 96} for n, name in enumerate(names)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [8, 8, 40, 30], "iscrowd": 0} for n in range(6)]
    captions = [{"id": n, "image_id": n, "caption": f"a dog, number {n}"} for n in range(6)]
    document = {"images": images, "categories": [{"id": 1, "name": "dog"}], "annotations": boxes}
    (folder / "instances.json").write_text(json.dumps(document))
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return folder


def has_both_folds(folder: Path) -> bool:
    """Ids, and with them folds, go by the path."""
    uris = [uri_of(str(folder / name)) for name in NAMES]
    return len({Folds(FOLDS).of(Item(Item.id_of(uri), uri)) for uri in uris}) == FOLDS


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


def rounded(value: Any) -> Any:
    """Another process may add the same numbers up in another order: seven digits of a score are the same."""
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-4)
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


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
        judged = {*record.regions, *record.texts, *(a for a in new if isinstance(a, Text))}
        assert {d.annotation_id for d in then.decisions if d.by == "florence2"} == {a.id for a in judged if new}
        assert all(d.round == 1 and d.action == "keep" and d.value is not None and d.value < 0 for d in then.decisions)
    assert after[BROKEN].error is not None
    assert after[TWIN].item.duplicate_of == before["0001.png"].item.item_id
    regions = sum(1 for _ in open_dataset(undisturbed, 1).regions())
    assert regions == sum(len(record.regions) for record in before.values()) > 0


def test_no_model_ranks_its_own(undisturbed: Path, models: Path) -> None:
    """What the model of a fold wrote is judged by that of the other one, to which it is news."""
    folds = Folds(FOLDS, open_dataset(undisturbed).leaders())
    judges = [Florence(model=str(models / f"fold-{fold}"), tasks=(), verify=True) for fold in range(FOLDS)]
    for judge in judges:
        judge.setup()
    for record in open_dataset(undisturbed, 1).records():
        for text in [text for text in record.texts if text.source == "florence2"]:
            told = {d.reason: d.value for d in record.decisions if d.annotation_id == text.id}
            assert told.keys() == {VERIFIED, VERIFIED_BLANK}
            own = folds.of(record.item)
            given = replace(record, texts=(text,), regions=(), decisions=())
            for fold, judge in enumerate(judges):
                sample = Sample(open_image(record.item, Ingest()), given)
                said = {d.reason: d.value for d in judge.annotate([sample])[0] if isinstance(d, Decision)}
                assert (told[VERIFIED] == pytest.approx(said[VERIFIED], rel=1e-3)) == (fold != own)


def test_the_summary_counts_all_rounds(undisturbed: Path) -> None:
    output = Output(undisturbed)
    summary = json.loads(output.round(1).summary.read_text())
    assert summary["round"] == 1
    assert summary["annotations"]["florence2"] == {"text": {"made": 7, "standing": 7}}
    assert summary["annotations"]["human"] == count_round(output, 0, output.shards())["annotations"]["human"]
    assert list(summary["quarantined"]) == ["ingest"]
    sources = json.loads(output.round(1).sources.read_text())
    assert sources["sources"]["florence2"]["parameters"]["tasks"] == ["CAPTION"]


def test_killed_and_resumed_gives_the_same_files(round_0: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Through Ray and the command line; the files to compare with were made without."""
    out = copied(round_0, tmp_path)
    process = subprocess.Popen([*COMMAND, str(out)], stdout=subprocess.DEVNULL, start_new_session=True)
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
    made, expected = files(out), files(undisturbed)
    assert made.keys() == expected.keys()
    for path in made:
        if path.startswith("round-1/") and path.endswith(".parquet"):
            there, wanted = (pq.read_table(folder / path).to_pylist() for folder in (out, undisturbed))
            assert there == rounded(wanted), path
        else:
            assert made[path] == expected[path], path
    assert "florence2" in result.stdout
    assert "--round 1" in result.stdout


def test_show_and_report_read_later_rounds(undisturbed: Path, tmp_path: Path, call: Call) -> None:
    code, said = call("show", str(undisturbed), "0001.png", "--round", "1")
    assert code == 0
    assert "1.florence2.0" in said
    assert "0.human.0" in said
    assert "1.florence2.0" not in call("show", str(undisturbed), "0001.png")[1]
    assert "has no round 2" in call("show", str(undisturbed), "0001.png", "--round", "2")[1]
    out = copied(undisturbed, tmp_path)
    assert call("report", str(out), "--round", "1", "--pictures", "2")[0] == 0
    page = (out / "report" / "index.html").read_text()
    assert any(said in page for said in SAID)
    assert call("report", str(out), "--pictures", "2")[0] == 0
    assert "florence2" not in (out / "report" / "index.html").read_text()


def test_an_image_that_fails_keeps_what_it_had(round_0: Path, image_folder: Path, tmp_path: Path) -> None:
    out, lost = copied(round_0, tmp_path), image_folder / GONE
    data, before = lost.read_bytes(), records_of(round_0, 0)[GONE]
    lost.unlink()
    try:
        summary = reannotated(out)
    finally:
        lost.write_bytes(data)
    after = records_of(out, 1)[GONE]
    assert after.error is not None
    assert (after.error.stage, after.error.kind) == ("decode", "missing")
    assert tuple(after.annotations()) == tuple(before.annotations()) != ()
    assert after.decisions == before.decisions
    assert summary["quarantined"]["decode"] == {"missing": 1}


def test_one_that_killed_its_worker_keeps_what_it_had(round_0: Path) -> None:
    stages = stages_of(round_0)
    worker = Worker(again(stages.pipeline, stages.output, 0).plan(stages.output, 1))
    half = worker._read(ShardId(0, 0))
    record, orders = half.records[0], Orders(ShardId(0, 0))
    error = ItemError("annotate", "killed", "killed its worker; given up")
    orders.quarantined[record.item.item_id] = error
    (made,) = worker._annotate([record], [half.befores[0]], orders, Tally(), half.known)
    assert made == replace(record, error=error)
    nothing = added(made, begun(record))
    assert (tuple(nothing.annotations()), nothing.decisions, nothing.error) == ((), (), error)


def test_the_filters_decide_on_what_is_new_alone(round_0: Path) -> None:
    """Dark turns down whatever has a score below 0.5: nothing of the rounds before."""
    (before, *_) = [replace(record, round=1) for record in read_records(Output(round_0), 0, ShardId(0, 0))]
    old = Region(id="0.x.0", source="x", kind="object", box=(0, 0, 9, 9), label="dog", scores=Scores(label=0.1))
    before = before.append([old])
    specialist = Brightness()
    specialist.setup()
    (record,) = annotate([before], [specialist], [Dark(threshold=2.0)], Ingest(), {})
    fell = [decision.annotation_id for decision in record.decisions]
    assert fell == ["1.brightness.0"]
    assert [decision.round for decision in record.decisions] == [0]  # the toy's own
    assert record.standing.regions == before.regions


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("reannotate.specialists.florence2.max_new_tokens=20", ["max_new_tokens: 30 there, 20 asked for", "remove"]),
        ("reannotate.filters.score={}", ["decisions of another configuration", "reannotate.filters.score"]),
        ("train.folds=3", ["model/fold-2", "train.folds 3"]),
        ("train.folds=1", ["has model/fold-0, model/fold-1, and train.folds 1 means model"]),
        ("reannotate.specialists.florence2.beams=1", ["in reannotate: ", "florence2.beams: unknown key"]),
        ("ingest.max_pixels=5", ["images of another configuration"]),
    ],
)
def test_what_does_not_fit_is_refused(undisturbed: Path, setting: str, says: list[str]) -> None:
    before = files(undisturbed)
    with pytest.raises((ConfigError, OutputError)) as refused:
        stages_of(undisturbed, setting).run("reannotate")
    for words in says:
        assert words in str(refused.value)
    assert files(undisturbed) == before


def test_another_model_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    out = copied(undisturbed, tmp_path)
    config = Output(out).round(0).model(1, FOLDS) / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(OutputError, match="the code or the weights of florence2 changed"):
        stages_of(out).run("reannotate")


def test_labels_that_changed_since_are_refused(undisturbed: Path, tmp_path: Path) -> None:
    out = copied(undisturbed, tmp_path)
    stages_of(out, "filters.labels={}").run("filter")
    with pytest.raises(OutputError, match="adds to what round 0 was, and that has changed since"):
        stages_of(out).run("reannotate")


def test_what_came_along_with_the_images_is_among_the_labels(undisturbed: Path, tmp_path: Path) -> None:
    """Also where nothing else tells: the images were ingested anew, and annotated by the same specialists."""
    output = Output(copied(undisturbed, tmp_path))
    shard = next(output.shards())
    taken = [(record, ()) for record in read_given(output, shard)]
    assert digest_of_rounds(output, 0) == digest_of_rounds(Output(undisturbed), 0)
    digest = str(shard_digest(output.given(shard)))
    write_given(output, shard, taken, digest)
    same = digest_of_rounds(output, 0)
    reopen_from(output, 0, shard.partition)  # as whoever changes a shard does
    moved = [replace(record, regions=[replace(r, box=(1, 1, 9, 9)) for r in record.regions]) for record, _ in taken]
    write_given(output, shard, [(record, ()) for record in moved], digest)
    assert digest_of_rounds(output, 0) != same
    with pytest.raises(OutputError, match="adds to what round 0 was, and that has changed since"):
        stages_of(output.root).run("reannotate")


def test_a_model_of_another_training_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    """Or the configuration would tell of a training that never was."""
    out = copied(undisturbed, tmp_path)
    stages = stages_of(out)
    made_by = {"digest": "other", "settings": {"start": "nano", "steps": 7}, "folds": FOLDS}
    for fold in range(FOLDS):
        write_json(stages.output.round(0).model(fold, FOLDS) / "made_by.json", made_by)
    with pytest.raises(OutputError, match=r"(?s)trained by another configuration:.*train.steps: 7 there, 1000 asked"):
        stages.run("reannotate")


def test_where_a_training_started_is_asked_only_while_it_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    stages = stages_of(copied(undisturbed, tmp_path), "train.start=/nowhere/base")
    config, round_ = stages.pipeline.config, stages.output.round(0)
    made_by = Training(stages.output, config, 0, stages.console).made_by(settings_of(config))
    for fold in range(FOLDS):
        write_json(round_.model(fold, FOLDS) / "made_by.json", made_by)
    stages.run("reannotate")
    shutil.rmtree(round_.model(1, FOLDS))
    with pytest.raises(ConfigError, match=r"train\.start: "):  # and not that another command has to finish it
        stages.run("reannotate")


def test_a_wrong_section_is_told_before_anything_is_written(undisturbed: Path, tmp_path: Path) -> None:
    config = load_config(Output(undisturbed).config, ["reannotate.specialists.florence2.beams=1"])
    with pytest.raises(ConfigError, match="in reannotate: "):
        Stages(build_pipeline(config), Output(tmp_path / "new"), Console(quiet=True)).run("reannotate")
    assert not (tmp_path / "new").exists()


def test_a_model_that_was_put_there_is_told_of(undisturbed: Path, tmp_path: Path, call: Call) -> None:
    out = copied(undisturbed, tmp_path)
    code, said = call("run", "--stage", "reannotate", "--out", str(out))
    assert code == 0
    assert "was not trained here (it has no made_by.json)" in said
    code, said = call("run", "--stage", "train", "--out", str(out))
    assert code == 2
    assert "holds a model that was not trained here" in said
    shutil.rmtree(Output(out).round(0).model())
    with pytest.raises(OutputError, match="was made by a model that is no longer in"):
        stages_of(out).run("reannotate")


def test_a_fold_without_its_model_is_refused(round_0: Path, tmp_path: Path, call: Call) -> None:
    """Without any there would be training first: see test_little_data.py."""
    out = copied(round_0, tmp_path)
    shutil.rmtree(Output(out).round(0).model(1, FOLDS))
    code, said = call("run", "--stage", "reannotate", "--out", str(out))
    assert code == 2
    assert "finish the training with --stage train" in said
    assert not (out / "round-1").exists()
    assert (
        "would remove all rounds, and their models"
        in call("run", "--stage", "reannotate", "--out", str(round_0), "--overwrite")[1]
    )


def test_one_model_for_all_is_warned_of(round_0: Path, models: Path, tmp_path: Path) -> None:
    out = copied(round_0, tmp_path)
    folder = Output(out).round(0).model()
    shutil.rmtree(folder)
    shutil.copytree(models / "fold-1", folder)
    (warning,) = warnings(again(stages_of(out, "train.folds=1").pipeline, Output(out), 0))
    assert "annotated by a model that was trained on them" in warning
    other = f"reannotate.specialists.florence2.model={models / 'fold-0'}"
    assert not warnings(again(stages_of(out, "train.folds=1", other).pipeline, Output(out), 0))


def test_a_third_round_stands_on_the_second(undisturbed: Path, models: Path, tmp_path: Path) -> None:
    out = copied(undisturbed, tmp_path)
    shutil.copytree(models, Output(out).round(1).model())
    reannotated(out, round=1)
    record = records_of(out, 2)["0003.png"]
    assert {"0.human.0", "1.florence2.0"} < record.by_id.keys()
    judged = {d.annotation_id for d in record.decisions if d.round == 2}
    assert judged == {*records_of(out, 1)["0003.png"].by_id, *(t.id for t in record.texts)}
    with pytest.raises(OutputError, match="no whole round 5"):
        stages_of(out, round=5).run("reannotate")
