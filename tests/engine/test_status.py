"""What is said of a run that is seen from elsewhere, by the files that it leaves."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.atomic import write_json
from engine.cli.commands import run
from engine.cli.terminal import console
from engine.errors import OutputError
from engine.heartbeat import Heartbeat, PoolSpeed, write_heartbeat
from engine.layout import LOCK, Output, ShardId
from engine.lock import run_lock
from engine.partitions import close, partitions
from engine.places import place
from engine.records import Item, ItemError, Record
from engine.schema import items_to_table
from engine.status import CLOCKS, FRESH, WATCHED, Status, is_running, status_of
from engine.storage import write_annotations, write_decisions, write_table

SHARDS, SIZE = 3, 2  # of each of two partitions
HERE = socket.gethostname()


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Two partitions of three shards of two images, none of them annotated."""
    made = Output(tmp_path / "out")
    for partition in range(2):
        for number in range(SHARDS):
            write_table(made.items(ShardId(partition, number)), items_to_table(items(ShardId(partition, number))), "d")
    part = {"items": SHARDS * SIZE, "shard_size": SIZE, "shards": SHARDS}
    write_json(made.manifest, {"digest": "d", "items": 2 * SHARDS * SIZE, "partitions": [part, part]})
    (made.root / ".engine-lock").touch()
    return made


def items(shard: ShardId) -> list[Item]:
    uris = [f"file:///{shard}/{n}.png" for n in range(SIZE)]
    return [Item(Item.id_of(uri), uri) for uri in uris]


def annotate(output: Output, *shards: ShardId, quarantined: int = 0) -> None:
    error = ItemError("detector", "raised", "no")
    for shard in shards:
        records = [Record(item, error=error if n < quarantined else None) for n, item in enumerate(items(shard))]
        write_annotations(output.round(0), shard, records, "a", {})
        write_decisions(output.round(0), shard, records, "f")


def all_of(partition: int) -> list[ShardId]:
    return [ShardId(partition, number) for number in range(SHARDS)]


def beat(**changes: Any) -> Heartbeat:
    now = time.time()
    said: dict[str, Any] = {
        "run": "r1",
        "host": HERE,
        "pid": os.getpid(),
        "stage": "annotate",
        "began": now - 60,
        "at": now,
        "total": 12,
        "done": 4,
        "quarantined": 0,
        "images_per_second": 2.0,
        "workers_ready": 2,
        "workers": 2,
    }
    return Heartbeat(**said | changes)


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no dataset"):
        status_of(Output(tmp_path))


