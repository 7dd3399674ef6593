"""A labelled set becomes a dataset of the engine's own: a first round of nothing but what came along with it."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

from rich.console import Console
from rich.text import Text

from engine.atomic import is_there, read_json
from engine.config import Config, Ingest
from engine.entry import Fault
from engine.errors import ConfigError, OutputError
from engine.files import absolute, exists, is_folder, matching
from engine.ingest import listed_digest
from engine.layout import Output
from engine.places import is_remote_uri
from engine.records import HUMAN
from engine.sources import exports, florence, huggingface, llava, yolo
from engine.sources.places import parted, within
from engine.storage import read_faults, read_items
from engine.untrusted import printable, some
from engine.uris import is_url, uri_of
from engine.validation import validated
from pipelines.build import build_pipeline
from pipelines.compatible import config_there
from pipelines.stages import Stages

AUTO = "auto"
SHOWN = 5  # faults
Files = Callable[[str], list[str]]


def import_set(
    paths: Sequence[str], output: Output, source: str, format: str, console: Console, image_root: str | None = None
) -> dict[str, Any]:
    """Ingests the sets and writes the round, going on where it was broken off; the summary of the round.

    Raises ConfigError for a path that is of another format than was said, OutputError if the folder holds another set.
    """
    root = absolute(image_root) if image_root else None
    ingest = {"images": paths_of(paths, format), "source": source, "image_root": root}
    config = validated(Config, {"ingest": ingest}, where="engine import")
    anew = _begins_anew(output, config)
    summary = Stages(build_pipeline(config), output, console).run("annotate", overwrite=anew)
    _print_faults(output, console)
    to = output.root if _nothing_read(output) else f"{output.root}-anew"
    said = [*(["--source", source] if source != HUMAN else ()), *(["--format", format] if format != AUTO else ())]
    _print_outside(output, config.ingest, ["engine", "import", *paths, "--out", str(to), *said], console)
    return summary


def paths_of(paths: Sequence[str], format: str = AUTO) -> tuple[str, ...]:
    """What is to be listed for the paths that a person gives; ConfigError for one that isn't of the format."""
    whole = tuple(map(absolute, paths))
    if format == AUTO:
        return whole
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: no such format; there are {', '.join((AUTO, *FORMATS))}")
    files = []
    for path in whole:
        if not exists(path, links=True):
            raise ConfigError(f"no such file or folder: {path}")
        own = FORMATS[format](path)
        if not own:
            others = [name for name, find in FORMATS.items() if find(path)]
            raise ConfigError(
                f"{path} is not recognised as {format}; "
                + (f"it looks like {' or '.join(others)}" if others else "nor as any other labelled set")
            )
        files += own
    return tuple(files)


def _inside(*patterns: str) -> Files:
    """A file of that name, or those in a folder."""

    def find(path: str) -> list[str]:
        if not is_folder(path):
            name = path.rpartition("/")[2]
            return [path] if any(fnmatchcase(name, pattern.rpartition("/")[2]) for pattern in patterns) else []
        found = (file for pattern in patterns for file in matching(path, pattern))
        return [file for file in found if not file.endswith("/export.json")]

    return find


def _coco(path: str) -> list[str]:
    found = _inside("*.json", "annotations/*.json")(path)
    return [file for file in found if not llava.is_conversations(file)]


def _exported(name: str, otherwise: Files) -> Files:
    """A folder that the engine exported, or what somebody else made of that kind."""
    return lambda path: [path] if is_folder(path) and exports.format_of(path) == name else otherwise(path)


def _lines(path: str) -> list[str]:
    files = florence.files_of(path) if is_folder(path) else [path] if florence.is_lines(path) else []
    return [path] if files else []


def _conversations(path: str) -> list[str]:
    files = llava.files_of(path) if is_folder(path) else [path] if llava.is_conversations(path) else []
    return [path] if files else []


def _hugging_face(path: str) -> list[str]:
    return [path] if is_folder(path) and huggingface.is_dataset(path) else []


# By format what is listed of a path; nothing if it is not of the format.
FORMATS: dict[str, Files] = {
    "coco": _coco,
    "yolo": lambda path: [path] if yolo.is_set(path) else [],
    "webdataset": _exported("webdataset", _inside("*.tar", "*/*.tar")),
    "hf": _exported("hf", _hugging_face),
    "parquet": _exported("parquet", _inside("*.parquet")),
    "florence": _lines,
    "llava": _conversations,
}


