"""The loop where the only place that machines share is an object store: training, annotating again, merging and
judging on S3 come to what they come to on a disk."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from clusters import content, ray_head, ray_nodes
from command import command
from rich.console import Console
from s3 import Bucket, Proxy, environment, faulty, first, never, s3_server
from safetensors.torch import load
from training import PROCESSOR, recipe, tiny

from benchmarks.refinement.setting import PIPELINE, PLUGIN, ROOT, draw, label
from benchmarks.refinement.worlds import HERE
from benchmarks.world import EASY
from benchmarks.world.writing import write_round
from engine import open_dataset
from engine.atomic import read_json
from engine.config import Run, load_config
from engine.copies import near
from engine.errors import ConfigError, OutputError, RunError
from engine.layout import LOCK, Output
from engine.places import place
from engine.report.training import trainings
from engine.runner import cluster
from florence2 import Florence2
from florence2.training import Trainer
from pipelines.build import build_pipeline
from pipelines.stages import Stages
from pipelines.training.checkpoints import Done, keep, kept, prune, publish
from pipelines.training.journal import Written, read_journal
from pipelines.training.progress import Follower
from pipelines.training.stage import OBJECT_STORE_BYTES

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS, CHECKPOINT = 6, 2
CONFIG: dict[str, Any] = {
    "train": {
        "steps": STEPS,
        "images_per_step": 4,
        "tasks_per_image": 2,
        "size": [32, 32],
        "checkpoint_steps": CHECKPOINT,
        "vocabulary_size": 1500,
        "held_out": 0.25,
        "samples": 1,
        "targets": {"min_side": 2},
        "exhaustive": {"human": "all"},
        "recipe": {"learning_rate": 1.0e-3},
    },
    "reannotate": {"specialists": {"florence2": {"tasks": ["CAPTION", "OD"], "max_new_tokens": 12}}},
    "run": {"workers": 1},
}


@dataclass
class Store:
    """A bucket behind a proxy, and where this machine keeps its copies."""

    bucket: Bucket
    proxy: Proxy
    caches: Path

    def output(self, name: str = "out") -> Output:
        return Output(place(f"{self.bucket.uri}/{name}"))

    def key(self, path: Path) -> str:
        return str(path).removeprefix(f"{self.bucket.uri}/")

    def another_machine(self) -> None:
        """This one, with nothing of what it has kept."""
        shutil.rmtree(self.caches, ignore_errors=True)

    def whole(self, out: str = "out") -> list[str]:
        """The checkpoints that count, as another client sees them."""
        keys = self.bucket.keys(f"{out}/round-0/training/")
        return sorted(key.split("/")[-2] for key in keys if key.endswith("/training.json"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    caches = tmp_path_factory.mktemp("caches")
    with s3_server() as server, faulty(server) as proxy, environment(proxy.url), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(caches))
        yield Store(server.bucket(), proxy, caches)


# What a training keeps, without Ray


def trainer(seed: int = 0) -> Trainer:
    return Trainer(tiny(seed), recipe(), processor=PROCESSOR)


def saved(folder: Path, done: Done, seed: int = 0) -> None:
    keep(folder / f"step-{done.step:09d}", lambda path: trainer(seed).save(path, vars(done)))


@pytest.fixture
def fold(store: Store, request: pytest.FixtureRequest) -> Path:
    return place(f"{store.bucket.uri}/{request.node.name.replace('[', '-').replace(']', '')}/fold-0")


def test_checkpoints_are_kept_where_the_output_is(store: Store, fold: Path) -> None:
    there = [Done(step=step, loss=loss, ended=step == 4) for step, loss in ((2, 1.0), (4, 3.0), (6, 2.0), (8, 2.5))]
    for done in there:
        saved(fold, done, seed=done.step)
    store.another_machine()
    assert kept(fold) == [(fold / f"step-{done.step:09d}", replace(done, places=[0])) for done in there]
    prune(fold)
    assert [done.step for _, done in kept(fold)] == [2, 4, 8], "the best, the end of a phase, the last"
    assert not [name for name in store.bucket.keys(store.key(fold)) if "step-000000006" in name]
    publish(fold, fold.with_name("model"), {"digest": "made so"})
    target = fold.with_name("model")
    assert read_json(target / "made_by.json") == {"digest": "made so", "step": 2, "held_out_loss": 1.0}
    best = tiny(2).state_dict()
    sent = load(store.bucket.read(f"{store.key(target)}/model.safetensors"))
    assert sent["model.language_model.shared.weight"][: len(best["language_model.shared.weight"])].equal(
        best["language_model.shared.weight"]
    )


def test_a_checkpoint_that_is_sent_in_part_is_none(store: Store, fold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(fold, Done(step=2))
    for part in ("optimiser.safetensors", "step-000000004/training.json"):
        store.proxy.fault = first(100, "refused", ("PUT", "POST"), part)
        with pytest.raises(RunError, match="can't be used with the credentials"):
            saved(fold, Done(step=4))
        assert [done.step for _, done in kept(fold)] == [2]
    store.proxy.fault = never
    saved(fold, Done(step=4))
    assert [done.step for _, done in kept(fold)] == [2, 4]


def test_what_goes_from_the_store_is_gone(store: Store, fold: Path) -> None:
    """Though this machine has a copy: somebody wants it trained anew."""
    saved(fold, Done(step=2))
    for key in store.bucket.keys(store.key(fold)):
        store.bucket.remove(key)
    assert kept(fold) == []


def test_a_disk_that_is_full_is_not_the_stores(fold: Path) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    with pytest.raises(RunError, match=r"has no space left.* name another folder with XDG_CACHE_HOME"):
        keep(fold / "step-000000002", full)


def test_a_journal_goes_on_on_another_machine(store: Store, fold: Path) -> None:
    console = Console(record=True, width=200, file=io.StringIO())
    follower = Follower(console, "train", fold, "run", 4)
    journal = Written(fold, 0)
    journal.tell("start", 0, run="run")
    for step in (1, 2, 3):
        journal.tell("step", step, loss=1.0 / step, losses={}, images_per_second=1.0, cut=0)
        if step == 2:
            journal.send()
    store.another_machine()
    assert [line["step"] for line in read_journal(fold)] == [0, 1, 2]
    follower.look()
    again = Written(fold, 1)
    again.send()
    follower.look()
    again.tell("start", 1, run="run")
    again.tell("step", 2, loss=0.25, losses={}, images_per_second=1.0, cut=0)
    again.send()
    follower.look()
    again.tell("step", 4, loss=0.125, losses={}, images_per_second=1.0, cut=0)
    again.close()
    follower.look()
    assert [(line["event"], line["step"]) for line in read_journal(fold)] == [
        ("start", 0),
        ("step", 1),
        ("start", 1),
        ("step", 2),
        ("step", 4),
    ]
    assert follower.starts == 2
    assert "step 4 of 4, loss 0.125" in console.export_text()
    assert store.bucket.keys(f"{store.key(fold)}/tensorboard/events")
    assert not [path for path in near(fold).rglob("*") if path.is_file()]


def test_a_journal_that_is_cut_back_and_grows_between_two_looks_is_told_whole(tmp_path: Path) -> None:
    """As one on a store does, where looks are rare: what follows the old end is not what comes next."""
    console = Console(record=True, width=200, file=io.StringIO())
    before = Written(tmp_path, 0)
    before.tell("start", 0, run="before")
    for step in (1, 2, 3):
        before.tell("step", step, loss=1.0, losses={}, images_per_second=1.0, cut=0)
    before.close()
    follower = Follower(console, "train", tmp_path, "run", 6)
    follower.look()
    again = Written(tmp_path, 2)
    again.tell("start", 2, run="run")
    for step in (3, 4, 5, 6):
        again.tell("step", step, loss=0.5, losses={}, images_per_second=1.0, cut=0)
    again.close()
    follower.look()
    assert follower.starts == 1
    assert "step 6 of 6, loss 0.500" in console.export_text()


# The loop


@pytest.fixture(scope="module")
def round_0(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The truth of 20 scenes, here, and on the store as `out`. The pictures are here in both."""
    folder = tmp_path_factory.mktemp("rounds")
    (folder / "settings.yaml").write_text(yaml.safe_dump(CONFIG))
    config = load_config(folder / "settings.yaml")
    write_round(Output(folder / "out"), replace(EASY, size=(32, 32)), seed=0, count=20, shard_size=10, config=config)
    without = shutil.copytree(folder / "out", folder / "sent", ignore=shutil.ignore_patterns("pictures"))
    store.bucket.upload(without, "out")
    store.bucket.write(f"out/{LOCK}", b"{}")
    return folder / "out"


