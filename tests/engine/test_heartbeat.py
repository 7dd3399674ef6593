"""What others see of a run: the heartbeat, the log, and Prometheus; and how it ends when it is told to."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from running import Log, plan_of, run_plan
from toys import Brightness

from engine.annotate import Tally
from engine.config import Run
from engine.errors import RunError
from engine.heartbeat import Heartbeat, PoolSpeed, read_heartbeat, write_heartbeat
from engine.layout import Layer, Output, ShardId
from engine.logs import QUARANTINES, RunLog
from engine.places import place
from engine.runner import cluster
from engine.runner.reporter import Pulse, Reporter
from engine.worker import Plan


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    with cluster(Run()):
        yield


def lines(root: Path, plan: Plan) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "logs" / f"{plan.run_id}.jsonl").read_text().splitlines()]


@dataclass
class Looking(Log):
    """Looks at Prometheus' endpoint of its node at the end."""

    found: str = ""

    def finished(self, shard: ShardId) -> None:
        super().finished(shard)
        (node,) = ray.nodes()
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for _ in range(100 if len(self.written) == 3 else 0):
            with urllib.request.urlopen(url, timeout=10) as page:
                self.found = page.read().decode()
            if re.search(r"^ray_engine_failures.*\} 1\.0$", self.found, re.MULTILINE):
                return
            time.sleep(0.3)


def test_a_run_is_seen_from_elsewhere(one_ray: None, image_set: Callable[..., Path], tmp_path: Path) -> None:
    troubles = {"0002.png": "raise"}
    plan = plan_of(image_set(12), tmp_path / "out", [Brightness(troubles=troubles)], workers=1)
    log = Looking(total=112, done=100)
    run_plan(plan, log)
    beat = read_heartbeat(plan.output.round(0))
    assert beat is not None
    assert (beat.run, beat.pid, beat.stage, beat.ended) == (plan.run_id, os.getpid(), "annotate", "done")
    assert (beat.total, beat.done, beat.quarantined, beat.in_flight) == (112, 112, 1, {})
    assert (beat.pools["all"].items, beat.pools["all"].workers) == (12, 1)
    assert 0 < beat.pools["all"].ratio < 1
    told = lines(plan.output.root, plan)
    assert [line["event"] for line in told if line["event"] != "worker ready"] == [
        "begun",
        *["shard begun", "quarantined", "shard finished"],
        *["shard begun", "shard finished"] * 2,
        "ended",
    ]
    assert {line["run"] for line in told} == {plan.run_id}
    (quarantined,) = (line for line in told if line["event"] == "quarantined")
    assert (quarantined["shard"], quarantined["partition"]) == ("part-00000/shard-00000", 0)
    assert (quarantined["stage"], quarantined["kind"]) == ("brightness", "raised")
    assert quarantined["message"] == "ValueError: can't bear 0002.png"
    assert len(quarantined["items"]) == 1
    assert re.search(r'^ray_engine_images\S*\{.*pool="all".*\} 12\.0$', log.found, re.MULTILINE), log.found[-3000:]
    assert re.search(r'^ray_engine_failures\S*\{.*at="brightness".*\} 1\.0$', log.found, re.MULTILINE)
    assert re.search(r'^ray_engine_seconds_count\{.*specialist="brightness".*\} [1-9]', log.found, re.MULTILINE)
    assert re.search(r'^ray_engine_shards\S*\{.*pool="all".*\} [1-9]', log.found, re.MULTILINE)
    assert re.search(r'^ray_engine_pool_ratio\{.*pool="all".*\} 0\.\d', log.found, re.MULTILINE)


@dataclass
class Stopping(Log):
    """Sends what a person or a batch system sends, at the first image."""

    number: int = signal.SIGINT

    def progress(self, tally: Tally) -> None:
        if tally.items and not any(self.tallies):
            os.kill(os.getpid(), self.number)
            time.sleep(0.1)
        super().progress(tally)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_so_and_leaves_no_worker(
    one_ray: None, image_set: Callable[..., Path], tmp_path: Path, number: int
) -> None:
    """Also while a worker is in native code that nothing interrupts."""
    plan = plan_of(image_set(8), tmp_path / "out", [Brightness(troubles={"0001.png": "hang"})], workers=1)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, Stopping(number=number))
    beat = read_heartbeat(plan.output.round(0))
    assert beat is not None
    assert (beat.ended, beat.in_flight) == ("stopped", {})
    assert lines(plan.output.root, plan)[-1]["message"] == "stopped"
    assert time.monotonic() - began < 60
    for _ in range(100):
        if ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]:
            break
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"], "its worker is gone"


