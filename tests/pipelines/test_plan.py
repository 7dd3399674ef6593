"""What `engine plan` says before a run is what the run comes to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import here
import psutil
import pytest
from command import Call
from PIL import Image
from rich.console import Console
from toys import Brightness, Looker, Teller, noted

from engine.atomic import write_json
from engine.cli import commands, terminal
from engine.config import Config, Ingest, Rates, Run, load_config
from engine.errors import ConfigError, OutputError, RunError
from engine.ingest import ingest
from engine.layout import Output, ShardId
from engine.lock import run_lock
from engine.partitions import close, partitions
from engine.pools import Pool
from engine.protocols import Sample
from engine.records import AnyAnnotation, Record
from engine.storage import read_given, write_annotations, write_decisions
from pipelines.annotating import Annotating
from pipelines.build import Pipeline, build_pipeline
from pipelines.planning import Capacity, Work, balanced, forecast, room_of
from pipelines.probing import FEW, Probe, probe

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
        with run_lock(output.root):
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
    assert (told.work.total, told.work.left, told.work.shards, told.work.why) == (7, 7, 4, {})
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
    assert told.images.asked
    other = replace(
        pipeline, config=pipeline.config.model_copy(update={"ingest": Ingest(images=(str(images),), limit=6)})
    )
    limited = forecast(other, output, room=ROOM).images
    assert (limited.new, limited.asked) == (2, False)
    assert forecast(other, Output(tmp_path / "another"), room=ROOM).images.listed == 6


def test_what_no_run_goes_on_with_is_refused(image_set: Callable[..., Path], tmp_path: Path) -> None:
    pipeline, output = pipeline_of(image_set(2)), Output(tmp_path / "out")
    output.root.mkdir()
    (output.root / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="no run's output"):
        forecast(pipeline, output, room=ROOM)


@dataclass
class Unfetched(Brightness):
    def needs(self) -> Iterable[str]:
        yield "weights are to be fetched"


def test_where_weights_are_not_here_nobody_knows_what_changed(image_set: Callable[..., Path], tmp_path: Path) -> None:
    pipeline, output = pipeline_of(image_set(4), "one", "two"), Output(tmp_path / "out")
    annotated(pipeline, output, ShardId(0, 0))
    pipeline = replace(pipeline, specialists=(pipeline.specialists[0], Unfetched("two")))
    work = forecast(pipeline, output, room=ROOM).work
    assert (work.left, work.missing, work.shards, work.again) == (2, 2, 1, 0)
    assert work.why == {"two": "what it needs is not here, so nobody knows whether it changed"}


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


def test_weights_are_told_in_mb(image_set: Callable[..., Path], tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "rt_detr_v2"}')
    (model / "model.safetensors").write_bytes(bytes(3_000_000))
    config = Config.model_validate(
        {"ingest": {"images": [str(image_set(1))]}, "specialists": {"mine": {"use": "detr", "model": str(model)}}}
    )
    (told,) = forecast(build_pipeline(config), Output(tmp_path / "out"), room=ROOM).models
    assert (told.use, told.model, told.needs, told.weights_mb) == ("detr", str(model), "", pytest.approx(3, rel=1e-3))


def test_each_source_is_counted_by_what_it_looks_at_again() -> None:
    work = Work(total=20, left=9, shards=3, missing=1, again=6, sources={"one": 6, "two": 4, "three": 0})
    assert work.looked_at(["one", "two"]) == {"one": 9, "two": 7, "decode": 9, "filters": 9}
    assert work.looked_at(["three"]) == {"three": 3, "decode": 3, "filters": 9}


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
    assert told.spread_hours == pytest.approx(stage.spread * 10 / 4 / 3600)
    assert told.bytes_an_image is not None
    assert told.bytes_an_image > 0
    assert not output.root.exists()


def test_bytes_are_those_of_a_run(
    image_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a probe, and of what is there."""
    monkeypatch.setattr("engine.runner.run_shards", here.run_shards)
    pipeline, output = pipeline_of(image_set(24)), Output(tmp_path / "out")
    by_probe = forecast(pipeline, output, 8, ROOM).bytes_an_image
    annotated(pipeline, output, ShardId(0, 0))
    Annotating(pipeline, output, Console(quiet=True)).run()
    layer = output.round(0)
    written = sum(
        p.stat().st_size for shard in output.shards() for p in (layer.annotations(shard), layer.decisions(shard))
    )
    assert by_probe == pytest.approx(written / 24, rel=0.1)
    assert forecast(pipeline, output, room=ROOM).bytes_an_image == pytest.approx(written / 24, rel=0.1)


