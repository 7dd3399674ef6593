"""To and from other tools, and held against what is true: `export`, `import`, `evaluate`, `decontaminate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from engine.cli.options import OutArgument, SeenRoundOption, SetOption, output_of, seen_round, shares, words
from engine.cli.run import check_quarantined, report_run
from engine.cli.terminal import QUARANTINED, console, errors
from engine.config import Config
from engine.dataset import open_dataset
from engine.errors import ConfigError
from engine.files import absolute
from engine.lock import run_lock
from engine.places import place
from engine.records import HUMAN
from engine.uris import is_url
from pipelines.compatible import config_there


def export(
    out: OutArgument = "out",
    format: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", help="parquet (the default), coco, yolo, webdataset, hf, florence, llava, or yours."
        ),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="New folder. Default: export/FORMAT in OUT.")] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME=SHARE,...", help="Such as train=0.9,val=0.1.")
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            "--kinds", help="Some of texts, objects, lines, proposals, region_texts, masks, triplets, with commas."
        ),
    ] = None,
    sources: Annotated[
        str | None, typer.Option("--sources", help="Only what these made, such as human,nanodet.")
    ] = None,
    min_score: Annotated[
        list[str] | None,
        typer.Option("--min-score", metavar="[SOURCE=]SCORE", help="Of regions; what has none stays. Can be repeated."),
    ] = None,
    label_map: Annotated[
        str | None, typer.Option("--label-map", help="Vocabulary, YAML or coco: only its classes, under its names.")
    ] = None,
    images: Annotated[
        str | None, typer.Option("--images", help="refer, link, copy or inside. Default: the format's own way.")
    ] = None,
    missing: Annotated[
        str | None,
        typer.Option("--missing", help="stop (the default) or skip, when images are gone. Skipping ends with code 1."),
    ] = None,
    round: SeenRoundOption = None,
    settings: SetOption = None,
) -> None:
    """Write what stands in the form of another tool: to train on, to publish, to label further. What no option says,
    the section `export` of the configuration does."""
    from pipelines.exporting import configured, export_round

    output = output_of(out)
    number = seen_round(output, round)
    open_dataset(output.root, number)
    options = {
        "format": format,
        "to": str(place(to)) if to else None,
        "split": shares("--split", split) if split else None,
        "kinds": words(kinds) or None,
        "sources": words(sources) or None,
        "min_score": shares("--min-score", ",".join(min_score)) if min_score else None,
        "label_map": label_map,
        "images": images,
        "missing": missing,
    }
    config = configured(output, options, settings or ())
    with run_lock(output.root, reads=True):
        summary = export_round(output, number, config, console)
    if summary["missing"]:
        raise typer.Exit(QUARANTINED)


def evaluate(
    out: OutArgument,
    truth: Annotated[
        list[str],
        typer.Option(
            "--truth",
            metavar="PATH",
            help="Annotated set of any kind, or another output folder: what is true of some images. Can be repeated.",
        ),
    ],
    kind: Annotated[
        str, typer.Option("--kind", help="detection, masks, captions, grounding, referring or ocr.")
    ] = "detection",
    source: Annotated[str | None, typer.Option("--source", help="Only what this one made. Default: all.")] = None,
    round: SeenRoundOption = None,
    label_map: Annotated[
        str | None, typer.Option("--label-map", help="Vocabulary, YAML or coco: both sides' labels to its classes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, with every class.")] = False,
) -> None:
    """Measure what stands in each round, and what each source made, against what is true: who is right, and where."""
    from engine.stats import whole_round
    from pipelines.evaluating import (  # PyTorch takes seconds to import
        Evaluation,
        to_json,
    )
    from pipelines.evaluation.table import print_evaluation
    from pipelines.exporting import label_map as read_label_map

    output = output_of(out)
    open_dataset(output.root)
    dataset = whole_round(output.root, seen_round(output, round))
    there = config_there(dataset.output) or Config()
    paths = _whole("--truth", truth)
    mapping = read_label_map(label_map) if label_map else None
    with errors.status("evaluate"):
        told = Evaluation(dataset, there, kind, paths, source, mapping).run()
    if as_json:
        console.out(to_json(told), highlight=False)
    else:
        print_evaluation(told, console)


def import_(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Annotated sets, as --images takes them.")],
    out: Annotated[str, typer.Option("--out", "-o", help="New folder, or one where this set was being imported.")],
    source: Annotated[str, typer.Option("--source", help="Who says what came along: human, or a name.")] = HUMAN,
    format: Annotated[
        str, typer.Option("--format", "-f", help="auto, coco, yolo, webdataset, hf, parquet, florence or llava.")
    ] = "auto",
    image_root: Annotated[
        str | None, typer.Option("--image-root", help="Where the images are that lists name. Default: near the lists.")
    ] = None,
) -> None:
    """Make an annotated set a dataset of the engine's own, without any specialist: to look at, export or judge by."""
    from pipelines.importing import import_set

    summary = import_set(_whole("PATH", paths), output_of(out), source, format, console, image_root)
    report_run(summary, "annotate", out, 0)
    check_quarantined(summary, Config())


def decontaminate(
    out: OutArgument,
    against: Annotated[
        list[str],
        typer.Option("--against", metavar="PATH", help="Evaluation set: images or output folder. Can be repeated."),
    ],
    distance: Annotated[
        int, typer.Option("--distance", min=0, max=16, help="Bits of 64 in which images that look alike may differ.")
    ] = 6,
    anew: Annotated[
        bool, typer.Option("--anew", help="Forget what was found before, instead of adding to it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, with every image.")] = False,
) -> None:
    """Find images that are in evaluation sets: from then on none is exported, or trained on. Ends with code 1 where one
    of theirs could not be read."""
    from pipelines.decontaminating import look, print_contamination, to_json

    output = output_of(out)
    open_dataset(output.root)
    paths = _whole("--against", against)
    found = look(output, paths, distance, errors, anew)
    if as_json:
        console.out(to_json(found), highlight=False)
    else:
        print_contamination(found, console)
    if found["unread"]:
        raise typer.Exit(QUARANTINED)


def _whole(option: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Paths that hold wherever one is. ConfigError for an empty one, which would be the folder that one is in."""
    if not all(map(str.strip, paths)):
        raise ConfigError(f"{option}: expected the path of a set or output folder, not an empty one")
    return tuple(path if is_url(path) else absolute(path) for path in paths)