def started(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_a_checkpoint(store: Store, out: str, process: subprocess.Popen[str]) -> None:
    while not store.whole(out):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def ended(process: subprocess.Popen[str]) -> str:
    """What it said."""
    try:
        return process.communicate(timeout=580)[0]
    except subprocess.TimeoutExpired:
        kill(process)
        raise


def kill(process: subprocess.Popen[str]) -> None:
    """With all that it started: Ray's processes may outlive it for a while, and still train."""
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=10)
    process.communicate()


def stages(output: Output, config: Path, *settings: str, round: int = 0) -> Stages:
    console = Console(record=True, width=500, file=io.StringIO())
    return Stages(build_pipeline(load_config(config, settings)), output, console, round)


@dataclass
class Trained:
    store: Output
    disk: Path
    before: list[str]  # the checkpoints that the first machine left
    said: str


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with cluster(Run(), OBJECT_STORE_BYTES):
        yield


@pytest.fixture(scope="module")
def trained(store: Store, round_0: Path, ray: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """On the store by two machines, of which the first one was turned away in the middle; and here by one."""
    there = stages(store.output(), round_0 / "config.yaml")
    store.proxy.fault = first(10**6, "refused", ("PUT", "POST"), "step-000000004")
    with pytest.raises(RunError, match=r"stopped: s3://.*step-000000004 can't be used with") as stop:
        there.run("train")
    store.proxy.fault = never
    assert read_json(there.output.round(0).training / "fold-0" / "failure.json")["message"] in str(stop.value)
    before = store.whole()
    store.another_machine()
    there.run("train")
    disk = Path(shutil.copytree(round_0, tmp_path_factory.mktemp("disk") / "out"))
    stages(Output(disk), disk / "config.yaml").run("train")
    return Trained(there.output, disk, before, str(stop.value) + there.console.export_text())


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_journal(folder) if line["event"] == "step"]