def test_a_small_probe_claims_no_interval(image_set: Callable[..., Path]) -> None:
    measured = probe(pipeline_of(image_set(FEW + 2)), FEW - 1)
    assert len(measured.batches) == measured.images == FEW - 1
    mean, spread = measured.of(["brightness", "decode"])
    assert mean > 0
    assert spread == 0


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
    kept: list[Probe] = []
    monkeypatch.setattr("pipelines.planning.probe", lambda *asked: kept.append(probe(*asked)) or kept[0])
    told = forecast(pipeline, Output(tmp_path / "out"), 6, ROOM)
    (measured,) = kept
    said = [line.split() for line in diary.read_text().splitlines()]
    batches = ["4", "4", "2"]  # the first of them to warm up
    assert [words[:3] for words in said] == [
        *(["one", size, "3"] for size in batches),
        *(["two", size, "1"] for size in batches),
    ]
    assert len({words[3] for words in said} | {str(os.getpid())}) == 3
    assert (measured.images, measured.batches) == (6, (4, 2))
    assert 0.2 / 6 < measured.of(["one"])[0] < 0.1
    assert told.setup_seconds == max(measured.setup.values()), "pools start side by side"
    assert measured.peak_mb > 20, "of a Python that has NumPy"


def test_the_mean_is_of_images_and_the_interval_of_batches() -> None:
    seconds = {"one": (*[1.0] * 7, 5.0), "two": (1.0,) * 8, "three": (9.0,) * 8}
    measured = Probe(30, 0, (*[4] * 7, 2), seconds, {}, 0.0, 0.0, 0.0)
    assert measured.of(["one", "two"]) == pytest.approx(
        ((28 * 2 + 2 * 6) / 30, 1.0)
    )  # 2 x deviation of 1.41 / root of 8
    assert measured.of(["four"]) == (0.0, 0.0)
    assert replace(measured, batches=(4,) * 7, seconds={"one": seconds["one"][1:]}).of(["one"])[1] == 0


def test_a_probe_takes_random_images_of_those_that_a_run_takes(image_set: Callable[..., Path], tmp_path: Path) -> None:
    pipeline, diary = pipeline_of(image_set(30)), tmp_path / "diary"
    limited = pipeline.config.ingest.model_copy(update={"limit": 12})
    config = pipeline.config.model_copy(update={"ingest": limited})
    probe(replace(pipeline, config=config, specialists=(Looker("brightness", diary=str(diary)),)), 4)
    seen = {line.split()[1] for line in diary.read_text().splitlines() if not line.endswith("loaded")}
    assert len(seen) == 4
    assert seen < {f"{n:04}.png" for n in range(12)}
    assert seen != {f"{n:04}.png" for n in range(4)}


def test_a_probe_that_kills_its_process_is_told_of(image_set: Callable[..., Path]) -> None:
    pipeline = pipeline_of(image_set(1))
    pipeline = replace(pipeline, specialists=(Brightness(troubles={"0000.png": "kill"}),))
    with pytest.raises(RunError, match="the probe's process of brightness ended with code -9"):
        probe(pipeline, 1)


ENDLESS = """
import sys
from dataclasses import replace
from pathlib import Path
from toys import Brightness
from engine.config import Config, Ingest
from pipelines.build import Pipeline
from pipelines.probing import probe

if __name__ == "__main__":
    config = Config(ingest=Ingest(images=(sys.argv[1],)), specialists={"brightness": {}})
    probe(Pipeline(config, (Brightness(troubles={"0000.png": "sleep"}),), ()), 1)
"""


