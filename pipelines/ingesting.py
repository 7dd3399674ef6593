"""The ingest stage: the manifest, made if it is missing, and what is said of it."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

from engine.atomic import is_there, read_json
from engine.errors import ConfigError
from engine.ingest import ingest, listed_digest, restore
from engine.layout import Output
from pipelines.build import Pipeline


def ingested(pipeline: Pipeline, output: Output, console: Console, *, update: bool = False) -> dict[str, Any]:
    """The manifest; with `update` also of the images that came since."""
    there = is_there(output.manifest)
    if there and not (update and _has_changed(pipeline, output)):
        manifest: dict[str, Any] = read_json(output.manifest)
        limit = pipeline.config.ingest.limit
        limited = f", limited to the first {limit} (ingest.limit)" if limit else ""
        console.print(f"ingest: {manifest['items']} images are in the manifest{limited}", highlight=False)
        if not update and _has_changed(pipeline, output):
            _warn_of_change(console)
        return manifest
    start, done = time.monotonic(), 0

    def progress(items: int) -> None:
        nonlocal done
        done += items
        status.update(f"ingest: {done} images")

    with console.status("ingest") as status:
        config = pipeline.config
        manifest = ingest(output, config.ingest, pipeline.ingest_digest, progress, run=config.run, update=there)
    seconds = time.monotonic() - start
    console.print(f"ingest: {_told(manifest)} in {seconds:.1f} s", highlight=False, soft_wrap=True)
    return manifest


def restored(pipeline: Pipeline, output: Output, console: Console) -> None:
    """The shards of a manifest that were lost, of the images that they had."""
    if not is_there(output.manifest):
        return
    if shards := restore(output, pipeline.config.ingest):
        what = f"{len(shards)} shards were lost, and are made anew of their images; what was made of these stays"
        console.print(f"ingest: {what}", highlight=False, soft_wrap=True)


def _has_changed(pipeline: Pipeline, output: Output) -> bool:
    """Whether images came or went since, or are asked for in another way."""
    manifest = read_json(output.manifest)
    try:
        same = listed_digest(pipeline.config.ingest) == manifest["listed"]
    except ConfigError:
        same = False
    return not same or manifest["digest"] != pipeline.ingest_digest


def _warn_of_change(console: Console) -> None:
    """A person who added some would wait for them in vain."""
    console.print(
        "! The image set has changed since it was ingested; this run goes on with the images of then. To take those "
        "that came along, run with --update; to take it as it is now, name another --out, or start afresh with "
        "--overwrite.",
        style="yellow",
        highlight=False,
    )


def _told(manifest: dict[str, Any]) -> str:
    parts = [f"{manifest['items']} images"]
    if manifest["given"]:
        given = ", ".join(f"{what} {count}" for what, count in manifest["given"].items())
        parts.append(f"{sum(manifest['given'].values())} annotations came along ({given})")
    if manifest["faults"]:
        faults = ", ".join(f"{kind} {count}" for kind, count in manifest["faults"].items())
        parts.append(f"{sum(manifest['faults'].values())} faults in what came along ({faults})")
    if manifest["duplicates"]:
        parts.append(f"{manifest['duplicates']} exact duplicates")
    if manifest["errors"]:
        errors = ", ".join(f"{kind} {count}" for kind, count in manifest["errors"].items())
        parts.append(f"{sum(manifest['errors'].values())} unreadable ({errors})")
    if manifest["repeated"]:
        parts.append(f"{manifest['repeated']} listed twice")
    if manifest["gone"]:
        parts.append(f"{manifest['gone']} no longer listed, which stay")
    if manifest["changed"]:
        parts.append(
            f"{manifest['changed']} with other things that came along than before, which stay as they were: to take "
            "them as they are now, name another --out"
        )
    if manifest["skipped"]:
        skipped = ", ".join(f"{kind} {count}" for kind, count in manifest["skipped"].items())
        parts.append(f"{sum(manifest['skipped'].values())} files skipped that are no images ({skipped})")
    return ", ".join(parts)
