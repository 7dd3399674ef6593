"""`engine run --stage train` as a person meets it: Ray, a model from nothing, kills, and what it can't learn from."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import command, run
from deadly import Deadly
from florence import small_processor
from rich.console import Console
from safetensors.torch import load_file

from benchmarks.world import EASY
from benchmarks.world.writing import write_round
from engine.atomic import write_json
from engine.config import Config, Run, load_config
from engine.dataset import Dataset
from engine.errors import ConfigError, OutputError, RunError
from engine.folds import Folds
from engine.layout import Output, ShardId
from engine.runner import cluster
from florence2 import Annotator, Florence2, Processor, Task, ask
from florence2.targets import Example
from pipelines.build import build_pipeline
from pipelines.stages import Stages
from pipelines.training.census import Census, of_shard
from pipelines.training.crew import Crew, crew_of
from pipelines.training.journal import read_journal
from pipelines.training.picks import Pick, Picks
from pipelines.training.progress import Follower
from pipelines.training.settings import settings_of
from pipelines.training.stage import COMPOSER, Training
from pipelines.training.stream import Passed, Preparation, Prepared, Source, Unprepared, stream
from specialists.composer import Composer

SETTINGS = """
train:
  steps: 6
  images_per_step: 4
  tasks_per_image: 2
  size: [32, 32]
  checkpoint_steps: 2
  vocabulary_size: 1500
  held_out: 0.5
  samples: 2
  targets: {min_side: 2}
  exhaustive: {human: all}
  recipe: {learning_rate: 1.0e-3}
"""
GONE = "000004.png"


@pytest.fixture(scope="session")
def round_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The truth of 20 scenes, one of whose pictures is gone since, and one shard damaged."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "settings.yaml").write_text(SETTINGS)
    out = folder / "out"
    world = replace(EASY, size=(32, 32))
    write_round(Output(out), world, seed=0, count=20, shard_size=4, config=load_config(folder / "settings.yaml"))
    (out / "pictures" / GONE).unlink()
    damaged = out / "round-0" / "annotations" / "part-00000" / "shard-00004.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-500])
    return out


def copied(round_0: Path, folder: Path) -> Path:
    """Images are found where they were: only what was annotated is copied."""
    return Path(shutil.copytree(round_0, folder / "out", ignore=shutil.ignore_patterns("training", "model")))


@pytest.fixture(scope="session")
def undisturbed(round_0: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = copied(round_0, tmp_path_factory.mktemp("undisturbed"))
    result = run(*command(out, stage="train"))
    assert result.returncode == 0, result.stdout
    return out, result.stdout


def losses(out: Path) -> list[tuple[int, float]]:
    journal = read_journal(out / "round-0" / "training" / "fold-0")
    return [(line["step"], line["loss"]) for line in journal if line["event"] == "step"]


def weights(out: Path) -> dict[str, Any]:
    return dict(load_file(out / "round-0" / "model" / "model.safetensors"))


def test_it_says_what_it_learns_and_what_it_can_not(undisturbed: tuple[Path, str]) -> None:
    _, said = undisturbed
    assert "OPEN_VOCABULARY_DETECTION" in said.split("nothing stands for")[0]
    assert "nothing stands for OCR" in said.replace("\n", " ")  # these scenes have no words
    assert "shard-00004.parquet is damaged" in said
    assert GONE in said
    assert "on held-out images after 6 steps" in said


def test_what_it_leaves(undisturbed: tuple[Path, str]) -> None:
    out, _ = undisturbed
    folder = out / "round-0" / "training" / "fold-0"
    assert [step for step, _ in losses(out)] == [1, 2, 3, 4, 5, 6]
    assert losses(out)[-1][1] < losses(out)[0][1]
    assert len(list((folder / "checkpoints").iterdir())) <= 2  # the best and the last
    assert list((folder / "tensorboard").iterdir())
    samples = json.loads((folder / "samples" / "samples.json").read_text())
    assert {sample["step"] for sample in samples} == {6}
    assert len(samples) <= 2
    assert all((folder / "samples" / sample["picture"]).stat().st_size > 1000 for sample in samples)
    assert not (folder / "ray").exists()


def test_the_model_can_be_asked(undisturbed: tuple[Path, str]) -> None:
    out, _ = undisturbed
    folder = out / "round-0" / "model"
    annotator = Annotator(Florence2.from_pretrained(folder), Processor.from_pretrained(folder), 1, 20)
    (answers,) = annotator.stream([str(out / "pictures" / "000000.png")], ["OD"])
    assert answers[0].token_ids


def trained(out: Path, *settings: str) -> str:
    """What the stage says, in this process."""
    console = Console(record=True, width=500, file=io.StringIO())
    Stages(build_pipeline(load_config(out / "config.yaml", settings)), Output(out), console).run("train")
    return console.export_text()


def test_again_there_is_nothing_to_do_and_other_settings_are_refused(undisturbed: tuple[Path, str]) -> None:
    out, _ = undisturbed
    assert "nothing to do" in trained(out)
    with pytest.raises(OutputError, match=r"train\.steps: 6 there, 7 asked for"):
        trained(out, "train.steps=7")


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Ray Train's; Ray names its processes after the actors in them."""
    found = psutil.Process(process.pid).children(recursive=True)
    return [child for child in found if "RayTrainWorker" in " ".join(child.cmdline()[:1])]


