"""What `engine plan` says before a run is what the run comes to."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from command import Call
from PIL import Image
from rich.console import Console
from toys import Brightness, Looker, Teller, noted

from engine.atomic import write_json
from engine.cli import commands, terminal
from engine.config import Config, Ingest, Rates, Run
from engine.errors import ConfigError, OutputError, RunError
from engine.ingest import ingest
from engine.layout import Output, ShardId
from engine.partitions import close, partitions
from engine.pools import Pool
from engine.protocols import Sample
from engine.records import AnyAnnotation, Record
from engine.storage import read_given, write_annotations, write_decisions
from pipelines.annotating import Annotating
from pipelines.build import Pipeline
from pipelines.planning import Capacity, balanced, forecast
from pipelines.probing import FEW, probe

CPU = Pool("cpu", 0, 1, cpus=1, gpus=0, memory_mb=100)
GPU = Pool("gpu", 1, 2, cpus=1, gpus=1, memory_mb=100)
ROOM = Capacity(4, 0)


def pipeline_of(images: Path, *names: str, **options: Any) -> Pipeline:
    settings = Ingest(images=(str(images),), shard_size=2, partition_size=4)
    names = names or ("brightness",)
    config = Config(ingest=settings, specialists={name: {} for name in names}, **options)
    return Pipeline(config, tuple(Brightness(name) for name in names), ())


def annotated(pipeline: Pipeline, output: Output, *shards: ShardId) -> None:
    """As a run of `pipeline` would leave these shards; of all if none are named."""
    if not output.manifest.exists():
        ingest(output, pipeline.config.ingest, pipeline.ingest_digest, lambda done: None)
        Annotating(pipeline, output, Console(quiet=True)).keep_sources()
    round_ = output.round(0)
    for shard in shards or tuple(output.shards()):
        records = [Record(record.item) for record in read_given(output, shard)]
        write_annotations(round_, shard, records, pipeline.annotate_digest, pipeline.source_digests)
        write_decisions(round_, shard, records, pipeline.filter_digest)


# What will run


def test_a_new_set_is_counted_and_cut(image_set: Callable[..., Path], tmp_path: Path) -> None:
    pipeline, output = pipeline_of(image_set(7)), Output(tmp_path / "out")
    told = forecast(pipeline, output, room=ROOM)
    assert (told.images.listed, told.images.partitions, told.images.shards) == (7, 2, 4)
    assert (told.work.total, told.work.left, told.work.why) == (7, 7, {})
    assert (told.hours, told.price, told.measured) == (None, None, "")
    assert not output.root.exists()
    ingest(output, pipeline.config.ingest, pipeline.ingest_digest, lambda done: None)
    assert len(list(output.shards())) == told.images.shards
    assert len(partitions(output)) == told.images.partitions


def test_what_is_done_is_not_done_again(image_set: Callable[..., Path], tmp_path: Path) -> None:
    pipeline, output = pipeline_of(image_set(7)), Output(tmp_path / "out")
    annotated(pipeline, output, ShardId(0, 0), ShardId(1, 1))
    told = forecast(pipeline, output, room=ROOM)
    assert (told.work.left, told.work.missing, told.work.again) == (4, 4, 0)
    annotated(pipeline, output)
    assert forecast(pipeline, output, room=ROOM).work.left == 0
    output.manifest.unlink()
    with pytest.raises(OutputError, match=r"manifest\.json is missing"):
        forecast(pipeline, output, room=ROOM)


def test_images_that_came_and_went_are_told(image_set: Callable[..., Path], tmp_path: Path) -> None:
    images = image_set(5)
    pipeline, output = pipeline_of(images), Output(tmp_path / "out")
    annotated(pipeline, output)
    (images / "0000.png").unlink()
    for n in range(3):
        Image.new("RGB", (40, 30), (n, 9, 9)).save(images / f"new {n}.png")
    told = forecast(pipeline, output, room=ROOM)
    assert (told.images.ingested, told.images.new, told.images.gone, told.images.listed) == (5, 3, 1, 7)
    assert (told.work.total, told.work.left, told.work.missing) == (8, 3, 0)


@pytest.mark.parametrize("markers", [True, False])
def test_a_source_that_changed_is_named(markers: bool, image_set: Callable[..., Path], tmp_path: Path) -> None:
    images = image_set(4)
    pipeline, output = pipeline_of(images, "one", "two"), Output(tmp_path / "out")
    annotated(pipeline, output)
    for partition in partitions(output) if markers else ():
        assert close(output, output.round(0), partition, {})
    first, _ = pipeline.specialists
    changed = replace(pipeline, specialists=(first, Brightness("two", troubles={"x.png": "raise"})))
    told = forecast(changed, output, room=ROOM)
    assert (told.work.left, told.work.again) == (4, 4)
    assert told.work.why == {"two": "its code, weights or parameters changed"}
    assert told.work.sources == {"one": 0, "two": 4}
    fewer = replace(pipeline, specialists=(first,))
    assert forecast(fewer, output, room=ROOM).work.why == {"two": "no longer asked for"}
    more = pipeline_of(images, "one", "two", "three")
    assert forecast(more, output, room=ROOM).work.why == {"three": "it is new"}
    follows = replace(pipeline, specialists=(Looker("one", gain=2.0), Teller("two")))
    annotated(replace(pipeline, specialists=(Looker("one"), Teller("two"))), Output(tmp_path / "other"))
    assert forecast(follows, Output(tmp_path / "other"), room=ROOM).work.why["two"] == "it reads one"


# What it takes


def test_a_probe_measures_each_part_and_leaves_nothing(image_set: Callable[..., Path], tmp_path: Path) -> None:
    pipeline, output = pipeline_of(image_set(10), rates=Rates(cpu_hour=36.0)), Output(tmp_path / "out")
    told = forecast(pipeline, output, count=9, room=ROOM)
    assert told.seconds.keys() == {"brightness", "decode", "filters"}
    assert all(seconds > 0 for seconds in told.seconds.values())
    (stage,) = told.stages
    assert stage.seconds is not None
    assert stage.seconds == pytest.approx(sum(told.seconds.values()))
    assert (stage.workers, stage.spread > 0) == (4, True)
    assert told.hours == pytest.approx(stage.seconds * 10 / 4 / 3600)
    assert told.price == pytest.approx(stage.seconds * 10 / 3600 * 36)  # one CPU each, and none waits
    assert told.bytes_an_image is not None
    assert told.bytes_an_image > 0
    assert not output.root.exists()


def test_a_small_probe_claims_no_interval(image_set: Callable[..., Path]) -> None:
    measured = probe(pipeline_of(image_set(FEW + 2)), FEW - 1)
    assert len(measured.batches) == measured.images == FEW - 1
    mean, spread = measured.of(["brightness", "decode"])
    assert mean > 0
    assert spread == 0
    assert "too few" in forecast(pipeline_of(image_set(FEW + 2)), Output(Path("/nowhere")), 2, ROOM).measured


@dataclass
class Counting(Brightness):
    """Leaves with how many images it was asked at a time, and what it may have of threads, in `diary`."""

    diary: str = ""

    def annotate(self, batch: Sequence[Sample]) -> Sequence[Iterable[AnyAnnotation]]:
        noted(self.diary, self.name, str(len(batch)), os.environ["OMP_NUM_THREADS"], str(os.getpid()))
        time.sleep(0.1)
        return super().annotate(batch)


def test_a_probe_runs_as_workers_do(
    image_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches, each pool in a process that has its threads from the beginning."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    pools = {"a": {"specialists": ["one"], "cpus": 3}, "b": {"specialists": ["two"], "cpus": 0.5}}
    pipeline = pipeline_of(image_set(6), "one", "two", run=Run.model_validate({"batch_size": 4, "pools": pools}))
    diary = tmp_path / "diary"
    pipeline = replace(pipeline, specialists=(Counting("one", diary=str(diary)), Counting("two", diary=str(diary))))
    measured = probe(pipeline, 6)
    said = [line.split() for line in diary.read_text().splitlines()]
    batches = ["4", "4", "2"]  # the first of them to warm up
    assert [words[:3] for words in said] == [
        *(["one", size, "3"] for size in batches),
        *(["two", size, "1"] for size in batches),
    ]
    assert len({words[3] for words in said} | {str(os.getpid())}) == 3
    assert (measured.images, measured.batches) == (6, (4, 2))
    assert 0.2 / 6 < measured.of(["one"])[0] < 0.1


def test_a_probe_that_kills_its_process_is_told_of(image_set: Callable[..., Path]) -> None:
    pipeline = pipeline_of(image_set(1))
    pipeline = replace(pipeline, specialists=(Brightness(troubles={"0000.png": "kill"}),))
    with pytest.raises(RunError, match="the probe's process of brightness ended with code -9"):
        probe(pipeline, 1)


def test_a_probe_passes_over_what_can_not_be_read(image_set: Callable[..., Path]) -> None:
    images = image_set(3)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this was a photo once")
    measured = probe(pipeline_of(images), 10)
    assert (measured.images, measured.unread) == (3, 1)
    for path in images.glob("*.png"):
        path.unlink()
    with pytest.raises(ConfigError, match="none of the 1 images"):
        probe(pipeline_of(images), 10)


def test_a_last_run_says_what_it_took(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """And what is replayed takes nothing: only the source that changed, and decoding."""
    pipeline, output = pipeline_of(image_set(4), "one", "two"), Output(tmp_path / "out")
    annotated(pipeline, output)
    spent = {"one": 36.0, "two": 7.2, "decode": 0.72, "filters": 0.0, "one setup": 50.0}
    write_json(output.round(0).summary, {"last_run": ran(spent, one=4, two=4, decode=4, filters=4)})
    changed = replace(pipeline, specialists=(pipeline.specialists[0], Brightness("two", troubles={"x.png": "raise"})))
    told = forecast(changed, output, room=Capacity(1, 0))
    assert told.seconds == {"one": 9.0, "two": 1.8, "decode": 0.18, "filters": 0.0}
    assert told.hours == pytest.approx(4 * (1.8 + 0.18) / 3600)
    assert told.bytes_an_image is not None


def test_a_last_run_that_replayed_says_what_it_computed(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """One image of many was tried again; and of a source that had nothing to do nobody knows."""
    pipeline, output = pipeline_of(image_set(4), "one", "two"), Output(tmp_path / "out")
    annotated(pipeline, output)
    spent = {"one": 2.0, "two": 1.0, "decode": 0.5, "filters": 0.04}
    write_json(output.round(0).summary, {"last_run": ran(spent, one=1, two=1, decode=1, filters=1024)})
    told = forecast(pipeline, output, room=ROOM)
    assert told.seconds == {"one": 2.0, "two": 1.0, "decode": 0.5, "filters": 0.04 / 1024}
    assert "of 1 images, too few" in told.measured
    write_json(output.round(0).summary, {"last_run": ran(spent, one=0, two=1, decode=1, filters=1024)})
    assert forecast(pipeline, output, room=ROOM).measured == ""


def ran(spent: dict[str, float], **images: int) -> dict[str, Any]:
    """What summary.json says of a run."""
    return {"images": images["filters"], "worker_seconds": spent, "worker_images": images}


def test_the_slowest_stage_is_named(image_set: Callable[..., Path], tmp_path: Path) -> None:
    pools = {"a": {"specialists": ["one"], "cpus": 1}, "b": {"specialists": ["two"], "cpus": 1}}
    pipeline = pipeline_of(image_set(4), "one", "two", run=Run.model_validate({"pools": pools}))
    output = Output(tmp_path / "out")
    annotated(pipeline, output)
    spent = {"one": 4.0, "two": 12.0, "decode": 0.0, "filters": 0.0}
    write_json(output.round(0).summary, {"last_run": ran(spent, one=4, two=4, decode=8, filters=4)})
    for shard in output.shards():
        output.round(0).decisions(shard).unlink()
    told = forecast(pipeline, output, room=Capacity(6, 0))
    assert [(stage.name, stage.workers) for stage in told.stages] == [("a", 2), ("b", 4)]
    assert told.slowest == "b"
    assert told.hours == pytest.approx(4 * 3.0 / 4 / 3600)


@pytest.mark.parametrize(
    ("seconds", "room", "workers"),
    [
        ([1.0, 1.0], Capacity(4, 1), [1, 1]),  # one GPU: more of the first would help nobody
        ([3.0, 1.0], Capacity(4, 1), [3, 1]),
        ([3.0, 1.0], Capacity(3, 1), [2, 1]),
        ([1.0, 9.0], Capacity(9, 4), [1, 4]),
        ([1.0, 1.0], Capacity(1, 1), [0, 0]),  # not one of each
        ([1.0, 1.0], Capacity(8, 0), [0, 0]),
        ([1.0, 1.0], Capacity(8, 8, memory_mb=250), [1, 1]),
    ],
)
def test_workers_are_balanced(seconds: list[float], room: Capacity, workers: list[int]) -> None:
    assert balanced([CPU, GPU], seconds, room) == workers


def test_no_other_numbers_of_workers_are_faster() -> None:
    for seconds in ([1.0, 2.0], [5.0, 1.0], [1.0, 7.0], [2.5, 2.0]):
        for cpus in range(2, 9):
            room = Capacity(cpus, 3)
            found = balanced([CPU, GPU], seconds, room)
            every = [(a, b) for a in range(1, 9) for b in range(1, 9) if room.fits([CPU, GPU], [a, b])]
            best = max(min(a / seconds[0], b / seconds[1]) for a, b in every)
            assert min(found[0] / seconds[0], found[1] / seconds[1]) == pytest.approx(best)


def test_limits_of_pools_hold() -> None:
    few, many = replace(CPU, max=2), replace(CPU, min=3)
    assert balanced([few], [1.0], Capacity(8, 0)) == [2]
    assert balanced([few, many], [9.0, 1.0], Capacity(8, 0)) == [2, 3]


def test_a_cluster_that_does_not_answer_is_told_of(image_set: Callable[..., Path], tmp_path: Path) -> None:
    pipeline = pipeline_of(image_set(2), run=Run(address="127.0.0.1:1"))
    with pytest.raises(RunError, match=r"'127\.0\.0\.1:1' \(run\.address\) does not answer.*--cpus and --gpus say"):
        forecast(pipeline, Output(tmp_path / "out"))


# As a person meets it


def test_the_screen_fits_80_columns(
    image_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = image_set(4)
    monkeypatch.setattr(sys, "argv", ["engine", "plan", str(images), "--config", "fld", "--out", str(tmp_path / "out")])
    monkeypatch.setattr(terminal.console, "width", 80)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(SystemExit) as ended:
        commands.run()
    said = capsys.readouterr().out
    assert not ended.value.code, said
    assert all(len(line) <= 80 for line in said.splitlines())
    for words in ("4 listed", "google/owlv2-base-patch16-ensemble  Apache-2.0  not here", "not one worker", "--probe"):
        assert words in said
    assert not (tmp_path / "out").exists()


def test_json_has_all_of_it(call: Call, undisturbed: Path, tmp_path: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    code, said = call("plan", "--out", str(out), "--cpus", "8", "--json")
    assert code == 0, said
    told = json.loads(said)
    assert told["work"]["left"] == 0
    assert told["room"]["cpus"] == 8
    assert told["stages"][0]["workers"] == 8
    assert {"detector", "ocr", "decode"} <= told["seconds"].keys()
    assert told["bytes_an_image"] > 1000
