"""What changed is made again, and nothing else; it comes to what making all anew would, whoever was killed when."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import here
import numpy as np
import pytest
from command import files
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from toys import Dark, Looker, Teller

from engine import open_dataset
from engine.atomic import read_json
from engine.config import Config, Ingest
from engine.errors import ConfigError, OutputError
from engine.ingest import rewrite
from engine.layout import Output, ShardId
from engine.partitions import closed
from engine.status import status_of
from engine.storage import read_given, shard_digests
from engine.verify import carry_out, planned, verified
from engine.worker import Worker
from pipelines.annotating import Annotating
from pipelines.build import Pipeline
from pipelines.outdated import outdated
from pipelines.planning import Capacity, forecast
from pipelines.retrying import Retrying
from pipelines.stages import STAGES, Stages

GOOD, BROKEN = 6, "90 broken.png"


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runner.run_shards", here.run_shards)


@dataclass
class World:
    """Images, a configuration, and an output folder; `seen` tells who was asked about what since it was asked last."""

    root: Path
    out: str = "out"
    looker: dict[str, Any] = field(default_factory=dict)
    teller: dict[str, Any] = field(default_factory=dict)
    threshold: float = 0.4
    limits: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def folder(self) -> Path:
        return self.root / self.out

    @property
    def output(self) -> Output:
        return Output(self.folder)

    @property
    def pipeline(self) -> Pipeline:
        """Two images a shard, two shards a partition."""
        ingest = Ingest(images=[str(self.images)], shard_size=2, partition_size=4, **self.limits)
        run = {"max_quarantined": 1.0, "min_free_mb": 0}
        named = {"specialists": {"looker": {}, "teller": {}}, "vocabulary": {"classes": self.classes}}
        config = Config.model_validate({"ingest": ingest.model_dump(), "run": run, **named})
        diary = str(self.root / "diary")
        specialists = (Looker(diary=diary, **self.looker), Teller(diary=diary, **self.teller))
        return Pipeline(config, specialists, (Dark(threshold=self.threshold),))

    def stages(self, said: StringIO | None = None) -> Stages:
        return Stages(self.pipeline, self.output, Console(file=said or StringIO(), width=400))

    def run(self, stage: str = "annotate", **options: Any) -> dict[str, Any]:
        return self.stages().run(stage, **options)

    def add(self, name: str, brightness: int) -> None:
        blobs = np.random.default_rng(brightness).integers(0, 120, (6, 8, 3), np.uint8) + np.uint8(brightness // 2)
        Image.fromarray(blobs).resize((32, 24)).save(self.images / name)

    def seen(self) -> Counter[str]:
        diary = self.root / "diary"
        lines = diary.read_text().splitlines() if diary.exists() else []
        diary.unlink(missing_ok=True)
        return Counter(line.split()[0] for line in lines if not line.endswith("loaded"))

    def loaded(self) -> set[str]:
        lines = (self.root / "diary").read_text().splitlines() if (self.root / "diary").exists() else []
        return {line.split()[0] for line in lines if line.endswith("loaded")}

    def fresh(self) -> World:
        """The same, made at once in another folder."""
        fresh = replace(self, out=f"fresh-{len(list(self.root.iterdir()))}")
        fresh.run()
        self.seen()
        return fresh


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Six images with a twin and a broken file among them, annotated once."""
    world = World(tmp_path)
    world.images.mkdir()
    for number in range(GOOD):
        world.add(f"{number}.png", 40 * number + 20)
    shutil.copy(world.images / "1.png", world.images / "80 twin.png")
    (world.images / BROKEN).write_bytes(b"\x89PNG once")
    world.run()
    assert world.seen() == {"looker": GOOD, "teller": GOOD}
    return world


def same(one: World, other: World) -> None:
    assert files(one.folder) == files(other.folder)
    ours, theirs = (read_json(each.output.round(0).summary) for each in (one, other))
    assert {**ours, "last_run": {}} == {**theirs, "last_run": {}}


def test_what_builds_on_a_change_is_made_again_and_nothing_else(world: World) -> None:
    world.teller = {"word": "objects"}
    world.run(update=True)
    assert world.loaded() == {"teller"}, "the weights of the other one are not needed"
    assert world.seen() == {"teller": GOOD}
    same(world, world.fresh())


def test_who_reads_what_changed_is_made_again(world: World) -> None:
    world.looker = {"gain": 0.5}
    world.run(update=True)
    assert world.seen() == {"looker": GOOD, "teller": GOOD}
    same(world, world.fresh())


