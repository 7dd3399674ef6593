"""What is measured: each part a function that gives rows of figures, one at a time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.scale.commands import Cost, Set, environment, measured
from benchmarks.scale.pictures import write_pictures

Row = dict[str, Any]
PACE = 20.0  # milliseconds an image, where workers are compared
STREAM = """
import sys
from engine.dataset import open_dataset
print(sum(1 for _ in open_dataset(sys.argv[1]).regions()))
"""


def by_rows(folder: Path, rows: int, parts: frozenset[str]) -> Iterator[Row]:
    """A set of so many rows from its first image to its last reader."""
    here = Set(folder)
    folder.mkdir(parents=True)
    write_pictures(here.pictures, rows)
    yield _row("ingest", rows, here.engine("run", "--stage", "ingest"), rows)
    cost = here.engine("run", workers=2)
    last = here.last_run
    spoken = {"images_per_second": last["images_per_second"], "worker_seconds": last["worker_seconds"]}
    yield _row("annotate", rows, cost, last["images"]) | spoken
    if "resume" in parts:
        yield _row("nothing to do", rows, here.engine("run", workers=2))
        yield _row("one shard to do", rows, _one_shard(here))
    if "read" in parts:
        for verb in ("verify", "stats", "status", "plan"):
            yield _row(verb, rows, here.engine(verb))
        yield _row("regions", rows, measured([sys.executable, "-c", STREAM, str(here.out)], folder))
    yield {"part": "bytes", "rows": rows, **_bytes(here.out)}


def workers(folder: Path, rows: int, repeats: int) -> Iterator[Row]:
    """One worker against two, in turns, of a specialist that takes its time: asleep, so that nothing is short, and
    computing, where the machine has to have two cores to spare."""
    for by in ("sleeping", "computing"):
        for turn in range(repeats):
            for count in (1, 2):
                here = _prepared(folder / f"{by}-{turn}-{count}", rows)
                cost = here.engine("run", workers=count, specialist={"milliseconds": PACE, "by": by})
                yield _paced(here, cost, rows, by=by, workers=count)


def nodes(folder: Path, rows: int, repeats: int) -> Iterator[Row]:
    """One node of a cluster against two, each a raylet with room for one worker, on this machine."""
    for turn in range(repeats):
        for count in (1, 2):
            here = _prepared(folder / f"nodes-{turn}-{count}", rows)
            with _cluster(count) as address:
                cost = here.engine(
                    "run", "--address", address, memory_mb_per_worker=500, specialist={"milliseconds": PACE}
                )
            yield _paced(here, cost, rows, by="sleeping", nodes=count)


def _prepared(folder: Path, rows: int) -> Set:
    folder.mkdir(parents=True)
    here = Set(folder)
    write_pictures(here.pictures, rows)
    here.engine("run", "--stage", "ingest")
    return here


def _paced(here: Set, cost: Cost, rows: int, **what: Any) -> Row:
    last = here.last_run
    return {
        "part": "nodes" if "nodes" in what else "workers",
        "rows": rows,
        **what,
        **cost.json(),
        "images_per_second": last["images_per_second"],
        "pools": last["pools"],
    }


@contextmanager
def _cluster(count: int) -> Iterator[str]:
    from ray.cluster_utils import Cluster

    nodes = {"num_cpus": 1, "memory": 2**30, "object_store_memory": 100 * 2**20}
    os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]  # workers have the environment of their node
    cluster = Cluster(initialize_head=True, head_node_args=nodes)
    try:
        for _ in range(count - 1):
            cluster.add_node(**nodes)
        yield cluster.address
    finally:
        cluster.shutdown()


def _one_shard(here: Set) -> Cost:
    """As a run that was killed over its last shard leaves it."""
    first = here.out / "round-0"
    last = sorted((first / "decisions").rglob("shard-*.parquet"))[-1]
    last.unlink()
    (first / "partitions" / f"{last.parent.name}.json").unlink()
    return here.engine("run", workers=2)


def _row(part: str, rows: int, cost: Cost, images: int = 0) -> Row:
    return {"part": part, "rows": rows, **cost.json(), **({"images": images} if images else {})}


def _bytes(out: Path) -> dict[str, int]:
    """On the disk, by what they are."""
    kinds = {"items": "images", "annotations": "round-0/annotations", "decisions": "round-0/decisions"}
    found = {name: list((out / where).rglob("shard-*.parquet")) for name, where in kinds.items()}
    sizes = {f"{name}_bytes": sum(path.stat().st_size for path in paths) for name, paths in found.items()}
    return {**sizes, "files": sum(map(len, found.values()))}


def kept(path: Path) -> list[Row]:
    return json.loads(path.read_text()) if path.exists() else []
