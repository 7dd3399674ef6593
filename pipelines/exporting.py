"""From the configuration to an export, and what a person is told of it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.atomic import is_there, read_json
from engine.components import load
from engine.config import Config, load_config, read_yaml
from engine.contamination import contaminated
from engine.dataset import open_dataset
from engine.errors import ConfigError, OutputError
from engine.export import Format, export
from engine.export.images import How
from engine.export.run import Export
from engine.export.selection import ANY, KINDS, REGIONS, Selection
from engine.export.split import splits_of
from engine.layout import Output
from engine.places import place
from engine.untrusted import printable
from engine.vocabulary import Vocabulary
from pipelines.build import EMBEDDED
from pipelines.compatible import check_decided_once
from pipelines.reannotate import check_earlier

NEEDS = {  # what a kind is nothing without
    "masks": (tuple(REGIONS),),
    "region_texts": (tuple(REGIONS),),
    "triplets": (("texts",), tuple(REGIONS)),
}
LABEL_MAPS = Path(__file__).parent / "label_maps"


def configured(output: Output, options: Mapping[str, Any], settings: Sequence[str]) -> Config:
    """The configuration of an output folder with a command's options, where they are not None, over its section
    `export`, and --set over both. What made the annotations need not be installed."""
    there = output.config if is_there(output.config) else EMBEDDED
    given = {f"export.{name}": value for name, value in options.items() if value is not None}
    return load_config(there, settings, given)


def export_round(output: Output, number: int, config: Config, console: Console) -> dict[str, Any]:
    """Exports what stands in a round, as far as it is annotated, and says so."""
    check_decided_once(output, number)
    check_earlier(output, number)
    asked = asked_of(output, number, config)
    counts = output.counts()
    total, there = sum(counts.values()), sum(counts[shard] for shard in asked.dataset.shards())
    if not there:
        raise OutputError(f"{output.root}: nothing is annotated in its round {number} yet, and nothing can leave")
    unseen = " (they are not opened: whether one has changed is not checked)" if asked.how == "refer" else ""
    console.print(Text(f"export: round {number} as {asked.format.name}, images: {asked.how}{unseen}"), soft_wrap=True)
    if there < total:
        told = f"! {there:,} of {total:,} images are annotated: those leave. Another folder takes all of them later"
        console.print(Text(told, style="yellow"), soft_wrap=True)
    done = 0

    def progress(images: int) -> None:
        nonlocal done
        done += images
        status.update(f"export: {done:,} of {there:,} images")

    with console.status("export") as status:
        summary = export(asked, config.run, progress)
    print_export(summary, asked.to, console)
    return summary


def asked_of(output: Output, number: int, config: Config) -> Export:
    """What `config.export` asks for. Raises ConfigError for a format, kind, split, source or label map that isn't
    there."""
    asked = config.export
    format_: Format = load("formats", asked.format, where="export.format")()
    dataset = open_dataset(output.root, number)
    made_by = {*dataset.sources(), *_given(output)}
    _check("--sources", asked.sources, made_by, "none of the sources of the dataset")
    _check("--min-score", {*asked.min_score} - {ANY}, made_by, "none of the sources of the dataset")
    if bad := [f"{name}={score}" for name, score in asked.min_score.items() if not isfinite(score)]:
        raise ConfigError(f"--min-score {', '.join(bad)}: expected finite numbers")
    _check("--kinds", asked.kinds, format_.kinds, f"not among what {format_.name} has a place for")
    for kind, of in NEEDS.items():
        if kind in asked.kinds and not all(any(one in asked.kinds for one in some) for some in of):
            needed = " and ".join(" or ".join(some) for some in of)
            raise ConfigError(f"--kinds {','.join(asked.kinds)}: {kind} leave with what they are of: add {needed}")
    return Export(
        dataset=dataset,
        format=format_,
        to=place(asked.to) if asked.to else output.root / "export" / format_.name,
        selection=Selection(
            kinds=frozenset(asked.kinds or format_.by_default),
            sources=frozenset(asked.sources) or None,
            min_score=asked.min_score,
            vocabulary=config.vocabulary,
            label_map=label_map(asked.label_map) if asked.label_map else None,
        ),
        splits=splits_of(dataset, asked.split),
        how=_how(format_, asked.images),
        missing=asked.missing,
        ingest=config.ingest,
        contaminated=frozenset(id_.hex() for id_ in contaminated(output)),
    )


def label_map(named: str) -> Vocabulary:
    """The vocabulary in a YAML file, or of that name among those that come along: the whole document, or what it has
    under `vocabulary`. ConfigError if it is not there, or none."""
    there = {path.stem: path for path in sorted(LABEL_MAPS.glob("*.yaml"))}
    path = there.get(named, Path(named))
    if not path.is_file():
        raise ConfigError(
            f"--label-map {named}: no such file, and the label maps that come along are {', '.join(there)}. A map is "
            "YAML: classes: {dog: {synonyms: [puppy]}}"
        )
    try:
        document = read_yaml(path)
    except ConfigError as error:
        raise ConfigError(f"--label-map {named}: {error}") from error
    try:
        found = Vocabulary.model_validate(document.get("vocabulary", document))
    except ValidationError as error:
        first = error.errors()[0]
        told = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise ConfigError(f"--label-map {path}: {told}") from error
    if not found.classes:
        raise ConfigError(f"--label-map {path} has no classes; expected classes: {{dog: {{synonyms: [puppy]}}}}")
    return found


def print_export(summary: dict[str, Any], to: Path, console: Console) -> None:
    """What is there by split, what was left out, and why."""
    counted = ("images", "texts", "regions", "region_texts", "masks", "triplets")
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("split")
    for name in counted:
        table.add_column(name.replace("_", " "), justify="right")
    for split, counts in summary["splits"].items():
        table.add_row(Text(printable(split)), *(f"{counts.get(name, 0):,}" for name in counted))
    console.print(table)
    for what, counts in summary["left_out"].items():
        if counts:
            told = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in counts.items())
            console.print(Text(f"{what} left out: {told}"), soft_wrap=True)
    for what, count in summary["images"].items():
        console.print(Text(f"{what}: {count:,}"))
    if summary["missing"]:
        told = f"! {summary['missing']:,} images can't be read and are left out; once they can, remove the folder"
        console.print(Text(f"{told} to export them:"), style="yellow", soft_wrap=True)
        for one in summary["first_missing"][:5]:
            console.print(Text(printable(f"  {one['item_id'][:8]} {one['kind']}: {one['message']}")), soft_wrap=True)
    console.print(Text(f"In {shlex.quote(str(to))}; export.json there says what it is."), soft_wrap=True)


def _given(output: Output) -> set[str]:
    """The sources of what came along with the images."""
    return {name.partition(" ")[0] for name in read_json(output.manifest)["given"]}


def _how(format_: Format, asked: How | None) -> How:
    if asked is not None and asked not in format_.how:
        raise ConfigError(f"--images {asked}: {format_.name} can have its images {' or '.join(format_.how)}")
    return asked or format_.how[0]


def _check(option: str, asked: Collection[str], known: Collection[str], what: str) -> None:
    unknown = sorted(set(asked) - set(known))
    if unknown:
        order = [kind for kind in KINDS if kind in known] or sorted(known)
        raise ConfigError(f"{option} {', '.join(unknown)}: {what}, which are {', '.join(order) or 'none'}")