def test_another_threshold_asks_only_those_who_go_by_what_stands(world: World) -> None:
    world.threshold = 0.6
    world.run(update=True)
    assert world.seen() == {"teller": GOOD}
    same(world, world.fresh())


def test_nothing_is_made_again_where_nothing_changed(world: World) -> None:
    before = files(world.folder)
    times = {path: path.stat().st_mtime_ns for path in world.folder.rglob("shard-*.parquet")}
    world.run(update=True)
    assert world.seen() == {}
    assert files(world.folder) == before
    assert times == {path: path.stat().st_mtime_ns for path in world.folder.rglob("shard-*.parquet")}


def test_a_specialist_that_is_taken_out_takes_its_annotations_along(world: World) -> None:
    kept, _ = world.pipeline.specialists
    stages = world.stages()
    Stages(replace(stages.pipeline, specialists=(kept,)), world.output, stages.console).run("annotate", update=True)
    assert world.seen() == {}
    assert not list(open_dataset(world.folder).texts(standing=False))
    assert len(list(open_dataset(world.folder).regions(standing=False))) == GOOD


def test_images_that_need_nothing_new_are_not_opened(world: World) -> None:
    """A source that is taken out leaves nothing to compute: the images may be gone by now."""
    kept, _ = world.pipeline.specialists
    pipeline = replace(world.pipeline, specialists=(kept,))
    for path in world.images.iterdir():
        path.write_bytes(b"gone")
    Stages(pipeline, world.output, Console(quiet=True)).run("annotate", update=True)
    assert [record.error for record in open_dataset(world.folder).records()].count(None) == GOOD + 1


def test_images_that_came_since_are_taken_in(world: World) -> None:
    before = {path: data for path, data in files(world.folder).items() if "part-0000" in path}
    world.add("95.png", 200)
    world.add("96.png", 90)
    world.run(update=True)
    assert world.seen() == {"looker": 2, "teller": 2}
    after = files(world.folder)
    assert {path: after[path] for path in before} == before, "what is there stays as it is"
    same_content(world, world.fresh())
    world.run(update=True)
    assert world.seen() == {}


def test_another_folder_is_taken_in_and_what_is_there_stays_sound(world: World) -> None:
    more = world.root / "more"
    more.mkdir()
    world.add("7.png", 210)
    (world.images / "7.png").rename(more / "7.png")
    (world.images / "5.png").unlink()
    stages = world.stages()
    ingest = stages.pipeline.config.ingest.model_copy(update={"images": (str(world.images), str(more))})
    config = stages.pipeline.config.model_copy(update={"ingest": ingest})
    replace(stages, pipeline=replace(stages.pipeline, config=config)).run("annotate", update=True)
    assert world.seen() == {"looker": 1, "teller": 1}
    assert read_json(world.output.manifest)["gone"] == 1
    found = verified(world.output, images="none")
    assert found.findings == []
    world.output.items(ShardId(0, 0)).unlink()
    assert planned(world.output, verified(world.output, images="none").findings, ingest).lost == ()
    world.output.items(ShardId(1, 0)).unlink()
    (lost,) = planned(world.output, verified(world.output, images="none").findings, ingest).lost
    why = "no run makes it again before 1 of its images are back: unknown:"
    assert lost.startswith(f"images/part-00001/shard-00000.parquet: {why}")
    assert lost.endswith("(it is listed no longer)")


def repaired(world: World) -> tuple[str, ...]:
    """What a repair, and the run after it, lost by what was said of it."""
    config = world.pipeline.config.ingest
    plan = planned(world.output, verified(world.output).findings, config)
    carry_out(world.output, plan, config)
    world.run()
    return plan.lost


@pytest.mark.parametrize("shard", [ShardId(0, 1), ShardId(1, 1), ShardId(2, 0)], ids=str)
def test_a_shard_that_is_damaged_takes_nothing_along(world: World, shard: ShardId) -> None:
    """Also of a set that has grown, which an ingest anew would cut in another way."""
    world.add("1 more.png", 200)
    world.add("3 more.png", 90)
    world.run(update=True)
    world.seen()
    before, summary = files(world.folder), read_json(world.output.round(0).summary)
    path = world.output.items(shard)
    path.write_bytes(path.read_bytes()[:100])
    assert repaired(world) == ()
    assert world.seen() == {}
    assert files(world.folder) == before
    assert read_json(world.output.round(0).summary) == summary
    assert verified(world.output, images="all").findings == []


