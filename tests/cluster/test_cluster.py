"""A real Ray: a head without work and nodes that join it, reached by `engine run` and by `ray job submit`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from clusters import content, ray_head, ray_nodes, raylet, wait_for

pytest.importorskip("aiohttp_cors", reason="ray[default] is not installed")

SLOW = ("--set", "specialists.paced.seconds=0.5")


def decided(out: Path) -> int:
    return len(list((out / "round-0" / "decisions").rglob("shard-*.parquet")))


def test_a_driver_works_on_every_node_and_makes_what_one_machine_makes(cluster, alone: Path, tmp_path: Path) -> None:
    for file in cluster.seen.iterdir():
        file.unlink()
    code, said = cluster.run(*cluster.command(tmp_path / "out", "--address", cluster.head.address))
    assert code == 0, said
    assert content(tmp_path / "out") == content(alone)
    assert len(content(alone)) == 3 * 6
    assert len(list(cluster.seen.iterdir())) == 2
    assert cluster.head.is_alive


def test_a_job_and_a_driver_side_by_side_do_not_disturb_each_other(cluster, alone: Path, tmp_path: Path) -> None:
    shared = ("--set", "run.workers=1", "--address", "auto")
    driver = cluster.start(*cluster.command(tmp_path / "driver", *shared))
    code, said = cluster.job("submit", "--", *cluster.command(tmp_path / "job", *shared))
    beside, _ = driver.communicate(timeout=200)
    assert code == 0, said
    assert "succeeded" in said
    assert "24 images, 0 quarantined" in said
    assert driver.returncode == 0, beside
    assert content(tmp_path / "job") == content(tmp_path / "driver") == content(alone)
    assert cluster.head.is_alive


def test_a_job_that_fails_says_why(cluster, tmp_path: Path) -> None:
    wrong = ("--address", "auto", "--set", "specialists.paced.secnds=1")
    code, said = cluster.job("submit", "--", *cluster.command(tmp_path / "out", *wrong))
    assert code == 1
    assert "Job entrypoint command failed with exit code 2" in said
    assert "specialists.paced.secnds: unknown" in said
    assert not (tmp_path / "out").exists()


def test_a_node_is_lost_and_nothing_with_it(cluster, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ray_nodes(cluster.head, 1) as (node,):
        process = cluster.start(*cluster.command(out, *SLOW, "--set", "run.workers=3", "--address", "auto"))
        wait_for(lambda: decided(out) >= 1, 90)
        raylet(node).kill()
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "24 images, 0 quarantined" in said
    assert content(out) == content(alone)


@pytest.mark.slow
def test_a_job_that_is_stopped_goes_on_where_it_was(cluster, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = cluster.command(out, *SLOW, "--address", "auto")
    cluster.job("submit", "--no-wait", "--submission-id=stopped", "--", *words)
    wait_for(lambda: decided(out) >= 1, 90)
    began = time.monotonic()
    cluster.job("stop", "stopped")
    assert time.monotonic() - began < 20, "a tenth of a minute, and as long for Ray's command line to start"
    done = content(out)
    _, said = cluster.job("logs", "stopped")
    assert "What is done is safe; to go on: engine run" in said
    assert decided(out) < 6
    code, said = cluster.job("submit", "--", *words)
    assert code == 0, said
    assert done.items() <= content(out).items()
    assert content(out) == content(alone)


@pytest.mark.slow
def test_the_last_node_is_lost_and_another_one_joins(place, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ray_head(place.environment, cpus=0) as head:
        with ray_nodes(head, 1) as (node,):
            process = place.start(*place.command(out, *SLOW, "--address", head.address), **head.environment)
            wait_for(lambda: decided(out) >= 1, 90)
            raylet(node).kill()
        done = content(out)
        time.sleep(15)
        assert process.poll() is None, "it waits"
        with ray_nodes(head, 1):
            said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert done.items() <= content(out).items()
    assert content(out) == content(alone)