def _begins_anew(output: Output, config: Config) -> bool:
    """Whether the folder holds this set with its images looked for in another place, and none read there: nothing of it
    would be lost. Raises OutputError if it holds anything else but this set, imported."""
    output.check_ours()
    if not is_there(output.manifest):
        return False
    there, asked = config_there(output), config.ingest
    same = there is not None and not there.specialists and not there.filters and _of(there.ingest) == _of(asked)
    elsewhere = there is not None and there.ingest.image_root != asked.image_root
    if same and elsewhere and _nothing_read(output):
        return True
    if not same or elsewhere:
        what = some(there.ingest.images) if there else "of an unknown configuration"
        by = f", as {there.ingest.source}" if there and there.ingest.source != asked.source else ""
        by += f", with images in {there.ingest.image_root or 'the folders of its lists'}" if there and elsewhere else ""
        made = " with what specialists made of it" if there and there.specialists else ""
        raise OutputError(f"{output.root} holds another set{made} ({what}{by}): name a new folder with --out")
    if read_json(output.manifest)["listed"] != listed_digest(asked):
        raise OutputError(
            f"{output.root} holds this set as it was before: files have changed since. Name a new folder with "
            "--out, or remove this one"
        )
    return False


def _of(ingest: Ingest) -> tuple[Any, ...]:
    return ingest.images, ingest.source, ingest.limit, ingest.class_folders


def _nothing_read(output: Output) -> bool:
    manifest = read_json(output.manifest)
    return bool(sum(manifest["errors"].values()) == manifest["items"])


def _print_outside(output: Output, ingest: Ingest, command: Sequence[str], console: Console) -> None:
    """What lists name outside of their folder, and how whoever trusts them has it read."""
    if not read_json(output.manifest)["errors"].get("outside_root"):
        return
    refused, detours, folder = _outside(output, ingest)
    told = []
    if refused:
        told.append(
            f"! {refused} images lie outside of their list's folder, or --image-root: a list does not choose what is "
            f"opened. {_way_to(folder, command)}"
        )
    if detours:
        told.append(
            f"! {detours} images have names that are none of a file below the folder of their set, such as ../a.jpg, "
            "and are never read: name them from a folder that holds them all, and that folder with --image-root"
        )
    for line in told:
        console.print(Text(printable(line), style="yellow"), soft_wrap=True)


def _outside(output: Output, ingest: Ingest) -> tuple[int, int, str]:
    """How many images a list may not lead to, by an absolute name or by detours, and the folder of all files but the
    latter's."""
    refused, detours, folder = 0, 0, ""
    for item in (item for shard in output.shards() for item in read_items(output, shard)):
        outside = item.error is not None and item.error.kind == "outside_root"
        if outside and _is_of_list(item.uri, ingest):
            detours += 1
        elif not is_url(item.uri) and not is_remote_uri(item.uri):
            refused += outside
            holds = os.path.dirname(parted(item.uri)[0])
            folder = os.path.commonpath((folder or holds, holds))
    return refused, detours, folder


def _way_to(folder: str, command: Sequence[str]) -> str:
    if folder != "/" and is_folder(folder):
        return f"If you trust it: {shlex.join([*command, '--image-root', folder])}"
    what = "There is no folder of all of them but /" if folder == "/" else f"There is no {folder} on this machine"
    return f"{what}: bring them into one, and write names into the list that lead there"


def _is_of_list(uri: str, ingest: Ingest) -> bool:
    """Whether it is a line or entry of a list: of an image that is not known by a place of its own."""
    return any(uri.startswith(f"{uri_of(path)}#") or within(parted(uri)[0], path) for path in ingest.images)


def _print_faults(output: Output, console: Console) -> None:
    manifest = read_json(output.manifest)
    counts = Counter(manifest["faults"])
    if not counts:
        return
    told = ", ".join(f"{kind} {count}" for kind, count in counts.most_common())
    console.print(Text(f"! {counts.total()} faults in what came along ({told}):"), style="yellow", soft_wrap=True)
    of_images = (fault for shard in output.shards() for _, fault in read_faults(output, shard))
    first = [*(Fault(**fault) for fault in manifest["first_faults"][:SHOWN]), *islice(of_images, SHOWN)]
    for fault in first[:SHOWN]:
        console.print(Text(printable(f"  {fault.where}: {fault.kind}: {fault.message}")), soft_wrap=True)