def test_a_run_that_lists_its_images_has_no_manifest_yet(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    with run_lock(output.root):
        found = status_of(output)
        assert found.items is None
        assert f"process {os.getpid()} on {HERE}" in found.holder
        assert found.lives
    found = status_of(output)
    assert not found.lives
    assert found.next == (f"engine run --out {output.root}",)


def test_a_manifest_that_is_lost_is_to_be_written_anew(output: Output) -> None:
    output.manifest.unlink()
    assert status_of(output).next == (f"engine run --out {output.root}",)
    annotate(output, ShardId(0, 0))
    assert status_of(output).next == (f"engine verify {output.root} --repair",)


def test_what_is_damaged_or_gone_is_told_or_done_without(output: Output) -> None:
    annotate(output, *all_of(0), quarantined=1)
    output.round(0).annotations(ShardId(0, 1)).write_text("no Parquet")
    output.round(0).progress.write_text("{")
    assert not is_running(output)
    with pytest.raises(OutputError, match=r"progress.json is damaged"):
        status_of(output)
    output.round(0).progress.unlink()
    (output.root / LOCK).unlink()  # as of a copy
    (layer,) = status_of(output).layers
    assert (layer.done, layer.quarantined) == (6, {"detector": {"raised": 2}})
    output.manifest.write_text("{")
    with pytest.raises(OutputError, match=r"manifest.json is damaged"):
        status_of(output)


def test_rounds_come_in_their_order_each_with_what_merging_adds(output: Output) -> None:
    for number in (10, 2, 1):
        write_json(output.round(number).sources, {})
    (output.root / "round-about").mkdir()
    for number in (10, 1):
        write_json(output.round(number).merge.sources, {})
    names = [layer.name for layer in status_of(output).layers]
    assert names == ["round-1", "round-1/merge", "round-2", "round-10", "round-10/merge"]


def test_the_lock_is_not_taken_to_look(output: Output) -> None:
    with run_lock(output.root):
        status_of(output)
        with pytest.raises(OutputError, match="in use"), run_lock(output.root):
            pass
    with run_lock(output.root):
        pass


def test_done_is_counted_by_shards(output: Output) -> None:
    annotate(output, *all_of(0), ShardId(1, 1), quarantined=1)
    (layer,) = status_of(output).layers
    assert (layer.name, layer.items, layer.done) == ("round-0", 12, 8)
    assert (layer.shards, layer.shards_done, layer.partitions, layer.closed) == (6, 4, 2, 0)
    assert layer.quarantined == {"detector": {"raised": 4}}


def test_of_a_closed_partition_no_shard_is_looked_at(output: Output) -> None:
    annotate(output, *all_of(0), ShardId(1, 0))
    first, _ = partitions(output)
    assert close(output, output.round(0), first, {"quarantined": {"decode": {"changed": 2}}}, 2)
    for shard in all_of(0):
        output.round(0).annotations(shard).unlink()
        output.round(0).decisions(shard).unlink()
    (layer,) = status_of(output).layers
    assert (layer.done, layer.shards_done, layer.closed) == (8, 4, 1)
    assert layer.quarantined == {"decode": {"changed": 2}}


def test_a_damaged_marker_only_costs_a_look_at_shards(output: Output) -> None:
    annotate(output, *all_of(0))
    output.round(0).closed(0).parent.mkdir()
    output.round(0).closed(0).write_text("{")
    (layer,) = status_of(output).layers
    assert (layer.done, layer.closed) == (6, 0)


@pytest.mark.parametrize(
    ("changes", "life"),
    [
        ({}, "alive"),
        ({"at": time.time() - FRESH - 60}, "silent"),
        ({"host": "another", "pid": 1}, "alive"),
        ({"host": "another", "at": time.time() - FRESH - CLOCKS - 60}, "silent"),
        ({"pid": "gone"}, "dead"),
        ({"ended": "stopped"}, "ended"),
        ({"ended": "failed: no space"}, "ended"),
    ],
)
def test_whether_a_run_lives(output: Output, changes: dict[str, Any], life: str) -> None:
    if changes.get("pid") == "gone":
        changes = changes | {"pid": gone()}
    annotate(output, ShardId(0, 0))
    write_heartbeat(output.round(0), beat(**changes))
    found = status_of(output)
    (layer,) = found.layers
    assert layer.life == life
    assert found.lives == is_running(output) == (life == "alive")
    assert layer.done == (4 if life == "alive" else 2)  # the heartbeat knows of images in shards that are not done yet
    assert layer.left_seconds == (4.0 if life == "alive" else None)
    assert ("--watch" in found.next[0]) == (life == "alive")


@contextmanager
def again_and_again(write: Callable[[], object]) -> Iterator[None]:
    """As a run on another machine does."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.1):
            write()

    write()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.status.WATCHED", 0.5)
    monkeypatch.setattr("engine.status.LOOK_SECONDS", 0.1)


@pytest.mark.parametrize("off", [-300, 300])
def test_a_clock_that_is_off_by_minutes_misleads_nobody(
    output: Output, quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    def write() -> None:
        theirs = time.time() + off
        write_heartbeat(output.round(0), beat(host="another", at=theirs, began=theirs))

    write()
    assert status_of(output).layers[0].life == "silent"
    monkeypatch.setattr("engine.status.WATCHED", 30)
    with again_and_again(write):
        assert is_running(output)
        said = " ".join(shown(monkeypatch, capsys, "status", str(output.root)).split())
    for words in ("runs", "clock and this machine's differ by about 5 min", "for 0 s; process"):
        assert words in said


def test_on_a_store_who_renews_no_lease_does_not_run(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """This store does not say when a file was written."""
    output = Output(place("memory://test_on_a_store_who_renews_no_lease/out"))
    holder = {"pid": 1, "host": "another", "since": "today", "token": "t"}

    def renew() -> None:
        write_json(output.root / LOCK, {**holder, "beats": time.time()})

    renew()
    write_heartbeat(output.round(0), beat(host="another", pid=1, at=time.time() - 300))
    assert not is_running(output)
    monkeypatch.setattr("engine.status.WATCHED", 30)
    with again_and_again(renew):
        assert is_running(output)
        assert status_of(output).holder == "process 1 on another since today"
    for nobody in ({"token": ""}, {"host": HERE, "pid": gone()}):
        before, holder = holder, holder | nobody
        with again_and_again(renew):
            assert not is_running(output)
        holder = before


def test_who_is_silent_for_long_is_not_waited_for(output: Output) -> None:
    write_heartbeat(output.round(0), beat(host="another", at=time.time() - FRESH - CLOCKS - 60))
    began = time.monotonic()
    assert not is_running(output)
    assert time.monotonic() - began < WATCHED / 2


def test_what_is_made_again_is_not_done_yet(output: Output) -> None:
    """While `--update` and `retry-failed` run, every shard has the decisions of before."""
    annotate(output, *all_of(0), *all_of(1))
    write_heartbeat(output.round(0), beat())
    (layer,) = status_of(output).layers
    assert (layer.done, layer.left_seconds) == (4, 4.0)
    write_heartbeat(output.round(0), beat(ended="stopped"))
    (layer,) = status_of(output).layers
    assert (layer.done, layer.left_seconds) == (12, None)


def test_a_training_says_its_step(output: Output) -> None:
    output.config.write_text(
        "train: {steps: 100, phases: {a: {steps: 30}, b: {}}}\nrefine: {rounds: [{}, {train: {steps: 7}}]}\n"
    )
    folder = output.round(0).training / "fold-0"
    folder.mkdir(parents=True)
    lines = [{"event": "step", "step": n, "at": 5.0} for n in range(1, 9)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "step", "st')
    (step,) = status_of(output).trainings
    assert (step.name, step.step, step.total, step.ended) == ("round-0/training/fold-0", 8, 130, False)
    folder = output.round(1).training / "fold-0"
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text('{"event": "end", "step": 37}\n')
    _, step = status_of(output).trainings
    assert (step.step, step.total, step.ended) == (37, 37, True)


AS_IT_WAS = 'engine run --out {out} --set run.address=auto --set \'run.pools={{"big": {{"gpus": 1}}}}\''


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda o: None, "engine run --out {out}"),
        (lambda o: annotate(o, *all_of(0)), "engine run --out {out}"),
        (lambda o: annotate(o, *all_of(0), *all_of(1)), "engine export {out}"),
        (lambda o: annotate(o, *all_of(0), *all_of(1), quarantined=1), "engine retry-failed {out}"),
        (lambda o: closed_with(o, {"ingest": {"unreachable": 1}, "decode": {"changed": 1}}), "engine export {out}"),
        (lambda o: closed_with(o, {"decode": {"changed": 1, "truncated": 1}}), "engine retry-failed {out}"),
        (lambda o: later_round(o, 5), "engine run --stage reannotate --round 0 --out {out}"),
        (lambda o: later_round(o, 6), "engine run --stage merge --round 1 --out {out}"),
        (lambda o: later_round(o, 6, "accepted"), "engine export {out}"),
        (lambda o: merging(o), "engine export {out}"),
        (lambda o: killed(o), AS_IT_WAS),
        (lambda o: killed(o, ended="failed: no GPU"), AS_IT_WAS),
        (lambda o: killed(o, ended="done"), "engine run --out {out}"),
        (lambda o: killed(o, settings={}), "engine run --out {out}"),
    ],
)
def test_the_next_command(output: Output, prepare: Any, says: str) -> None:
    prepare(output)
    assert status_of(output).next[0] == says.format(out=output.root)


def killed(output: Output, **changes: Any) -> None:
    """A run with workers of its own, which config.yaml does not know of before it has ended well."""
    settings = {"pools": {"big": {"gpus": 1}}, "address": "auto", "no such": "; true"}
    write_heartbeat(output.round(0), beat(**{"pid": gone(), "settings": settings} | changes))


def closed_with(output: Output, quarantined: dict[str, dict[str, int]]) -> None:
    annotate(output, *all_of(0), *all_of(1))
    for partition in partitions(output):
        assert close(output, output.round(0), partition, {"quarantined": quarantined}, 6)


def merging(output: Output) -> None:
    """A round that was judged is done, whatever there is yet of what merging adds to it."""
    later_round(output, 6, "accepted")
    write_json(output.round(1).merge.sources, {})


def later_round(output: Output, shards: int, outcome: str = "") -> None:
    annotate(output, *all_of(0), *all_of(1))
    for shard in [*all_of(0), *all_of(1)][:shards]:
        write_annotations(output.round(1), shard, [Record(item, round=1) for item in items(shard)], "a", {})
        write_decisions(output.round(1), shard, [Record(item, round=1) for item in items(shard)], "f")
    if outcome:
        write_json(output.round(1).manifest, {"outcome": outcome})


def test_the_screen_fits_80_columns(output: Output, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    annotate(output, *all_of(0), quarantined=1)
    pools = {"gpu": PoolSpeed(4, 2, 60.0, 40.0)}
    write_heartbeat(output.round(0), beat(done=6, pools=pools, in_flight={str(ShardId(1, 0)): time.time() - 240}))
    said = shown(monkeypatch, capsys, "status", str(output.root))
    assert all(len(line) <= 80 for line in said.splitlines())
    for words in ("6 of 12", "3 of 6", "runs", "2.00 images/s", "75% of", "part-00001/shard-00000", "raised 3"):
        assert words in said
    told = json.loads(shown(monkeypatch, capsys, "status", str(output.root), "--json"))
    assert told["layers"][0]["beat"]["pools"]["gpu"]["ratio"] == 0.75
    assert told["layers"][0]["quarantined"] == {"detector": {"raised": 3}}


def test_who_was_killed_does_not_run(
    output: Output, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate(output, *all_of(0))
    write_heartbeat(output.round(0), beat(pid=gone()))
    assert "was killed" in shown(monkeypatch, capsys, "status", str(output.root))
    annotate(output, *all_of(1))
    assert "images/s" not in shown(monkeypatch, capsys, "status", str(output.root))


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["engine", *arguments])
    monkeypatch.setattr(console, "width", 80)
    with pytest.raises(SystemExit) as ended:
        run()
    assert not ended.value.code
    return capsys.readouterr().out


def test_it_waits_for_nothing_heavy() -> None:
    heavy = {"ray", "torch", "transformers", "cv2", "onnxruntime", "spacy"}
    code = f"import sys, engine.cli, engine.status, engine.cli.status; print(*{heavy} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


def test_a_status_is_plain_data(output: Output) -> None:
    found = status_of(output)
    assert isinstance(found, Status)
    assert json.loads(json.dumps(found.json()))["items"] == 12