def test_who_is_probed_ends_with_who_asked(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Though it hears of no stop: it holds models."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    path = os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path])
    asked = subprocess.Popen(
        [sys.executable, str(tmp_path / "endless.py"), str(image_set(1))], env={**os.environ, "PYTHONPATH": path}
    )
    probed: list[psutil.Process] = []
    while not probed:
        assert asked.poll() is None
        time.sleep(0.05)
        children = psutil.Process(asked.pid).children()
        probed = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    time.sleep(2)
    asked.kill()
    asked.wait()
    assert psutil.wait_procs(probed, timeout=60)[1] == []


def test_a_probe_passes_over_what_can_not_be_read(image_set: Callable[..., Path]) -> None:
    images = image_set(3)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this was a photo once")
    pipeline = replace(pipeline_of(images), specialists=(Brightness(troubles={"0001.png": "raise"}),))
    told = forecast(pipeline, Output(Path("/nowhere")), 10, ROOM)
    assert told.measured.startswith("a probe of 2 images (2 more came to nothing), too few")
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
    pipeline = pipeline_of(image_set(8), "one", "two", run=Run.model_validate({"pools": pools}))
    output = Output(tmp_path / "out")
    annotated(pipeline, output)
    spent = {"one": 4.0, "two": 12.0, "decode": 0.0, "filters": 0.0}
    write_json(output.round(0).summary, {"last_run": ran(spent, one=4, two=4, decode=8, filters=4)})
    changed = replace(pipeline, specialists=(pipeline.specialists[0], Brightness("two", troubles={"x.png": "raise"})))
    told = forecast(changed, output, room=Capacity(6, 0))
    assert [(stage.name, stage.workers) for stage in told.stages] == [("a", 1), ("b", 4)], "the first has nothing to do"
    assert (told.slowest, told.hours) == ("b", pytest.approx(8 * 3.0 / 4 / 3600))
    for shard in output.shards():
        output.round(0).decisions(shard).unlink()
    told = forecast(pipeline, output, room=Capacity(6, 0))
    assert [(stage.name, stage.workers) for stage in told.stages] == [("a", 2), ("b", 4)]
    assert (told.slowest, told.hours) == ("b", pytest.approx(8 * 3.0 / 4 / 3600))
    assert [stage.workers for stage in forecast(pipeline, output, room=Capacity(64, 0)).stages] == [2, 4], "4 shards"


def test_who_waits_is_paid_too(image_set: Callable[..., Path], tmp_path: Path) -> None:
    pools = {"a": {"specialists": ["one"], "cpus": 1}, "b": {"specialists": ["two"], "cpus": 1, "gpus": 1}}
    run, rates = Run.model_validate({"pools": pools}), Rates(cpu_hour=2.0, gpu_hour=10.0)
    pipeline, output = pipeline_of(image_set(8), "one", "two", run=run, rates=rates), Output(tmp_path / "out")
    annotated(pipeline, output)
    spent = {"one": 8.0, "two": 24.0, "decode": 0.0, "filters": 8.0}
    write_json(output.round(0).summary, {"last_run": ran(spent, one=8, two=8, decode=16, filters=8)})
    for shard in output.shards():
        output.round(0).decisions(shard).unlink()
    told = forecast(pipeline, output, room=Capacity(6, 2))
    first, last = told.stages
    assert (first.workers, first.seconds, first.images_per_second) == (1, 1.0, 1.0)
    assert (last.workers, last.seconds, last.images_per_second) == (2, 4.0, 0.5), "filters are the last pool's"
    assert (first.price, last.price) == pytest.approx((8 / 3600 * 2, 32 / 3600 * 12))
    assert told.hours == pytest.approx(16 / 3600)
    assert told.price == pytest.approx(16 / 3600 * (3 * 2 + 2 * 10))


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


def test_a_worker_needs_one_machine_that_has_all_it_asks_for() -> None:
    """As a run has its workers placed: what is left over on each of the machines is of no use together."""
    machine, large = Capacity(4, 0, 16_000), replace(CPU, cpus=3)
    cluster = Capacity(12, 0, 48_000, nodes=(machine,) * 3)
    assert balanced([large], [1.0], cluster) == [3]
    assert balanced([large], [1.0], replace(cluster, nodes=())) == [4]
    assert balanced([large, replace(CPU, name="b")], [1.0, 9.0], cluster) == [1, 9]
    assert balanced([replace(CPU, cpus=5)], [1.0], cluster) == [0]
    assert balanced([replace(CPU, memory_mb=9000)], [1.0], cluster) == [3]


def test_no_more_workers_than_there_are_shards() -> None:
    assert balanced([CPU], [1.0], Capacity(64, 0), 5) == [5]
    assert balanced([replace(CPU, min=8)], [1.0], Capacity(64, 0), 5) == [5]


def test_this_machine_has_what_ray_will_find() -> None:
    here, memory = room_of(Config()), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    assert 1 <= here.cpus <= (os.cpu_count() or 1)
    assert (here.gpus, here.nodes) == (0, ())
    assert here.memory_mb is not None
    assert 100 < here.memory_mb < memory, "in MB, and others have some"


def test_no_other_numbers_of_workers_are_faster() -> None:
    for seconds in ([1.0, 2.0], [5.0, 1.0], [1.0, 7.0], [2.5, 2.0]):
        for cpus in range(2, 9):
            room = Capacity(cpus, 3)
            found = balanced([CPU, GPU], seconds, room)
            every = [(a, b) for a in range(1, 9) for b in range(1, 9) if a + b <= cpus and b <= 3]
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


def test_the_screen_says_what_run_does(
    image_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no time or bytes of nothing."""
    images, out = image_set(4), Output(tmp_path / "out")
    config = f"ingest: {{images: [{images}], shard_size: 2}}\nspecialists: {{detector: {{use: nanodet}}}}\n"
    (tmp_path / "mine.yaml").write_text(config)
    pipeline = build_pipeline(load_config(tmp_path / "mine.yaml"))
    arguments = ["plan", "--config", str(tmp_path / "mine.yaml"), "--out", str(out.root), "--cpus", "2", "--gpus", "0"]

    def said(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["engine", *arguments, *more])
        with pytest.raises(SystemExit) as ended:
            commands.run()
        assert not ended.value.code
        return capsys.readouterr().out

    new = said()
    assert "images: 4 listed; 1 partition, 2 shards\nto annotate: 4 of 4 images, 2 shards\n\n" in new
    annotated(pipeline, out)
    spent = {"detector": 8.0, "decode": 0.0, "filters": 0.0}
    write_json(out.round(0).summary, {"last_run": ran(spent, detector=4, decode=4, filters=4)})
    done = said()
    assert "to annotate: 0 of 4 images\n\n" in done
    for nothing in ("to be written", "time:", "made by something else"):
        assert nothing not in done
    assert "Start of workers is not counted.\n" in done
    Image.new("RGB", (40, 30), (9, 9, 9)).save(images / "new.png")
    more = said()
    assert "takes the new ones in; engine run goes on without them" in more
    assert "Start of workers is not counted, nor is ingest.\n" in more
    assert "takes the new ones in\n" in said("--limit", "5")
    changed = said("--set", "specialists.detector.min_score=0.5", "--set", "run.workers=3")
    assert "to annotate: 5 of 5 images, 3 shards\n  4 made by something else, 1 new\n" in changed
    assert "! a run starts with more workers (all 3) than fit into 2 CPUs and 0 GPUs" in changed
    assert "time: 5 s on 2 CPUs" in changed
    assert "more workers" not in said("--set", "run.workers=3"), "of one shard"


def test_json_has_all_of_it(call: Call, undisturbed: Path, tmp_path: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    code, said = call("plan", "--out", str(out), "--cpus", "8", "--json")
    assert code == 0, said
    told = json.loads(said, parse_constant=pytest.fail)  # Infinity is no JSON
    assert told["work"]["left"] == 0
    assert told["room"]["cpus"] == 8
    assert told["stages"][0]["workers"] == 8
    assert {"detector", "ocr", "decode"} <= told["seconds"].keys()
    assert told["bytes_an_image"] > 1000
