"""Pools of workers on a real Ray: what comes out is what one pool makes, whatever ends on the way."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from running import Log, Seen, annotated, errors, plan_of, run_plan
from toys import Brightness

from engine.annotate import Tally
from engine.breaker import Breaker
from engine.config import Config, Run
from engine.errors import ConfigError, RunError
from engine.layout import ShardId
from engine.pools import Pool, pools_of
from engine.runner.actor import Place, WorkerActor
from engine.runner.connection import Room, cluster, lacking
from engine.runner.crew import Crew
from engine.runner.reporter import Reporter
from engine.runner.staffing import Staffing
from engine.runner.supply import AHEAD, Supply
from engine.validation import validated
from engine.worker import Half, Orders, Worker
from pipelines.planning import room_of


def of(*names: str, **more: Any) -> dict[str, Any]:
    return {"specialists": names, "cpus": 0.5, "memory_mb": 200, **more}


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    """For all tests: it takes seconds to start."""
    with cluster(Run()):
        yield


THREE = {"look": of("a"), "read": of("b", "c"), "tell": of("d", max=2)}


def specialists(**troubles: dict[str, str]) -> list[Brightness]:
    return [Brightness(name=name, troubles=troubles.get(name, {})) for name in "abcd"]


def content(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("shard-*.parquet"))}


def test_whatever_happens_in_a_pool_the_faulty_images_alone_pay(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(12)
    troubles = {"a": {"0003.png": "raise", "0004.png": "kill"}, "c": {"0009.png": "hang"}}
    records, log = annotated(
        folder, tmp_path / "out", *specialists(**troubles), pools=THREE, item_seconds=2.0, batch_size=2, attempts=1
    )
    assert errors(records) == {
        "0003.png": ("a", "raised"),
        "0004.png": ("annotate", "killed"),
        "0009.png": ("annotate", "timeout"),
    }
    for name, record in records.items():
        assert [region.source for region in record.regions] == ([] if record.error else ["a", "b", "c", "d"]), name
    assert sum("one by one" in warning for warning in log.warnings) == 2
    assert list(log.tally.pools) == ["look", "read", "tell"]
    assert all(speed.items >= 12 and speed.workers and 0 < speed.ratio <= 1 for speed in log.tally.pools.values())


def test_pools_write_the_same_files(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_set(13)
    troubles = {"b": {"0003.png": "raise"}, "d": {"0012.png": "surrogate"}}
    annotated(folder, tmp_path / "one", *specialists(**troubles), workers=1)
    log = annotated(folder, tmp_path / "three", *specialists(**troubles), pools=THREE)[1]
    assert content(tmp_path / "one") == content(tmp_path / "three")
    assert len(content(tmp_path / "one")) == 3 * 4
    assert log.tally.quarantined == 2


def test_a_half_is_all_that_the_next_pool_needs(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Without Ray: a worker of each pool in turn, a Half in between as it goes through Ray."""
    plan = plan_of(image_set(4), tmp_path / "out", specialists(), pools=THREE)
    half, passed = None, []
    for number in range(3):
        worker = Worker(plan, number)
        worker.setup()
        said = list(worker.annotate(Orders(ShardId(0, 0)), half))
        halves = [each for each in said if isinstance(each, Half)]
        passed.append(sum(tally.passed for tally in said if not isinstance(tally, Half)))
        half = pickle.loads(pickle.dumps(halves[0])) if halves else None
        assert not isinstance(said[-1], Half), "a report follows, by which the driver knows that the Half is whole"
    assert half is None
    assert passed == [4, 4, 4]


def test_a_pool_that_does_not_fit_is_refused_with_the_numbers(image_set: Callable[..., Path], tmp_path: Path) -> None:
    pools = {"look": of("a", "b"), "tell": of("c", "d", gpus=1, min=2)}
    with pytest.raises(
        RunError, match=r"1 worker\(s\) .*200 MB \(look\), 2 worker\(s\) .* 1 GPU .* 1 and 0 fit"
    ) as told:
        annotated(image_set(4), tmp_path / "out", *specialists(), pools=pools)
    assert "min in run.pools" in str(told.value)