def started(out: Path, *more: str) -> subprocess.Popen[str]:
    """A training, as soon as it has checkpoints."""
    arguments = command(out, *more, stage="train")
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while not list(out.glob("round-0/training/fold-0/checkpoints/step-*/training.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def test_killed_and_run_again_it_learns_the_same(round_0: Path, undisturbed: tuple[Path, str], tmp_path: Path) -> None:
    out = copied(round_0, tmp_path)
    process = started(out)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (out / "round-0" / "model").exists()
    result = run(*command(out, stage="train"))
    assert result.returncode == 0, result.stdout
    # Bit by bit, within one process: tests/florence2/test_training_state.py. Two may add numbers up in another order.
    assert losses(out) == [(step, pytest.approx(loss, rel=1e-3)) for step, loss in losses(undisturbed[0])]
    expected = weights(undisturbed[0])
    for name, tensor in weights(out).items():
        if not name.endswith("k_proj.bias"):  # of which no gradient is more than rounding
            assert tensor.allclose(expected[name], atol=2e-3), name


def test_a_worker_that_dies_is_replaced_and_two_train_one_model(round_0: Path, tmp_path: Path) -> None:
    out = copied(round_0, tmp_path)
    settings = ("train.workers=2", "train.steps=8", "train.held_out=0")  # samples are then of what is learned
    process = started(out, *(word for setting in settings for word in ("--set", setting)))
    victim = workers_of(process)[-1]
    victim.kill()
    said, _ = process.communicate(timeout=250)
    assert process.returncode == 0, said
    assert [step for step, _ in losses(out)] == list(range(1, 9))
    starts = [line for line in read_journal(out / "round-0" / "training" / "fold-0") if line["event"] == "start"]
    assert len(starts) == 2  # before the death, and after it
    assert len(list((out / "round-0" / "training" / "fold-0" / "samples").glob("*.jpg"))) == 2


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("train.start=previous", "round 0 has none before it"),
        ("train.start=/nowhere/to-be-found", "train.start: "),
        ("train.mix.captoins=3", r"train\.mix\.captoins: unknown key; known here: captions"),
        ("train.recipe.learning_rate=-1", "learning_rate"),
        ("train.phases={a: {stepz: 3}}", r"train\.phases\.a\.stepz: unknown key"),
        ("train.phases={a: null}", "every phase is null"),
        ("train.recipe.steps=5", "said by train.steps"),
        ("train.size=[32]", r"train\.size\.1: "),
        ("train.recipe.betas=[0.9]", r"train\.recipe\.betas\.1: "),
    ],
)
def test_settings_that_can_not_be(round_0: Path, setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        trained(round_0, setting)


def nodes_are(monkeypatch: pytest.MonkeyPatch, there: list[tuple[int, int]]) -> None:
    """CPUs and GPUs of each, as Ray tells them: what a machine has none of is not there."""
    resources = [
        {name: float(count) for name, count in zip(("CPU", "GPU"), node, strict=True) if count} for node in there
    ]
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": has} for has in resources])


@pytest.mark.parametrize(
    ("there", "asked", "crew"),
    [
        ([(2, 0)], "auto", Crew(1, 1.0, 0, 2)),
        ([(2, 0)], 2, Crew(2, 0.5, 0, 1)),
        ([(1, 0)], "auto", Crew(1, 0.5, 0, 1)),
        ([(2, 0), (2, 0)], "auto", Crew(1, 1.0, 0, 2)),
        ([(2, 0), (2, 0)], 4, Crew(4, 0.5, 0, 1)),
        ([(0, 0), (1, 0), (1, 0)], 2, Crew(2, 0.5, 0, 1)),
        ([(16, 0), (4, 0)], 4, Crew(4, 3.0, 0, 4)),
        ([(8, 0), (2, 0)], 2, Crew(2, 3.0, 0, 4)),
        ([(64, 4)], "auto", Crew(4, 1.0, 1, None)),
        ([(64, 4)], 2, Crew(2, 1.0, 1, None)),
        ([(1, 1), (1, 1)], "auto", Crew(2, 0.5, 1, None)),
        ([(8, 0), (4, 8)], "auto", Crew(8, 0.375, 1, None)),
        ([(2, 0)], 3, "3 workers were asked for, and 2 fit: one for each of 2 CPUs"),
        ([(64, 2), (64, 2)], 5, "5 workers were asked for, and 4 fit: one for each of 4 GPUs"),
    ],
)
def test_a_crew_fits_the_machine(
    monkeypatch: pytest.MonkeyPatch, there: list[tuple[int, int]], asked: int | str, crew: Crew | str
) -> None:
    nodes_are(monkeypatch, there)
    settings = settings_of(Config.model_validate({"train": {"workers": asked}}))
    if isinstance(crew, Crew):
        assert crew_of(settings) == crew
        return
    with pytest.raises(RunError, match=crew):
        crew_of(settings)


def test_images_that_workers_can_not_share_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes_are(monkeypatch, [(8, 0)])
    with pytest.raises(ConfigError, match="32 images can't be shared by 3 workers"):
        crew_of(settings_of(Config.model_validate({"train": {"workers": 3}})))


def test_nothing_to_learn(round_0: Path, tmp_path: Path) -> None:
    out = copied(round_0, tmp_path)
    with pytest.raises(RunError, match=r"nothing stands in .* that can be learned"):
        trained(
            out,
            "train.mix={tasks: {OCR: 1}, captions: 0, od: 0, grounding: 0, referring: 0, dense: 0, ocr: 0, "
            "region_to_text: 0, segmentation: 0, proposal: 0}",
        )


def test_folds_learn_from_no_image_of_their_own(round_0: Path) -> None:
    """By what the stream gives, over a whole epoch; held-out images are in neither."""
    output, config = Output(round_0), load_config(round_0 / "config.yaml")
    folds, phase = Folds(2), settings_of(config).at((32, 32)).phases[0]
    everything, counted = Census(), Census()
    source = Source(output, 0, config.ingest, folds, None, 0.2, 60)
    for shard in output.shards():
        everything.add(of_shard(replace(source, held_out=0.0), [phase], shard, 0))
        counted.add(of_shard(source, [phase], shard, 0))
    learned = []
    for fold in range(2):
        preparation = Preparation(replace(source, fold=fold), phase, small_processor((32, 32)), 0, 1000)
        by_picks, by_stream = (
            {one.item_id for one in preparation.chunk_of(epoch_of(picks)) if isinstance(one, Prepared)}
            for picks in (counted.picks(phase, fold, 0), everything.picks(phase, None, 0))
        )
        assert by_picks == by_stream
        assert counted.learned(phase, fold) == counted.picks(phase, fold, 0).count
        assert counted.learned(phase, fold) - len(by_picks) <= 2, "some crops say nothing"
        learned.append(by_picks)
    items = {item.item_id: item for item in Dataset(output).items()}
    assert all(folds.of(items[id_]) != fold for fold in range(2) for id_ in learned[fold])
    assert not any(folds.held_out(items[id_], 0.2) for ids in learned for id_ in ids)
    whole = Preparation(source, phase, small_processor((32, 32)), 0, 1000)
    chunk = whole.chunk_of(epoch_of(counted.picks(phase, None, 0)))
    assert all(learned)
    assert not learned[0] & learned[1]
    assert learned[0] | learned[1] == {one.item_id for one in chunk if isinstance(one, Prepared)}


def epoch_of(picks: Picks) -> list[Pick]:
    return [picks.pick(place) for place in range(picks.count)]


def test_a_picture_that_kills_its_readers_is_named_and_the_others_are_learned(round_0: Path) -> None:
    whole = prepared_by(round_0)
    counted = Census()
    for shard in whole.source.output.shards():
        counted.add(of_shard(whole.source, [whole.phase], shard, 0))
    picks = counted.picks(whole.phase, None, 0)
    epochs = [picks.pick(place) for place in range(2 * picks.count)]
    expected = [one for one in whole.chunk_of(epochs) if isinstance(one, Prepared)]
    victim = expected[picks.count // 3].item_id
    deadly = Deadly(whole.source, whole.phase, whole.processor, whole.seed, whole.max_answer, victim=victim)
    with cluster(Run()):
        there = list(stream(deadly, (epochs[at : at + 5] for at in range(0, len(epochs), 5)), 0.3))
    (uri,) = [item.uri for item in Dataset(whole.source.output).items() if item.item_id == victim]
    told = [one.message for one in there if isinstance(one, Unprepared) and one.item_id == victim]
    why = f"{uri}: whoever reads it dies, or takes longer than 60 s (WorkerCrashedError)"
    assert told == [why], "in the second epoch it is known"
    given = [one for one in there if isinstance(one, Prepared)]
    others = [one for one in expected if one.item_id != victim]
    assert [(one.place, one.item_id, one.rows) for one in given] == [(o.place, o.item_id, o.rows) for o in others]
    assert all((one.pixels == other.pixels).all() for one, other in zip(given, others, strict=True))
    passed = [one.place for one in there if isinstance(one, Passed)]
    assert passed == sorted(passed)
    assert {*range(4, len(epochs), 5), len(epochs) - 1} <= set(passed)


@pytest.mark.slow  # half a minute of starting processes
def test_a_picture_over_which_readers_hang_is_given_up(round_0: Path) -> None:
    whole = prepared_by(round_0)
    picks = [Pick(place, 0, ShardId(0, 0), place) for place in range(3)]
    expected = [one for one in whole.chunk_of(picks) if isinstance(one, Prepared)]
    source, victim = replace(whole.source, item_seconds=1), expected[0].item_id
    hanging = Deadly(source, whole.phase, whole.processor, whole.seed, whole.max_answer, victim=victim, hangs=True)
    with cluster(Run()):
        there = list(stream(hanging, [picks], 0.3))
    (given_up,) = [one for one in there if isinstance(one, Unprepared)]
    assert given_up.item_id == victim and "takes longer than 1 s" in given_up.message
    assert [one.item_id for one in there if isinstance(one, Prepared)] == [one.item_id for one in expected[1:]]


def prepared_by(round_0: Path, *settings: str, size: tuple[int, int] = (32, 32)) -> Preparation:
    config = load_config(round_0 / "config.yaml", settings)
    source = Source(Output(round_0), 0, config.ingest, Folds(1), None, 0.0, 60)
    return Preparation(source, settings_of(config).at(size).phases[0], small_processor(size), 0, 1000)


def test_a_question_too_long_for_the_model_is_left_out_and_counted(round_0: Path) -> None:
    preparation = prepared_by(round_0)
    short = replace(preparation, processor=replace(preparation.processor, positions=60))
    tasks = (Task.CAPTION_TO_PHRASE_GROUNDING, Task.CAPTION)
    examples = [Example(task, ask(task, "a dog " * 50 if task.takes_input else None), "a dog") for task in tasks]
    rows, cut = short.rows(examples)
    assert [row.task for row in rows] == [Task.CAPTION]
    assert cut == 1


def test_the_census_counts_what_the_model_will_see(round_0: Path) -> None:
    """At 16 px a shape of 64 is too small to be a target, and at 768 it is not."""
    shard = ShardId(0, 0)
    counted = []
    for size in ((16, 16), (768, 768)):
        preparation = prepared_by(round_0, "train.size=null", "train.targets.min_side=8", size=size)
        counted.append(of_shard(preparation.source, [preparation.phase], shard, 0).examples["all"])
    assert counted[0][Task.REGION_TO_CATEGORY] < counted[1][Task.REGION_TO_CATEGORY]


def test_who_composes_captions_trains_no_released_weights(tmp_path: Path) -> None:
    """By what made the rounds, whatever the configuration says of it by now."""
    assert f"{Composer.__module__}:{Composer.__qualname__}" == COMPOSER
    pipeline = build_pipeline(Config.model_validate({"specialists": {"words": {"use": "composer"}, "parser": {}}}))
    write_json(Output(tmp_path).round(0).sources, {"sources": pipeline.sources})
    made_of = Training(Output(tmp_path), Config(), 0, Console(quiet=True)).made_of
    composers = [name for name, made_by in made_of if made_by == COMPOSER]
    assert composers == ["words"]
    for start, excluded in (("some/model", ("words",)), ("nano", ())):
        (phase,) = settings_of(Config.model_validate({"train": {"start": start}}), composers).phases
        assert phase.exclude == excluded


def test_classes_go_through_the_vocabulary() -> None:
    train = {"exhaustive": {"human": ["Man", "Dog"]}}
    vocabulary = {"classes": {"person": {"synonyms": ["man"]}}}
    (phase,) = settings_of(Config.model_validate({"vocabulary": vocabulary, "train": train})).phases
    assert phase.exhaustive == {"human": {"person", "dog"}}


def test_a_model_half_deleted_is_published_again(undisturbed: tuple[Path, str], tmp_path: Path) -> None:
    out = Path(shutil.copytree(undisturbed[0], tmp_path / "out"))
    (out / "round-0" / "model" / "model.safetensors").unlink()
    training = Training(Output(out), load_config(out / "config.yaml"), 0, Console(quiet=True))
    settings = settings_of(training.config)
    assert not training.is_trained(0, training.made_by(settings.at((32, 32))))


def test_names_that_no_source_has_are_told(round_0: Path) -> None:
    config = load_config(round_0 / "config.yaml", ["train.exclude=[detectr]", "train.texts_from=[human]"])
    training = Training(Output(round_0), config, 0, Console(quiet=True))
    (warning,) = training.unknown_sources(settings_of(config))
    assert "'detectr'; there are alt, human" in warning


def test_progress_goes_on_where_the_training_does(tmp_path: Path) -> None:
    """Not with what an earlier run wrote, nor after workers have cut the journal back."""
    told = Console(record=True, width=200, file=io.StringIO())
    follower = Follower(told, "train", tmp_path, "mine", steps=9)

    def write(*lines: tuple[str, int], run: str = "mine") -> None:
        rest = {"run": run, "loss": 1.0, "losses": {}, "images_per_second": 1.0, "cut": 1}
        text = (json.dumps({"event": event, "step": step, "at": float(step), **rest}) for event, step in lines)
        (tmp_path / "log.jsonl").write_text("".join(line + "\n" for line in text))

    write(("start", 0), ("step", 1), ("step", 2), ("judged", 2), run="earlier")
    follower.look()
    assert told.export_text(clear=False) == ""
    write(("start", 0), ("step", 1), ("step", 2), ("step", 3), ("judged", 3))
    follower.look()
    assert "after 3 steps" in told.export_text(clear=False)
    write(("start", 0), ("step", 1), ("start", 1))
    follower.look()
    write(("start", 0), ("step", 1), ("start", 1), ("step", 2), ("judged", 2))
    follower.look()
    assert "after 2 steps" in told.export_text(clear=False)
    kept: tuple[tuple[str, int], ...] = (("start", 0), ("step", 1), ("start", 1), ("step", 2), ("judged", 2))
    write(*kept, ("step", 3), ("step", 4), ("step", 5))
    follower.look()
    write(*kept, ("start", 2), ("step", 3))
    follower.look()
    write(*kept, ("start", 2), ("step", 3), ("step", 4), ("step", 5), ("step", 6), ("judged", 6))
    follower.look()
    assert told.export_text(clear=False).count("after 2 steps") == 1
    assert "after 6 steps" in told.export_text(clear=False)
    assert follower.cut == 6  # steps, each counted once