@pytest.mark.slow  # three trainings: minutes
def test_begun_on_one_machine_it_goes_on_on_another(store: Store, trained: Trained) -> None:
    folders = [output.round(0).training / "fold-0" for output in (trained.store, Output(trained.disk))]
    assert trained.before == ["step-000000002"]
    assert [line["step"] for line in read_journal(folders[0]) if line["event"] == "start"] == [0, 2]
    there, here = map(losses, folders)
    assert [step for step, _ in here] == list(range(1, STEPS + 1))
    assert there == [(step, pytest.approx(loss, rel=1e-3)) for step, loss in here]
    assert f"step {STEPS} of {STEPS}" in trained.said
    models = [output.round(0).model() for output in (trained.store, Output(trained.disk))]
    made_by = [read_json(model / "made_by.json") for model in models]
    assert made_by[0].pop("held_out_loss") == pytest.approx(made_by[1].pop("held_out_loss"), rel=1e-3)
    assert made_by[0] == made_by[1]
    weights = [load(model.joinpath("model.safetensors").read_bytes()) for model in models]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        if not name.endswith("k_proj.bias"):  # of which no gradient is more than rounding
            assert tensor.allclose(weights[1][name], atol=2e-3), name


@pytest.mark.slow  # three trainings: minutes
def test_what_a_training_leaves(store: Store, trained: Trained) -> None:
    keys = {key.removeprefix("out/round-0/") for key in store.bucket.keys("out/round-0/")}
    folder = "training/fold-0"
    assert {"model/config.json", "model/model.safetensors", "model/made_by.json", "model/tokenizer.json"} <= keys
    assert {f"{folder}/log.jsonl", f"{folder}/begun.json", f"{folder}/samples/samples.json"} <= keys
    assert any(key.startswith(f"{folder}/tensorboard/events") for key in keys)
    assert not [key for key in keys if f"{folder}/ray" in key or ".unsent" in key or ".unpublished" in key]
    steps = {key.split("/")[3] for key in keys if key.startswith(f"{folder}/checkpoints/")}
    assert len(steps) <= 2
    left = [path for path in near(trained.store.round(0).training).rglob("*") if path.is_file()]
    assert {path.parent.parent.name for path in left if path.suffix == ".safetensors"} <= {"start"}
    assert "nothing to do" in again(trained)


