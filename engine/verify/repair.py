"""Removes what is wrong, so that the next run makes it again; and says before what can't be made again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.atomic import is_there, remove_all
from engine.config import Ingest
from engine.errors import ConfigError, OutputError
from engine.ingest import lost_of, made_of, partitions_there, rewrite
from engine.layout import Output, ShardId
from engine.storage import read_items
from engine.verify.findings import Finding
from engine.verify.shards import image_fault

AFRESH = "Bring that back from a copy, or start afresh: engine run --overwrite"


@dataclass(frozen=True)
class Repair:
    """What a repair removes (paths in the output folder), and what of it no run can make again, in words. What it
    writes anew at once, of what is there, is in `rewrite`: then it is to be verified again."""

    remove: tuple[str, ...]
    lost: tuple[str, ...]
    rewrite: tuple[str, ...] = ()


def planned(output: Output, findings: Iterable[Finding], ingest: Ingest) -> Repair:
    """What there is to do. Nothing is done yet."""
    findings = list(findings)
    found = [finding for finding in findings if finding.remove]
    asked = {path for finding in found for path in finding.remove}
    manifest = output.manifest.relative_to(output.root).as_posix()
    if manifest in asked:
        return _of_manifest(output, manifest)
    lost = {f"{finding.path}: {finding.lost}" for finding in found if finding.lost}
    paths = sorted(path for path in asked if is_there(output.root / path))
    lost |= {*_of_items(output, asked, ingest), *_of_annotations(output, paths, ingest)}
    lost |= set(_of_what_came_along(findings, paths))
    return Repair(tuple(paths), tuple(sorted(lost)))


def carry_out(output: Output, what: Repair, ingest: Ingest) -> None:
    """Only for the holder of the run's lock, under which it was planned, too: a run makes what is missing."""
    if what.rewrite:
        rewrite(output, ingest)
    for name in reversed(what.remove):  # markers before decisions before the rest: if it is killed, nothing seems done
        remove_all(output.root / name)


def _of_manifest(output: Output, name: str) -> Repair:
    """Nothing else: what was found beside was held against a manifest that is wrong."""
    try:
        partitions_there(output)
    except OutputError as error:
        why = str(error).split(". ")[0]  # what more it says is for who has a manifest
        told = f"{name}: what was made of any image, in all rounds, as it can't be written anew: {why}. {AFRESH}"
        return Repair((), (told,))
    return Repair((), (), (name,))


def _of_items(output: Output, asked: Collection[str], ingest: Ingest) -> Iterator[str]:
    """Shards of items are made again of images that are listed; what was made of these stays."""
    there = output.counts()
    shards = sorted(shard for name in asked if (shard := _items_of(name)) in there)
    if not shards:
        return
    without = {output.root / name for name in asked}
    names = {shard: output.items(shard).relative_to(output.root).as_posix() for shard in shards}
    try:
        lost = lost_of(output, ingest, shards, without)
    except (OutputError, ConfigError) as error:
        yield f"{names[shards[0]]}, and {len(shards) - 1} more: they can't be made again as it is: {error}"
        return
    for one in lost:
        if gone := one.missing:
            told = "; ".join(f"{uri} ({why})" for uri, why in gone[:3])
            yield f"{names[one.shard]}: no run makes it again before {len(gone)} of its images are back: {told}"
        left = (path for path in made_of(output, one.shard) if path not in without)
        if not one.known and any(map(is_there, left)):
            yield f"{names[one.shard]}: what was made of it, which is of images that other shards have"


def _items_of(name: str) -> ShardId | None:
    path = Path(name)
    return ShardId.of(path) if path.parts[0] == "images" and path.suffix == ".parquet" else None


def _of_annotations(output: Output, paths: Sequence[str], ingest: Ingest) -> Iterator[str]:
    """Annotations can be made again of images that are there and still listed, by models that are there."""
    for name in paths:
        path = Path(name)
        if "annotations" not in path.parts or path.suffix != ".parquet":  # or it is half-written
            continue
        gone = _gone(output, ShardId.of(path), ingest)
        if gone is None:
            yield f"{name}: of its images, those that are gone by now, with all that is known of them"
        elif gone:
            yield f"{name}: {len(gone)} of its images are gone or others by now, with what is known of them: {gone[0]}"
        number = int(path.parts[0].removeprefix("round-")) if path.parts[0].startswith("round-") else 0
        if number and "merge" not in path.parts and not is_there(output.round(number - 1).model()):
            yield f"{name}: the model that made it is no longer in {output.round(number - 1).folder.name}"


def _of_what_came_along(findings: Iterable[Finding], paths: Collection[str]) -> Iterator[str]:
    """A marker that is written anew is of what is there by then."""
    for finding in findings:
        if finding.kind == "came_along" and f"round-0/partitions/{Path(finding.path).name}.json" in paths:
            yield f"{finding.path}: that it is not what it was, which only round 0's marker knows: bring it back first"


def _gone(output: Output, shard: ShardId, ingest: Ingest) -> list[str] | None:
    """The images of a shard that can't be looked at again; None if nobody knows which images it has."""
    try:
        items = read_items(output, shard)
    except OutputError:
        return None
    read = [item for item in items if item.content_id]
    return [item.uri for item in read if item.content_id and image_fault(output, ingest, item.uri, item.content_id)]
