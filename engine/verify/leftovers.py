"""What lies in an output folder and belongs to nothing: of runs and trainings that were killed, of ingests that found
more images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from engine.atomic import ASIDE, is_there, names_in
from engine.layout import Layer, Output, Round, ShardId
from engine.places import is_local
from engine.verify.findings import Finding

SHARD = re.compile(r"shard-(\d{5,})\.parquet")
PART = re.compile(r"part-(\d{5,})")
# Of folders of models and checkpoints: see `engine.copies.moved`, and pipelines/training.
HALF = re.compile(r"\.(.+)\.(before|old|new|unfinished|unpublished)|\.unfinished-.+")
WHOLE = "training.json"  # a checkpoint's last file
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
        for round_ in output.rounds():
            yield from _of_trainings(output, round_)
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


def _of_trainings(output: Output, round_: Round) -> Iterator[Finding]:
    here, models, checkpoints = map(os.walk, (round_.folder, round_.model(), round_.training))
    for folder, below, _ in chain(islice(here, 1), models, checkpoints):
        left = sorted(name for name in below if _is_left(Path(folder), name))
        below[:] = sorted(set(below) - set(left))
        for name in left:
            relative = (Path(folder) / name).relative_to(output.root).as_posix()
            told = "a folder that a killed training had begun to write, or had replaced"
            yield Finding("leftover", relative, told, "remove it: nothing reads it", (relative,))


def _is_left(folder: Path, name: str) -> bool:
    """Not the only one that there is: an old one before the new one is in its place, a checkpoint that is whole and has
    not its name yet."""
    half = HALF.fullmatch(name)
    if not half:
        return False
    place = folder / half[1] if half[1] else folder
    if half[2] == "before":
        return place.exists()
    is_whole = half[2] == "old" or (folder / name / WHOLE).exists()
    return not is_whole or (place / WHOLE).exists()


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