@pytest.mark.parametrize("gone", [False, True], ids=["damaged", "gone"])
def test_a_manifest_that_is_lost_takes_nothing_along(world: World, gone: bool) -> None:
    world.add("1 more.png", 200)
    world.run(update=True)
    world.seen()
    before = files(world.folder)
    world.output.manifest.write_text("{")
    if gone:
        world.output.manifest.unlink()
    assert repaired(world) == ()
    assert world.seen() == {}
    assert read_json(world.output.manifest)["partitions"][2] == {
        **json.loads(before["images/manifest.json"])["partitions"][2],
        "shard_size": 1,  # of a single shard nobody can tell
    }
    ours, theirs = files(world.folder), dict(before)
    assert ours.pop("images/manifest.json") != theirs.pop("images/manifest.json")
    assert ours == theirs
    assert verified(world.output, images="all").findings == []


@pytest.mark.parametrize("shard", [ShardId(0, 0), ShardId(1, 1)], ids=str)
def test_a_manifest_and_a_shard_that_are_lost_take_nothing_along(world: World, shard: ShardId) -> None:
    """In two steps: without a manifest nothing else is looked at."""
    before, manifest = files(world.folder), read_json(world.output.manifest)
    for path in (world.output.manifest, world.output.items(shard)):
        path.write_bytes(path.read_bytes()[:50])
    config = world.pipeline.config.ingest
    plan = planned(world.output, verified(world.output).findings, config)
    assert (plan.rewrite, plan.remove, plan.lost) == (("images/manifest.json",), (), ())
    carry_out(world.output, plan, config)
    assert repaired(world) == ()
    assert world.seen() == {}
    assert read_json(world.output.manifest) == {**manifest, "listed": ""}
    now = files(world.folder)
    assert {name for name in before if now[name] != before[name]} == {"images/manifest.json"}
    assert verified(world.output, images="all").findings == []


def test_without_its_manifest_a_set_is_not_ingested_anew(world: World) -> None:
    """It would be cut otherwise, as it has grown, and lose its annotations."""
    world.add("1 more.png", 200)
    world.run(update=True)
    world.seen()
    world.output.manifest.unlink()
    before = files(world.folder)
    remedy = rf"manifest\.json is missing.* engine verify {world.folder} --repair --yes writes it anew.* --overwrite"
    for stage in STAGES:
        with pytest.raises(OutputError, match=remedy):
            world.run(stage)
    for attempt in (lambda: world.run(update=True), world.stages().retry_failed, lambda: open_dataset(world.folder)):
        with pytest.raises(OutputError, match=remedy):
            attempt()
    assert files(world.folder) == before
    world.run(overwrite=True)
    same_content(world, world.fresh())


def test_an_ingest_without_a_manifest_goes_on_where_nothing_was_made_of_it(world: World) -> None:
    before = files(world.folder)
    shutil.rmtree(world.output.round(0).folder)
    world.output.manifest.unlink()
    with pytest.raises(OutputError, match="holds no dataset"):
        verified(world.output)
    world.run()
    assert files(world.folder) == before


@pytest.mark.parametrize("emptied", [False, True], ids=["gone", "empty"])
def test_a_manifest_is_not_written_without_a_whole_partition(world: World, emptied: bool) -> None:
    """The last one, which nothing but what was made of it speaks of."""
    part = world.output.items(ShardId(1, 0)).parent
    shutil.rmtree(part)
    if emptied:
        part.mkdir()
    world.output.manifest.unlink()
    before = files(world.folder)
    plan = planned(world.output, verified(world.output).findings, world.pipeline.config.ingest)
    assert (plan.rewrite, plan.remove) == ((), ())
    assert f"{part.parent} has no part-00001, of which there are annotations" in plan.lost[0]
    with pytest.raises(OutputError, match="has no part-00001"):
        rewrite(world.output, world.pipeline.config.ingest)
    assert files(world.folder) == before


def test_a_folder_that_a_killed_update_left_empty_is_no_partition(world: World) -> None:
    before = files(world.folder)
    for path in (world.output.items(ShardId(2, 0)), world.output.given(ShardId(2, 0))):
        path.parent.mkdir(parents=True)
    world.output.manifest.unlink()
    assert repaired(world) == ()
    assert files(world.folder) == before


