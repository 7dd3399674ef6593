"""What lies in an output folder and belongs to nothing: of runs that were killed, of ingests that found more images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.layout import Layer, Output, ShardId
from engine.verify.findings import Finding

ASIDE = re.compile(r"\..+\.aside-[0-9a-f]{32}")
SHARD = re.compile(r"shard-(\d{5,})\.parquet")
PART = re.compile(r"part-(\d{5,})")
FOREIGN = "move it elsewhere; the engine neither reads nor removes it"


def leftovers(output: Output, layers: Sequence[Layer], shards: Sequence[int], writing: bool) -> Iterator[Finding]:
    """`shards` is how many each partition has. While a run is `writing`, what it has in hand is no leftover."""
    folders = [output.manifest.parent, output.root / "given"]
    folders += [folder for layer in layers for folder in (layer.folder / "annotations", layer.folder / "decisions")]
    for folder in folders:
        yield from _beyond(output, folder, shards)
    if writing:
        return
    for path in sorted(output.root.rglob("*")):
        if ASIDE.fullmatch(path.name):
            yield _leftover(output, path, "a file that a killed run had begun to write")
    for work in sorted(output.root.glob("export/*/.export")):
        name = work.parent.name
        yield Finding(
            "unfinished_export",
            work.relative_to(output.root).as_posix(),
            "an export that was broken off",
            f"go on with engine export --format {name}, or remove it",
            (work.relative_to(output.root).as_posix(),),
        )


def _beyond(output: Output, folder: Path, shards: Sequence[int]) -> Iterator[Finding]:
    """What is in the folders of partitions, and is no shard of the manifest's."""
    for part in sorted(folder.glob("*")):
        relative = part.relative_to(output.root).as_posix()
        number = PART.fullmatch(part.name)
        if not number:
            if part != output.manifest and not ASIDE.fullmatch(part.name):
                yield Finding("foreign", relative, "the engine writes no such file", FOREIGN)
            continue
        for path in sorted(part.glob("*")):
            relative = path.relative_to(output.root).as_posix()
            shard = SHARD.fullmatch(path.name)
            if not shard:
                if not ASIDE.fullmatch(path.name):
                    yield Finding("foreign", relative, "the engine writes no such file", FOREIGN)
            elif not _there(ShardId(int(number[1]), int(shard[1])), shards):
                yield Finding("beyond", relative, "the manifest has no such shard", "remove it", (relative,))


def _there(shard: ShardId, shards: Sequence[int]) -> bool:
    return shard.partition < len(shards) and shard.number < shards[shard.partition]


def _leftover(output: Output, path: Path, what: str) -> Finding:
    relative = path.relative_to(output.root).as_posix()
    return Finding("leftover", relative, what, "remove it; the next run does, too", (relative,))