def again(trained: Trained) -> str:
    there = stages(trained.store, trained.disk / "config.yaml")
    there.run("train")
    return str(there.console.export_text())


@pytest.mark.slow  # three trainings: minutes
def test_other_settings_are_refused(trained: Trained) -> None:
    with pytest.raises(OutputError, match=r"train\.steps: 6 there, 7 asked for"):
        stages(trained.store, trained.disk / "config.yaml", "train.steps=7").run("train")
    with pytest.raises(ConfigError, match=r"train\.start: .*is no model.s folder: it has no config.json"):
        stages(trained.store, trained.disk / "config.yaml", f"train.start={trained.store.root}/nothing").run("train")


@pytest.fixture(scope="module")
def rounds(store: Store, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What annotating again, merging and judging by the same model make of the store, downloaded, and here."""
    here = store.bucket.download("out", tmp_path_factory.mktemp("here") / "out")
    store.another_machine()
    for output in (trained.store, Output(here)):
        stages(output, here / "config.yaml").run("reannotate")
        stages(output, here / "config.yaml", round=1).run("merge")
    return store.bucket.download("out", tmp_path_factory.mktemp("there") / "out"), here


@pytest.mark.slow  # three trainings: minutes
def test_the_next_round_is_the_one_that_a_disk_has(rounds: tuple[Path, Path]) -> None:
    there, here = map(content, rounds)
    assert there == here
    assert {name.rpartition("/part-")[0] for name in there} >= {"round-1/annotations", "round-1/merge/decisions"}
    assert any(row["decisions"] for name, rows in there.items() if "round-1/decisions" in name for row in rows)
    for name in (
        "sources.json",
        "merge/sources.json",
        "merge/summary.json",
        "round.json",
        "partitions/part-00000.json",
    ):
        told = [(folder / "round-1" / name).read_text() for folder in rounds]
        assert told[0] == told[1], name
    summaries = [json.loads((folder / "round-1" / "summary.json").read_text()) for folder in rounds]
    first, second = ({key: value for key, value in one.items() if key != "last_run"} for one in summaries)
    assert first == second


@pytest.mark.slow  # three trainings: minutes
def test_no_word_of_this_machine_nor_a_secret_is_there(store: Store, rounds: tuple[Path, Path]) -> None:
    for path in rounds[0].rglob("*"):
        if path.is_file():
            assert str(store.caches).encode() not in path.read_bytes(), path
            assert b"of-tests" not in path.read_bytes(), path


@pytest.mark.slow  # three trainings: minutes
def test_a_model_is_fetched_once_for_all_its_workers(store: Store, rounds: tuple[Path, Path]) -> None:
    model = store.output().round(0).model()
    (copy,) = near(model).glob("@*")
    assert Florence2.from_pretrained(copy).config == Florence2.from_pretrained(rounds[1] / "round-0" / "model").config


@pytest.mark.slow  # three trainings: minutes
def test_a_report_of_a_training(store: Store, rounds: tuple[Path, Path]) -> None:
    stages(store.output(), rounds[1] / "config.yaml").run("report")
    assert "On held-out images" in store.bucket.read("out/report/index.html").decode()
    assert trainings(store.output().round(0)) == trainings(Output(rounds[0]).round(0)) != []


# What takes longer


@pytest.mark.slow
def test_machines_that_share_nothing_but_the_store(store: Store, round_0: Path, tmp_path: Path) -> None:
    """Two workers on two nodes, each with copies of its own, as has the driver: the second phase starts from what a
    worker on one of the nodes saved."""
    store.bucket.upload(round_0.with_name("sent"), "apart")
    phases = "train.phases={one: {steps: 2}, two: {steps: 2}}"
    with ExitStack() as stack:
        head = stack.enter_context(ray_head(dict(os.environ), cpus=0))
        for number in range(2):
            elsewhere = {**head.environment, "XDG_CACHE_HOME": str(tmp_path / f"node-{number}")}
            # Of three CPUs one is for what prepares images, and two for a worker: there is no room for a second.
            stack.enter_context(ray_nodes(replace(head, environment=elsewhere), 1, cpus=3))
        done = subprocess.run(
            command(
                place(f"{store.bucket.uri}/apart"),
                *("--address", head.address, "--set", "train.workers=2", "--set", phases),
                stage="train",
            ),
            env={**head.environment, "XDG_CACHE_HOME": str(tmp_path / "driver")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
        )
    assert done.returncode == 0, done.stdout
    folder = store.output("apart").round(0).training / "fold-0"
    assert [step for step, _ in losses(folder)] == [1, 2, 3, 4]
    assert "apart/round-0/model/made_by.json" in store.bucket.keys("apart/")
    copies = [
        sorted(path.parent.parent.name for path in (tmp_path / f"node-{number}").rglob("model.safetensors"))
        for number in range(2)
    ]
    # What was fetched, and where the first worker was, what it sent; the checkpoints are gone again.
    assert sorted(copies) == [["model", "start"], ["start"]]


@pytest.mark.slow
def test_a_training_ends_with_a_store_that_is_gone(store: Store, round_0: Path) -> None:
    """Workers that were started anew would ask it, too, each for a minute or more; here it is a second or two."""
    store.bucket.upload(round_0.with_name("sent"), "gone")
    impatient = {**os.environ, "AWS_MAX_ATTEMPTS": "1"}
    process = started(command(place(f"{store.bucket.uri}/gone"), stage="train"), impatient)
    wait_for_a_checkpoint(store, "gone", process)
    store.proxy.fault = lambda method, path: "gone"
    said = ended(process)
    store.proxy.fault = never
    assert process.returncode == 3
    (error,) = (line for line in said.splitlines() if line.startswith("Error:"))
    assert error.startswith(f"Error: the training stopped: {store.bucket.uri}/gone/")
    assert "can't be reached" in error
    assert error.endswith("What is done is safe: run the same again")


@pytest.mark.slow
@pytest.mark.timeout(1200)  # eight minutes on two cores
def test_from_images_to_a_report_of_two_rounds(store: Store, tmp_path: Path) -> None:
    """`--stage all`, killed in its training, gone on with on another machine, and once more on a third, as is `--stage
    refine` on a fourth; with the benchmark's toys for specialists."""
    label(tmp_path, draw(tmp_path, HERE, 0, 24), tuple(range(0, 24, 2)))
    labels = [str(tmp_path / name) for name in ("labels.json", "label_captions.json")]
    learned = {"start": "pico", "steps": 3, "checkpoint_steps": 2, "images_per_step": 4, "images_at_once": 4}
    toy = {
        "base": str(PIPELINE),
        "ingest": {"images": [str(tmp_path / "images")], "shard_size": 8},
        "train": learned,
        "gate": {"labels": labels, "margin": 1.0},
        "refine": {"rounds": [{"images": 8}]},
        "run": {"workers": 1},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(toy))
    known = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(PLUGIN)])}
    out = place(f"{store.bucket.uri}/whole")

    def begun(stage: str) -> subprocess.Popen[str]:
        return started(command(out, "--config", str(tmp_path / "toy.yaml"), stage=stage), known)

    def done(stage: str) -> str:
        """By a machine that has nothing yet; what it said."""
        store.another_machine()
        process = begun(stage)
        said = ended(process)
        assert process.returncode == 0, said
        return said

    process = begun("all")
    wait_for_a_checkpoint(store, "whole", process)
    kill(process)
    store.bucket.write(f"whole/{LOCK}", b"{}")  # as after a minute: see test_places.py
    said = [done("all"), done("all")]
    assert "nothing to do, every image is annotated" in said[1]
    judged = store.bucket.read("whole/round-1/round.json")
    said.append(done("refine"))
    assert store.bucket.read("whole/round-1/round.json") == judged
    outcome = json.loads(judged)["outcome"]  # of so few images it may be any
    assert all(f"round 1: {outcome}" in one for one in said), said
    assert len(list(open_dataset(f"{store.bucket.uri}/whole", 1).records())) == 24
    assert "whole/report/index.html" in store.bucket.keys("whole/report/")