def test_a_shard_of_images_that_are_gone_keeps_what_was_made_of_them(world: World) -> None:
    """It comes back once they are, or with what is made of them as they are now."""
    before, gone = files(world.folder), world.images / "2.png"
    pixels = gone.read_bytes()
    world.output.items(ShardId(0, 1)).unlink()
    gone.unlink()
    config = world.pipeline.config.ingest
    plan = planned(world.output, verified(world.output).findings, config)
    assert "no run makes it again before 1 of its images are back" in plan.lost[0]
    carry_out(world.output, plan, config)
    lost = files(world.folder)
    with pytest.raises(OutputError, match="it is listed no longer"):
        world.run()
    world.add("2.png", 230)
    with pytest.raises(OutputError, match=r"2\.png \(it is another file than it was\).* remove in .* annotated anew"):
        world.run()
    assert files(world.folder) == lost
    gone.write_bytes(pixels)
    world.run()
    assert files(world.folder) == before
    assert world.seen() == {}
    world.add("2.png", 230)
    round_, shard = world.output.round(0), ShardId(0, 1)
    for path in (world.output.items(shard), round_.closed(0), round_.annotations(shard), round_.decisions(shard)):
        path.unlink()
    world.run()
    assert world.seen() == {"looker": 2, "teller": 2}
    same(world, world.fresh())
    assert verified(world.output, images="all").findings == []


def same_content(one: World, other: World) -> None:
    """Whatever the partitions."""
    assert contents(one) == contents(other)


def contents(world: World) -> dict[str, Any]:
    dataset = open_dataset(world.folder)
    summary = read_json(world.output.round(0).summary)
    return {
        "records": {record.item.uri: record for record in dataset.records()},
        "near": [set(group) for group in dataset.near_duplicates()],
        "counts": {name: summary[name] for name in ("items", "quarantined", "annotations", "fallen")},
        "sources": dataset.sources(),
    }


def test_without_update_it_is_refused_and_the_way_is_named(world: World) -> None:
    before = files(world.folder)
    world.looker = {"gain": 0.5}
    with pytest.raises(OutputError) as refused:
        world.run()
    for words in ("gain", "--update makes looker and what builds on it (teller) again, for 8 images", "--overwrite"):
        assert words in str(refused.value) or words == "gain"
    world.looker, world.teller = {}, {"word": "objects"}
    with pytest.raises(OutputError, match=r"--update makes teller again, for 8 images; looker stays\."):
        world.run()
    assert files(world.folder) == before


def test_what_is_outdated_is_told_beforehand(world: World) -> None:
    told = outdated(world.output, world.pipeline)
    assert [(source.why, source.images) for source in told.sources] == [("", 0)] * 2
    world.looker = {"gain": 0.5}
    told = outdated(world.output, world.pipeline)
    looker, teller = told.sources
    assert (looker.name, looker.why, looker.images) == ("looker", OWN, 8)
    assert (teller.why, teller.images) == ("it reads looker", 8)
    assert (told.images, told.decided_again, told.missing) == (8, 0, 0)
    world.looker, world.threshold = {}, 0.6
    told = outdated(world.output, world.pipeline)
    assert [source.why for source in told.sources] == ["", "it goes by what stands, and the filters changed"]
    assert (told.decided_again, told.by_filters_alone) == (8, True)
    world.teller = {"word": "objects"}
    assert not outdated(world.output, world.pipeline).by_filters_alone
    world.teller = {}
    kept, _ = world.pipeline.specialists
    assert not outdated(world.output, replace(world.pipeline, specialists=(kept,))).by_filters_alone
    world.run("filter")
    assert not outdated(world.output, world.pipeline).by_filters_alone, "that is done"
    world.output.round(0).closed(0).unlink()
    world.output.round(0).decisions(ShardId(0, 0)).unlink()
    world.threshold = 0.2
    assert not outdated(world.output, world.pipeline).by_filters_alone, "not all is annotated"


def test_another_decoder_makes_all_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.build._decoder", lambda: "of another version")
    told = outdated(world.output, world.pipeline)
    assert {source.why for source in told.sources} == {"the decoder of images changed"}
    assert (told.images, told.shards) == (8, 4)


OWN = "its code, weights or parameters changed"


