"""The runner on a real Ray: whatever a worker does over one image, that image alone pays for it."""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import annotated, errors
from toys import Brightness, Unloadable

from engine.config import Run
from engine.errors import OutputError, RunError
from engine.layout import Output, ShardId
from engine.runner import cluster, each_shard
from engine.watchdog import notes_of


def test_whatever_happens_over_an_image_stays_with_it(image_set: Callable[..., Path], tmp_path: Path) -> None:
    troubles = {
        "0001.png": "raise",
        "0005.png": "hang",
        "0009.png": "kill",
        "0010.png": "exit",
        "0014.png": "kill once",
        "0016.png": "surrogate",
        "0017.png": "number",
    }
    records, log = annotated(
        image_set(18), tmp_path / "out", Brightness(troubles=troubles), item_seconds=3.0, workers=2
    )
    assert errors(records) == {
        "0001.png": ("brightness", "raised"),
        "0005.png": ("annotate", "timeout"),
        "0009.png": ("annotate", "killed"),
        "0010.png": ("annotate", "killed"),
        "0016.png": ("annotate", "unstorable"),
        "0017.png": ("annotate", "unstorable"),
    }
    assert len(records) == 18
    assert all(len(record.regions) == 1 for name, record in records.items() if record.error is None)
    timeout = records["0005.png"].error
    assert timeout is not None
    assert "longer than 3 s, in File" in timeout.message
    assert "toys.py" in timeout.message
    assert sum("goes to quarantine" in warning for warning in log.warnings) == 3
    assert log.tallies[-1] == 18


def test_what_a_killed_run_noted_goes_with_the_next_one(image_set: Callable[..., Path], tmp_path: Path) -> None:
    left = notes_of(f"20260101-{os.getpid() % 1_000_000:06d}-0123456789abcdef")
    left.mkdir()
    (left / "1").write_text("[]")
    for path in (left / "1", left):
        os.utime(path, (0, 0))
    annotated(image_set(2), tmp_path / "out", Brightness(), workers=1)
    assert not left.exists()


def test_batches_are_taken_apart_to_find_the_one(image_set: Callable[..., Path], tmp_path: Path) -> None:
    troubles = {"0002.png": "kill", "0006.png": "raise"}
    records, log = annotated(image_set(8), tmp_path / "out", Brightness(troubles=troubles), batch_size=4, workers=1)
    assert errors(records) == {"0002.png": ("annotate", "killed"), "0006.png": ("brightness", "raised")}
    assert any("one by one" in warning for warning in log.warnings)


def test_a_specialist_can_end_the_run_and_what_was_done_is_kept(image_set: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = image_set(8), tmp_path / "out"
    with pytest.raises(RunError, match=r"^the budget is spent$"):
        annotated(folder, out, Brightness(troubles={"0006.png": "stop"}), workers=1)
    done = {shard.number: Output(out).round(0).annotations(shard).exists() for shard in Output(out).shards()}
    assert done == {0: True, 1: False}


def test_weights_that_are_not_there_end_the_run(image_set: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"can't load its models: FileNotFoundError: weights\.bin"):
        annotated(image_set(4), tmp_path / "out", Unloadable(), workers=1)


def test_a_specialist_that_workers_can_not_import_is_named(
    image_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "homemade.py").write_text("from toys import Brightness\nclass Homemade(Brightness): pass\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        homemade = importlib.import_module("homemade").Homemade()
    with pytest.raises(RunError, match=r"a worker can't start: ModuleNotFoundError: No module named 'homemade'"):
        annotated(image_set(4), tmp_path / "out", homemade, workers=1)


def test_workers_that_end_again_and_again_without_an_image_end_the_run(
    image_set: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"workers ended 3 times without an image to blame, the last while it was load"):
        annotated(image_set(4), tmp_path / "out", Unloadable(how="kill"), workers=1)


def test_too_many_workers_are_refused_with_the_numbers(image_set: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"1000 worker\(s\) of 1 CPU, 0 GPU and 300 MB .* run\.workers"):
        annotated(image_set(4), tmp_path / "out", Brightness(), workers=1000)
    with pytest.raises(RunError, match=r"0 fit: there are .* 0 GPU"):
        annotated(image_set(4), tmp_path / "out", Brightness(), gpus_per_worker=1.0)


def test_an_address_without_a_cluster_is_named(image_set: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"'127\.0\.0\.1:1' \(run\.address\) does not answer"):
        annotated(image_set(4), tmp_path / "out", Brightness(), address="127.0.0.1:1")


def test_tasks_without_a_model_run_over_shards_in_order(tmp_path: Path) -> None:
    shards = [ShardId(0, n) for n in range(12)]
    done: list[str] = []

    def unfortunate(shard: ShardId) -> str:
        if shard.number == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        if shard.number == 9:
            raise OutputError("it is damaged")
        return str(shard)

    def at_the_second_try(shard: ShardId) -> str:
        if not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (tmp_path / "tried").unlink()
        return str(shard)

    def beside_another(shard: ShardId) -> str:
        (tmp_path / str(shard.number)).touch()
        for _ in range(300):
            if len(os.listdir(tmp_path)) > 1:
                return str(shard)
            time.sleep(0.1)
        raise OutputError("no other task is there")

    with cluster(Run()):
        each_shard(str, shards, Run(), done.append)
        assert done == [f"part-00000/shard-{n:05d}" for n in range(12)]
        with pytest.raises(RunError, match="part-00000/shard-00000: TypeError"):
            each_shard(len, shards, Run(), done.append)  # type: ignore[arg-type, misc]
        with pytest.raises(OutputError, match=r"^it is damaged$"):
            each_shard(unfortunate, shards[8:], Run(), done.append)
        with pytest.raises(
            RunError, match=r"^part-00000/shard-00007: the process .* died when it was tried again.*same"
        ):
            each_shard(unfortunate, shards[6:9], Run(), done.append)
        with pytest.raises(RunError, match=r"of 64 CPU, .* were asked for, and 0 fit: .*run\.cpus_per_worker"):
            each_shard(str, shards, Run(cpus_per_worker=64), done.append)
        each_shard(str, shards[11:], Run(gpus_per_worker=64), done.append)
        with pytest.raises(RunError, match=r", 64 GPU and .* were asked for, and 0 fit"):
            each_shard(str, shards, Run(gpus_per_worker=64), done.append, weights=True)
        each_shard(at_the_second_try, shards[2:3], Run(), done.append)
        each_shard(beside_another, shards[:2], Run(cpus_per_worker=0.5), done.append)
    assert done[12:] == [f"part-00000/shard-{n:05d}" for n in (8, 6, 11, 2, 0, 1)]
