"""A set of 126 million rows as far as files go: all that status, plan, resume and a run's first steps look at.

One partition is real, to its last shard but one, which is left to do. The others have markers, and files of the right
names and kind: all shards of a partition are links to one real shard. No more is looked at in a closed partition; and
what does read every row (verify, exports) is not run here, but told by its measured speed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.scale.commands import Cost, Set, measured
from benchmarks.scale.pictures import GROUP, write_pictures
from engine.layout import Output, ShardId

PARTITIONS = 126
ITEMS = 1_000_000
SIZED = ("--set", f"ingest.shard_size={GROUP}")
WAITING = """
import sys
from engine.layout import Output
from engine.partitions import waiting
from engine.places import place
output = Output(place(sys.argv[1]))
print(*waiting(output, output.round(0)))
"""


def simulated(folder: Path, partitions: int) -> Iterator[dict[str, Any]]:
    """How long the commands take that people give while such a set is made, and their memory."""
    folder.mkdir(parents=True)
    here = Set(folder)
    write_pictures(here.pictures, GROUP)
    here.engine("run", *SIZED, workers=1)
    spread(here, partitions)
    rows, output = partitions * ITEMS, Output(here.out)
    left = ShardId(partitions - 1, _shards() - 1)

    def row(what: str, cost: Cost) -> dict[str, Any]:
        return {"part": "simulate", "what": what, "rows": rows, "files": files, **cost.json()}

    files = sum(len(names) for _, _, names in os.walk(here.out))
    yield row("status", here.engine("status"))
    yield row("which shards wait", measured([sys.executable, "-c", WAITING, str(here.out)], folder))
    yield row("plan", here.engine("plan", *SIZED))
    is_done: Callable[[], bool] = output.round(0).decisions(left).exists
    yield row("resume, to its first shard done", here.engine("run", *SIZED, until=is_done, workers=1))


def spread(here: Set, partitions: int) -> None:
    """A real set of one shard, spread out."""
    output, first = Output(here.out), ShardId(0, 0)
    marker = json.loads(output.round(0).closed(0).read_text())
    for number in range(partitions):
        _spread(output, first, number)
    _close(output, marker, partitions)


def _shards() -> int:
    return -(-ITEMS // GROUP)


def _spread(output: Output, first: ShardId, number: int) -> None:
    """A partition's files: its first shard is a copy of the real one, the others are links to that; the last one, which
    is shorter in a real set, too."""
    layer = output.round(0)
    for path_of in (output.items, layer.annotations, layer.decisions):
        one = path_of(replace(first, partition=number))
        one.parent.mkdir(parents=True, exist_ok=True)
        if number:
            shutil.copyfile(path_of(first), one)
        for shard in range(1, _shards()):
            os.link(one, path_of(ShardId(number, shard)))


def _close(output: Output, marker: dict[str, Any], partitions: int) -> None:
    """The manifest, and the markers of all partitions but the last, of which one shard is left to do."""
    layer, left = output.round(0), ShardId(partitions - 1, _shards() - 1)
    manifest = json.loads(output.manifest.read_text())
    one = {"items": ITEMS, "shard_size": GROUP, "shards": _shards()}
    manifest |= {"items": partitions * ITEMS, "partitions": [one] * partitions}
    output.manifest.write_text(json.dumps(manifest))
    layer.summary.unlink()
    for number in range(partitions - 1):
        said = {**marker, "items": ITEMS, "shards": _shards()}
        layer.closed(number).write_text(json.dumps(said))
    if partitions == 1:
        layer.closed(0).unlink()
    layer.annotations(left).unlink()
    layer.decisions(left).unlink()