def test_failures_in_a_row_end_the_run(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """The first pool's images all come through; that is no success of theirs."""
    folder = image_set(24)
    troubles = {f"{n:04d}.png": "raise" for n in range(4, 24)}
    plan = plan_of(folder, tmp_path / "out", specialists(d=troubles), pools=THREE, failures_in_a_row=10)
    log = Log()
    with pytest.raises(RunError, match=r"1\d images in a row failed \(run.failures_in_a_row 10\)") as told:
        run_plan(plan, log)
    assert "stage d (1" in str(told.value)
    assert f"place {folder} (1" in str(told.value)
    assert ShardId(0, 0) in log.written, "what was written before stays"
    assert plan.output.round(0).decisions(ShardId(0, 0)).exists()


def test_a_part_that_fails_in_each_of_two_pools_ends_the_run(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Of four images each the first fails in the last pool, and the others in the one before."""
    folder = image_set(24)
    early = {f"{n:04d}.png": "raise" for n in range(24) if n % 4}
    late = {f"{n:04d}.png": "raise" for n in range(0, 24, 4)}
    plan = plan_of(folder, tmp_path / "out", specialists(c=early, d=late), pools=THREE, failures_in_a_row=10)
    with pytest.raises(RunError, match=r"1\d images in a row failed \(run.failures_in_a_row 10\)") as told:
        run_plan(plan, Log())
    assert "stage c (" in str(told.value)
    assert ", d (" in str(told.value)


def test_a_pool_ahead_of_the_others_is_not_stopped_for_what_came_through_it(
    image_set: Callable[..., Path], tmp_path: Path
) -> None:
    """At the beginning no image is through the last pool yet."""
    folder = image_set(20)
    for n in range(0, 20, 2):
        (folder / f"{n:04d}.png").write_bytes((folder / f"{n:04d}.png").read_bytes()[:2000])
    slow = Seen(name="d", folder=str(tmp_path), seconds=0.2)
    pools = {"look": of("a", "b", "c", max=1), "tell": of("d", max=1)}
    some = [*specialists()[:3], slow]
    records, _ = annotated(folder, tmp_path / "out", *some, pools=pools, batch_size=4, failures_in_a_row=3)
    assert len(errors(records)) == 10


def test_who_idled_on_a_node_that_went_is_given_nothing(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """And others start in their place."""
    plan = plan_of(image_set(1), tmp_path / "out", [Brightness()], workers=2)
    crew = Crew(0, plan.pools[0], ("brightness",), Breaker(1))
    (here,) = (node["NodeID"] for node in ray.nodes())

    def start(crew: Crew) -> None:
        crew.add(ray.remote(num_cpus=0)(WorkerActor).remote(plan, 0))

    for node in ("gone", here, "gone"):
        start(crew)
        (*_, member) = crew.members.values()
        member.place = Place(node, 0)
        crew.welcome(member)
    with Reporter(plan, Log()) as reporter:
        Staffing(plan, [crew], lambda crew: 3, lambda crew: False, start, reporter).look()
    assert [member.node for member in crew.idle] == [here]
    assert len(crew.members) == 2, "as many as its min"
    for member in list(crew.members.values()):
        crew.remove(member)


def test_who_is_free_and_how_much_of_the_time_of_all_went_into_their_models() -> None:
    class Idler:
        def place(self) -> int:
            return os.getpid()

    crew = Crew(0, Pool("look", 0, 2, 0, 0, 0), ("a", "b"), Breaker(1))
    first, second, third = (crew.add(ray.remote(num_cpus=0)(Idler).remote()) for _ in range(3))
    ray.get(first.handle.place.remote())
    for member in (first, second):
        crew.welcome(member)
        assert time.monotonic() - member.idle_since < 60
    assert (crew.ready, list(crew.idle)) == (2, [first, second])
    assert first.ready_at and second.ready_at
    first.ready_at, second.ready_at = first.ready_at - 1000, second.ready_at - 3000
    crew.count(Tally(passed=4, seconds={"a": 1.0, "b": 0.5, "of another pool": 9.0}))
    for left, member in (([second, third], first), ([second, third], first), ([third], second)):
        crew.remove(member)
        assert (list(crew.members.values()), list(crew.idle)) == (left, left[:-1])
        speed = crew.speed
        assert (speed.items, speed.workers, speed.busy_seconds) == (4, 2, 1.5)
        assert speed.wall_seconds == pytest.approx(2000, abs=60), "of each"
    with pytest.raises(ray.exceptions.RayActorError):  # an answer may be on its way before the end is
        for _ in range(600):
            ray.get(first.handle.place.remote(), timeout=60)
            time.sleep(0.1)
    crew.welcome(third)
    assert crew.peak == 2
    crew.remove(third)


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ({"look": of("b", "a"), "tell": of("c", "d")}, "in the order of the pipeline: a, b, c, d; got b, a, c, d"),
        ({"look": of("a", "b"), "tell": of("d")}, "expected all specialists.*got a, b, d"),
        ({"look": of("a", "b"), "tell": of("b", "c", "d")}, "each in one pool.*got a, b, b, c, d"),
    ],
)
def test_pools_have_all_specialists_once_in_order(pools: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pools_of(Run(pools=pools), "abcd")


def test_annotating_again_has_pools_of_its_own_specialists() -> None:
    run = Run(pools={"look": of("a"), "model": of("b", "florence2", gpus=1)}, workers=3)
    assert [(p.name, p.start, p.stop) for p in pools_of(run, "ab")] == [("look", 0, 1), ("model", 1, 2)]
    assert [(p.name, p.start, p.stop, p.gpus) for p in pools_of(run, ["florence2"])] == [("model", 0, 1, 1)]
    assert [(p.name, p.stop, p.min, p.max) for p in pools_of(run, ["other", "another"])] == [("all", 2, 3, 3)]


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (of("a", "zebra"), "run.pools.look.specialists: zebra is no specialist here; there are a"),
        (of("a", min=3, max=2), "max 2 is less than min 3"),
        (of(), "at least 1 item"),
        (of("a", gpus=1.5), "hundredths"),
        (of("a", workers=2), "workers"),
    ],
)
def test_a_pool_that_can_not_be_is_named(pool: dict[str, Any], message: str) -> None:
    document = {"specialists": {"a": {"use": "x"}}, "reannotate": {"specialists": {}}, "run": {"pools": {"look": pool}}}
    with pytest.raises(ConfigError, match=message):
        validated(Config, document, where="here")


GPU = Pool("gpu", 0, 1, cpus=2, gpus=0.5, memory_mb=1000)
CPU = Pool("cpu", 1, 2, cpus=1, gpus=0, memory_mb=2000)
GB = 2.0**30


def test_room_is_on_single_nodes() -> None:
    nodes = {"one": {"CPU": 3, "memory": 8 * GB}, "two": {"CPU": 5, "GPU": 1, "memory": 4 * GB}}
    room = Room(nodes)
    assert (room.count(GPU), room.count(CPU)) == (2, 3 + 2)
    assert room.take(CPU)
    assert room.free["one"]["CPU"] == 2, "a node without GPU is for those who need none"
    assert room.take(GPU)
    assert room.take(GPU)
    assert not room.take(GPU)
    assert room.without(GPU, "two").count(GPU) == 1
    assert room.count(GPU) == 0
    assert Room({"one": {"CPU": 1}, "two": {"CPU": 1, "GPU": 1, "memory": 64 * GB}}).count(GPU) == 0
    assert Room({"one": {"CPU": 0.3, "memory": 64 * GB}}).count(replace(CPU, cpus=0.1)) == 3


def test_what_does_not_fit_together_is_told() -> None:
    nodes = {"one": {"CPU": 3, "memory": 8 * GB}, "two": {"CPU": 5, "GPU": 1, "memory": 4 * GB}}
    assert lacking((GPU, CPU), [2, 4], nodes) == ""
    why = lacking((GPU, CPU), [2, 5], nodes)
    assert "2 worker(s) of 2 CPU, 0.5 GPU and 1000 MB (gpu), 5 worker(s) of 1 CPU" in why
    assert "2 and 4 fit: there are 8 CPU, 1 GPU and 12288 MB on 2 nodes" in why


def test_a_plan_goes_by_what_the_cluster_has() -> None:
    (has,) = (node["Resources"] for node in ray.nodes())
    room = room_of(Config(run=Run(address="auto")))
    assert (room.cpus, room.gpus, room.memory_mb) == (has["CPU"], has.get("GPU", 0), has["memory"] / 2**20)
    assert room != room_of(Config())


def test_shards_are_taken_as_they_are_needed() -> None:
    taken = 0

    def shards() -> Any:
        nonlocal taken
        for taken in range(1, 10_000_000):
            yield ShardId(0, taken)

    supply = Supply(shards())
    assert supply.ahead() == AHEAD == taken
    assert [supply.take().number for _ in range(3)] == [1, 2, 3]
    for given in range(4, 5000):
        assert supply.ahead() >= AHEAD // 2, "by which one tells how many workers are of use"
        assert supply.take().number == given
        assert taken <= given + AHEAD
    assert Supply(iter(())).ahead() == 0