PLANNED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a specialist": {"looker": {"gain": 0.5}},
    "one that builds on it": {"teller": {"word": "objects"}},
    "a threshold": {"threshold": 0.6},
    "the vocabulary": {"classes": {"mouse": {"synonyms": ["mice"]}}},
    "images added": {"more": 3},
    "images added, and a specialist": {"more": 1, "teller": {"word": "objects"}},
    "half of it done": {"lost": 2},
    "half of it done, and a threshold": {"lost": 1, "threshold": 0.6},
}


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_says_beforehand_what_an_update_does(world: World, name: str) -> None:
    what = dict(PLANNED[name])
    for number in range(what.pop("more", 0)):
        world.add(f"7{number}.png", 200 + number)
    for shard in list(world.output.shards())[: what.pop("lost", 0)]:
        world.output.round(0).closed(shard.partition).unlink(missing_ok=True)
        world.output.round(0).decisions(shard).unlink()
    world = replace(world, **what)
    told = forecast(world.pipeline, world.output, room=Capacity(1, 0))
    before = written(world)
    world.run(update=True)
    after = written(world)
    made = [shard for shard, at in after.items() if before.get(shard) != at]
    assert (told.work.shards, told.images.shards) == (len(made), len(after))
    assert told.work.left == sum(len(read_given(world.output, shard)) for shard in made)
    items = read_json(world.output.manifest)["items"]
    assert (told.work.total, told.images.listed) == (items, items)
    asked = world.seen()
    if not told.work.missing and not told.images.new:
        assert {source for source, count in told.work.sources.items() if count} == asked.keys()
        assert told.work.why.keys() - {"decisions"} == asked.keys()
    assert ("decisions" in told.work.why) == (name == "a threshold"), "that may be done by --stage filter"
    assert forecast(world.pipeline, world.output, room=Capacity(1, 0)).work.left == 0


def test_a_plan_knows_what_changes_without_a_source_that_does(world: World) -> None:
    """What reads images alone goes by no vocabulary; labels that came along do."""
    kept, _ = world.pipeline.specialists
    Stages(replace(world.pipeline, specialists=(kept,)), world.output, Console(quiet=True)).run("annotate", update=True)
    world.classes = {"mouse": {"synonyms": ["mice"]}}
    pipeline, before = replace(world.pipeline, specialists=(kept,)), written(world)
    work = forecast(pipeline, world.output, room=Capacity(1, 0)).work
    Stages(pipeline, world.output, Console(quiet=True)).run("annotate", update=True)
    assert world.seen() == {}
    assert (work.again, work.shards, work.sources) == (8, 4, {"looker": 0})
    assert work.why == {"annotations": "the vocabulary, or the order of sources, changed; none looks again"}
    assert len(set(written(world).items()) - set(before.items())) == 4


def written(world: World) -> dict[ShardId, int]:
    """When the annotations of each shard were."""
    layer = world.output.round(0)
    paths = {shard: layer.annotations(shard) for shard in world.output.shards()}
    return {shard: path.stat().st_mtime_ns for shard, path in paths.items() if path.exists()}


@pytest.mark.parametrize("changed", ["images added", "a specialist"])
def test_what_stands_on_it_is_told_of(world: World, changed: str) -> None:
    later = world.output.round(1)
    later.folder.mkdir()
    later.sources.write_text("{}")
    assert forecast(world.pipeline, world.output, room=Capacity(1, 0)).work.later == ()
    if changed == "images added":
        world.add("96.png", 90)
    else:
        world.looker = {"gain": 0.5}
        assert "adds to what round 0 was: remove it" in outdated(world.output, world.pipeline).told()
    (told,) = forecast(world.pipeline, world.output, room=Capacity(1, 0)).work.later
    assert "adds to what round 0 was: remove it" in told


@pytest.mark.parametrize("stage", ["reannotate", "merge", "export", "train"])
def test_update_is_for_round_0(world: World, stage: str) -> None:
    with pytest.raises(ConfigError, match="--update is for ingest, annotate, filter, all"):
        world.run(stage, update=True)


def test_update_reads_no_image_anew(world: World) -> None:
    world.limits = {"max_pixels": 100}
    for attempt in (lambda: world.run(update=True), lambda: forecast(world.pipeline, world.output)):
        with pytest.raises(OutputError, match=r"(?s)read in another way.*ingest\.max_pixels"):
            attempt()


class Killed(BaseException):
    """As SIGKILL: nobody catches it."""


def killed(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[int]:
    """Ends whatever writes or removes for the `after`th time, before it does; yields how often it did."""
    times = count()
    replace_, unlink = os.replace, Path.unlink

    def counted(*arguments: Any, **options: Any) -> Any:
        if next(times) == after:
            raise Killed
        return replace_(*arguments)

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        if ".aside-" not in path.name and path.exists() and next(times) == after:
            raise Killed
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted)
        patch.setattr(Path, "unlink", unlinked)
        yield after


def interrupted(world: World, patch: pytest.MonkeyPatch, after: int, **options: Any) -> bool:
    """Runs until it is killed at the `after`th file that it touches; whether it was."""
    for _ in killed(patch, after):
        try:
            world.run(**options)
        except Killed:
            return True
    return False


