"""Removes what is wrong, so that the next run makes it again; and says before what can't be made again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.atomic import is_there, read_json, remove, remove_all
from engine.config import Ingest
from engine.errors import OutputError
from engine.layout import Output, ShardId
from engine.lock import run_lock
from engine.places import is_local
from engine.storage import read_items
from engine.verify.findings import Finding
from engine.verify.shards import image_fault


@dataclass(frozen=True)
class Repair:
    """What a repair removes (paths in the output folder), and what of it no run can make again, in words."""

    remove: tuple[str, ...]
    lost: tuple[str, ...]


def planned(output: Output, findings: Iterable[Finding], ingest: Ingest) -> Repair:
    """What there is to do. Nothing is done yet."""
    found = [finding for finding in findings if finding.remove]
    paths = sorted({path for finding in found for path in finding.remove if is_there(output.root / path)})
    lost = {f"{finding.path}: {finding.lost}" for finding in found if finding.lost}
    return Repair(tuple(paths), tuple(sorted({*lost, *_lost(output, paths, ingest)})))


def carry_out(output: Output, what: Repair) -> None:
    """Removes it, under the run's lock: OutputError where a run has the folder."""
    with run_lock(output.root):
        for name in what.remove:
            if is_local(output.root) and (output.root / name).is_dir():
                remove_all(output.root / name)
            else:
                remove(output.root / name)


def _lost(output: Output, paths: list[str], ingest: Ingest) -> Iterable[str]:
    """Annotations can be made again of images that are there and still listed, by models that are there."""
    if output.manifest.relative_to(output.root).as_posix() in paths and (left := _unlisted(output)):
        yield f"images/manifest.json: {left} images that are listed no longer, with all that is known of them"
    for name in paths:
        path = Path(name)
        if "annotations" not in path.parts and path.parts[0] != "images":
            continue
        if path.parts[0] == "images" and path.suffix != ".parquet":
            continue
        shard = ShardId.of(path)
        gone = _gone(output, shard, ingest)
        if gone is None:
            yield f"{name}: of its images, those that are gone by now, with all that is known of them"
        elif gone:
            yield f"{name}: {len(gone)} of its images are gone or others by now, with what is known of them: {gone[0]}"
        number = int(path.parts[0].removeprefix("round-")) if path.parts[0].startswith("round-") else 0
        if number and "merge" not in path.parts and not is_there(output.round(number - 1).model()):
            yield f"{name}: the model that made it is no longer in {output.round(number - 1).folder.name}"


def _unlisted(output: Output) -> int:
    """How many items stay only because they were there, as far as the manifest says."""
    try:
        return int(read_json(output.manifest).get("gone", 0))
    except (OutputError, AttributeError, TypeError, ValueError):
        return 0


def _gone(output: Output, shard: ShardId, ingest: Ingest) -> list[str] | None:
    """The images of a shard that can't be looked at again; None if nobody knows which images it has."""
    try:
        items = read_items(output, shard)
    except OutputError:
        return None
    read = [item for item in items if item.content_id]
    return [item.uri for item in read if item.content_id and image_fault(output, ingest, item.uri, item.content_id)]
