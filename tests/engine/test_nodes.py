"""Two nodes on this machine: when one goes, its shards go on elsewhere, and no image is blamed for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from running import Log, Seen, errors, plan_of, run_plan

from engine.annotate import Tally
from engine.errors import RunError
from engine.storage import read_records

STORE = 100 * 2**20


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head without work, and two nodes of one CPU each."""
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0, object_store_memory=STORE, include_dashboard=False)
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=STORE)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@dataclass
class Taker(Log):
    """Takes away the node on which `victim` works when `after` shards are written, and brings another if asked to."""

    cluster: Cluster = None
    seen: Path = Path()
    victim: str = ""
    after: int = 0
    brings: bool = False
    taken: list[str] = field(default_factory=list)

    def progress(self, tally: Tally) -> None:
        super().progress(tally)
        if not self.taken and len(self.written) >= self.after and (self.seen / self.victim).exists():
            self.taken.append((self.seen / self.victim).read_text())
            (node,) = [node for node in self.cluster.list_all_nodes() if node.node_id == self.taken[0]]
            self.cluster.remove_node(node, allow_graceful=False)
            if self.brings:
                self.cluster.add_node(num_cpus=1, object_store_memory=STORE)


def seen(folder: Path, *names: str, **seconds: float) -> list[Seen]:
    folder.mkdir()
    return [Seen(name=name, folder=str(folder), seconds=seconds.get(name, 0.02)) for name in names]


def test_a_node_that_goes_costs_no_image(nodes: Cluster, image_set: Callable[..., Path], tmp_path: Path) -> None:
    """The run goes on with fewer workers than its min."""
    log = Taker(cluster=nodes, seen=tmp_path / "seen", victim="a", after=1)
    plan = plan_of(image_set(24), tmp_path / "out", seen(log.seen, "a", a=0.2), workers=2, address=nodes.address)
    records = run_plan(plan, log)
    assert log.taken
    assert len(records) == 24
    assert errors(records) == {}
    assert len(set(log.written)) == len(log.written)
    assert any("is gone; what its workers had in hand" in warning for warning in log.warnings)
    assert not any("Image" in warning for warning in log.warnings)


def test_what_lay_between_pools_on_a_node_that_went_is_made_again(
    nodes: Cluster, image_set: Callable[..., Path], tmp_path: Path
) -> None:
    """A pool without a place waits for the cluster to bring one."""
    log = Taker(cluster=nodes, seen=tmp_path / "seen", victim="a", after=1, brings=True)
    pools = {name: {"specialists": [name], "memory_mb": 200, "max": 1} for name in "ab"}
    plan = plan_of(
        image_set(32), tmp_path / "out", seen(log.seen, "a", "b", a=0.01, b=0.4), pools=pools, address=nodes.address
    )
    records = run_plan(plan, log)
    assert errors(records) == {}
    assert all([region.source for region in record.regions] == ["a", "b"] for record in records.values())
    assert any("What was made of part-00000/shard" in warning for warning in log.warnings)
    assert not any("Image" in warning for warning in log.warnings)


def test_a_place_that_never_comes_ends_the_run(nodes: Cluster, image_set: Callable[..., Path], tmp_path: Path) -> None:
    log = Taker(cluster=nodes, seen=tmp_path / "seen", victim="a", after=1)
    pools = {name: {"specialists": [name], "memory_mb": 200} for name in "ab"}
    plan = plan_of(
        image_set(24),
        tmp_path / "out",
        seen(log.seen, "a", "b", b=0.3),
        pools=pools,
        address=nodes.address,
        wait_seconds=5,
    )
    with pytest.raises(RunError, match=r"no worker of pool 'a' got a place in \d+ s .* 1 and 0 fit|0 and 1 fit"):
        run_plan(plan, log)
    for shard in log.written:
        assert len(read_records(plan.output, 0, shard)) == 4