CHANGES: tuple[dict[str, Any], ...] = ({"teller": {"word": "objects"}}, {"looker": {"gain": 0.5}}, {"threshold": 0.6})
# At each file that is written or removed; and at one of eight of them.
POINTS = [pytest.param(n, 8, id=f"some-{n}") for n in range(3)] + [pytest.param(0, 1, marks=pytest.mark.slow, id="all")]


@pytest.mark.parametrize(("first", "step"), POINTS)
def test_killed_anywhere_it_ends_in_the_same(
    world: World, first: int, step: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = replace(world, **CHANGES[first])
    fresh = changed.fresh()
    for after in count(3 * first, step):
        shutil.copytree(world.folder, tmp_path / f"at-{after}")
        at = replace(changed, out=f"at-{after}")
        if not interrupted(at, monkeypatch, after, update=True):
            break
        at.seen()
        at.run(update=True)
        assert at.seen()["looker"] <= GOOD, "of a shard that was in flight at most, or what changed"
        same(at, fresh)
        shutil.rmtree(at.folder)
    assert after > 12, "or nothing was killed"


def test_only_the_shard_in_flight_is_computed_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.teller = {"word": "objects"}
    written: list[ShardId] = []
    real = Worker._write

    def dies(worker: Worker, shard: ShardId, *rest: Any) -> None:
        if len(written) == 2:
            raise Killed
        real(worker, shard, *rest)
        written.append(shard)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "_write", dies)
        with pytest.raises(Killed):
            world.run(update=True)
    world.seen()
    with pytest.raises(OutputError, match=rf"an --update was stopped.*: engine run --update --out {world.folder}$"):
        world.run()
    assert [finding.kind for finding in verified(world.output).findings] == ["updating"]
    _, teller = outdated(world.output, world.pipeline).sources
    assert (teller.why, teller.images) == ("an --update was stopped", 4)
    assert status_of(world.output).next == (f"engine run --update --out {world.folder}",)
    world.run(update=True)
    assert verified(world.output).findings == []
    assert world.seen() == {"teller": 2}, "of the third shard; the fourth has a twin and a broken file"
    same(world, world.fresh())


def test_an_update_that_was_stopped_can_be_taken_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(world.folder)
    assert interrupted(replace(world, looker={"gain": 0.5}), monkeypatch, 9, update=True)
    world.run(update=True)
    assert files(world.folder) == before


# Images in quarantine, once more


def bad(world: World, *names: str) -> None:
    for name in names:
        (world.root / f"{name}.bad").touch()


def well(world: World) -> None:
    for path in world.root.glob("*.bad"):
        path.unlink()


@pytest.fixture
def with_failures(world: World) -> World:
    """Two images that a specialist could not bear, and a file that could not be read."""
    bad(world, "1.png", "4.png")
    world.run(overwrite=True)
    world.seen()
    assert outcome(world) == {"ingest not_an_image": 1, "looker raised": 2}
    return world


def outcome(world: World) -> dict[str, int]:
    errors = [record.error for record in open_dataset(world.folder).records() if record.error]
    return dict(Counter(f"{error.stage} {error.kind}" for error in errors))


def test_only_what_failed_is_tried_again(with_failures: World) -> None:
    world = with_failures
    well(world)
    summary = world.stages().retry_failed()
    assert summary["retried"] == {"tried": 3, "saved": 2}
    assert summary["last_run"]["worker_images"] == {"decode": 2, "looker": 2, "teller": 2, "filters": 4}
    assert world.seen() == {"looker": 2, "teller": 2}
    assert outcome(world) == {"ingest not_an_image": 1}
    same(world, world.fresh())


def test_what_fails_again_is_in_quarantine_again(with_failures: World) -> None:
    before = files(with_failures.folder)
    summary = with_failures.stages().retry_failed()
    assert summary["retried"] == {"tried": 3, "saved": 0}
    assert with_failures.seen()["teller"] == 0
    assert files(with_failures.folder) == before


def test_a_file_that_can_be_read_by_now_is_annotated(with_failures: World) -> None:
    world = with_failures
    world.add(BROKEN, 130)
    summary = world.stages().retry_failed()
    assert summary["retried"] == {"tried": 3, "saved": 1}
    assert outcome(world) == {"looker raised": 2}
    saved = next(r for r in open_dataset(world.folder).records() if r.item.uri.endswith(BROKEN))
    assert [text.source for text in saved.texts] == ["teller"]
    same_content(world, world.fresh())


