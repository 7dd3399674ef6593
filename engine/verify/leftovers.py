"""What lies in an output folder and belongs to nothing: of runs that were killed, of ingests that found more images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.atomic import ASIDE, is_there, names_in
from engine.layout import Layer, Output, ShardId
from engine.places import is_local
from engine.verify.findings import Finding

SHARD = re.compile(r"shard-(\d{5,})\.parquet")
PART = re.compile(r"part-(\d{5,})")
FOREIGN = "move it elsewhere; the engine neither reads nor removes it"


def leftovers(output: Output, layers: Sequence[Layer], shards: Sequence[int], writing: bool) -> Iterator[Finding]:
    """`shards` is how many each partition has. While a run is `writing`, none: an update adds shards that the manifest
    has not yet."""
    if writing:
        return
    folders = [output.manifest.parent, output.root / "given"]
    folders += [folder for layer in layers for folder in (layer.folder / "annotations", layer.folder / "decisions")]
    for folder in folders:
        yield from _beyond(output, folder, shards)
    if is_local(output.root):  # on a store nothing is written aside
        yield from _asides(output)
    for name in names_in(output.root / "export"):
        work = output.root / "export" / name / ".export"
        if is_there(work):
            relative = work.relative_to(output.root).as_posix()
            remedy = f"go on with engine export --format {name}, or remove it"
            yield Finding("unfinished_export", relative, "an export that was broken off", remedy, (relative,))


def _asides(output: Output) -> Iterator[Finding]:
    """Folder by folder: one has many files, and all together have one an image."""
    for folder, below, names in os.walk(output.root):
        below.sort()
        for name in sorted(name for name in names if ASIDE.fullmatch(name)):
            relative = (Path(folder) / name).relative_to(output.root).as_posix()
            told = "a file that a killed run had begun to write"
            yield Finding("leftover", relative, told, "remove it; the next run does, too", (relative,))


def _beyond(output: Output, folder: Path, shards: Sequence[int]) -> Iterator[Finding]:
    """What is in the folders of partitions, and is no shard of the manifest's."""
    for part in (folder / name for name in names_in(folder) if not ASIDE.fullmatch(name)):
        number = PART.fullmatch(part.name)
        if not number:
            if part != output.manifest:
                yield _foreign(output, part)
            continue
        for path in (part / name for name in names_in(part) if not ASIDE.fullmatch(name)):
            shard = SHARD.fullmatch(path.name)
            if not shard:
                yield _foreign(output, path)
            elif not _there(ShardId(int(number[1]), int(shard[1])), shards):
                relative = path.relative_to(output.root).as_posix()
                yield Finding("beyond", relative, "the manifest has no such shard", "remove it", (relative,))


def _foreign(output: Output, path: Path) -> Finding:
    return Finding("foreign", path.relative_to(output.root).as_posix(), "the engine writes no such file", FOREIGN)


def _there(shard: ShardId, shards: Sequence[int]) -> bool:
    return shard.partition < len(shards) and shard.number < shards[shard.partition]