def test_what_ends_a_run_is_in_the_heartbeat(one_ray: None, image_set: Callable[..., Path], tmp_path: Path) -> None:
    plan = plan_of(image_set(4), tmp_path / "out", [Brightness(troubles={"0001.png": "stop"})], workers=1)
    with pytest.raises(RunError, match="budget"):
        run_plan(plan, Log())
    beat = read_heartbeat(plan.output.round(0))
    assert beat is not None
    assert beat.ended == "failed: the budget is spent"


def test_a_slow_store_does_not_hold_up_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest of what it could not yet write is written."""
    gate, written = threading.Event(), []

    def write(layer: Layer, beat: Heartbeat) -> None:
        gate.wait(10)
        written.append(beat.done)

    monkeypatch.setattr("engine.runner.reporter.write_heartbeat", write)
    log = RunLog(tmp_path, "run", 0)
    pulse = Pulse(Layer(tmp_path / "round-0"), log)
    for done in range(100):
        pulse.give(beat_of(done))
    gate.set()
    pulse.give(beat_of(100), last=True)
    log.close()
    assert written[-1] == 100
    assert len(written) <= 3


def test_a_store_that_fails_does_not_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(layer: Layer, beat: Heartbeat) -> None:
        raise OSError("503 slow down")

    monkeypatch.setattr("engine.runner.reporter.write_heartbeat", write)
    log = RunLog(tmp_path, "run", 0)
    Pulse(Layer(tmp_path / "round-0"), log).give(beat_of(1), last=True)
    log.close()
    assert "503 slow down" in (tmp_path / "logs" / "run.jsonl").read_text()


def beat_of(done: int) -> Heartbeat:
    speed = PoolSpeed(items=done, workers=2, busy_seconds=3.0, wall_seconds=2.0)
    return Heartbeat(
        "run", "host", 1, "annotate", 0.0, 1.0, 1000, done, 0, pools={"all": speed}, in_flight={"a": 0.5, "b": 0.75}
    )


def test_a_heartbeat_comes_back(tmp_path: Path) -> None:
    layer = Layer(tmp_path / "round-0")
    assert read_heartbeat(layer) is None
    write_heartbeat(layer, beat_of(7))
    assert read_heartbeat(layer) == beat_of(7)
    assert beat_of(7).pools["all"].ratio == 0.75
    assert PoolSpeed().ratio == 0


def test_on_a_store_the_log_is_whole_objects() -> None:
    root = place("memory://bucket/out")
    log = RunLog(root, "run-1", 0)
    log.event("one", "first")
    log.flush_part()
    log.flush_part()  # nothing came: no object
    log.event("two", "second \ud800\n\x00")
    log.flush_part()
    log.close()
    parts = sorted(path.name for path in (root / "logs").iterdir())
    assert parts == ["run-1-00000.jsonl", "run-1-00001.jsonl"]
    (two,) = (root / "logs" / parts[1]).read_text().splitlines()
    assert json.loads(two)["event"] == "two"


def test_quarantines_are_told_up_to_a_bound(tmp_path: Path) -> None:
    log = RunLog(tmp_path, "run", 0)
    for number in range(QUARANTINES + 500):
        log.quarantine("no" * 5000 if number < 3 else "no", items=[b"x"])
    log.close()
    told = (tmp_path / "logs" / "run.jsonl").read_text().splitlines()
    assert len(told) == QUARANTINES
    assert len(told[0]) < 3000
    assert log.quarantined == QUARANTINES + 500


def test_handlers_of_whoever_calls_get_the_events(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = plan_of_nothing(tmp_path)
    with caplog.at_level(logging.INFO, logger="engine"), Reporter(plan, Log()) as reporter:
        reporter.warn("retry", "again", shard=ShardId(0, 3))
    (record,) = (record for record in caplog.records if record.getMessage() == "again")
    assert record.engine["shard"] == "part-00000/shard-00003"  # type: ignore[attr-defined]


def plan_of_nothing(out: Path) -> Plan:
    from engine.config import Ingest
    from engine.vocabulary import Vocabulary

    return Plan(Output(out), 0, (), (), "made", "decided", Vocabulary(), Ingest(), Run())