def test_only_so_many_failures_are_held_at_once(with_failures: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = with_failures
    monkeypatch.setattr("pipelines.retrying.AT_ONCE", 1)
    batches = Retrying(Annotating(world.pipeline, world.output, Console(file=StringIO()), 0)).batches()
    assert [sum(map(len, batch.values())) for batch in batches] == [1, 1, 1]
    well(world)
    put(world, BROKEN, 130)
    assert world.stages().retry_failed()["retried"] == {"tried": 3, "saved": 3}
    same_content(world, world.fresh())


@pytest.fixture
def broken_off(world: World) -> World:
    """A copy that broke off, whose header can be read, and its twin."""
    whole = (world.images / "1.png").read_bytes()
    for name in TWINS:
        (world.images / name).write_bytes(whole[: len(whole) // 2])
    world.run(overwrite=True)
    world.seen()
    assert outcome(world) == {"ingest not_an_image": 1, "decode truncated": 1}
    return world


TWINS = ("1.png", "80 twin.png")
REPLACED = {  # brightness by name; of one that is given by name, a copy of it; "" is no image
    "the first": {"1.png": 150},
    "both by one": {"1.png": 150, "80 twin.png": 150},
    "both": {"1.png": 150, "80 twin.png": 210},
    "by a copy": {"1.png": "0.png"},
    "the twin is no image by now": {"1.png": 150, "80 twin.png": ""},
    "a file that ingest could not read, too": {"1.png": 150, BROKEN: 150},
}


def put(world: World, name: str, what: int | str) -> None:
    if isinstance(what, int):
        world.add(name, what)
    else:
        (world.images / name).write_bytes((world.images / what).read_bytes() if what else b"no image")


@pytest.mark.parametrize("which", REPLACED)
def test_a_file_that_could_not_be_decoded_is_taken_as_it_is_by_now(broken_off: World, which: str) -> None:
    """Nothing was made of it: it comes to what it would be had it been so from the start."""
    world = broken_off
    ids = [record.item.item_id for record in open_dataset(world.folder).records()]
    for name, what in REPLACED[which].items():
        put(world, name, what)
    world.stages().retry_failed()
    assert [record.item.item_id for record in open_dataset(world.folder).records()] == ids
    assert verified(world.output).findings == []
    same(world, world.fresh())
    world.seen()
    world.stages().retry_failed()
    same(world, world.fresh())


def test_a_file_that_was_replaced_by_one_that_is_no_image_waits_for_the_next(broken_off: World) -> None:
    world = broken_off
    before = open_dataset(world.folder).records()
    items = [record.item for record in before]
    put(world, "1.png", "")
    assert world.stages().retry_failed()["retried"] == {"tried": 2, "saved": 0}
    assert [record.item for record in open_dataset(world.folder).records()] == items
    for name in TWINS:
        put(world, name, 150)
    assert world.stages().retry_failed()["retried"] == {"tried": 2, "saved": 1}
    same(world, world.fresh())


def test_an_image_that_a_specialist_could_not_bear_may_be_replaced(with_failures: World) -> None:
    world = with_failures
    well(world)
    put(world, "4.png", 222)
    assert world.stages().retry_failed()["retried"] == {"tried": 3, "saved": 2}
    assert verified(world.output).findings == []
    same(world, world.fresh())


def test_images_that_are_good_are_not_taken_anew(broken_off: World) -> None:
    """What was made of one is of the file as it was."""
    world = broken_off
    put(world, "0.png", 222)
    before = world.output.items(ShardId(0, 0)).read_bytes()
    world.stages().retry_failed()
    assert world.output.items(ShardId(0, 0)).read_bytes() == before
    assert [finding.kind for finding in verified(world.output).findings] == ["image_changed"]


def retried_and_killed(world: World, fresh: World, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each so many files that it writes, in a folder of its own each time; gone on with, it is as `fresh`."""
    for after in count(0, step):
        at = replace(world, out=f"at-{after}")
        shutil.copytree(world.folder, at.folder)
        was_killed = False
        for _ in killed(monkeypatch, after):
            try:
                at.stages().retry_failed()
            except Killed:
                was_killed = True
        if not was_killed:
            break
        at.run()  # a shard that was in flight has no decisions
        at.stages().retry_failed()
        same(at, fresh)
        shutil.rmtree(at.folder)
    assert after > 6


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_taking_what_was_replaced_goes_on_after_it_was_killed(
    broken_off: World, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = broken_off
    put(world, "1.png", 150)
    fresh = world.fresh()
    retried_and_killed(world, fresh, step, monkeypatch)


def test_what_is_good_is_kept_by_whatever_filters_it_was_made(with_failures: World) -> None:
    """Others decided since, who told of what stood then: nothing of that is made again."""
    world = with_failures
    world.threshold = 0.6
    world.run("filter")
    texts = {item.uri: text for item, text in open_dataset(world.folder).texts(standing=False)}
    well(world)
    world.stages().retry_failed()
    assert world.seen() == {"looker": 2, "teller": 2}
    after = {item.uri: text for item, text in open_dataset(world.folder).texts(standing=False)}
    assert {uri: after[uri] for uri in texts} == texts
    assert len(after) == len(texts) + 2


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_retrying_goes_on_after_it_was_killed(with_failures: World, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = with_failures
    well(world)
    fresh = world.fresh()
    retried_and_killed(world, fresh, step, monkeypatch)


@pytest.mark.parametrize(("stands", "says"), [("round-1", "retry those of the last one"), ("round-0/merge", "merges")])
def test_what_stands_on_a_round_keeps_it_as_it_is(with_failures: World, stands: str, says: str) -> None:
    (with_failures.folder / stands).mkdir()
    (with_failures.folder / stands / "sources.json").write_text('{"digest": "", "sources": {}}')
    before = files(with_failures.folder)
    with pytest.raises(OutputError, match=says):
        with_failures.stages().retry_failed(0)
    assert files(with_failures.folder) == before


def test_a_round_that_is_not_whole_is_not_retried(with_failures: World) -> None:
    round_ = with_failures.output.round(0)
    round_.closed(0).unlink()
    round_.decisions(ShardId(0, 1)).unlink()
    round_.annotations(ShardId(0, 1)).unlink()
    with pytest.raises(OutputError, match="not whole yet"):
        with_failures.stages().retry_failed()


def test_a_retry_that_was_stopped_over_a_shard_goes_on(with_failures: World) -> None:
    """Its decisions go before they are made anew."""
    round_ = with_failures.output.round(0)
    round_.closed(0).unlink()
    round_.decisions(ShardId(0, 1)).unlink()
    summary = with_failures.stages().retry_failed()
    assert summary["retried"]["tried"] > 0
    assert round_.decisions(ShardId(0, 1)).exists()


# Any order of things

STEPS = st.one_of(
    st.tuples(st.just("gain"), st.sampled_from([0.5, 0.8, 1.0])),
    st.tuples(st.just("word"), st.sampled_from(["things", "objects"])),
    st.tuples(st.just("threshold"), st.sampled_from([0.2, 0.4, 0.6])),
    st.tuples(st.just("add"), st.integers(0, 255)),
    st.tuples(st.just("run"), st.integers(0, 30)),
    st.tuples(st.just("filter"), st.just(0)),
)


@settings(max_examples=6, deadline=None)
@given(steps=st.lists(STEPS, min_size=1, max_size=6))
def test_whatever_happens_it_ends_in_what_a_fresh_run_gives(
    steps: list[tuple[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Changes, images that come along, and runs that are killed at some file, in any order."""
    world = World(tmp_path_factory.mktemp("any"))
    world.images.mkdir()
    for number in range(5):
        world.add(f"{number}.png", 50 * number + 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.runner.run_shards", here.run_shards)
        for number, (what, value) in enumerate(steps):
            match what:
                case "gain":
                    world.looker = {"gain": value}
                case "word":
                    world.teller = {"word": value}
                case "threshold":
                    world.threshold = value
                case "add":
                    world.add(f"9{number}.png", value)
                case "run":
                    interrupted(world, patch, value, update=True)
                case "filter":
                    if world.output.manifest.exists() and not read_json_or(world).get("updating"):
                        filtered(world)
        world.run(update=True)
        same_content(world, world.fresh())
        assert sorted(closed(world.output, world.output.round(0))) == sorted(
            range(len(read_json(world.output.manifest)["partitions"]))
        )


def read_json_or(world: World) -> dict[str, Any]:
    path = world.output.round(0).sources
    return dict(json.loads(path.read_text())) if path.exists() else {}


def filtered(world: World) -> None:
    with suppress(OutputError):  # of another configuration: that is for --update
        world.run("filter")


def test_shards_say_what_made_each_source(world: World) -> None:
    annotations = world.output.round(0).annotations(ShardId(0, 0))
    _, sources = shard_digests(annotations)
    assert list(sources) == ["decode", "looker", "teller"]
    assert sources == world.pipeline.source_digests
    assert sources != replace(world, threshold=0.6).pipeline.source_digests
